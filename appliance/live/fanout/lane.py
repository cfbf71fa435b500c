"""What goes to many goes down a lane: idle ways, one beside the other, so that each takes little but a system call.

What writing to a thousand sockets costs beside the system calls is what each touches of memory that the processor has
not at hand: its subscription, its way, the socket, the counters. So in a lane stand the sockets alone, and what was
sent is counted once for all of them, until somebody wants to know of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from appliance.live.fanout.subscribers import Subscription
from appliance.live.wire.sending import Straight

#: So many members, and they have a lane.
MANY: Final = 16

#: Who has not taken frames whole, and how many bytes of them the socket has.
Left: TypeAlias = tuple[Subscription, int]


class Entry:
    """A subscription's place in a lane. ``sent`` and ``batches`` are what its way has counted of what the lane sent."""

    __slots__ = ("_lane", "batches", "number", "sent", "subscription")

    def __init__(self, lane: Lane, number: int, subscription: Subscription) -> None:
        self._lane = lane
        self.number = number
        self.subscription = subscription
        self.sent = lane.sent
        self.batches = lane.batches

    def settle(self) -> None:
        """Have the way count what it was sent down the lane."""
        lane, way = self._lane, self.subscription.way
        way.sent_alone += lane.sent - self.sent
        way.delivered_alone += lane.batches - self.batches
        self.sent, self.batches = lane.sent, lane.batches

    def leave(self) -> None:
        """Have it stand beside the lane."""
        self._lane.step_aside(self)


class Lane:
    """The idle ways of some members, and beside it those members whose ways are not idle."""

    __slots__ = ("_aside", "_entries", "_row", "_straights", "batches", "sent")

    def __init__(self, members: Iterable[Subscription]) -> None:
        #: How many bytes, and batches of frames, went down it.
        self.sent = self.batches = 0
        self._straights: list[Straight] = []
        self._row: list[Entry] = []  # whose these are
        self._entries: dict[Subscription, Entry] = {}
        self._aside: dict[Subscription, None] = {}
        for each in members:
            self.feed(each)

    def feed(self, member: Subscription) -> None:
        """Take a member up."""
        straight = member.way.straight
        if straight is None:
            self._aside[member] = None
            return
        entry = self._entries[member] = Entry(self, len(self._row), member)
        self._row.append(entry)
        self._straights.append(straight)
        member.way.enter(entry)

    def leave(self, member: Subscription) -> None:
        """Forget a member."""
        if (entry := self._entries.get(member)) is not None:
            self.step_aside(entry)
        del self._aside[member]

    def step_aside(self, entry: Entry) -> None:
        """Have one that stands in the lane stand beside it; the last of the row takes its place."""
        entry.settle()
        entry.subscription.way.exit(entry)
        del self._entries[entry.subscription]
        self._aside[entry.subscription] = None
        last, straight = self._row.pop(), self._straights.pop()
        if last is not entry:
            last.number = entry.number
            self._row[entry.number], self._straights[entry.number] = last, straight

    def offer(self, frames: bytes) -> list[Left]:
        """Send frames to all; give to whom they did not go, or not whole."""
        for member in [each for each in self._aside if each.way.straight is not None]:
            del self._aside[member]
            self.feed(member)
        size = len(frames)
        short: list[tuple[Entry, int]] = []
        for number, straight in enumerate(self._straights):
            try:
                if (sent := straight.send(frames)) != size:
                    short.append((self._row[number], sent))
            except OSError:  # it is full, or broken
                short.append((self._row[number], 0))
        self.sent += size
        self.batches += 1
        for entry, _ in short:  # which count by themselves what becomes of these
            entry.sent += size
            entry.batches += 1
        return [(entry.subscription, sent) for entry, sent in short] + [(each, 0) for each in self._aside]
