"""HTTP/1.1 on one connection: heads, bodies and answers, one request after another (h11 knows the rules)."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Final

import h11
import trio

from appliance.errors import BadRequest, TooLarge
from appliance.live.wire.room import SHORT, Room
from appliance.web.forwarded import Caller, Proxies
from appliance.web.head import Request, path_of, read_head
from appliance.web.limits import Limits
from appliance.web.problem import Refused, error_answer, unavailable
from appliance.web.wire import Hangup, Wire

READ_SIZE: Final = 16 << 10  # bytes a read
#: Of a body that nobody wanted this much is read so that the connection can go on; else it is closed.
_UNWANTED = 256 << 10  # bytes
_UNWANTED_S = 1.0

#: A proxy may have gone by the other one, and then what comes behind is not what it let through (RFC 9112, 6.1).
_LENGTHS: Final = {b"content-length", b"transfer-encoding"}

Headers = Iterable[tuple[bytes, bytes]]
_NOWHERE: Final[Mapping[str, str]] = {}


class Traffic:
    """What the connections of one door have in common: who waits for a request, and whether it is the end.

    ``answers`` counts what they are answered, by status. ``proxies`` may speak for others. ``beyond``: they are more
    than there may be, and each is answered once. ``draining``: an answer is the last of its connection. ``stopping``:
    the server stops. ``room`` is for what their requests hold: long bodies, theirs and those of answers.
    """

    def __init__(self, answers: Counter[int], proxies: Proxies, room: Room, *, beyond: bool = False) -> None:
        self.proxies = proxies
        self.answers = answers
        self.room = room
        self.beyond = beyond
        self.draining = beyond
        self.stopping = False
        self._waiting: set[trio.CancelScope] = set()

    def stop(self) -> None:
        """Wait for no request any more, nor for the rest of one's head; who sends one is told that the server stops."""
        self.draining = self.stopping = True
        for scope in tuple(self._waiting):
            scope.cancel()

    @contextlib.contextmanager
    def waiting(self, seconds: float) -> Iterator[trio.CancelScope]:
        """Wait for a client that has asked for nothing yet: for so long, and not at all once the server stops."""
        with trio.move_on_after(0 if self.stopping else seconds) as scope:
            self._waiting.add(scope)
            try:
                yield scope
            finally:
                self._waiting.discard(scope)


