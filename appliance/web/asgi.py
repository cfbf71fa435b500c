"""ASGI 3 for one HTTP request (https://asgi.readthedocs.io/en/latest/specs/www.html, spec version 2.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from structlog.typing import FilteringBoundLogger

from appliance.errors import Internal, UnsupportedMedia
from appliance.model import ascii_fold
from appliance.protocol.wording import quote
from appliance.web.head import Request, path_of
from appliance.web.http import Http
from appliance.web.problem import Refused, place
from appliance.web.wire import Hangup

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def scope_of(request: Request, http: Http) -> Scope:
    """Describe a request as ASGI does."""
    path, raw_path, query = path_of(request.target)
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
    headers = dict(scope["headers"])
    length = int(headers.get(b"content-length", b"0"))
    if length > http.limits.body_bytes:
        raise http.too_large()
    coding = headers.get(b"content-encoding", b"identity").decode("latin-1")
    if ascii_fold(coding) != "identity" and (length or b"transfer-encoding" in headers):
        message = f"nothing here decodes {quote(coding)}; send the body as it is, without Content-Encoding"
        taken = ((b"accept-encoding", b"identity"),)  # RFC 9110, section 15.5.16
        source = {"header": "Content-Encoding"}
        await http.problem(UnsupportedMedia.status, UnsupportedMedia.code, message, taken, source=source)
        return
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
        await http.problem(Internal.status, Internal.code, Internal.cause)


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
        except Refused as refused:
            self.refused = refused.with_traceback(None)  # which holds the answer
        except Hangup as hangup:
            self.hangup = hangup
            raise
