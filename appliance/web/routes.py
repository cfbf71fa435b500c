"""What there is beside the WebSocket on the one port."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance.errors import BadRequest, Internal, NotAllowed, NotFound, RequestError
from appliance.ops.health import Health
from appliance.web.metrics import MetricsPage
from appliance.web.problem import error_answer, headers_of

#: What a 404 says there is.
PATHS: Final = {
    "/live": "the WebSocket (ws:// or wss://)",
    "/action/user_account/signup": "POST makes an account",
    "/action/user_account/signin": "POST gives a token for one",
    "/setup": "the page of the link that makes the first administrator's account",
    "/openapi.json": "the HTTP API described, for what your token may do",
    "/api/<table>": "rows of a table, as JSON:API",
    "/api/<table>/<id>": "one row",
    "/live/topics/<topic>/messages": "POST sends a message to a user topic",
    "/healthz": "200 while the process is up",
    "/readyz": "200 when changes are captured and delivered, else 503 and the reasons",
    "/metrics": "figures for Prometheus, for administrators",
}


def application(
    health: Health, api: Sequence[BaseRoute], metrics: MetricsPage, *, allowed_origins: Collection[str] = ()
) -> Starlette:
    """Make the application that answers all that is not a WebSocket.

    ``api`` are the routes of the HTTP API. Pages of ``allowed_origins`` (``read_origins``) may use all of it, with a
    token: there are no cookies that a page could use without knowing them.
    """

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        problems = health.problems()
        if problems:
            return JSONResponse({"status": "unavailable", "problems": problems}, 503)
        return JSONResponse({"status": "ok"})

    async def live(request: Request) -> Response:
        message = "/live is a WebSocket: connect to it with ws:// or wss://"
        return _answer(request, 426, BadRequest.code, message, {"Upgrade": "websocket", "Connection": "upgrade"})

    made = Starlette(
        # The door answers a GET of /live; it is here for the other methods.
        routes=[
            Route("/live", live),
            *api,
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics.for_administrators),
        ],
        middleware=[Middleware(_Unshared), *([_cors(allowed_origins)] if allowed_origins else [])],
        exception_handlers={HTTPException: _refused, RequestError: _cannot, Exception: _refused},
    )
    made.router.redirect_slashes = False  # to where the Host header says, with the token of the query
    return made


class _Unshared:
    """Has nobody keep an answer but who has asked, and him only to ask whether it still is so.

    What one may see another may not, nor the same one a moment later: a proxy's copy would know nothing of that (RFC
    9111, section 5.2.2).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def said(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Cache-Control", "private, no-cache")
            await send(message)

        await self._app(scope, receive, said)


def _cors(origins: Collection[str]) -> Middleware:
    """Have pages of these origins use it (https://fetch.spec.whatwg.org/#http-cors-protocol)."""
    return Middleware(
        CORSMiddleware,
        allow_origins=sorted(origins),
        allow_methods=["GET", "HEAD", "POST", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key"],
        expose_headers=["ETag", "Location", "Idempotency-Replayed", "Retry-After"],
    )


async def _cannot(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 – it is registered for nothing else
    return _answer(request, error.status, error.code, error.message, headers_of(error))


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 404:
        there = "; ".join(f"{path} – {what}" for path, what in PATHS.items())
        return _answer(request, status, NotFound.code, f"there is nothing at this path. There is: {there}", headers)
    if status == 405:
        allowed = headers.get("allow", headers.get("Allow", "GET"))
        return _answer(request, status, NotAllowed.code, f"this path takes: {allowed}", headers)
    return _answer(request, status, Internal.code, "the server has a fault; its log names it", headers)


def _answer(request: Request, status: int, code: str, message: str, headers: Mapping[str, str]) -> Response:
    media_type, body = error_answer(request.scope["path"], status, code, message)
    return Response(body, status, headers, media_type)
