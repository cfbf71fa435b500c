"""TLS over a connected socket, as a stream of trio.

``trio.SSLStream`` can only be written to by a task that waits, which is 30 µs and a task for each of a thousand
subscribers. This one is written to without waiting, as the socket is: it costs the encryption (3 µs) and the call.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from appliance.live.wire.sending import Straight
from appliance.web.tcp import READ_SIZE, Tcp

#: What is encrypted at a time, bytes: the most that one TLS record holds (RFC 8446, section 5.1).
RECORD: Final = 16 << 10


class Tls(Tcp):
    """The server's side of TLS, over an accepted socket; ``handshake`` comes first.

    It holds at most one record that the kernel has not taken. A peer may hang up without saying so in TLS
    (``close_notify``), as HTTP's and WebSocket's do: their own end is the one that counts.
    """

    __slots__ = ("_begun", "_buffered", "_incoming", "_outgoing", "_sealed", "_ssl")

    secure = True

    def __init__(self, raw: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(raw)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._sealed = b""  # encrypted, and not taken by the kernel
        self._begun = 0
        self._buffered = True  # what came with the handshake

    async def handshake(self) -> None:
        """Agree on keys. Raises ``trio.BrokenResourceError``, after the peer was told why, where that can be done."""
        try:
            while not self._agreed():
                while not self._flush():
                    await trio.lowlevel.wait_writable(self.raw)
                await trio.lowlevel.wait_readable(self.raw)
                with contextlib.suppress(BlockingIOError):
                    self._fetch()
            # What TLS 1.3 has to say now are tickets to come back with; they go with the first that is sent.
            while self._ssl.version() != "TLSv1.3" and not self._flush():
                await trio.lowlevel.wait_writable(self.raw)
        except OSError as error:  # ssl.SSLError is one
            raise trio.BrokenResourceError("the TLS handshake failed") from error

    def _agreed(self) -> bool:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            self._collect()
            self._flush()
            raise
        finally:
            self._collect()
        return True

    # -- without waiting ---------------------------------------------------------------------------------

    @property
    def straight(self) -> Straight:
        """What encrypts for the socket."""
        return self

    @property
    def begun(self) -> int:
        """How many bytes of what is to be written next are encrypted already."""
        return self._begun

    @property
    def buffered(self) -> bool:
        """Whether ``read`` may have something although the socket has nothing."""
        return self._buffered

    def write(self, data: bytes | memoryview, /) -> int:
        """Encrypt and send what the kernel takes; give how many bytes of ``data`` it has."""
        if self._sealed or len(data) > RECORD:
            return self.write_several((data,))
        self._ssl.write(data)
        self._sealed = self._outgoing.read()
        if self._flush():
            return len(data)
        self._begun = len(data)
        return 0

    send = write

    def write_several(self, pieces: Sequence[bytes | memoryview], /) -> int:
        """Encrypt and send what the kernel takes of these, in order; give how many bytes of them it has."""
        if not self._flush():
            return 0
        done, self._begun = self._begun, 0
        for record in _records(pieces, done):
            self._ssl.write(record)
            self._collect()
            if not self._flush():
                self._begun = len(record)
                break
            done += len(record)
        return done

    def read(self, max_bytes: int) -> bytes:
        """Give what has come, ``b""`` when the peer sends no more. Raises ``trio.WouldBlock`` when nothing has."""
        if not self._buffered:
            try:
                self._fetch()
            except BlockingIOError:
                raise trio.WouldBlock from None
        found = bytearray()
        self._buffered = True
        try:
            while len(found) < max_bytes:
                part = self._ssl.read(max_bytes - len(found))
                found += part
                if not part:
                    return bytes(found)
        except ssl.SSLWantReadError:
            self._buffered = False
            if not found:
                raise trio.WouldBlock from None
        except ssl.SSLError as error:
            if not (isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING"):
                raise
        finally:
            self._collect()
        return bytes(found)

    def _fetch(self) -> None:
        data = self.raw.recv(READ_SIZE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _collect(self) -> None:
        """Take what is encrypted, or what TLS itself has to say, out of its memory."""
        if self._outgoing.pending:
            self._sealed += self._outgoing.read()

    def _flush(self) -> bool:
        """Send what is encrypted; whether the kernel took all of it."""
        if self._sealed:
            try:
                self._sealed = self._sealed[self.raw.send(self._sealed) :]
            except BlockingIOError:
                return False
        return not self._sealed


def _records(pieces: Sequence[bytes | memoryview], skip: int) -> Iterator[bytes | memoryview]:
    """Join the pieces, but for the first ``skip`` bytes, and cut them into records."""
    joined = bytearray()
    for piece in pieces:
        view = memoryview(piece)[skip:]
        skip = max(0, skip - len(piece))
        while len(joined) + len(view) > RECORD:
            room = RECORD - len(joined)
            yield bytes(joined) + view[:room]
            joined.clear()
            view = view[room:]
        joined += view
    if joined:
        yield bytes(joined)
