"""The bytes of one WebSocket, between trio-websocket and the socket or TLS.

All that is sent to a client passes here, so a ready frame may be written straight to an idle socket, while
trio-websocket's own pongs and closes stay whole and in their place (``sending``). All that comes from the client passes
the frame gate, and the client gets a Close frame that says why, whichever side found the fault.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Final

import trio
from trio_websocket import WebSocketConnection

from appliance.errors import CloseCode
from appliance.live.wire.frames import FrameGate, Violation, close_frame
from appliance.live.wire.sending import OUTGOING_LIMIT, WRITE_S, Carrier, Sending, Tasks
from appliance.live.wire.unsent import Unsent

UNANSWERED: Final = 64 << 10  # bytes of whole messages that wait to be answered when more is read
LINGER_S: Final = 2.0  # seconds for a Close frame to be taken and the peer to hang up
DRAIN_LIMIT: Final = 32 << 20  # bytes that are read and thrown away meanwhile
READ_SIZE: Final = 64 << 10  # bytes a read, where the reader names no other bound


class Outgoing(Sending, trio.abc.Stream):
    """The stream under one WebSocket, and the way for ready frames to it.

    Args:
      carrier: what carries the bytes, with the connection's own socket.
      tasks: where the task is that writes what the socket did not take; there is none while nothing waits.
      head: an upgrade request in our own words, the first thing that the WebSocket library reads.
      early: what the client sent behind its request.

    Resource handling: it shuts the socket down, but closes nothing; who opened the socket closes it, after the
    nursery of ``tasks`` has ended.

    Errors: ``offer`` never raises. A peer that is gone, or takes nothing for ``write_s``, ends the reader with
    an end of file, so that ``get_message`` raises ``ConnectionClosed``; ``ended`` then says why.
    """

    __slots__ = (
        "_all_answered", "_answered", "_connection", "_finished", "_gate", "_head", "_opened", "_reading",
        "_unanswered", "last_received", "received",
    )  # fmt: skip

    def __init__(
        self,
        carrier: Carrier,
        *,
        tasks: Tasks,
        head: bytes,
        early: bytes = b"",
        gate: FrameGate | None = None,
        limit: int = OUTGOING_LIMIT,
        together: Unsent | None = None,
        write_s: float = WRITE_S,
    ) -> None:
        super().__init__(carrier, tasks, limit=limit, together=together, write_s=write_s)
        #: Bytes that the peer has sent, and when it was last heard (``trio.current_time()``).
        self.received = 0
        self.last_received = trio.current_time()
        self._head = head
        self._gate = gate or FrameGate()
        self._gate.feed(early)
        self._answered = 0  # messages
        self._unanswered = 0  # bytes let through since all messages were answered
        self._all_answered: trio.Event | None = None
        self._connection: WebSocketConnection | None = None
        self._opened: trio.Event | None = trio.Event()
        self._reading = False
        self._finished: trio.Event | None = None

    def open(self, connection: WebSocketConnection) -> None:
        """Let the client's frames in, now that the handshake is answered.

        Not before: a client that broke the protocol at once would be gone before ``connection`` could be asked why.
        """
        self._connection = connection
        if self._opened is not None:
            self._opened.set()
            self._opened = None

    # -- what we receive ---------------------------------------------------------------------------------

    def apart(self, message: str | bytes) -> list[str] | list[bytes]:
        """Give what the peer sent as one message of the WebSocket library; asked once for each, in order."""
        return self._gate.apart(message)

    def answer_at_once(self, answer: Callable[[Sequence[bytes]], int] | None) -> None:
        """Put requests to ``answer`` before the WebSocket library reads them: it says how many it has answered."""
        self._gate.answer = answer

    @property
    def listening(self) -> bool:
        """Whether the peer is listened to: not while so much of what it has sent waits to be answered as may."""
        return self._reading or self.idle

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
        self._gate.answered()
        self._read_on()
        return True

    def _read_on(self) -> None:
        if self._all_answered is not None:
            self._all_answered.set()
            self._all_answered = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Give the upgrade request first, then what the gate lets through; ``b""`` when the connection is over."""
        if self._head:
            head, self._head = self._head, b""
            return head
        if self._opened is not None:
            await self._opened.wait()
        elif self._gate.holds:
            await trio.lowlevel.checkpoint()
        while not self._gone:
            if self._parted or (self._connection is not None and self._connection.closed is not None):
                self._gate.closing = True  # a Close is sent or about to be, and the library fails at the next ping
            try:
                passed = self._gate.take()  # no checkpoint from here to the WebSocket library: see FrameGate
            except Violation as violation:
                await self._finish(violation.code, violation.reason)
                break
            if passed:
                self._unanswered += len(passed)
                return passed
            if self._unanswered > UNANSWERED and not self.idle and not self._parted:
                self._all_answered = trio.Event()
                await self._all_answered.wait()
                continue
            self._reading = True
            try:
                # With no frame of the carrier's to be kept for as long as the peer is silent.
                if self._carrier.buffered:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._carrier.raw)
                data = self._carrier.read(max_bytes or READ_SIZE)
            except trio.WouldBlock:
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

    def _part(self) -> None:
        super()._part()
        self._read_on()  # nothing is answered any more, and the peer's Close stands behind what was not

    def hang_up(self, code: CloseCode | None = None) -> None:
        """End the connection at once; with a Close frame of ``code`` only once the handshake is answered."""
        super().hang_up(code if self._opened is None else None)
        self._read_on()  # the reader finds the end
        self._gate.let_go()
        # It knows this stream, too: two that know each other are freed by the garbage collector only, a third of the
        # cost of a client that comes and goes.
        self._connection = None

    async def aclose(self) -> None:
        """End the connection within ``LINGER_S``, so that the peer gets what was sent; once is enough.

        The WebSocket library closes without a Close frame when a client broke the protocol: it is sent here.
        """
        reason = self._connection.closed if self._connection is not None else None
        if reason is not None and reason.code in _FAULTS:
            await self._finish(CloseCode(reason.code), reason.reason or "")
        else:
            await self._finish(None)

    async def _finish(self, code: CloseCode | None, reason: str = "") -> None:
        if self._finished is not None:
            await self._finished.wait()
            return
        self._finished = trio.Event()
        try:
            with trio.move_on_after(LINGER_S), contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if code is not None and not self.closing:
                    self.ended = self.ended or code
                    self._part()
                    self._push(close_frame(code, reason))
                await self._sent()
                if not self._gate.closed:
                    await self._drain()
        finally:
            self.hang_up()
            self._finished.set()

    async def _drain(self) -> None:
        """Read and forget until the peer hangs up: closing on unread bytes is a reset, which eats our Close."""
        raw = self._carrier.raw
        left = DRAIN_LIMIT
        with contextlib.suppress(OSError):  # of a peer that is gone, too
            raw.shutdown(socket.SHUT_WR)  # under TLS too: the Close frame is the end that counts
            while left > 0 and not self._reading:
                await trio.lowlevel.wait_readable(raw)
                data = raw.recv(READ_SIZE)  # not decrypted: nobody wants it
                if not data:
                    break
                left -= len(data)


_FAULTS = frozenset((CloseCode.PROTOCOL_ERROR, CloseCode.UNSUPPORTED_DATA, CloseCode.INVALID_TEXT, CloseCode.TOO_BIG))
