"""A server on the product's own door and streams that echoes every message: what the hostile tests talk to.

Run as a program it prints one JSON line with its port and serves until it is terminated. On stdin it takes
``stop``; each line on its log (stderr) is one JSON object. ``/flood`` is a WebSocket that sends events as
fast as it is let; ``/live?reject=401`` is refused; ``/live?close=4401`` closes at the first message.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from trio_websocket import ConnectionClosed

from appliance.config import Config
from appliance.errors import CloseCode
from appliance.live.wire.frames import text_frame
from appliance.web.door import Door
from appliance.web.limits import Limits
from appliance.web.listen import open_listeners
from appliance.web.problem import error_body
from appliance.web.tls import Certificate
from appliance.web.upgrade import Upgrade

FLOOD_FRAME = text_frame(b"x" * 1000)


async def echo(upgrade: Upgrade) -> None:
    """Echo messages until the client closes."""
    if "reject" in upgrade.query:
        await upgrade.reject(int(upgrade.query["reject"]), error_body("unauthorized", "asked for"))
        return
    path, query = upgrade.path, upgrade.query  # an accepted upgrade keeps neither
    async with upgrade.accepted() as (connection, outgoing):
        if path == "/flood":
            while outgoing.offer(FLOOD_FRAME):
                await trio.lowlevel.checkpoint()
            outgoing.discard()
            with trio.move_on_after(1):
                await connection.aclose(CloseCode.TOO_SLOW)
            return
        try:
            while True:
                message = await connection.get_message()
                if "close" in query:
                    with trio.move_on_after(1):
                        await connection.aclose(int(query["close"]))
                    return
                await connection.send_message(message)
                outgoing.answered()
        except ConnectionClosed:
            pass


async def tiny(request: Request) -> Response:
    return JSONResponse({"ok": True})


async def size(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def fail(request: Request) -> Response:
    raise ValueError("a secret")


APP = Starlette(
    routes=[Route("/healthz", tiny), Route("/size", size, methods=["POST"]), Route("/fail", fail)],
)


async def serve(arguments: argparse.Namespace) -> None:
    listeners, _ = open_listeners(port=arguments.port)
    certificate = Certificate(arguments.cert, arguments.key) if arguments.cert else None
    limits = replace(
        Config().part(Limits),
        head_s=arguments.head_s, handshake_s=arguments.head_s, write_s=arguments.write_s,
    )  # fmt: skip
    door = Door(
        listeners,
        app=APP,
        websocket=echo,
        log=structlog.get_logger(),
        limits=limits,
        certificate=certificate,
        websocket_paths=("/live", "/flood"),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(door.run)
        print(json.dumps({"port": listeners[0].getsockname()[1]}), flush=True)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                break
        door.stop_accepting()
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--head-s", type=float, default=1.0)
    parser.add_argument("--write-s", type=float, default=2.0)
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    trio.run(partial(serve, parser.parse_args()))


if __name__ == "__main__":
    main()
