"""From HTTP to a WebSocket: a request to upgrade, checked here and put to trio-websocket in our own words."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Final, cast
from urllib.parse import parse_qsl

import trio
from trio_websocket import WebSocketConnection, wrap_server_stream

from appliance.errors import BadRequest, CloseCode
from appliance.live.wire.bundles import BundlingGate
from appliance.live.wire.frames import FrameGate
from appliance.live.wire.outgoing import LINGER_S, READ_SIZE, Outgoing
from appliance.live.wire.room import Room
from appliance.live.wire.unsent import Unsent
from appliance.web.forwarded import Caller
from appliance.web.head import Request
from appliance.web.http import Headers, Http
from appliance.web.limits import Limits
from appliance.web.problem import JSON_TYPE, Refused
from appliance.web.wire import Hangup

#: Requests that may wait for their session: as many as one read brings, so that they can be answered at one stroke.
QUEUED: Final = 64
#: The name of the task that reads a WebSocket, as trio would give it.
_READER: Final = "trio_websocket.WebSocketConnection._reader_task"
_VERSION = b"13"  # RFC 6455, section 4.1
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_NOTHING: Final[Mapping[str, str]] = {}
_JSON: Final = ((b"content-type", JSON_TYPE.encode()),)
_QUERY_FIELDS: Final = 32  # more is nobody's query
_WANTED = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"))


class Upgrade:
    """A client's wish for a WebSocket: to be answered by ``reject`` or taken by ``accepted``.

    ``path`` is the request's path. ``query`` and ``headers`` (names in lower case) have the values by name, several of
    one name joined by commas; they may hold a token and are never logged. Once the upgrade is accepted, all three are
    empty. ``remote`` is the client's IP address and ``secure`` whether it came by TLS, also
    where a trusted proxy says so.
    """

    __slots__ = ("_key", "headers", "http", "path", "query", "remote", "secure")

    def __init__(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], key: bytes, http: Http, caller: Caller
    ) -> None:
        self.path = path
        self.query = query
        self.headers = headers
        self.remote = caller.address
        self.secure = caller.secure
        #: The connection's HTTP side, as long as it is one: gone once the upgrade is accepted.
        self.http: Http | None = http
        self._key = key

    async def reject(self, status: int, body: bytes = b"", headers: Headers = _JSON) -> None:
        """Answer as HTTP; the connection may go on with another request. Raises ``Hangup``."""
        await self._present().answer(status, headers, body)

    def accepted(
        self, together: Unsent | None = None, room: Room | None = None, *, bundled: bool = False,
        first_bytes: int | None = None,
    ) -> Accepted:  # fmt: skip
        """Answer 101 and give the WebSocket, and the way for ready frames to it.

        ``together`` is what waits in all connections, ``room`` is for what has come in part. ``bundled``: a message may
        be a bundle, for ``Outgoing.apart``. ``first_bytes``: the client's first message may have no more.
        """
        limits = self._present().limits
        gate = (BundlingGate if bundled else FrameGate)(limits.message_bytes, limits.message_fragments, first_bytes)
        if room is not None:
            gate.share(room, self.remote)
        return Accepted(self, together, gate)

    def leave(self) -> tuple[Http, bytes]:
        """Leave HTTP: give its side of the connection, and the key of the request for the WebSocket."""
        (http, self.http), (key, self._key) = (self._present(), None), (self._key, b"")
        self.path, self.headers, self.query = "", _NOTHING, _NOTHING  # not needed any more, and there may be 20,000
        return http, key

    def _present(self) -> Http:
        if self.http is None or self.http.answering:
            raise RuntimeError("this upgrade has been answered already")
        return self.http


class Accepted:
    """A WebSocket for as long as a block runs, with the way for ready frames to it.

    trio-websocket's reader lives in a nursery outside of the block, so a block that is cancelled can still close
    properly. On leaving, a WebSocket that is open is closed (1000; 1011 when the block failed); cancelled from outside,
    it ends at once, with 1012 where the socket takes it. Errors come in groups, as from any nursery.

    Written out instead of with ``contextlib.asynccontextmanager``, whose generator takes 3 % of what an idle connection
    does.
    """

    __slots__ = ("_connection", "_nursery", "_outgoing", "_tasks", "_wanted")

    def __init__(self, upgrade: Upgrade, together: Unsent | None, gate: FrameGate) -> None:
        self._wanted: tuple[Upgrade, Unsent | None, FrameGate] | None = (upgrade, together, gate)
        self._tasks = trio.open_nursery()

    async def __aenter__(self) -> tuple[WebSocketConnection, Outgoing]:
        """Make the handshake."""
        assert self._wanted is not None  # noqa: S101
        (upgrade, together, gate), self._wanted = self._wanted, None
        http, key = upgrade.leave()
        limits = http.limits
        self._nursery = await self._tasks.__aenter__()
        self._outgoing = Outgoing(
            http.wire.stream,
            tasks=self._nursery,
            head=b"GET / HTTP/1.1\r\nHost: live\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n",
            early=http.leave(),
            gate=gate,
            limit=limits.unsent_bytes,
            together=together,
            write_s=limits.write_s,
        )
        try:
            self._connection = await self._shake_hands(limits)
        except BaseException as error:
            await self._end(error)
            raise
        self._outgoing.open(self._connection)
        return self._connection, self._outgoing

    async def _shake_hands(self, limits: Limits) -> WebSocketConnection:
        with trio.move_on_after(limits.handshake_s) as patience:
            request = await wrap_server_stream(
                cast("trio.Nursery", _Readers(self._nursery)),
                self._outgoing,
                message_queue_size=QUEUED,
                max_message_size=limits.message_bytes,
                receive_buffer_size=READ_SIZE,
            )
            connection = await request.accept()
        if patience.cancelled_caught:
            raise Hangup("the answer to the handshake was not taken")
        request.headers.clear()  # which the WebSocket library would keep
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Close the WebSocket, and wait for the connection's tasks."""
        if trio.current_effective_deadline() == -math.inf:  # cancelled: what may wait cannot be done
            return await self._cut(error)
        if error is not None:
            self._outgoing.ended = self._outgoing.ended or CloseCode.INTERNAL
        try:
            with trio.move_on_after(LINGER_S):
                if self._connection.closed is None:
                    await self._connection.aclose(self._outgoing.ended or CloseCode.NORMAL)
                await self._outgoing.aclose()
        except BaseException as raised:
            await self._end(raised)
            raise
        return await self._end(error)

    async def _cut(self, error: BaseException | None) -> bool:
        """End at once what was cancelled, as ``_end`` does.

        By whom it was, only the outside of the nursery knows: from outside, the nursery is cancelled as well when the
        first of its tasks has ended.
        """
        self._nursery.cancel_scope.cancel()
        try:
            return bool(await self._tasks.__aexit__(None if error is None else type(error), error, None))
        finally:
            outside = trio.current_effective_deadline() == -math.inf
            self._outgoing.hang_up(CloseCode.RESTART if outside else CloseCode.INTERNAL)

    async def _end(self, error: BaseException | None) -> bool:
        """Leave the nursery with this error; whether it ends there. Raises what the nursery makes of it."""
        self._outgoing.hang_up()
        if self._nursery.child_tasks:
            self._nursery.cancel_scope.cancel()
        return bool(await self._tasks.__aexit__(None if error is None else type(error), error, None))