class Http:
    """The requests of one connection."""

    def __init__(self, wire: Wire, limits: Limits, traffic: Traffic) -> None:
        self.wire = wire
        self.limits = limits
        self._traffic = traffic
        self._engine: h11.Connection | None = None  # none for most WebSockets
        self._read = b""  # a head that was read without it
        self._behind = b""  # and what came behind that
        self._target = b""  # what the present request asks for, once that is known
        self._patience_s = limits.head_s
        self._bodiless = False
        self._changing = False  # whether the request may have changed something
        self._body_left = 0
        self._held = 0  # bytes of bodies that stay in memory for the present request
        self._lines: Headers = ()  # of the present request
        self._body_deadline = 0.0

    def caller(self, headers: Headers) -> Caller:
        """Say who sends the request with these headers: the peer, or whom a trusted proxy speaks for."""
        return self._traffic.proxies.caller(Caller(*self.wire.remote, self.wire.stream.secure), headers)

    @property
    def beyond(self) -> bool:
        """Whether this connection is one too many."""
        return self._traffic.beyond

    # -- reading -----------------------------------------------------------------------------------------

    @property
    def _h11(self) -> h11.Connection:
        if self._engine is None:
            self._engine = h11.Connection(h11.SERVER, max_incomplete_event_size=self.limits.head_bytes)
            if self._read:
                self._engine.receive_data(self._read + self._behind)
                self._engine.next_event()
        return self._engine

    async def request(self) -> Request | None:
        """Wait for the next request's head; ``None`` when the peer has no more. Raises ``Refused``, ``Hangup``."""
        self._target = b""
        if self._engine is None or not self._engine.trailing_data[0]:
            # A new connection's request is there as a rule, and needs no deadline.
            data = self.wire.receive_nowait(READ_SIZE) if self._engine is None else None
            if data is None:
                with self._traffic.waiting(self._patience_s) as idle:
                    data = await self.wire.receive(READ_SIZE)
                if idle.cancelled_caught and (data := self.wire.receive_nowait(READ_SIZE)) is None:
                    return None  # and nothing has come at the last moment
            if self._engine is None and (found := read_head(data, self.limits.head_bytes)) is not None:
                upgrade, end = found
                self._read, self._behind = data[:end], data[end:]
                return self._begun(upgrade)
            self._h11.receive_data(data)
        event = self._parsed()
        if event is None:  # as a rule a head comes whole, and needs no deadline
            with self._traffic.waiting(self.limits.head_s) as head:
                event = await self._next_event()
            if head.cancelled_caught:
                self._check_stopping()
                raise Refused(408, BadRequest.code, "the request's head did not come in time")
        if not isinstance(event, h11.Request):
            return None
        self._target = event.target
        if (
            len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
            > self.limits.head_bytes
        ):
            raise self._too_long()
        if {name for name, _ in event.headers} >= _LENGTHS:
            raise Refused(400, BadRequest.code, "a body has a Content-Length or a Transfer-Encoding, not both")
        return self._begun(event)

    def _too_long(self) -> Refused:
        most = self.limits.head_bytes
        message = f"a request's head, which is its address and its headers, may have {most} bytes (head_bytes)"
        return Refused(431, TooLarge.code, message)

    def _check_stopping(self) -> None:
        if self._traffic.stopping:
            raise unavailable("the server stops or restarts; try again in a moment")

    def _begun(self, request: Request) -> Request:
        self._check_stopping()
        self._target, self._lines = request.target, request.headers
        self._patience_s = self.limits.idle_s
        self._bodiless = request.method == b"HEAD"
        self._changing = request.method not in (b"GET", b"HEAD")
        self._body_left = self.limits.body_bytes
        self._body_deadline = trio.current_time() + self.limits.body_s
        return request

    async def body(self) -> bytes | None:
        """Give the next piece of the request's body, ``None`` at its end. Raises ``Refused``, ``Hangup``."""
        if self._h11.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        with trio.move_on_at(self._body_deadline) as patience:
            event = await self._next_event()
        if patience.cancelled_caught:
            raise Refused(408, BadRequest.code, "the request's body did not come in time")
        if not isinstance(event, h11.Data):
            return None
        self._body_left -= len(event.data)
        if self._body_left < 0:
            raise self.too_large()
        if not self._hold(len(event.data)):
            raise _full()
        return bytes(event.data)

    def too_large(self) -> Refused:
        """Give the refusal of a body over the limit."""
        return Refused(413, TooLarge.code, f"a request's body may have {self.limits.body_bytes} bytes")

    def _hold(self, size: int) -> bool:
        """Count what of a body stays in memory; whether there is room for it beside what other requests hold."""
        self._held += size
        return self._held <= SHORT or self._traffic.room.take(self, self._held, self.caller(self._lines).address)

    def let_go(self) -> None:
        """Hold no body any more: the request is answered, or never will be."""
        self._traffic.room.let_go(self)
        self._held, self._lines = 0, ()

    def no_body(self) -> bool:
        """Whether the request had none; asked once, right after its head."""
        if self._engine is None:
            return True
        return isinstance(self._h11.next_event(), h11.EndOfMessage)

    async def hung_up(self) -> None:
        """Wait until the peer is gone. What it sends meanwhile is kept for the next request."""
        while True:
            early, ended = self._h11.trailing_data
            if ended:
                return
            if len(early) > READ_SIZE:  # enough: it will not be read before this request is answered
                await trio.sleep_forever()
            try:
                self._h11.receive_data(await self.wire.receive(READ_SIZE))
            except Hangup:
                return

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._parsed()) is None:
            self._h11.receive_data(await self.wire.receive(READ_SIZE))
        return event

    def _parsed(self) -> h11.Event | type[h11.PAUSED] | None:
        """Give what has come as an event; ``None`` when more must come first. Raises ``Refused``."""
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            if status == 431:
                raise self._too_long() from None
            if status == 501:
                raise Refused(501, BadRequest.code, "the only transfer coding known here is chunked") from None
            raise Refused(400, BadRequest.code, "that is not an HTTP/1.1 request") from None
        return event if not isinstance(event, type) or event is h11.PAUSED else None

    # -- answering ---------------------------------------------------------------------------------------

    @property
    def answering(self) -> bool:
        """Whether an answer to the present request has begun."""
        return self._engine is not None and self._engine.our_state not in (h11.IDLE, h11.SEND_RESPONSE)

    @property
    def answered(self) -> bool:
        """Whether the present request's answer is complete."""
        return self._h11.our_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    async def answer(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Answer the present request with ``body``. Raises ``Hangup``."""
        await self.begin(status, [*headers, (b"content-length", b"%d" % len(body))], body, more=False)

    async def problem(
        self, status: int, code: str, message: str, headers: Headers = (), *, source: Mapping[str, str] = _NOWHERE
    ) -> None:
        """Answer the present request with a JSON error. ``source``: what of it is at fault. Raises ``Hangup``."""
        # Of a head that is none, or too long, what has come says as a rule what is asked for.
        target = self._target or self._h11.trailing_data[0].partition(b" ")[2].partition(b" ")[0]
        media_type, body = error_answer(path_of(target)[0], status, code, message, source)
        await self.answer(status, (*headers, (b"content-type", media_type.encode())), body)

    async def refuse(self, refused: Refused) -> None:
        """Answer with a refusal and say that the connection ends. Raises ``Hangup``."""
        if not self.answering:
            await self.problem(refused.status, refused.code, refused.message, (*refused.headers, _CLOSE))

    async def begin(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        """Send an answer's head and the first of its body, in one write. Raises ``Hangup``.

        Raises ``Refused`` for a long body that there is no room for until the peer has taken it. Where something may
        have been changed that would not be true: there is no answer then, as with any connection that is lost.
        """
        if len(body) > SHORT and not self._hold(len(body)):
            raise Hangup("there is no room for the answer") if self._changing else _full()
        lines = [*headers, (b"date", _date())]
        if self._traffic.draining and _CLOSE not in lines:
            lines.append(_CLOSE)
        self._bodiless = self._bodiless or status in (204, 304)
        self._traffic.answers[status] += 1
        head = self._h11.send(h11.Response(status_code=status, headers=lines, reason=_REASONS.get(status, b""))) or b""
        await self.wire.send(head + self._body(body, more=more))

    async def proceed(self, body: bytes, *, more: bool) -> None:
        """Send the next piece of the body, or the last. Raises ``Hangup``."""
        data = self._body(body, more=more)
        if data:
            await self.wire.send(data)

    def _body(self, body: bytes, *, more: bool) -> bytes:
        data = b""
        if body and not self._bodiless:
            data = self._h11.send(h11.Data(data=body)) or b""
        if not more:
            data += self._h11.send(h11.EndOfMessage()) or b""
        return data

    async def _send(self, event: h11.Event) -> None:
        await self.wire.send(self._h11.send(event) or b"")

    # -- from one request to the next --------------------------------------------------------------------

    async def next(self) -> bool:
        """Make ready for the next request; false when the connection is to be closed."""
        if self._h11.our_state is not h11.DONE or self._traffic.draining:
            return False
        if self._h11.their_state is h11.SEND_BODY and not self._h11.they_are_waiting_for_100_continue:
            unwanted = 0
            with trio.move_on_after(_UNWANTED_S):
                while unwanted < _UNWANTED and isinstance(event := await self._next_event(), h11.Data):
                    unwanted += len(event.data)
        if self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    def leave(self) -> bytes:
        """Leave HTTP for another protocol: give what the peer sent behind its request."""
        return self._behind if self._engine is None else self._engine.trailing_data[0]


def _full() -> Refused:
    return unavailable(
        "the server holds as much as it may of what others, or others of your address, send or have yet to take; "
        "try again soon"
    )


_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}
_CLOSE = (b"connection", b"close")
_clock: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """Give the time as RFC 9110 section 6.6.1 wants it, made once a second."""
    global _clock
    now = int(time.time())
    if _clock[0] != now:
        # Not by email.utils, which brings 0.3 MiB of other modules. The locale is C's: nobody sets another.
        _clock = (now, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode())
    return _clock[1]
