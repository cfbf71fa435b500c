"""What is sent to one client: ready frames and what the WebSocket library writes, in one order, bounded, never torn.

A frame goes straight to an idle socket. Only what that does not take is queued, and only while something is queued
there is a task that writes it: so nobody waits for a slow client but that client.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import sys
import termios
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import trio

from appliance.errors import CloseCode
from appliance.live.wire.frames import close_frame, is_close
from appliance.live.wire.unsent import Unsent

OUTGOING_LIMIT: Final = 1 << 20  # bytes a connection that wait for a slow peer
ROOM: Final = 256 << 10  # bytes that may wait when more is to be read for a peer
WRITE_S: Final = 30.0  # seconds in which a peer must take something
_VECTOR = 64  # frames a system call; Linux takes 1024 (IOV_MAX)


class Tasks(Protocol):
    """The nursery that the connection's tasks live in."""

    def start_soon(self, task: Callable[[], Awaitable[object]], /) -> None:
        """Start a task in that nursery."""


class Straight(Protocol):
    """What takes bytes for a peer at once."""

    def send(self, data: bytes, /) -> int:
        """Send what can go without waiting; give how many bytes went. Raises ``OSError`` when none can or it broke."""


class Place(Protocol):
    """Where a way stands to be sent frames at once, with others, by whoever counts for all of them what these are."""

    def settle(self) -> None:
        """Have the way count what it was sent there."""

    def leave(self) -> None:
        """Have it be sent nothing there any more. It exits."""


class Carrier(Protocol):
    """A connected, non-blocking socket, with TLS over it or without. Its methods raise ``OSError`` when it is broken.

    What ``write`` has not taken comes first in the next call, the same bytes: ``begun`` of them may be encrypted
    already, so that nothing else can come in their place.
    """

    @property
    def raw(self) -> socket.socket:
        """The socket itself, to wait for and to shut down."""

    @property
    def straight(self) -> Straight:
        """What does what ``write`` does in the fewest steps: the socket itself, where nothing else is needed."""

    @property
    def begun(self) -> int:
        """How many bytes of what is to be written next the peer gets whatever is done."""

    @property
    def buffered(self) -> bool:
        """Whether ``read`` may have something although the socket has nothing."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Send what can go without waiting; give how many bytes went."""

    def write_several(self, pieces: Sequence[bytes | memoryview], /) -> int:
        """Send what of these, in order, can go without waiting; give how many bytes went."""

    def read(self, max_bytes: int) -> bytes:
        """Give what has come, ``b""`` at the end. Raises ``trio.WouldBlock`` when nothing has."""


