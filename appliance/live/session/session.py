"""One WebSocket: its requests are answered one after another, its subscriptions fed by the hub.

A session ends in one way whoever wants it: ``end`` names a close code, stops what is being answered, and a task makes
the closing handshake, within a bound; the receiving ends with it. (A scope of the session's own, to be cancelled while
it receives, would be a thirtieth of what an idle connection takes.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import structlog
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from appliance.errors import CloseCode
from appliance.live.fanout import notices
from appliance.live.fanout.hub import Hub
from appliance.live.fanout.sessions import Sessions, Traffic
from appliance.live.fanout.subscribers import Subscription
from appliance.live.matching.access import Reader
from appliance.live.replay.reading import Reading
from appliance.live.tail.rights import Rights
from appliance.live.tail.tail import Tail
from appliance.live.wire.frames import PING
from appliance.live.wire.outgoing import Outgoing
from appliance.live.wire.sending import ROOM
from appliance.live.wire.unsent import Unsent
from appliance.model import Principal, Topic
from appliance.store.store import Store

log = structlog.get_logger()

#: Seconds for a client of ``?auth=frame`` to send its token.
AUTHENTICATE_S: Final = 10.0
#: Seconds for the closing handshake.
CLOSE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may do: settings, by their names. Rates are requests a second."""

    connections_per_user: int
    subscriptions: int
    requests_per_s: float
    request_burst: int
    user_topics: int
    guest_connections: int
    guest_requests_per_s: float
    guest_request_burst: int
    message_bytes: int


@dataclass(slots=True)
class Backend:
    """What a session works with. ``limits`` may be others while it runs."""

    store: Store
    hub: Hub
    sessions: Sessions
    limits: SessionLimits
    unsent: Unsent
    rights: Rights
    tail: Tail


class Answering(Protocol):
    """What answers a session's requests (``exchange``)."""

    async def authenticate(self, message: str | bytes) -> None:
        """Answer the first frame of a client that has no token yet; only a request that brings one is done."""

    def __call__(self, texts: Sequence[bytes]) -> int:
        """Answer requests right where they are received, as many as need not wait; give how many."""

    async def answer(self, messages: Sequence[str | bytes]) -> None:
        """Answer what came as one message of the WebSocket library."""


