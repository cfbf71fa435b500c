"""Every subscription there is, by topic: who is fed by the hub, and who is read for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from appliance.counters import Counters
from appliance.errors import BadFilter
from appliance.live.fanout import notices
from appliance.live.matching.access import Access, Reader, Sight
from appliance.live.matching.audience import Audience, Wish
from appliance.live.matching.audiences import Audiences
from appliance.live.wire.sending import Place, Straight
from appliance.model import Shape, ascii_fold


class Way(Protocol):
    """The way to one client, as far as what is to go over it at once concerns it (``live.wire.sending``)."""

    straight: Straight | None
    sent_alone: int
    delivered_alone: int

    @property
    def begun(self) -> int:
        """How many bytes of what is to be written next the peer gets whatever is done."""

    def went(self, data: bytes, sent: int, /) -> None:
        """Take note of how much of whole frames has been taken; the rest follows."""

    def enter(self, place: Place, /) -> None:
        """Be sent frames at once by somebody else, too, for as long as there is ``straight``."""

    def exit(self, place: Place, /) -> None:
        """Be sent frames by him no more."""


class Receiver(Protocol):
    """A session as the hub sees it."""

    @property
    def way(self) -> Way:
        """Where its frames go, for as long as it lives."""

    @property
    def reader(self) -> Reader:
        """Whose rights count."""

    def deliver(self, frames: bytes) -> bool:
        """Send these WebSocket frames; false when as much waits for the peer as may. Never raises and never waits."""

    def tell(self, frame: bytes) -> None:
        """Send a notice, whatever waits already. Never raises and never waits."""

    def fall_behind(self) -> None:
        """Take note that the hub feeds this receiver no more, from its present position on."""

    def missed(self, topic: str, count: int) -> None:
        """Take note that messages of a topic that is not durable were not sent."""

    def forget(self, topic: str) -> None:
        """Take note that the subscription to ``topic`` (folded) has ended without the client's asking."""


class Ending(NamedTuple):
    """That a topic, or what a filter fits, has ended at a position. A user topic's messages came after ``begun``."""

    position: int
    begun: int | None


@dataclass(eq=False, slots=True)
class Subscription:
    """One receiver's interest in one topic.

    ``position`` is up to where it has been read for; ``None`` while the hub feeds it. ``shown`` counts what a replay or
    a snapshot has sent. ``owed`` are the notices that stand behind events that are still to be read for it, each with
    its position; one that a reading itself finds due may stand before what the hub has said. ``ending``: its topic is
    gone, or is such that its filter fits no more, and it is in no audience; what came before is read for it.
    """

    receiver: Receiver
    topic: str
    wish: Wish
    position: int | None
    ended: bool = False
    shown: int = 0
    owed: list[tuple[int, bytes]] | None = None
    ending: Ending | None = None
    #: Set by ``Subscribers.join``, with whose rights it was joined.
    audience: Audience[Subscription] = field(init=False)
    reader: Reader = field(init=False)
    #: The receiver's, a step nearer for what goes to a thousand of these (``handing``).
    way: Way = field(init=False)

    def __post_init__(self) -> None:
        self.way = self.receiver.way

    def notify(self, notice: bytes, position: int) -> None:
        """Tell what happened at a position: behind all events of before, whoever is still to send them."""
        if self.position is None or self.position >= position:
            self.receiver.tell(notice)
        else:
            self.owed = [*(self.owed or ()), (position, notice)]

    def read_upto(self, position: int) -> bool:
        """Take note that it has been read for up to here; give whether it was owed a notice, which it is told.

        One that has ended meanwhile is told nothing: its client may have subscribed to that topic anew.
        """
        self.position = position
        if self.owed is None or self.ended:
            return False
        due = [notice for at, notice in self.owed if at <= position]
        self.owed = [each for each in self.owed if each[0] > position] or None
        for notice in due:
            self.receiver.tell(notice)
        if self.ending is not None and position >= self.ending.position:
            self.ended = True
            self.receiver.forget(ascii_fold(self.topic))
        return bool(due)

    def end(self, notice: bytes, ending: Ending) -> None:
        """Tell that its topic has ended: the last that it is told, behind all that came before.

        Of a table only administrators are told that: what others may read of it nobody looks after any more.
        """
        behind = self.position is not None and self.position < ending.position
        if behind and (ending.begun is not None or self.reader.principal.admin):
            self.notify(notice, ending.position)
            self.ending = ending
        else:
            drop(self, notice)


