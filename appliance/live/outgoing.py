"""The bytes of one WebSocket, between trio-websocket and the socket or TLS.

All that is sent to a client passes here, so a ready frame may be written straight to an idle socket, while
trio-websocket's own pongs and closes stay whole and in their place. All that comes from the client passes
the frame gate, and the client gets a Close frame that says why, whichever side found the fault.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Final, Protocol

import trio
from trio_websocket import WebSocketConnection

from appliance.errors import CloseCode
from appliance.live.frames import FrameGate, Violation, close_frame, is_close
from appliance.live.unsent import Unsent

OUTGOING_LIMIT: Final = 1 << 20  # bytes a connection that wait for a slow peer
UNANSWERED: Final = 64 << 10  # bytes of whole messages that wait to be answered when more is read
ROOM: Final = 256 << 10  # bytes that may wait when more is to be read for a peer
WRITE_S: Final = 30.0  # seconds in which a peer must take something
LINGER_S: Final = 2.0  # seconds for a Close frame to be taken and the peer to hang up
DRAIN_LIMIT: Final = 32 << 20  # bytes that are read and thrown away meanwhile
READ_SIZE: Final = 64 << 10  # bytes a read, where the reader names no other bound
_VECTOR = 64  # frames a system call; Linux takes 1024 (IOV_MAX)
_TLS_CHUNK = 16 << 10  # bytes: one TLS record, so that the write deadline sees progress


class StartSoon(Protocol):
    """``Nursery.start_soon`` of the nursery that the connection's tasks live in."""

    def __call__(self, task: Callable[[], Awaitable[object]], /) -> None:
        """Start a task in that nursery."""