class Sending(trio.abc.SendStream):
    """The way to one client.

    Args:
      carrier: what carries the bytes.
      tasks: where the task is that writes what the socket did not take; there is none while nothing waits.
      limit: bytes that may wait.
      together: what waits in all connections.
      write_s: seconds in which the peer must take something.

    Resource handling: it shuts the socket down, but closes nothing.

    Errors: ``offer`` never raises. A peer that is gone, or takes nothing for ``write_s``, is hung up on; ``ended`` then
    says why.
    """

    # A server holds 20,000 of these, and so many attributes in a dictionary take a kilobyte more.
    __slots__ = (
        "_awaited", "_carrier", "_empty", "_flushing", "_gone", "_limit", "_parted", "_places", "_queue", "_room",
        "_taken", "_tasks", "_together", "_torn", "_unsent", "_write_s", "delivered_alone", "ended", "sent_alone",
        "straight",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, tasks: Tasks, *, limit: int, together: Unsent | None, write_s: float) -> None:
        #: Why we ended the connection, where it was not the WebSocket library that did.
        self.ended: CloseCode | None = None
        #: What ``sent`` and ``delivered`` are, without what it was sent at its places and has not counted.
        self.sent_alone = 0
        self.delivered_alone = 0
        #: Where a frame can go at once, with nothing before it; ``None`` while something waits, or nothing may follow.
        self.straight: Straight | None = carrier.straight
        self._carrier = carrier
        self._tasks = tasks
        self._limit = limit
        self._together = together or Unsent(limit)
        self._write_s = write_s
        self._places: dict[Place, None] | None = None  # mostly, and there may be 20,000 of these
        self._queue: list[bytes | memoryview] | None = None  # as well
        self._torn = False  # the first of the queue is the rest of a frame
        self._unsent = 0  # bytes in the queue
        self._flushing = False
        self._taken = 0  # bytes that the socket took of the queue, ever
        self._awaited = 0  # what ``_taken`` must reach for the one who waits
        self._empty: trio.Event | None = None
        self._room: trio.Event | None = None
        self._parted = False  # our Close frame is queued or sent; nothing may follow it
        self._gone = False  # nothing can be sent any more

    def start_soon(self, task: Callable[[], Awaitable[object]]) -> None:
        """Start a task that ends with the connection."""
        self._tasks.start_soon(task)

    def enter(self, place: Place) -> None:
        """Be sent frames at once by somebody else, too, for as long as there is ``straight``."""
        if self._places is None:
            self._places = {}
        self._places[place] = None

    def exit(self, place: Place) -> None:
        """Be sent frames by him no more."""
        if self._places is not None:
            del self._places[place]

    @property
    def sent(self) -> int:
        """Bytes that the socket took."""
        self._settle()
        return self.sent_alone

    @property
    def delivered(self) -> int:
        """Batches of frames that were handed to it."""
        self._settle()
        return self.delivered_alone

    def _settle(self) -> None:
        for place in self._places or ():
            place.settle()

    @property
    def begun(self) -> int:
        """How many bytes of what is to be written next the peer gets whatever is done."""
        return self._carrier.begun

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer."""
        return self._unsent

    @property
    def under_way(self) -> int:
        """Bytes that the system has taken and the peer's has not; 0, too, where it does not tell (tcp(7), SIOCOUTQ)."""
        try:
            return int.from_bytes(fcntl.ioctl(self._carrier.raw, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    @property
    def closing(self) -> bool:
        """Whether a Close frame has been sent or the connection is gone: nothing may be offered any more."""
        return self._gone or self._parted

    def offer(self, frame: bytes, *, beyond: bool = False) -> bool:
        """Send one or more whole frames without waiting; false when they were not taken.

        Frames are taken unless the connection is closing, or frames wait already and these would lift ``unsent`` over
        what may wait (``beyond`` it, if need be). What was taken is sent whole, in order.
        """
        if self._gone or self._parted:
            return False
        if self._unsent and not beyond and self._unsent + len(frame) > self._together.allowed(self._limit):
            return False
        self._push(frame)
        return not self._gone

    def discard(self) -> None:
        """Forget what waits, but for the rest of a frame that the peer has in part: a Close can come next."""
        kept = whole = 0
        queue = self._queue or []
        while kept < max(self.begun, self._torn) and not self._gone:
            kept += len(queue[whole])
            whole += 1
        del queue[whole:]
        self._change_unsent(kept - self._unsent)
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
            self._part()
        self._push(bytes(data))
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

    def hang_up(self, code: CloseCode | None = None) -> None:
        """End the connection at once, with a Close frame of ``code`` if the socket takes it without waiting.

        What waits comes before it. ``code`` is then why the connection ended, if nothing has ended it before.
        """
        if self._gone:
            return
        if code is not None and not self._parted:
            self.ended = self.ended or code
            with contextlib.suppress(OSError):
                self._write()
                if not self._unsent:
                    self._carrier.write(close_frame(code))
        self._gone = True
        self._queue = None
        self._change_unsent(-self._unsent)
        self._wake()
        with contextlib.suppress(OSError):
            self._carrier.raw.shutdown(socket.SHUT_RDWR)  # the reader finds the end of the file

    def _change_unsent(self, by: int) -> None:
        self._unsent += by
        self._together.total += by
        self._turn()

    def _turn(self) -> None:
        """Have frames go straight to the socket if nothing waits, and something may follow; else leave all places."""
        self.straight = None if self._unsent or self._parted or self._gone else self._carrier.straight
        if self.straight is None:
            for place in tuple(self._places or ()):
                place.leave()
            self._places = None

    def _part(self) -> None:
        """Have nothing follow our Close frame, which comes next."""
        self._parted = True
        self._turn()

    def _push(self, data: bytes) -> None:
        """Send whole frames, or have them wait behind what waits."""
        sent = 0
        if not self._unsent:
            try:
                sent = self._carrier.write(data)
            except OSError:
                self.hang_up()
                return
        self.went(data, sent)

    def went(self, data: bytes, sent: int) -> None:
        """Take note of how much of whole frames has been taken; the rest follows."""
        self.sent_alone += sent
        if sent == len(data):
            return
        rest: bytes | memoryview = data
        if sent:
            rest = memoryview(data)[sent:]
            self._torn = True
        if self._queue is None:
            self._queue = []
        self._queue.append(rest)
        self._change_unsent(len(rest))
        if not self._flushing:
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

    async def _flush(self) -> None:
        """Write the queue until it is empty; end the connection when the peer takes nothing for ``write_s``."""
        try:
            while self._queue and not self._gone:
                with trio.move_on_after(self._write_s) as patience:
                    await trio.lowlevel.wait_writable(self._carrier.raw)
                    self._write()
                if patience.cancelled_caught:
                    self.ended = self.ended or CloseCode.TOO_SLOW
                    self.hang_up()
        except (OSError, trio.ClosedResourceError):
            self.hang_up()
        finally:
            self._flushing = False
            self._queue = self._queue or None

    def _write(self) -> None:
        """Write what the socket takes of the queue."""
        while self._queue and (sent := self._carrier.write_several(self._queue[:_VECTOR])):
            self._count(sent)

    def _count(self, sent: int) -> None:
        self._taken += sent
        self.sent_alone += sent
        self._change_unsent(-sent)
        queue = self._queue or []
        whole = 0
        while sent and sent >= len(queue[whole]):
            sent -= len(queue[whole])
            whole += 1
        del queue[:whole]
        self._torn = bool(sent) or (self._torn and not whole)
        if sent:
            queue[0] = memoryview(queue[0])[sent:]
        self._wake()
