"""Who is subscribed to what, and what happens to an event: everything between the tail and the sockets.

The hub is synchronous. No method awaits, so between two awaits of anybody it is always whole: a subscription is
made at one position, and every event after that position, and none before it, reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from appliance.counters import Counters
from appliance.errors import BadFilter, UnknownTopic
from appliance.live.frames import text_frame
from appliance.model import JSON, Change, Image, Message, Op, Position, Row, Shape, SQLiteValue, Topic, ascii_fold
from appliance.protocol import frames
from appliance.protocol.filters import MessageFilter, RowFilter, compile_message, compile_table
from appliance.protocol.json import decode
from appliance.protocol.operators import equality_key
from appliance.protocol.values import ValueOptions
from appliance.store.store import Catalog, Settings

#: What a subscriber is told when the ground moves.
RESYNC: Final = "resync"
TABLE_DROPPED: Final = "table-dropped"
TOPIC_DESTROYED: Final = "topic-destroyed"


class Receiver(Protocol):
    """A session as the hub sees it."""

    def deliver(self, frames: list[bytes]) -> None:
        """Send these WebSocket frames, in this order. Never raises and never waits."""

    def forget(self, topic: str) -> None:
        """Take note that the subscription to ``topic`` (folded) has ended without the client's asking."""


@dataclass(eq=False, slots=True)
class Subscription:
    """One receiver's interest in one topic.

    ``filter`` is ``None`` when everything of the topic is wanted. ``filters`` is kept as it was sent, because it must
    be compiled anew when the table's shape changes.
    """

    receiver: Receiver
    topic: str
    filters: dict[str, JSON]
    filter: RowFilter | MessageFilter | None


