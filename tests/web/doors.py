"""A door in this process, and clients made of bytes."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import structlog
import trio
from structlog.testing import LogCapture

from appliance.config import Config
from appliance.web.asgi import ASGIApp, Receive, Scope, Send
from appliance.web.door import Door
from appliance.web.limits import Limits
from appliance.web.listen import open_listeners
from appliance.web.tls import Certificate
from appliance.web.upgrade import Upgrade


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer ``hello`` and the path."""
    body = b"hello " + scope["path"].encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def no_websocket(upgrade: Upgrade) -> None:
    await upgrade.reject(403, b"no")


class Client:
    """An HTTP client that keeps what it reads."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def until(self, end: bytes) -> bytes:
        """Read up to and with ``end``."""
        while end not in self._buffer:
            data = await self.stream.receive_some()
            assert data, f"the connection ended: {self._buffer!r}"
            self._buffer += data
        found, self._buffer = self._buffer[: (at := self._buffer.index(end) + len(end))], self._buffer[at:]
        return found

    async def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = await self.stream.receive_some()
            assert data, f"the connection ended: {self._buffer!r}"
            self._buffer += data
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    async def answer(self, *, head_only: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
        """Read one answer that has a content-length."""
        lines = (await self.until(b"\r\n\r\n")).split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:-2])
        size = 0 if head_only else int(headers.get(b"content-length", b"0"))
        return int(lines[0].split()[1]), headers, await self.exactly(size)

    async def get(self, path: str = "/", *lines: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        head = b"\r\n".join((b"GET %b HTTP/1.1" % path.encode(), b"Host: x", *lines))
        await self.send(head + b"\r\n\r\n")
        return await self.answer()

    async def rest(self) -> bytes:
        """Read to the end of the connection."""
        data = self._buffer
        async for more in self.stream:
            data += more
        return data


class Open:
    """A running door."""

    def __init__(self, door: Door, port: int, log: LogCapture) -> None:
        self.door = door
        self.port = port
        self.log = log.entries

    async def wait_for(self, connections: int) -> None:
        """Wait until no more connections than these are open."""
        while self.door.connections > connections:
            await trio.lowlevel.checkpoint()

    async def connect(self) -> Client:
        return Client(await trio.open_tcp_stream("127.0.0.1", self.port))

    async def connect_tls(self, context: ssl.SSLContext, **options: Any) -> Client:
        plain = await trio.open_tcp_stream("127.0.0.1", self.port)
        stream = trio.SSLStream(plain, context, server_hostname="localhost", https_compatible=True)
        await stream.do_handshake()
        return Client(stream)


@asynccontextmanager
async def open_door(
    app: ASGIApp = hello,
    websocket: Callable[[Upgrade], Awaitable[None]] = no_websocket,
    certificate: Certificate | None = None,
    **limits: float,
) -> AsyncIterator[Open]:
    """Open a door on a free port of 127.0.0.1; cancel it at the end."""
    listeners, _ = open_listeners(("127.0.0.1",))
    port = listeners[0].getsockname()[1]
    log = LogCapture()
    logger = structlog.wrap_logger(None, processors=[log])
    bounds = replace(Config().part(Limits), **limits)  # type: ignore[arg-type]
    door = Door(listeners, app=app, websocket=websocket, log=logger, limits=bounds, certificate=certificate)
    async with trio.open_nursery() as nursery:
        await nursery.start(door.run)
        yield Open(door, port, log)
        nursery.cancel_scope.cancel()
    assert door.connections == 0
