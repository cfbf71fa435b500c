"""A connected TCP socket as a stream of trio.

``trio.SocketStream`` does the same in 2 kB more and with six calls more a read; a server holds 20,000 of these.
"""

from __future__ import annotations

import socket
from typing import Final

import trio

READ_SIZE: Final = 64 << 10  # bytes a read, where the reader names no other bound
#: What the kernel takes of a connection before the network has sent it, bytes: a burst goes in at one stroke, and the
#: rest waits with us, where it is counted and bounded. Without it Linux takes up to 4 MB (tcp(7), tcp_wmem).
NOT_SENT: Final = 256 << 10


class Tcp(trio.abc.Stream):
    """The stream of an accepted socket, which it makes non-blocking; on public calls of ``trio.lowlevel`` alone.

    One task may read and one may write at a time. Small writes go out at once (TCP_NODELAY).

    Errors: ``trio.BrokenResourceError`` when the connection broke, ``trio.ClosedResourceError`` after ``aclose``.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        raw.setblocking(False)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)
        except OSError as error:
            raise trio.BrokenResourceError("the peer is gone") from error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Give what has come, at least a byte; ``b""`` when the peer sends no more."""
        while True:
            # Waiting first: a peer that is read from has mostly nothing more to say yet.
            await trio.lowlevel.wait_readable(self._open())
            try:
                return self._raw.recv(max_bytes or READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError("the connection broke") from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything."""
        await trio.lowlevel.checkpoint()
        left = memoryview(data)
        while left:
            try:
                left = left[self._open().send(left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._raw)
            except OSError as error:
                raise trio.BrokenResourceError("the connection broke") from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes more."""
        await trio.lowlevel.wait_writable(self._open())

    def _open(self) -> socket.socket:
        if self._raw.fileno() < 0:
            raise trio.ClosedResourceError("this side has closed the connection")
        return self._raw

    def close(self) -> None:
        """Close the socket at once; who waits for it gets ``ClosedResourceError``."""
        if self._raw.fileno() >= 0:
            trio.lowlevel.notify_closing(self._raw)
            self._raw.close()

    async def aclose(self) -> None:
        """Close the socket, as ``close`` does."""
        self.close()
        await trio.lowlevel.checkpoint()
