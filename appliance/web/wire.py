"""The bytes of one connection before it is a WebSocket: reading and writing, each with its bound."""

from __future__ import annotations

import contextlib
import socket

import trio

from appliance.web.tcp import Tcp

_CHUNK = 64 << 10  # bytes written under one deadline, so that a slow but steady reader is not cut off
LINGER_S = 2.0  # seconds for the peer to read our last answer and hang up
DRAIN_LIMIT = 8 << 20  # bytes that are read and thrown away meanwhile


class Hangup(OSError):
    """The peer is gone, or takes nothing. (ASGI 2.4 wants an ``OSError`` of ``send``.)"""


class Wire:
    """One accepted connection: its stream (TLS or not) and who is there."""

    __slots__ = ("remote", "stream", "write_s")

    def __init__(self, stream: Tcp, *, remote: tuple[str, int], write_s: float) -> None:
        self.stream = stream
        self.remote = remote
        self.write_s = write_s

    @property
    def local(self) -> tuple[str, int]:
        """The address and port that the peer connected to."""
        address = self.stream.raw.getsockname()
        return address[0], address[1]

    async def receive(self, size: int) -> bytes:
        """Give some bytes, ``b""`` at the end. Raises ``Hangup`` when the connection broke."""
        try:
            return await self.stream.receive_some(size)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Hangup("the peer is gone") from error

    def receive_nowait(self, size: int) -> bytes | None:
        """Give what has come already; ``None`` when nothing has. Raises ``Hangup`` when the connection broke."""
        try:
            return self.stream.read(size)
        except trio.WouldBlock:
            return None
        except OSError as error:
            raise Hangup("the peer is gone") from error

    async def send(self, data: bytes) -> None:
        """Send everything. Raises ``Hangup`` when the peer is gone or takes nothing for ``write_s``."""
        view = memoryview(data)
        try:
            view = view[self.stream.write(view) :]
        except OSError as error:
            raise Hangup("the peer is gone") from error
        try:
            while view:
                with trio.fail_after(self.write_s):
                    await self.stream.send_all(view[:_CHUNK])
                view = view[_CHUNK:]
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            raise Hangup("the peer is gone or takes nothing") from error

    async def finish(self) -> None:
        """Say that we are done, and let the peer read our last words: closing on unread bytes would reset them."""
        with contextlib.suppress(OSError):
            self.stream.raw.shutdown(socket.SHUT_WR)
        left = DRAIN_LIMIT
        with trio.move_on_after(LINGER_S), contextlib.suppress(Hangup):
            while left > 0 and (data := await self.receive(_CHUNK)):
                left -= len(data)