class _Subscribers:
    """The subscriptions of one topic, indexed so that an event asks only those it can concern.

    A subscription whose filter names values of a column stands under these values in the index of that column,
    the others stand in ``rest``.
    """

    __slots__ = ("_by_value", "_places", "_rest", "_shape")

    def __init__(self, shape: Shape | None) -> None:
        self._shape = shape
        self._rest: dict[Subscription, None] = {}
        # By the column's position: how its values become keys, and who stands under each key.
        self._by_value: dict[
            int, tuple[Callable[[SQLiteValue], Hashable], dict[Hashable, dict[Subscription, None]]]
        ] = {}
        self._places: dict[Subscription, tuple[int, frozenset[Hashable]] | None] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(tuple(self._places))

    def add(self, subscription: Subscription) -> None:
        place = self._place(subscription.filter)
        self._places[subscription] = place
        if place is None or self._shape is None:
            self._rest[subscription] = None
            return
        position, keys = place
        if position not in self._by_value:
            self._by_value[position] = (equality_key(self._shape.columns[position]), {})
        index = self._by_value[position][1]
        for key in keys:
            index.setdefault(key, {})[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        place = self._places.pop(subscription)
        if place is None:
            del self._rest[subscription]
            return
        position, keys = place
        index = self._by_value[position][1]
        for key in keys:
            del index[key][subscription]
            if not index[key]:
                del index[key]
        if not index:
            del self._by_value[position]

    def concerned(self, values: Row) -> Iterable[Subscription]:
        """Give those that an event with this row can concern, each once; their filters decide."""
        if not self._by_value:
            return self._rest
        found = list(self._rest)
        for position, (key, index) in self._by_value.items():
            found += index.get(key(values[position]), ())
        return found

    def all(self) -> Iterable[Subscription]:
        """Give every subscription, without a copy: for a message, whose filters are not indexed."""
        return self._places

    @staticmethod
    def _place(filter: RowFilter | MessageFilter | None) -> tuple[int, frozenset[Hashable]] | None:  # noqa: A002
        if not isinstance(filter, RowFilter) or not filter.equalities:
            return None
        # The fewest values make the narrowest place.
        return min(filter.equalities, key=lambda equality: len(equality[1]))


class Hub:
    """All topics, all subscriptions, and the position up to which everything has been delivered."""

    def __init__(
        self, catalog: Catalog, position: Position, options: ValueOptions, counters: Counters | None = None
    ) -> None:
        self.position = position
        self.counters = counters or Counters()
        #: The store's generation that this is the picture of; the tail compares it with each look.
        self.generation = catalog.settings.generation
        self._newest_generation = catalog.settings.generation
        self._options = options
        self._tables: dict[str, Shape] = dict(catalog.tables)
        self._topics: dict[str, Topic] = dict(catalog.settings.topics)
        self._subscribers: dict[str, _Subscribers] = {}

    # -- topics ------------------------------------------------------------------------------------------

    def table(self, name: str) -> Shape | None:
        """Give the table of that name, compared without ASCII case."""
        return self._tables.get(ascii_fold(name))

    def topic(self, name: str) -> Topic | None:
        """Give the user topic of that name, compared without ASCII case."""
        return self._topics.get(ascii_fold(name))

    def tables(self) -> list[str]:
        """Name all tables, in the stored spelling."""
        return [shape.table for shape in self._tables.values()]

    def topics(self) -> list[str]:
        """Name all user topics, in the stored spelling."""
        return [topic.name for topic in self._topics.values()]

    def topics_of(self, owner: str) -> int:
        """Count the user topics of an owner."""
        return sum(topic.owner == owner for topic in self._topics.values())

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
        for name in catalog.taken:
            self._end_topic(name, "table")
        self.refresh_topics(catalog.settings)
        before, self._tables = self._tables, dict(catalog.tables)
        for folded, shape in before.items():
            now = self._tables.get(folded)
            if now is None:
                if folded in catalog.settings.unwatched:
                    self._end(shape.table, TABLE_DROPPED, "unwatched")
                else:
                    self._end(shape.table, TABLE_DROPPED, "dropped")
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
        subscribers = self._subscribers.pop(ascii_fold(name), None)
        if subscribers is None:
            return
        frame = text_frame(frames.notice(event_type, name, {"reason": reason}))
        for subscription in subscribers:
            subscription.receiver.forget(ascii_fold(name))
            subscription.receiver.deliver([frame])

    def _reshape(self, shape: Shape) -> None:
        """Compile the filters of a table's subscribers for its new shape, and tell them that it has changed."""
        folded = ascii_fold(shape.table)
        subscribers = self._subscribers.get(folded)
        if subscribers is None:
            return
        resync = text_frame(frames.notice(RESYNC, shape.table, {"reason": "schema"}))
        renewed = _Subscribers(shape)
        for subscription in subscribers:
            try:
                subscription.filter = _compiled_for_table(subscription.filters, shape)
            except BadFilter as error:
                # Its column is gone: nothing can be matched any more, and silence would look like quiet.
                ended: JSON = {"reason": "filter", "message": error.message}
                subscription.receiver.forget(folded)
                subscription.receiver.deliver([text_frame(frames.notice(TABLE_DROPPED, shape.table, ended))])
            else:
                renewed.add(subscription)
                self.counters.resyncs += 1
                subscription.receiver.deliver([resync])
        self._subscribers[folded] = renewed

    def lost(self, highest: int) -> None:
        """Tell every subscriber that events up to ``highest`` are gone before they could be read."""
        self.position = Position(self.position.epoch, highest)
        for folded, subscribers in self._subscribers.items():
            shape, topic = self._tables.get(folded), self._topics.get(folded)
            name = shape.table if shape is not None else topic.name if topic is not None else folded
            frame = text_frame(frames.notice(RESYNC, name, {"reason": "overrun"}))
            for subscription in subscribers:
                self.counters.resyncs += 1
                subscription.receiver.deliver([frame])

    # -- subscriptions -----------------------------------------------------------------------------------

    def subscribe(self, receiver: Receiver, name: str, filters: dict[str, JSON]) -> Subscription:
        """Begin to deliver the events of a topic: all those after ``self.position``, as it is at this moment.

        Raises ``UnknownTopic`` and ``BadFilter``. Whether the receiver may is its session's business.
        """
        folded = ascii_fold(name)
        shape = self._tables.get(folded)
        compiled: RowFilter | MessageFilter | None
        if shape is not None:
            compiled, spelled = _compiled_for_table(filters, shape), shape.table
        elif folded in self._topics:
            compiled, spelled = (compile_message(filters) if filters else None), self._topics[folded].name
        else:
            raise UnknownTopic(f'there is no topic "{name}"', topic=name)
        subscription = Subscription(receiver, spelled, filters, compiled)
        if folded not in self._subscribers:
            self._subscribers[folded] = _Subscribers(shape)
        self._subscribers[folded].add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Deliver nothing more to this subscription. One that has ended by itself may be given, too."""
        folded = ascii_fold(subscription.topic)
        subscribers = self._subscribers.get(folded)
        if subscribers is not None and subscription in subscribers:
            subscribers.remove(subscription)
            if not subscribers:
                del self._subscribers[folded]

    # -- events ------------------------------------------------------------------------------------------

    def publish(self, events: Iterable[Change | Message], highest: int) -> None:
        """Deliver what comes next in the outbox, in its order; from now on ``highest`` is the position.

        Each receiver gets all that concerns it at one stroke, and one frame is shared by all who get it.
        """
        owed: dict[Receiver, list[bytes]] = {}
        for event in events:
            if isinstance(event, Change):
                self._match_change(event, owed)
            else:
                self._match_message(event, owed)
        self.position = Position(self.position.epoch, highest)
        for receiver, due in owed.items():
            receiver.deliver(due)

    def broadcast(self, message: Message) -> None:
        """Deliver a message that is not durable."""
        self.counters.passing_messages += 1
        owed: dict[Receiver, list[bytes]] = {}
        self._match_message(message, owed)
        for receiver, due in owed.items():
            receiver.deliver(due)

    def _match_change(self, change: Change, owed: dict[Receiver, list[bytes]]) -> None:
        folded = ascii_fold(change.shape.table)
        subscribers = self._subscribers.get(folded)
        image = change.old if change.op is Op.DELETE else change.new
        if subscribers is None or image is None:
            return
        current = self._tables.get(folded)
        if current is not None and current.id == change.shape.id:
            matching = [
                each
                for each in subscribers.concerned(image.values)
                if each.filter is None or (isinstance(each.filter, RowFilter) and each.filter.matches(change.op, image))
            ]
        else:
            matching = [each for each in subscribers if _matches_as_it_was(each, change, image)]
        if matching:
            frame = text_frame(frames.change(change, self._options))
            self.counters.delivered[frames.EVENT_TYPES[change.op]] += len(matching)
            for subscription in matching:
                owed.setdefault(subscription.receiver, []).append(frame)

    def _match_message(self, message: Message, owed: dict[Receiver, list[bytes]]) -> None:
        subscribers = self._subscribers.get(ascii_fold(message.topic))
        if subscribers is None or ascii_fold(message.topic) not in self._topics:
            return
        frame: bytes | None = None
        value: JSON = None
        decoded = False
        for subscription in subscribers.all():
            wanted = subscription.filter
            if isinstance(wanted, MessageFilter):
                if not decoded:
                    value, decoded = decode(message.body), True
                if not wanted.matches(value):
                    continue
            if frame is None:
                frame = text_frame(frames.message(message))
            self.counters.delivered["new-message"] += 1
            owed.setdefault(subscription.receiver, []).append(frame)


def _compiled_for_table(filters: dict[str, JSON], shape: Shape) -> RowFilter | None:
    return compile_table(filters, shape) if filters else None


def _matches_as_it_was(subscription: Subscription, change: Change, image: Image) -> bool:
    """Put the filter to a row of another shape than the table's present one: the shape changed meanwhile."""
    try:
        wanted = _compiled_for_table(subscription.filters, change.shape)
    except BadFilter:
        return False  # that shape had no such column; the resync that comes with the change of shape covers it
    return wanted is None or wanted.matches(change.op, image)
