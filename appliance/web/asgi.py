"""ASGI 3 for one HTTP request (https://asgi.readthedocs.io/en/latest/specs/www.html, spec version 2.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from structlog.typing import FilteringBoundLogger

from appliance.errors import Internal
from appliance.web.head import Request
from appliance.web.http import JSON_TYPE, Http
from appliance.web.problem import Refused, error_body, place
from appliance.web.wire import Hangup

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def path_of(request: Request) -> tuple[str, bytes, bytes]:
    """Give the path of a request, the same as it was written, and the query."""
    target = request.target
    if not target.startswith(b"/") and b"://" in target:  # absolute form, RFC 9112 section 3.2.2
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    path, _, query = target.partition(b"?")
    return unquote_to_bytes(path).decode(errors="replace"), path, query


def scope_of(request: Request, http: Http) -> Scope:
    """Describe a request as ASGI does."""
    path, raw_path, query = path_of(request)
    caller = http.caller(request.headers)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.http_version.decode(),
        "method": request.method.decode(),
        "scheme": "https" if caller.secure else "http",
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": list(request.headers),
        "client": (caller.address, caller.port),
        "server": http.wire.local,
    }


async def run_app(app: ASGIApp, scope: Scope, http: Http, log: FilteringBoundLogger) -> None:
    """Let the application answer one request.

    An application that fails, or answers half, is logged once; a client whose answer has not begun gets a 500.
    Raises ``Refused`` for what the client did wrong, ``Hangup`` when the client is gone.
    """
    exchange = _Exchange(http)
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if int(length) > http.limits.body_bytes:
        raise http.too_large()
    try:
        await app(scope, exchange.receive, exchange.send)
    except Exception as error:
        if exchange.hangup is None and exchange.refused is None:
            log.error("request_failed", method=scope["method"], path=scope["path"], error=place(error))
    else:
        if not http.answered and exchange.hangup is None and exchange.refused is None:
            log.error("request_unanswered", method=scope["method"], path=scope["path"])
    if exchange.refused is not None and not http.answering:
        raise exchange.refused
    if exchange.hangup is not None:
        raise exchange.hangup
    if not http.answering:
        await http.answer(500, JSON_TYPE, _FAULT)


_FAULT = error_body(Internal.code, Internal.cause)


class _Exchange:
    """One request as the application sees it."""

    __slots__ = ("_body_ended", "_http", "_start", "hangup", "refused")

    def __init__(self, http: Http) -> None:
        self.hangup: Hangup | None = None
        self.refused: Refused | None = None
        self._http = http
        self._body_ended = False
        self._start: Message | None = None

    async def receive(self) -> Message:
        if self._http.answered or self.hangup or self.refused:
            return {"type": "http.disconnect"}
        if self._body_ended:
            await self._http.hung_up()
            return {"type": "http.disconnect"}
        try:
            piece = await self._http.body()
        except Hangup as hangup:
            self.hangup = hangup
            return {"type": "http.disconnect"}
        except Refused as refused:
            self.refused = refused
            return {"type": "http.disconnect"}
        self._body_ended = piece is None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(self, message: Message) -> None:
        if self.hangup is not None:
            raise self.hangup
        if self.refused is not None:
            return  # what the application says to a body it never saw whole is not for the client
        try:
            if message["type"] == "http.response.start":
                if self._start is not None:
                    raise RuntimeError("an ASGI application started its answer twice")
                self._start = message
            elif message["type"] == "http.response.body":
                if self._start is None:
                    raise RuntimeError("an ASGI application sent a body before its head")
                body, more = message.get("body", b""), message.get("more_body", False)
                if self._http.answering:
                    await self._http.proceed(body, more=more)
                else:
                    await self._http.begin(self._start["status"], self._start.get("headers", ()), body, more=more)
        except Hangup as hangup:
            self.hangup = hangup
            raise