class Session:
    """One accepted WebSocket. ``principal`` is ``None`` until the first frame has brought a token."""

    __slots__ = (  # there may be 20,000 of these
        "_answering", "_arrived", "_closed", "_connection", "_missed", "_reader", "backend", "ending", "pinged_at",
        "sends_to", "subscriptions", "up_to_date", "way",
    )  # fmt: skip

    def __init__(
        self, connection: WebSocketConnection, outgoing: Outgoing, backend: Backend, reader: Reader | None
    ) -> None:
        self.backend = backend
        #: By the topic's name, folded.
        self.subscriptions: dict[str, Subscription] = {}
        self.ending: tuple[CloseCode, str] | None = None
        #: The topic of the last message, and with whose rights it was sent: most clients send to one.
        self.sends_to: tuple[Topic, Reader] | None = None
        #: Whether all that was committed when the messages came that are being answered has been taken up.
        self.up_to_date = False
        #: When a ping was sent that nothing has answered yet (``trio.current_time()``).
        self.pinged_at: float | None = None
        self._arrived = 0  # of the bytes that were sent, when it was last looked at since
        #: The way to the client.
        self.way = outgoing
        self._connection = connection
        self._reader: Reader | None = None
        #: While something is answered, what stops it.
        self._answering: trio.CancelScope | None = None
        #: From ``end`` on: that the closing handshake is over.
        self._closed: trio.Event | None = None
        self._missed: Counter[str] | None = None
        if reader is not None:
            self.become(reader)
        else:
            backend.sessions.add(self, None)

    @property
    def authenticated(self) -> bool:
        """Whether it is known whom this session acts for."""
        return self._reader is not None

    @property
    def reader(self) -> Reader:
        """Whom this session acts for, with the groups of now. Only asked once that is known."""
        if self._reader is None:
            raise RuntimeError("no request is answered before the session has a principal")
        return self._reader

    @property
    def principal(self) -> Principal:
        """Whom this session acts for. Only asked once that is known."""
        return self.reader.principal

    def become(self, reader: Reader) -> None:
        """Act for somebody, or for the same with other rights; its subscriptions follow."""
        before, self._reader = self._reader, reader
        self.backend.sessions.expires(reader.principal.expires_at)
        if before is None:
            self.backend.sessions.add(self, (reader.principal.issuer, reader.principal.subject))
        elif (before.groups, before.principal.admin) != (reader.groups, reader.principal.admin):
            self.backend.hub.reassess(tuple(self.subscriptions.values()))

    # -- what others do to it ----------------------------------------------------------------------------

    def deliver(self, frames: bytes) -> bool:
        """Send these WebSocket frames; false when as much waits for the peer as may. Never raises and never waits."""
        self.backend.sessions.end_expired()
        if self.ending is None and self.way.offer(frames):
            self.way.delivered_alone += 1
            return True
        return self.over

    def tell(self, frame: bytes) -> None:
        """Send a notice or a reply, whatever waits already."""
        if self.ending is None:
            self.way.offer(frame, beyond=True)

    def fall_behind(self) -> None:
        """Read from the outbox, at the peer's own pace, what the hub would have fed from its present position on."""
        hub = self.backend.hub
        behind = [each for each in self.subscriptions.values() if each.position is None and hub.is_durable(each.topic)]
        hub.counters.catch_ups += 1
        for subscription in behind:
            hub.detach(subscription)
        self.read_for(Reading(hub, self.backend.store, self, behind, hub.position.id))

    def read_for(self, reading: Reading) -> None:
        """Have subscriptions read for until the hub can feed them."""
        self.way.start_soon(reading.run)

    def missed(self, topic: str, count: int) -> None:
        """Take note that messages of a topic that is not durable were not sent; the client is told when it can be."""
        if self._missed is None:
            self._missed = Counter()
            self.way.start_soon(self._tell_missed)
        self._missed[topic] += count
        self.backend.hub.counters.dropped_messages += count

    async def _tell_missed(self) -> None:
        await self.way.room()
        missed, self._missed = self._missed, None
        for topic, count in (missed or {}).items():
            self.tell(notices.dropped(topic, count))

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.ending is not None or self.way.closing

    @property
    def busy(self) -> bool:
        """Whether more than a little waits for the peer."""
        return self.way.unsent > ROOM

    async def room(self) -> None:
        """Wait until little waits for the peer, or nothing can be sent any more."""
        await self.way.room()

    async def drained(self) -> None:
        """Wait until nothing waits for the peer, or nothing can be sent any more."""
        await self.way.room(0)

    @property
    def traffic(self) -> Traffic:
        """Give what this session has been sent and has sent until now."""
        return Traffic(len(self.subscriptions), self.way.delivered, self.way.sent, self.way.received)

    async def catch_up(self) -> None:
        """Have all taken up that is committed by now: nothing looks at rights again before what is sent is delivered.

        Nor at the time: who has a token that has ended meanwhile neither sends it nor is told.
        """
        await self.backend.tail.caught_up()
        self.backend.sessions.end_expired()
        await trio.lowlevel.checkpoint_if_cancelled()
        self.up_to_date = True

    def forget(self, topic: str) -> None:
        """Take note that the subscription to ``topic`` (folded) has ended without the client's asking."""
        self.part_with(topic)

    def part_with(self, topic: str) -> Subscription | None:
        """Give the subscription to ``topic`` (folded), which is none of this session's any more.

        How many of its messages were not sent is told now: behind what says that it has ended, it would be another's.
        """
        subscription = self.subscriptions.pop(topic, None)
        if subscription is not None and self._missed and (count := self._missed.pop(subscription.topic, 0)):
            self.tell(notices.dropped(subscription.topic, count))
        return subscription

    def end(self, code: CloseCode, reason: str) -> None:
        """Close this session with ``code``, and deliver nothing more to it. The first reason counts."""
        if self.ending is None:
            self.ending = (code, reason)
            self._leave()  # at once: who has lost his rights is told nothing that comes before the Close
            if self._answering is not None:
                self._answering.cancel()
            if not self.way.closing:  # else it ends already, and soon no task can be started
                self._closed = trio.Event()
                self.way.start_soon(partial(self._close, code, reason, self._closed))

    def _leave(self) -> None:
        # None is kept: for as long as the peer takes to close, other rights would subscribe it again.
        subscriptions, self.subscriptions = self.subscriptions, {}
        for subscription in subscriptions.values():
            self.backend.hub.unsubscribe(subscription)

    def check(self, now: float, ping_every_s: float, pong_within_s: float) -> None:
        """End the session if its peer is silent; ping it when it is time.

        ``now`` is ``trio.current_time()``. Called about every second for every session.
        """
        if not self.way.listening:
            self.way.last_received = now  # it may have said anything: how long it is silent is counted from here on
        heard = self.way.last_received
        if self.pinged_at is not None and heard < self.pinged_at:
            if now - self.pinged_at >= pong_within_s:
                under_way, before = self.way.under_way, self._arrived
                self._arrived = self.way.sent - under_way
                if under_way and self._arrived > before:
                    self.pinged_at = now  # it is on a slow line, and has not come to the ping
                else:
                    self.end(CloseCode.TOO_SLOW, "no answer to a ping")
        elif now - heard >= ping_every_s and not self.way.unsent:
            # Behind unsent data a ping would wait, too; whether such a peer lives, the write deadline tells.
            self.pinged_at = now
            self.way.offer(PING)
            self._arrived = self.way.sent - self.way.under_way

    # -- its life ----------------------------------------------------------------------------------------

    async def run(self, exchange: Answering, renewed: int) -> None:
        """Answer requests until the client leaves or ``end`` is called, and the connection is closed.

        ``renewed`` is what ``Access.renewed`` was before its token was looked at: if rights have changed since, they
        are read anew. Raises ``sqlite3.Error`` when they cannot be read.
        """
        try:
            if renewed != self.backend.hub.access.renewed:
                await self.backend.rights.renew_of(self)
            if self._reader is None:
                await self._await_token(exchange)
            self.way.answer_at_once(exchange)
            while True:  # and no variable here keeps the last message
                await self._answer(exchange, self.way.apart(await self._connection.get_message()))
        except (ConnectionClosed, trio.BrokenResourceError):
            if self.way.ended is CloseCode.TOO_SLOW and self.ending is None:
                self.ending = (CloseCode.TOO_SLOW, "")
        finally:
            self.way.answer_at_once(None)
            self.backend.hub.flush()  # what this session has sent to others
            self.backend.sessions.remove(self)
            self._leave()
        if self._closed is not None:
            await self._closed.wait()

    async def _answer(self, exchange: Answering, messages: Sequence[str | bytes]) -> None:
        self.backend.sessions.end_expired()
        if self.ending is not None:
            return
        with trio.CancelScope() as self._answering:
            await exchange.answer(messages)
        self._answering = None

    async def _close(self, code: CloseCode, reason: str, closed: trio.Event) -> None:
        """Make the closing handshake; it ends the receiving, too, whatever comes of it."""
        if code in (CloseCode.TOO_SLOW, CloseCode.POSITION_LOST):
            self.way.discard()
        try:
            with trio.move_on_after(CLOSE_S):
                await self._connection.aclose(int(code), reason)
        finally:
            closed.set()

    async def _await_token(self, exchange: Answering) -> None:
        """Read the first frame, which must bring a token."""
        others: Sequence[str | bytes] = ()
        with trio.move_on_after(AUTHENTICATE_S):
            message, *others = self.way.apart(await self._connection.get_message())
            await exchange.authenticate(message)
        if self._reader is None:
            self.end(CloseCode.TOKEN_EXPIRED, "the first frame must be authenticate, with a token that is valid")
        await self._answer(exchange, others)