class Outgoing(trio.abc.Stream):
    """The stream under one WebSocket, and the way for ready frames to it.

    Args:
      stream: what carries the bytes: that of the socket, or an ``SSLStream`` over it.
      raw: the connection's own socket, non-blocking.
      direct: whether frames may be written to ``raw`` itself (no TLS).
      start_soon: starts the task that writes what the socket did not take; there is none while nothing waits.
      head: an upgrade request in our own words, the first thing that the WebSocket library reads.
      early: what the client sent behind its request.

    Resource handling: it shuts the socket down, but closes nothing; who opened the socket closes it, after the
    nursery of ``start_soon`` has ended.

    Errors: ``offer`` never raises. A peer that is gone, or takes nothing for ``write_s``, ends the reader with
    an end of file, so that ``get_message`` raises ``ConnectionClosed``; ``ended`` then says why.
    """

    # A server holds 20,000 of these, and so many attributes in a dictionary take a kilobyte more.
    __slots__ = (
        "_all_answered", "_answered", "_awaited", "_connection", "_direct", "_empty", "_finished", "_flushing",
        "_flying", "_gate", "_gone", "_head", "_limit", "_opened", "_parted", "_queue", "_raw", "_reading", "_room",
        "_stream", "_taken", "_together", "_torn", "_unanswered", "_unsent", "_write_s", "ended", "last_received",
        "received", "sent", "start_soon",
    )  # fmt: skip

    def __init__(
        self,
        stream: trio.abc.Stream,
        raw: socket.socket,
        *,
        direct: bool,
        start_soon: StartSoon,
        head: bytes,
        early: bytes = b"",
        gate: FrameGate | None = None,
        limit: int = OUTGOING_LIMIT,
        together: Unsent | None = None,
        write_s: float = WRITE_S,
    ) -> None:
        #: Why we ended the connection, where it was not the WebSocket library that did.
        self.ended: CloseCode | None = None
        #: Bytes of frames that the socket or TLS took, and that the peer has sent.
        self.sent = 0
        self.received = 0
        #: When the peer was last heard (``trio.current_time()``).
        self.last_received = trio.current_time()
        self._stream = stream
        self._raw = raw
        self._direct = direct
        #: Starts a task that ends with the connection.
        self.start_soon = start_soon
        self._head = head
        self._gate = gate or FrameGate()
        self._gate.feed(early)
        self._limit = limit
        self._together = together or Unsent(limit)
        self._room: trio.Event | None = None
        self._answered = 0  # messages
        self._unanswered = 0  # bytes let through since all messages were answered
        self._all_answered: trio.Event | None = None
        self._write_s = write_s
        self._connection: WebSocketConnection | None = None
        self._opened: trio.Event | None = trio.Event()
        self._queue: list[bytes | memoryview] = []  # mostly empty, and an empty deque takes 700 bytes more
        self._torn = False  # the first of the queue is the rest of a frame
        self._unsent = 0  # bytes in the queue and in flight
        self._flying = 0  # bytes that TLS has, and the socket perhaps not
        self._flushing = False
        self._empty: trio.Event | None = None
        self._taken = 0  # bytes that the socket took of the queue, ever
        self._awaited = 0  # what ``_taken`` must reach for the one who waits
        self._reading = False
        self._parted = False  # our Close frame is queued or sent; nothing may follow it
        self._gone = False  # nothing can be sent any more
        self._finished: trio.Event | None = None

    def open(self, connection: WebSocketConnection) -> None:
        """Let the client's frames in, now that the handshake is answered.

        Not before: a client that broke the protocol at once would be gone before ``connection`` could be asked why.
        """
        self._connection = connection
        if self._opened is not None:
            self._opened.set()
            self._opened = None

    # -- what we send ------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer."""
        return self._unsent

    def apart(self, message: str | bytes) -> list[str] | list[bytes]:
        """Give what the peer sent as one message of the WebSocket library; asked once for each, in order."""
        return self._gate.apart(message)

    def answer_at_once(self, answer: Callable[[Sequence[bytes]], int] | None) -> None:
        """Put requests to ``answer`` before the WebSocket library reads them: it says how many it has answered."""
        self._gate.answer = answer

    @property
    def idle(self) -> bool:
        """Whether all messages are answered that the WebSocket library has been given so far."""
        return self._answered >= self._gate.messages

    def answered(self) -> bool:
        """Take note that one more message was answered; give whether all are that the peer has sent so far."""
        self._answered += 1
        if not self.idle:
            return False
        self._unanswered = 0
        if self._all_answered is not None:
            self._all_answered.set()
            self._all_answered = None
        return True

    @property
    def closing(self) -> bool:
        """Whether a Close frame has been sent or the connection is gone: nothing may be offered any more."""
        return self._gone or self._parted

    def offer(self, frame: bytes, *, beyond: bool = False) -> bool:
        """Send one or more whole frames without waiting; false when they were not taken.

        Frames are taken unless the connection is closing, or frames wait already and these would lift ``unsent`` over
        what may wait (``beyond`` it, if need be). What was taken is sent whole, in order.
        """
        if self.closing:
            return False
        rest: bytes | memoryview = frame
        if not self._unsent:
            if self._direct:
                try:
                    sent = self._raw.send(frame)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self.hang_up()
                    return False
                self.sent += sent
                if sent == len(frame):
                    return True
                if sent:
                    rest = memoryview(frame)[sent:]
                    self._torn = True
        elif not beyond and self._unsent + len(frame) > self._together.allowed(self._limit):
            return False
        self._enqueue(rest)
        return True

    def discard(self) -> None:
        """Forget what waits, but for the rest of a frame that the peer has in part: a Close can come next."""
        keep = self._queue[0] if self._torn and self._queue else None
        self._queue.clear()
        self._change_unsent(self._flying - self._unsent)
        if keep is not None:
            self._queue.append(keep)
            self._change_unsent(len(keep))
        self._awaited = min(self._awaited, self._taken + self._unsent)
        self._wake()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send what the WebSocket library wrote, behind what waits already; returns when the socket has it.

        A cancelled call leaves the bytes in the queue, whole. What comes after a Close frame is dropped.
        """
        if self._gone:
            raise trio.ClosedResourceError("the connection has ended")
        if not data or self._parted:
            await trio.lowlevel.checkpoint()
            return
        if is_close(data):
            self._parted = self._gate.closing = True
        self._enqueue(bytes(data))
        await self._sent()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until nothing is queued."""
        await self._sent()

    async def room(self, most: int = ROOM) -> None:
        """Wait until at most ``most`` bytes wait for the peer, or nothing can be sent any more."""
        while self._unsent > most and not self._gone:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()

    def _change_unsent(self, by: int) -> None:
        self._unsent += by
        self._together.total += by

    def _enqueue(self, data: bytes | memoryview) -> None:
        self._queue.append(data)
        self._change_unsent(len(data))
        if self._flushing:
            return
        if self._direct:
            try:
                self._write()
            except OSError:
                self.hang_up()
                return
        if self._queue:
            self._flushing = True
            self.start_soon(self._flush)

    async def _sent(self) -> None:
        """Wait until all that is queued now has been taken by the socket."""
        if not self._unsent:
            await trio.lowlevel.checkpoint()
        else:
            self._awaited = self._taken + self._unsent
            while self._taken < self._awaited and not self._gone:
                if self._empty is None:
                    self._empty = trio.Event()
                await self._empty.wait()
        if self._gone:
            raise trio.BrokenResourceError("the peer is gone or takes nothing")

    def _wake(self) -> None:
        if self._empty is not None and (self._taken >= self._awaited or self._gone):
            self._empty.set()
            self._empty = None
        if self._room is not None:
            self._room.set()
            self._room = None

    def _write(self) -> None:
        """Write to the raw socket what it takes. Raises ``OSError`` when it is broken."""
        while self._queue:
            try:
                sent = self._raw.sendmsg(tuple(islice(self._queue, _VECTOR)))
            except BlockingIOError:
                return
            self._count(sent)

    def _count(self, sent: int) -> None:
        self._taken += sent
        self.sent += sent
        self._change_unsent(-sent)
        queue = self._queue
        whole = 0
        while sent and sent >= len(queue[whole]):
            sent -= len(queue[whole])
            whole += 1
        del queue[:whole]
        self._torn = bool(sent) or (self._torn and not whole)
        if sent:
            queue[0] = memoryview(queue[0])[sent:]
        self._wake()

    async def _flush(self) -> None:
        """Write the queue until it is empty; end the connection when the peer takes nothing for ``write_s``."""
        try:
            while self._queue and not self._gone:
                with trio.move_on_after(self._write_s) as patience:
                    if self._direct:
                        await trio.lowlevel.wait_writable(self._raw)
                        self._write()
                    else:
                        await self._stream.send_all(self._chunk())
                        self._flown()
                if patience.cancelled_caught:
                    self.ended = self.ended or CloseCode.TOO_SLOW
                    self.hang_up()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            self.hang_up()
        finally:
            self._flushing = False

    def _chunk(self) -> bytes:
        """Take the next bytes off the queue for TLS."""
        chunk = bytearray()
        while self._queue and len(chunk) < _TLS_CHUNK:
            part = self._queue.pop(0)
            room = _TLS_CHUNK - len(chunk)
            self._torn = len(part) > room
            if self._torn:
                self._queue.insert(0, memoryview(part)[room:])
            chunk += part[:room]
        self._flying = len(chunk)
        return bytes(chunk)

    def _flown(self) -> None:
        self._taken += self._flying
        self.sent += self._flying
        self._change_unsent(-min(self._flying, self._unsent))
        self._flying = 0
        self._wake()

    # -- what we receive ---------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Give the upgrade request first, then what the gate lets through; ``b""`` when the connection is over."""
        if self._head:
            head, self._head = self._head, b""
            await trio.lowlevel.checkpoint()
            return head
        if self._opened is not None:
            await self._opened.wait()
        elif self._gate.holds:
            await trio.lowlevel.checkpoint()
        while not self._gone:
            if self._connection is not None and self._connection.closed is not None:
                self._gate.closing = True  # it is about to send its Close, and would fail at the next ping
            try:
                passed = self._gate.take()  # no checkpoint from here to the WebSocket library: see FrameGate
            except Violation as violation:
                await self._finish(violation.code, violation.reason)
                break
            if passed:
                self._unanswered += len(passed)
                return passed
            if self._unanswered > UNANSWERED and not self.idle:
                self._all_answered = trio.Event()
                await self._all_answered.wait()
            self._reading = True
            try:
                if self._direct:  # with no frame of the stream's to be kept for as long as the peer is silent
                    await trio.lowlevel.wait_readable(self._raw)
                    data = self._raw.recv(max_bytes or READ_SIZE)
                else:
                    data = bytes(await self._stream.receive_some(max_bytes or READ_SIZE))
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError("the connection broke") from error
            finally:
                self._reading = False
            if not data:
                break
            self.last_received = trio.current_time()
            self.received += len(data)
            self._gate.feed(data)
        return b""

    # -- the end -----------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End the connection within ``LINGER_S``, so that the peer gets what was sent; once is enough.

        The WebSocket library closes without a Close frame when a client broke the protocol: it is sent here.
        """
        reason = self._connection.closed if self._connection is not None else None
        if reason is not None and reason.code in _FAULTS:
            await self._finish(CloseCode(reason.code), reason.reason or "")
        else:
            await self._finish(None)

    def hang_up(self, code: CloseCode | None = None) -> None:
        """End the connection at once, with a Close frame of ``code`` if the socket takes it without waiting."""
        if self._gone:
            return
        if code is not None and self._direct and self._opened is None and not self._unsent and not self._parted:
            with contextlib.suppress(OSError):
                self._raw.send(close_frame(code))
        self._gone = True
        self._queue.clear()
        self._change_unsent(-self._unsent)
        self._wake()
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)  # the reader finds the end of the file

    async def _finish(self, code: CloseCode | None, reason: str = "") -> None:
        if self._finished is not None:
            await self._finished.wait()
            return
        self._finished = trio.Event()
        try:
            with trio.move_on_after(LINGER_S), contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if code is not None and not self.closing:
                    self.ended = self.ended or code
                    self._parted = True
                    self._enqueue(close_frame(code, reason))
                await self._sent()
                if not self._gate.closed:
                    await self._drain()
        finally:
            self.hang_up()
            self._finished.set()

    async def _drain(self) -> None:
        """Read and forget until the peer hangs up: closing on unread bytes is a reset, which eats our Close."""
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_WR)  # under TLS too: the Close frame is the end that counts
        left = DRAIN_LIMIT
        while left > 0 and not self._reading:
            data = await self._stream.receive_some(64 << 10)
            if not data:
                break
            left -= len(data)


_FAULTS = frozenset((CloseCode.PROTOCOL_ERROR, CloseCode.UNSUPPORTED_DATA, CloseCode.INVALID_TEXT, CloseCode.TOO_BIG))
