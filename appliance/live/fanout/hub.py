"""Who is subscribed to what, and what happens to an event: everything between the tail and the sockets.

The hub is synchronous. No method awaits, so between two awaits of anybody it is always whole. Each subscription is
either *fed* by the hub – then everything up to ``position`` that concerns it has been handed to its receiver – or *read
for* by a ``Reading``, up to a position of its own. It changes from one to the other at one moment, at one position:

* ``attach`` takes a subscription whose own position is the hub's: all before was read, all after will be fed.
* A receiver that refuses what it is fed is left where it was: at the position before, for a reading to go on from.

So there is neither a gap nor a double, at any moment, if a reading leaves nothing out: ``replay.reading`` says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Final

import trio

from appliance.counters import Counters
from appliance.errors import BadFilter, BadRequest, UnknownTopic
from appliance.live.fanout import notices
from appliance.live.fanout.handing import Due, hand_out
from appliance.live.fanout.milestones import Milestones
from appliance.live.fanout.notices import TABLE_DROPPED, TOPIC_DESTROYED
from appliance.live.fanout.recent import Recent
from appliance.live.fanout.shared import Shared
from appliance.live.fanout.subscribers import Ending, Receiver, Subscribers, Subscription, drop, reshape, resync
from appliance.live.fanout.withheld import Withheld
from appliance.live.matching.access import Access, Reader, Sight
from appliance.live.matching.audience import Wish
from appliance.live.matching.course import Course
from appliance.live.matching.facts import NOTHING, Facts
from appliance.live.matching.joined import joined
from appliance.live.matching.telling import NEW_MESSAGE, Told
from appliance.live.wire.frames import text_frame
from appliance.model import Change, Message, Position, Shape, Topic, ascii_fold
from appliance.protocol import frames
from appliance.protocol.values import ValueOptions
from appliance.store.tables.catalog import Catalog, Settings
from appliance.store.tables.snapshot import Condition

#: What is handed to one receiver at a stretch, bytes: one that refuses it is left before all of it.
STRETCH: Final = 256 << 10
#: How long events are delivered before all else has its turn, seconds.
TURN_S: Final = 0.05


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
        #: Only looked at by others: every change is the hub's.
        self.subscribers = Subscribers()
        #: Rights have been read since whatever has changed them up to here.
        self.known_to = position.id
        #: What readings have in common.
        self.shared = Shared(self.recent)
        self.withheld = Withheld()
        self._passing: list[Message] = []
        self._milestones = Milestones()

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

    def is_durable(self, name: str) -> bool:
        """Whether what happens in a topic can be read again."""
        return (topic := self.topic(name)) is None or topic.durable

    def add_topic(self, topic: Topic, generation: int) -> None:
        """Take a user topic up that the store has committed as its ``generation``."""
        if self._step(generation):
            self._topics.setdefault(ascii_fold(topic.name), topic)

    def end_topic(self, name: str, generation: int, position: int) -> None:
        """Drop a user topic whose end the store has committed, and tell its subscribers.

        Of the messages up to ``position`` none is lost to them: it ends when these have been delivered.
        """
        if self._step(generation):
            self._milestones.at(position, partial(self._end_topic, name, "destroyed"))
            self._milestones.passed(self.position.id)

    def _step(self, generation: int) -> bool:
        """Take note of what the store has committed; give whether the tail has not seen it, and what came behind."""
        known, self._newest_generation = self.generation, max(self._newest_generation, generation)
        # Only the very next generation is known to hold nothing else that is new.
        if generation == known + 1:
            self.generation = generation
        return generation > known

    def _end_topic(self, name: str, reason: str) -> None:
        self.flush()
        topic = self._topics.pop(ascii_fold(name), None)
        if topic is not None:
            self._end(topic.name, TOPIC_DESTROYED, reason, topic.begun)

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
                reshape(self.subscribers, now, self.access, self.counters, self.position.id)

    def refresh_topics(self, settings: Settings) -> None:
        """Take over which user topics there are; tell those whose topic is gone."""
        # Settings from before a topic of our own was made or ended must not undo it; newer ones will come.
        if settings.generation >= self._newest_generation:
            before, now = self._topics, settings.topics
            for folded in [name for name, each in before.items() if name not in now or now[name].begun != each.begun]:
                self._end_topic(folded, "destroyed")
            self._topics = dict(now)
            self.reassess(self.subscriptions_to(name for name, each in now.items() if before.get(name, each) != each))
        self.generation = settings.generation

    def _end(self, name: str, event_type: str, reason: str, begun: int | None = None) -> None:
        frame, ending = notices.because(event_type, name, reason), Ending(self.position.id, begun)
        for subscription in self.subscribers.forget(name):
            subscription.end(frame, ending)

    def reassess(self, subscriptions: Iterable[Subscription], others: Collection[str] = ()) -> None:
        """Give subscriptions what their receivers may have now; tell who may hold too much, as rows of ``others``."""
        for subscription in self.subscribers.standing(subscriptions):
            reader, name = subscription.receiver.reader, subscription.topic
            sight, shape = self._sight(reader, name), self.table(name)
            before, groups = subscription.audience.sight, subscription.reader.groups
            self.subscribers.leave(subscription)
            if sight is None:
                event_type = TOPIC_DESTROYED if shape is None else TABLE_DROPPED
                drop(subscription, notices.because(event_type, name, "permission"))
                continue
            self.subscribers.join(subscription, shape, reader, sight)
            by_row = sight is Sight.BY_ROW and (groups != reader.groups or ascii_fold(name) in others)
            if subscription.wish.live_set and (by_row or sight is not before):
                resync([subscription], self.counters, "permission", self.position.id)

    def subscriptions_to(self, topics: Iterable[str]) -> list[Subscription]:
        """Give every subscription that there is to these topics (folded)."""
        return [each for folded in topics for each in self.subscribers.of(folded)]

    def lost(self, highest: int) -> None:
        """Tell every subscriber of what is kept that events up to ``highest`` are gone before they could be read."""
        self.position = Position(self.position.epoch, highest)
        self.recent.forget(highest)
        for folded in filter(self.is_durable, self.subscribers.topics()):
            resync(self.subscribers.of(folded), self.counters, "overrun", highest)
        self._milestones.passed(self.position.id)

    # -- subscriptions -----------------------------------------------------------------------------------

    async def facts(self, events: Sequence[Told], course: Course) -> Facts:
        """Read what is needed to deliver these events, of which this is the course, to all who are subscribed then."""
        subscribers = self.subscribers
        while subscribers.by_row:
            known = subscribers.grown
            topics = subscribers.by_row, subscribers.live_sets
            found = await self.access.facts(events, *topics, self._tables, course)
            if known == subscribers.grown:  # else somebody has come meanwhile for whom other facts are needed, too
                return found
        return NOTHING

    def subscribe(self, receiver: Receiver, name: str, wish: Wish) -> Subscription:
        """Take a subscription up that waits at the hub's position: to be attached, or to be read for first.

        Raises ``UnknownTopic`` – also for what the receiver may not know of –, ``BadFilter`` and ``BadRequest``.
        """
        sight = self._sight(receiver.reader, name)
        if sight is None:
            raise UnknownTopic(f'there is no topic "{name}"', topic=name)
        shape, topic = self.table(name), self.topic(name)
        if shape is None and (wish.live_set or wish.old):
            raise BadRequest(f'"snapshot" and "old" are for tables, and "{name}" is a user topic')
        if wish.live_set and "EventType" in wish.filters:
            raise BadFilter('a live set takes no "EventType": rows enter and leave it whatever the statement was')
        if wish.live_set and sight is Sight.BY_ROW and self.access.grant(name).object_table is not None:
            raise BadRequest(f'"{name}" joins rows to groups; only administrators can hold its rows as a live set')
        self.flush()
        spelled = shape.table if shape is not None else topic.name if topic is not None else name
        subscription = Subscription(receiver, spelled, wish, self.position.id)
        self.subscribers.join(subscription, shape, receiver.reader, sight)
        return subscription

    def _sight(self, reader: Reader, name: str) -> Sight | None:
        """Say what of a topic a reader may read; ``None``: there is none, or none that it may know of."""
        shape, topic = self.table(name), self.topic(name)
        if shape is not None:
            return self.access.sight(reader, shape) if self.access.may_know(reader, shape) else None
        return Sight.ALL if topic is not None and self.access.may_follow(reader, topic) else None

    def attach(self, subscription: Subscription) -> None:
        """Feed a subscription from now on. Everything up to the hub's position has been read for it."""
        if subscription.position != self.position.id:
            raise RuntimeError("a subscription can be fed only from where it has been read to")
        self.subscribers.feed(subscription)

    def detach(self, subscription: Subscription) -> None:
        """Feed a subscription no more: what comes after the hub's position is to be read for it."""
        self.subscribers.wait(subscription, self.position.id)

    def rows_of(self, subscription: Subscription, shape: Shape) -> Condition:
        """Say which of a table's rows a subscription is shown."""
        wanted = subscription.audience.row_filter(shape)
        return self.access.rows(subscription.reader, shape, wanted)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Deliver nothing more to this subscription. One that has ended by itself may be given, too."""
        if not subscription.ended:
            subscription.ended = True
            self.subscribers.leave(subscription)

    async def reached(self, position: int) -> None:
        """Wait until everything up to ``position``, which is in the store, has been delivered."""
        if self.position.id < position:
            reached = trio.Event()
            self._milestones.at(position, reached.set)
            await reached.wait()

    # -- events ------------------------------------------------------------------------------------------

    def publish(self, events: Sequence[Told], highest: int, size: int, facts: Facts, turn_s: float = TURN_S) -> int:
        """Deliver what comes next in the outbox, in its order, up to the position ``highest``; give how many events.

        Not all where that takes longer than a turn: then the position is that of the last. ``size`` is about how many
        bytes of values they hold. Each receiver gets a stretch at one stroke; before one that refuses, the position is
        that of the stretch before.
        """
        self.flush()
        due: list[Due] = []
        owed = 0  # to one receiver, whatever it follows: of an event of a topic nobody is told twice
        done, turn = 0, trio.current_time() + turn_s
        while done < len(events) and (not done or trio.current_time() < turn):
            told = events[done]
            done += 1
            found = self._told(told, facts)
            due += found
            owed += max([len(frame) for _, _, frame in found], default=0)
            if owed > STRETCH:
                hand_out(due)
                due.clear()
                owed = 0
                self.position = Position(self.position.epoch, told.id)
        hand_out(due)
        self.position = Position(self.position.epoch, highest if done == len(events) else told.id)
        self.recent.add(events[:done], self.position.id, size * done // max(1, len(events)))
        self._milestones.passed(self.position.id)
        return done

    def broadcast(self, message: Message) -> None:
        """Deliver a message that is not durable, with the next ``flush``: several at one stroke."""
        self.counters.passing_messages += 1
        self._passing.append(message)

    def flush(self) -> None:
        """Hand out the messages that are not durable."""
        if self._passing:
            passing, self._passing = self._passing, []
            due: list[Due] = []
            for name, some in groupby(passing, attrgetter("topic")):
                due += self._passed(ascii_fold(name), list(some))
            hand_out(due, passing=True)

    def _passed(self, name: str, messages: Sequence[Message]) -> list[Due]:
        """Give who is to be told of these messages of one topic, which are not durable, and in which frames."""
        audiences = self.subscribers.audiences(name)
        everybody = audiences.everybody() if audiences is not None and name in self._topics else None
        if everybody is None:
            return [due for each in messages for due in self._told(Told(each), NOTHING)]
        members = everybody.members
        self.counters.delivered[NEW_MESSAGE] += len(messages) * len(members)
        return [(everybody, members, text_frame(frames.message(each))) for each in messages] if members else []

    def frames(self, subscription: Subscription, told: Told, facts: Facts, reader: Reader) -> list[bytes]:
        """Give the frames by which one subscription is told of an event if ``reader`` has it; none: of nothing."""
        audience, event, topic = subscription.audience, told.event, ascii_fold(subscription.topic)
        if not isinstance(event, Change):
            there = told.topic == topic and self._is_of(told, topic, subscription.ending)
            return [told.message()] if there and audience.admits(told) else []
        if told.topic == topic:
            form = audience.form(reader, event, self.access, facts)
            return [] if form is None else [told.change(form, self.options)]
        shape, found = joined(event, self.access, self._tables, facts, self.options)
        if shape is None or ascii_fold(shape.table) != topic:
            return []
        behind = (each for each in found if each.id > (subscription.position or 0))
        return [frame for each in behind if (frame := each.frame(audience, shape, reader)) is not None]

    def _is_of(self, message: Told, name: str, ending: Ending | None = None) -> bool:
        """Whether a message is of the topic that has this name (folded) now, or had it and has ended."""
        topic = ending or self._topics.get(name)
        begun = None if topic is None else topic.begun
        return begun is not None and (message.event.id is None or message.event.id > begun)

    def _told(self, told: Told, facts: Facts) -> list[Due]:
        """Give who is to be told of an event, and in which frame."""
        event = told.event
        found: list[Due] = []
        audiences = self.subscribers.audiences(told.topic)
        if audiences is not None and isinstance(event, Change):
            found += [
                (each.who, each.members, told.change(each.form, self.options))
                for each in audiences.tellings(event, self.access, facts)
            ]
        elif audiences is not None and self._is_of(told, told.topic):
            hearers = audiences.hearers(told)
            if hearers.members:
                found.append((hearers.who, hearers.members, told.message()))
        if facts.guards and isinstance(event, Change):
            shape, rows = joined(event, self.access, self._tables, facts, self.options)
            holders = None if shape is None else self.subscribers.audiences(ascii_fold(shape.table))
            if shape is not None and holders is not None:
                found += [due for each in rows for audience in holders for due in each.tellings(audience, shape)]
        for _, members, _ in found:
            self.counters.delivered[told.kind] += len(members)
        return found