class Subscribers:
    """The audiences of all topics. Synchronous, as the hub is."""

    def __init__(self) -> None:
        self._by_topic: dict[str, Audiences[Subscription]] = {}
        #: Topics (folded) that have an audience to whom the rows say what it may read; and those of them whose rows
        #: somebody holds. Asked for each batch of events, so they are kept.
        self.by_row: set[str] = set()
        self.live_sets: set[str] = set()
        #: How often a topic has come to one of these; and how often filters that nobody had just then, by which rows
        #: that say whose they are enter live sets and leave them.
        self.grown = self.filtered = 0

    def topics(self) -> list[str]:
        """Name (folded) the topics that have subscribers."""
        return list(self._by_topic)

    def audiences(self, folded: str) -> Audiences[Subscription] | None:
        """Give the audiences of a topic."""
        return self._by_topic.get(folded)

    def of(self, name: str) -> list[Subscription]:
        """Give all subscriptions to a topic."""
        audiences = self._by_topic.get(ascii_fold(name), ())
        return [each for audience in audiences for each in (*audience.members, *audience.waiting)]

    def forget(self, name: str) -> list[Subscription]:
        """Give all subscriptions to a topic, which are in no audience any more."""
        found = self.of(name)
        for each in found:  # or the ways of those that stay would keep their places in what nobody uses any more
            each.audience.leave(each)
        self._by_topic.pop(ascii_fold(name), None)
        self._note(ascii_fold(name))
        return found

    def join(self, subscription: Subscription, shape: Shape | None, reader: Reader, sight: Sight) -> None:
        """Put a subscription that is in none into its audience: fed, if it has no position. Raises ``BadFilter``."""
        folded = ascii_fold(subscription.topic)
        audiences = self._by_topic.get(folded) or Audiences(shape)
        subscription.reader = reader
        subscription.audience = audiences.join(subscription, subscription.wish, sight)
        subscription.wish = subscription.audience.wish  # which is the same: 20,000 need not keep one each
        self._by_topic[folded] = audiences
        self._note(folded)
        self.filtered += subscription.audience.may_be_left and subscription.audience.is_new
        if subscription.position is None:
            self.feed(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Take a subscription out of its audience; one whose topic has ended is in none."""
        folded = ascii_fold(subscription.topic)
        audiences = self._by_topic.get(folded) if subscription.ending is None else None
        if audiences is not None:
            audiences.leave(subscription, subscription.audience)
            if not audiences:
                del self._by_topic[folded]
            self._note(folded)

    @staticmethod
    def standing(subscriptions: Iterable[Subscription]) -> Iterator[Subscription]:
        """Give those whose topic is there; who may read what others are still to be told, nobody can say any more."""
        for subscription in subscriptions:
            if subscription.ending is None:
                yield subscription
            else:
                subscription.read_upto(subscription.ending.position)

    def feed(self, subscription: Subscription) -> None:
        """Have the hub feed a subscription."""
        subscription.position = None
        subscription.audience.feed(subscription)

    def wait(self, subscription: Subscription, position: int) -> None:
        """Have a subscription wait where it has been read to."""
        subscription.position = position
        subscription.audience.wait(subscription)

    def _note(self, folded: str) -> None:
        audiences = self._by_topic.get(folded)
        for topics, counted in (
            (self.by_row, audiences.by_row if audiences else 0),
            (self.live_sets, audiences.live_sets if audiences else 0),
        ):
            if counted:
                self.grown += folded not in topics
                topics.add(folded)
            else:
                topics.discard(folded)


def drop(subscription: Subscription, frame: bytes) -> None:
    """Tell why a subscription, which is in no audience any more, has ended."""
    subscription.ended = True
    subscription.receiver.forget(ascii_fold(subscription.topic))
    subscription.receiver.tell(frame)


def reshape(subscribers: Subscribers, shape: Shape, access: Access, counters: Counters, position: int) -> None:
    """Compile the filters of a table's subscribers for its new shape, and tell them that it has changed.

    Up to the ``position`` all events are of the former one.
    """
    left = []
    for subscription in subscribers.forget(shape.table):
        reader = subscription.receiver.reader
        try:
            subscribers.join(subscription, shape, reader, access.sight(reader, shape))
        except BadFilter as error:
            # Its column is gone: nothing can be matched any more, and silence would look like quiet.
            notice = notices.because(notices.TABLE_DROPPED, shape.table, "filter", message=error.message)
            subscription.end(notice, Ending(position, None))
        else:
            left.append(subscription)
    resync(left, counters, "schema", position)


def resync(subscriptions: Iterable[Subscription], counters: Counters, reason: str, position: int) -> None:
    """Tell these that what they hold of their topic by the events up to a position may not be what there is.

    Who loads it again at that notice, with whatever is committed by now, is sent nothing older behind it.
    """
    for each in subscriptions:
        counters.resyncs += 1
        each.notify(notices.because(notices.RESYNC, each.topic, reason), position)


def doubt(subscriptions: Iterable[Subscription], counters: Counters, position: int) -> None:
    """Tell those who hold rows that are theirs by what these say that they may hold too many of them."""
    holders = (each for each in subscriptions if each.wish.live_set and each.audience.sight is Sight.BY_ROW)
    resync((each for each in holders if not each.ended), counters, "overrun", position)
