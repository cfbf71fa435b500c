"""A connected TCP socket as a stream of trio.

``trio.SocketStream`` does the same in 2 kB more and with six calls more a read; a server holds 20,000 of these.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

import trio

from appliance.live.wire.sending import Straight

READ_SIZE: Final = 64 << 10  # bytes a read, where the reader names no other bound
#: What the kernel takes of a connection before the network has sent it, bytes: a burst goes in at one stroke, and the
#: rest waits with us, where it is counted and bounded. Without it Linux takes up to 4 MB (tcp(7), tcp_wmem).
NOT_SENT: Final = 256 << 10


class Tcp(trio.abc.Stream):
    """The stream of an accepted socket, which it makes non-blocking; on public calls of ``trio.lowlevel`` alone.

    One task may read and one may write at a time. Small writes go out at once (TCP_NODELAY). ``read``, ``write`` and
    ``write_several`` do not wait (``live.wire.sending.Carrier`` says what they promise).

    Errors: ``trio.BrokenResourceError`` when the connection broke, ``trio.ClosedResourceError`` after ``aclose``.
    """

    __slots__ = ("raw",)

    #: Whether what passes is encrypted.
    secure = False

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        raw.setblocking(False)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)
        except OSError as error:
            raise trio.BrokenResourceError("the peer is gone") from error

    # -- without waiting ---------------------------------------------------------------------------------

    @property
    def straight(self) -> Straight:
        """The socket: what it takes is sent."""
        return self.raw

    @property
    def begun(self) -> int:
        """Nothing is held here: what ``write`` has not taken, the peer does not have."""
        return 0

    @property
    def buffered(self) -> bool:
        """Nothing is held here: when the socket has nothing, ``read`` has nothing."""
        return False

    def write(self, data: bytes | memoryview, /) -> int:
        """Send what the kernel takes; give how many bytes."""
        try:
            return self.raw.send(data)
        except BlockingIOError:
            return 0

    def write_several(self, pieces: Sequence[bytes | memoryview], /) -> int:
        """Send what the kernel takes of these, in order; give how many bytes."""
        try:
            return self.raw.sendmsg(pieces)
        except BlockingIOError:
            return 0

    def read(self, max_bytes: int) -> bytes:
        """Give what has come, ``b""`` when the peer sends no more. Raises ``trio.WouldBlock`` when nothing has."""
        try:
            return self.raw.recv(max_bytes)
        except BlockingIOError:
            raise trio.WouldBlock from None

    # -- with waiting ------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Give what has come, at least a byte; ``b""`` when the peer sends no more."""
        while True:
            self._check_open()
            if self.buffered:
                await trio.lowlevel.checkpoint()
            else:  # Waiting first: a peer that is read from has mostly nothing more to say yet.
                await trio.lowlevel.wait_readable(self.raw)
            try:
                return self.read(max_bytes or READ_SIZE)
            except trio.WouldBlock:
                continue
            except OSError as error:
                raise trio.BrokenResourceError("the connection broke") from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything."""
        await trio.lowlevel.checkpoint()
        left = memoryview(data)
        while left:
            self._check_open()
            try:
                left = left[self.write(left) :]
            except OSError as error:
                raise trio.BrokenResourceError("the connection broke") from error
            if left:
                await trio.lowlevel.wait_writable(self.raw)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes more."""
        self._check_open()
        await trio.lowlevel.wait_writable(self.raw)

    def _check_open(self) -> None:
        if self.raw.fileno() < 0:
            raise trio.ClosedResourceError("this side has closed the connection")

    def close(self) -> None:
        """Close the socket at once; who waits for it gets ``ClosedResourceError``."""
        if self.raw.fileno() >= 0:
            trio.lowlevel.notify_closing(self.raw)
            self.raw.close()

    async def aclose(self) -> None:
        """Close the socket, as ``close`` does."""
        self.close()
        await trio.lowlevel.checkpoint()
