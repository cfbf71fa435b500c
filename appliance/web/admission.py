"""Who may come in: the checks between a request for a WebSocket and its session."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

import structlog
import trio
from trio_websocket import WebSocketConnection

from appliance.errors import Forbidden, RequestError, Unauthorized
from appliance.live.fanout.sessions import User
from appliance.live.matching.access import Reader
from appliance.live.session.exchange import Exchange, unreadable
from appliance.live.session.methods import ANSWERS, AT_ONCE, admit
from appliance.live.session.session import Backend, Session
from appliance.live.wire.room import Room
from appliance.web.credentials import token_of
from appliance.web.origins import ANY
from appliance.web.problem import JSON_TYPE, error_body, headers_of
from appliance.web.upgrade import Upgrade

log = structlog.get_logger()

#: What stands for a connection that went away without a Close frame, in the log and the metrics.
ABNORMAL: Final = 1006
#: The longest first frame of a client that has no token yet, bytes: anybody may send one, on as many connections as
#: there may be. A token of the greatest length has room, whatever of its JSON is escaped.
FIRST_BYTES: Final = 64 << 10
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Admission:
    """Answers each request for a WebSocket: with a refusal, or with a session that lives as long as it."""

    def __init__(self, backend: Backend, *, allowed_origins: Collection[str]) -> None:
        self._backend = backend
        self._room = Room()
        self.allow(allowed_origins)

    def allow(self, allowed_origins: Collection[str]) -> None:
        """Let pages of these origins (``read_origins``) connect, from now on, and of no others but the server's own."""
        self._origins = allowed_origins

    async def __call__(self, upgrade: Upgrade) -> None:
        """Serve one client. Nothing of a token or a query is ever logged."""
        # A session lives in this coroutine, and there may be 20,000 of them: it has few variables.
        renewed = self._backend.hub.access.renewed
        try:
            reader = await self._welcome(upgrade)
        except (RequestError, sqlite3.Error) as failure:
            await self._refuse(upgrade, failure)
            return
        opened = trio.current_time()
        session: Session | None = None
        try:
            async with upgrade.accepted(
                self._backend.unsent,
                self._room,
                bundled=True,
                first_bytes=FIRST_BYTES if reader is None else None,
            ) as (connection, outgoing):
                session = Session(connection, outgoing, self._backend, reader)
                self._greet(upgrade.remote, reader)
                await session.run(Exchange(session, ANSWERS, AT_ONCE), renewed)
        finally:  # only now is it known with which code it was closed
            if session is not None:
                self._part(upgrade.remote, session, outgoing.ended or _code(connection), opened)
            elif reader is not None:
                self._backend.sessions.expected(_user(reader))

    async def _welcome(self, upgrade: Upgrade) -> Reader | None:
        """Let a client in; ``None`` when the first frame will bring the token. Raises ``RequestError``."""
        self._check_origin(upgrade.headers, secure=upgrade.secure)
        reader = await self._reader(upgrade)
        if reader is not None:
            admit(self._backend, reader.principal)
            self._backend.sessions.expect(_user(reader))
        return reader

    async def _refuse(self, upgrade: Upgrade, failure: Exception) -> None:
        error = failure if isinstance(failure, RequestError) else unreadable(failure, "connect")
        self._backend.hub.counters.refused[error.code] += 1
        log.info("refused", remote=upgrade.remote, code=error.code)
        headers = {"Content-Type": JSON_TYPE, **headers_of(error)}
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        await upgrade.reject(error.status, error_body(error.code, error.message), lines)

    def _greet(self, remote: str, reader: Reader | None) -> None:
        """Take note that a session has begun."""
        if reader is not None:
            self._backend.sessions.expected(_user(reader))
        self._backend.hub.counters.websockets += 1
        log.info("connected", remote=remote, subject=reader and reader.principal.subject)

    def _part(self, remote: str, session: Session, code: int, opened: float) -> None:
        """Take note that a session has ended: with ``code``, if it did not itself say with which."""
        if session.ending is not None:
            code = session.ending[0]
        traffic = session.traffic
        self._backend.hub.counters.closed[int(code)] += 1
        log.info(
            "disconnected",
            remote=remote,
            subject=session.principal.subject if session.authenticated else None,
            code=int(code),
            seconds=round(trio.current_time() - opened, 3),
            batches=traffic.batches,
            bytes_out=traffic.bytes_out,
            bytes_in=traffic.bytes_in,
        )

    def _check_origin(self, headers: Mapping[str, str], *, secure: bool) -> None:
        """Refuse a page of another site. Raises ``Forbidden``."""
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._origins or ANY in self._origins:
            return
        scheme = "https" if secure else "http"
        if _site(origin) is None or _site(origin) != _site(f"{scheme}://{headers.get('host', '')}"):
            raise Forbidden(
                "pages of this origin may not connect; the server's operator can allow it (allowed_origins)"
            )

    async def _reader(self, upgrade: Upgrade) -> Reader | None:
        """Say who asks; ``None`` when the first frame will bring the token. Raises ``Unauthorized``."""
        rights = self._backend.hub.access
        token = token_of(upgrade.query.get("token"), upgrade.headers.get("authorization"))
        if token is None:
            if upgrade.query.get("auth") == "frame":
                return None
            guest = rights.guest(upgrade.remote)
            if guest is None:
                raise Unauthorized("a token is needed: ?token=…, or an Authorization header, or ?auth=frame")
            return guest
        return await rights.reader(await rights.principal(token))


def _user(reader: Reader) -> User:
    return reader.principal.issuer, reader.principal.subject


def _code(connection: WebSocketConnection) -> int:
    """Give the code with which a connection was closed by its peer; 1006 when without any (RFC 6455, section 7.1.5)."""
    return ABNORMAL if connection.closed is None else connection.closed.code


def _site(origin: str) -> tuple[str, str, int] | None:
    """Give scheme, host and port of an origin; ``None`` when it is none (``null``, or malformed)."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname.lower(), port or _DEFAULT_PORTS[parts.scheme]