class _Readers:
    """A nursery for the WebSocket library's reader, which it is started in by a name that all of them share.

    trio would make a text of 100 bytes anew for each, and there may be 20,000.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start_soon(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task in that nursery."""
        self._nursery.start_soon(task, *args, name=_READER)


def wants_upgrade(request: Request) -> bool:
    """Whether the request asks for a WebSocket, rightly or not."""
    return all(token in _tokens(request, name) for name, token in _WANTED)


def read_upgrade(request: Request, path: str, query: bytes, http: Http) -> Upgrade:
    """Check a request for a WebSocket (RFC 6455, section 4.2.1). Raises ``Refused``."""
    if not wants_upgrade(request):
        raise _refused(426, f"{path} is a WebSocket: connect to it with ws:// or wss://")
    headers: dict[bytes, bytes] = {}
    keys = []
    for name, value in request.headers:
        headers[name] = headers[name] + b", " + value if name in headers else value
        if name == b"sec-websocket-key":
            keys.append(value)
    if headers.get(b"sec-websocket-version") != _VERSION:
        raise _refused(426 if b"sec-websocket-version" in headers else 400, "the WebSocket version must be 13")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise _refused(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    if request.http_version != b"1.1" or not http.no_body():
        raise _refused(400, "a WebSocket begins with an HTTP/1.1 request without a body")
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_QUERY_FIELDS)
    except ValueError:
        raise _refused(400, f"the query may have {_QUERY_FIELDS} fields") from None
    asked: dict[str, str] = {}
    for field, word in fields:
        asked[field] = f"{asked[field]}, {word}" if field in asked else word
    words = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    return Upgrade(path, asked, words, keys[0], http, http.caller(request.headers))


_HINTS = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"sec-websocket-version", _VERSION))


def _refused(status: int, message: str) -> Refused:
    return Refused(status, BadRequest.code, message, _HINTS)


def _tokens(request: Request, wanted: bytes) -> set[bytes]:
    return {token.strip().lower() for name, value in request.headers if name == wanted for token in value.split(b",")}
