"""The newest events in memory, so that clients that were away for seconds ask SQLite for nothing.

What is kept is what the hub has delivered last, with the frames that were made of it: whoever comes back is sent the
same frames. Bounded by events and by bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Final

from appliance.live.matching.telling import Told

#: An event takes about 1 KiB beside its values (measured), and its frame holds these once more: 28 MiB in all.
EVENTS: Final = 16_000
BYTES: Final = 6 << 20


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Events in a row: all of those in (``after``, ``end``]. ``before`` them there were so many since the start."""

    after: int
    end: int
    events: Sequence[Told]
    size: int
    before: int


_FORGOTTEN: Final = _Stretch(0, 0, (), 0, 0)


class Recent:
    """The last stretch of the one order, up to the hub's position."""

    def __init__(self, position: int, *, events: int = EVENTS, size: int = BYTES) -> None:
        #: All events after this id, up to the hub's position, are here.
        self.after = position
        self._end = position
        self._most = events
        self._most_bytes = size
        self._stretches: list[_Stretch] = []
        self._ends: list[int] = []
        #: So many of them are forgotten and still to be taken off the lists.
        self._gone = 0
        self._count = self._ever = 0
        self._bytes = 0

    def add(self, events: Sequence[Told], end: int, size: int) -> None:
        """Take up what was delivered next; ``size`` is about how many bytes of values it holds."""
        if events:
            self._stretches.append(_Stretch(self._end, end, events, size, self._ever))
            self._ends.append(end)
            self._ever += len(events)
            self._count += len(events)
            self._bytes += size
        self._end = end
        while self._count and (self._count > self._most or self._bytes > self._most_bytes):
            gone, self._stretches[self._gone] = self._stretches[self._gone], _FORGOTTEN
            self._gone += 1
            self._count -= len(gone.events)
            self._bytes -= gone.size
            self.after = gone.end
        if self._gone > len(self._ends) // 2:
            del self._stretches[: self._gone]
            del self._ends[: self._gone]
            self._gone = 0

    def room(self) -> tuple[int, int]:
        """Give how many events and bytes of values may still be added without anything being forgotten."""
        return self._most - self._count, self._most_bytes - self._bytes

    def add_before(self, events: Sequence[Told], after: int, size: int) -> None:
        """Take up what was delivered before all that is here: all that came after that id."""
        if events:
            place = self._gone
            before = self._stretches[place].before if place < len(self._stretches) else self._ever
            self._stretches.insert(place, _Stretch(after, self.after, events, size, before - len(events)))
            self._ends.insert(place, self.after)
            self._count += len(events)
            self._bytes += size
        self.after = after

    def forget(self, position: int) -> None:
        """Begin anew behind a place of which nothing is known."""
        self._stretches.clear()
        self._ends.clear()
        self._count = self._bytes = self._gone = 0
        self.after = self._end = position

    def count_after(self, position: int) -> int | None:
        """Count the events after a position, some before it perhaps with them; ``None`` when not all are here."""
        if position < self.after:
            return None
        place = self._place(position)
        return self._ever - self._stretches[place].before if place < len(self._stretches) else 0

    def events_after(self, position: int) -> Iterator[Told]:
        """Give the events after a position; asked only where all of them are here."""
        for place in range(self._place(position), len(self._stretches)):
            stretch = self._stretches[place]
            if stretch.after >= position:
                yield from stretch.events
            else:
                yield from dropwhile(lambda told: told.id <= position, stretch.events)

    def _place(self, position: int) -> int:
        """Find the first stretch that goes beyond a position."""
        return bisect_right(self._ends, position, self._gone)
