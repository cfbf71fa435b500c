"""Who is subscribed to what, and what happens to an event: everything between the tail and the sockets.

The hub is synchronous. No method awaits, so between two awaits of anybody it is always whole. Each subscription is
either *fed* by the hub – then everything up to ``position`` that concerns it has been handed to its receiver – or *read
for* by a ``Reading``, up to a position of its own. It changes from one to the other at one moment, at one position:

* ``attach`` takes a subscription whose own position is the hub's: all before was read, all after will be fed.
* A receiver that refuses what it is fed is left where it was: at the position before, for a reading to go on from.

So there is neither a gap nor a double, at any moment, and that is all the reason there has to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import trio

from appliance.counters import Counters
from appliance.errors import BadFilter, BadRequest, UnknownTopic
from appliance.live import notices
from appliance.live.access import Access
from appliance.live.audience import Audience, Wish
from appliance.live.notices import RESYNC, TABLE_DROPPED, TOPIC_DESTROYED
from appliance.live.recent import Recent
from appliance.live.subscribers import Receiver, Subscribers, Subscription
from appliance.live.telling import Facts, Told
from appliance.model import Change, Message, Position, Shape, Topic, ascii_fold
from appliance.protocol.permissions import Verb
from appliance.protocol.values import ValueOptions
from appliance.store.snapshot import Condition
from appliance.store.store import Catalog, Settings

#: What is handed to one receiver at a stretch, bytes: one that refuses it is left before all of it.
STRETCH: Final = 256 << 10


class Hub:
    """All topics, all subscriptions, and the position up to which everything has been delivered."""

    def __init__(
        self,
        catalog: Catalog,
        position: Position,
        options: ValueOptions,
        access: Access,
        counters: Counters | None = None,
    ) -> None:
        self.position = position
        self.counters = counters or Counters()
        #: The store's generation that this is the picture of; the tail compares it with each look.
        self.generation = catalog.settings.generation
        self.recent = Recent(position.id)
        self.access = access
        self.options = options
        #: Every shape that an event may have, by its id.
        self.shapes: Mapping[int, Shape] = catalog.shapes
        self._newest_generation = catalog.settings.generation
        self._tables: dict[str, Shape] = dict(catalog.tables)
        self._topics: dict[str, Topic] = dict(catalog.settings.topics)
        self._subscribers = Subscribers()
        self._passing: list[tuple[Audience[Subscription], bytes]] = []
        self._awaited: list[tuple[int, trio.Event]] = []

    # -- topics ------------------------------------------------------------------------------------------

    def table(self, name: str) -> Shape | None:
        """Give the table of that name, compared without ASCII case."""
        return self._tables.get(ascii_fold(name))

    def topic(self, name: str) -> Topic | None:
        """Give the user topic of that name, compared without ASCII case."""
        return self._topics.get(ascii_fold(name))

    def tables(self) -> list[Shape]:
        """Give all tables."""
        return list(self._tables.values())

    def topics(self) -> list[Topic]:
        """Give all user topics."""
        return list(self._topics.values())

    def topics_of(self, owner: str) -> int:
        """Count the user topics of an owner."""
        return sum(topic.owner == owner for topic in self._topics.values())

    def is_durable(self, name: str) -> bool:
        """Whether what happens in a topic can be read again."""
        topic = self.topic(name)
        return topic is None or topic.durable

    def add_topic(self, topic: Topic, generation: int) -> None:
        """Take a user topic up that the store has committed as its ``generation``."""
        self._step(generation)
        self._topics.setdefault(ascii_fold(topic.name), topic)

    def end_topic(self, name: str, generation: int) -> None:
        """Drop a user topic whose end the store has committed, and tell its subscribers."""
        self._step(generation)
        self._end_topic(name, "destroyed")

    def _step(self, generation: int) -> None:
        # Only the very next generation is known to hold nothing else that is new.
        if generation == self.generation + 1:
            self.generation = generation
        self._newest_generation = max(self._newest_generation, generation)

    def _end_topic(self, name: str, reason: str) -> None:
        topic = self._topics.pop(ascii_fold(name), None)
        if topic is not None:
            self._end(topic.name, TOPIC_DESTROYED, reason)

    def refresh(self, catalog: Catalog) -> None:
        """Take over what the store says there is now; tell everybody whose ground has moved."""
        self.flush()
        self.shapes = catalog.shapes
        for name in catalog.taken:
            self._end_topic(name, "table")
        self.refresh_topics(catalog.settings)
        before, self._tables = self._tables, dict(catalog.tables)
        for folded, shape in before.items():
            now = self._tables.get(folded)
            if now is None:
                unwatched = folded in catalog.settings.unwatched
                self._end(shape.table, TABLE_DROPPED, "unwatched" if unwatched else "dropped")
            elif now.id != shape.id or now.table in catalog.changed:
                self._reshape(now)

    def refresh_topics(self, settings: Settings) -> None:
        """Take over which user topics there are; tell those whose topic is gone."""
        # Settings from before a topic of our own was made or ended must not undo it; newer ones will come.
        if settings.generation >= self._newest_generation:
            for folded in [folded for folded in self._topics if folded not in settings.topics]:
                self._end_topic(folded, "destroyed")
            self._topics = dict(settings.topics)
        self.generation = settings.generation

    def _end(self, name: str, event_type: str, reason: str) -> None:
        frame = notices.because(event_type, name, reason)
        for subscription in self._subscribers.forget(name):
            self._drop(subscription, frame)

    @staticmethod
    def _drop(subscription: Subscription, frame: bytes) -> None:
        subscription.ended = True
        subscription.receiver.forget(ascii_fold(subscription.topic))
        subscription.receiver.tell(frame)

    def _reshape(self, shape: Shape) -> None:
        """Compile the filters of a table's subscribers for its new shape, and tell them that it has changed."""
        resync = notices.because(RESYNC, shape.table, "schema")
        for subscription in self._subscribers.forget(shape.table):
            reader = subscription.receiver.reader
            try:
                self._subscribers.join(subscription, shape, reader, self.access.sight(reader, shape))
            except BadFilter as error:
                # Its column is gone: nothing can be matched any more, and silence would look like quiet.
                self._drop(subscription, notices.because(TABLE_DROPPED, shape.table, "filter", message=error.message))
            else:
                self.counters.resyncs += 1
                subscription.receiver.tell(resync)

    def lost(self, highest: int) -> None:
        """Tell every subscriber that events up to ``highest`` are gone before they could be read."""
        self.position = Position(self.position.epoch, highest)
        self.recent.forget(highest)
        for folded in self._subscribers.topics():
            for subscription in self._subscribers.of(folded):
                self.counters.resyncs += 1
                subscription.receiver.tell(notices.because(RESYNC, subscription.topic, "overrun"))
        self._wake()

    # -- subscriptions -----------------------------------------------------------------------------------

    def subscribe(self, receiver: Receiver, name: str, wish: Wish) -> Subscription:
        """Take a subscription up that waits at the hub's position: to be attached, or to be read for first.

        Raises ``UnknownTopic`` – also for what the receiver may not know of –, ``BadFilter`` and ``BadRequest``.
        """
        reader, folded = receiver.reader, ascii_fold(name)
        shape, topic = self._tables.get(folded), self._topics.get(folded)
        if shape is not None and self.access.may_on_table(reader, Verb.PEEK, shape):
            if wish.live_set and "EventType" in wish.filters:
                raise BadFilter('a live set takes no "EventType": rows enter and leave it whatever the statement was')
            spelled, sight = shape.table, self.access.sight(reader, shape)
        elif shape is None and topic is not None and self.access.may_on_topic(reader, Verb.PEEK, topic):
            if wish.live_set or wish.old:
                raise BadRequest(f'"snapshot" and "old" are for tables, and "{topic.name}" is a user topic')
            spelled, sight = topic.name, self.access.topic_sight(reader, topic)
        else:
            raise UnknownTopic(f'there is no topic "{name}"', topic=name)
        self.flush()
        subscription = Subscription(receiver, spelled, wish, self.position.id)
        self._subscribers.join(subscription, shape, reader, sight)
        return subscription

    def attach(self, subscription: Subscription) -> None:
        """Feed a subscription from now on. Everything up to the hub's position has been read for it."""
        if subscription.position != self.position.id:
            raise RuntimeError("a subscription can be fed only from where it has been read to")
        self._subscribers.feed(subscription)

    def detach(self, subscription: Subscription) -> None:
        """Feed a subscription no more: what comes after the hub's position is to be read for it."""
        self._subscribers.wait(subscription, self.position.id)

    def rows_of(self, subscription: Subscription, shape: Shape) -> Condition:
        """Say which of a table's rows a subscription is shown."""
        wanted = subscription.audience.row_filter(shape)
        return self.access.rows(subscription.audience.reader, shape, wanted)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Deliver nothing more to this subscription. One that has ended by itself may be given, too."""
        if not subscription.ended:
            subscription.ended = True
            self._subscribers.leave(subscription)

    def by_row(self) -> set[str]:
        """Name (folded) the topics of which somebody may read what the rows say."""
        return self._subscribers.by_row()

    async def reached(self, position: int) -> None:
        """Wait until everything up to ``position``, which is in the store, has been delivered."""
        while self.position.id < position:
            reached = trio.Event()
            self._awaited.append((position, reached))
            await reached.wait()

    # -- events ------------------------------------------------------------------------------------------

    def publish(self, events: Sequence[Told], highest: int, size: int, facts: Facts) -> None:
        """Deliver what comes next in the outbox, in its order; from now on ``highest`` is the position.

        ``size`` is about how many bytes of values it holds. Each receiver gets a stretch of it at one stroke; before
        one that refuses, the position is that of the stretch before.
        """
        self.flush()
        due: list[tuple[Audience[Subscription], bytes]] = []
        owed: dict[Audience[Subscription], int] = {}
        for told in events:
            most = 0
            for audience, frame in self._told(told, facts):
                due.append((audience, frame))
                owed[audience] = size_owed = owed.get(audience, 0) + len(frame)
                most = max(most, size_owed)
            if most > STRETCH:
                self._hand_out(due)
                due.clear()
                owed.clear()
                self.position = Position(self.position.epoch, told.id)
        self._hand_out(due)
        self.position = Position(self.position.epoch, highest)
        self.recent.add(events, highest, size)
        self._wake()

    def broadcast(self, message: Message) -> None:
        """Deliver a message that is not durable, with the next ``flush``: several at one stroke."""
        self.counters.passing_messages += 1
        self._passing += self._told(Told(message), {})

    def flush(self) -> None:
        """Hand out the messages that are not durable."""
        if self._passing:
            passing, self._passing = self._passing, []
            self._hand_out(passing, passing=True)

    def frame(self, subscription: Subscription, told: Told, facts: Facts) -> bytes | None:
        """Give the frame by which one subscription is told of an event; ``None``: it does not concern it."""
        if told.topic != ascii_fold(subscription.topic):
            return None
        return self._frame(subscription.audience, told, facts)

    def _told(self, told: Told, facts: Facts) -> list[tuple[Audience[Subscription], bytes]]:
        """Give who is to be told of an event, and in which frame."""
        audiences = self._subscribers.audiences(told.topic)
        if audiences is None:
            return []
        event = told.event
        if isinstance(event, Change):
            current = self._tables.get(told.topic)
            if current is not None and current.id == event.shape.id:
                concerned = audiences.concerned_by_change(event, self.access, facts)
            else:
                concerned = audiences  # the index is of another shape
        else:
            concerned = audiences.concerned_by_message(told)
        found = []
        for audience in concerned:
            if audience.members:
                frame = self._frame(audience, told, facts)
                if frame is not None:
                    found.append((audience, frame))
                    self.counters.delivered[told.kind] += len(audience.members)
        return found

    def _frame(self, audience: Audience[Subscription], told: Told, facts: Facts) -> bytes | None:
        if isinstance(told.event, Change):
            form = audience.form(told.event, self.access, facts)
            return None if form is None else told.change(form, self.options)
        return told.message() if told.topic in self._topics and audience.admits(told) else None

    def _hand_out(self, due: Sequence[tuple[Audience[Subscription], bytes]], *, passing: bool = False) -> None:
        """Hand frames to all members of their audiences, to each receiver all of its own at one stroke, in order."""
        by_audience: dict[Audience[Subscription], list[bytes]] = {}
        for audience, frame in due:
            by_audience.setdefault(audience, []).append(frame)
        if len(by_audience) == 1:
            ((audience, own),) = by_audience.items()
            payload = b"".join(own)
            for subscription in tuple(audience.members):
                if not subscription.receiver.deliver(payload):
                    self._left(subscription.receiver, (subscription,), by_audience, passing)
            return
        several: dict[Receiver, list[Subscription]] = {}
        for audience in by_audience:
            for subscription in audience.members:
                several.setdefault(subscription.receiver, []).append(subscription)
        payloads: dict[frozenset[Audience[Subscription]], bytes] = {}
        for receiver, subscriptions in several.items():
            whose = frozenset([each.audience for each in subscriptions])
            joined = payloads.get(whose)
            if joined is None:
                if len(whose) == 1:
                    joined = b"".join(by_audience[subscriptions[0].audience])
                else:
                    joined = b"".join([frame for audience, frame in due if audience in whose])
                payloads[whose] = joined
            if not receiver.deliver(joined):
                self._left(receiver, subscriptions, by_audience, passing)

    @staticmethod
    def _left(
        receiver: Receiver,
        subscriptions: Sequence[Subscription],
        by_audience: Mapping[Audience[Subscription], Sequence[bytes]],
        passing: bool,
    ) -> None:
        if not passing:
            receiver.fall_behind()
            return
        for subscription in subscriptions:
            receiver.missed(subscription.topic, len(by_audience[subscription.audience]))

    def _wake(self) -> None:
        if self._awaited:
            for position, event in self._awaited:
                if position <= self.position.id:
                    event.set()
            self._awaited = [each for each in self._awaited if not each[1].is_set()]
