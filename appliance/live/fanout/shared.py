"""What readings have in common: many come back at once, all from about the same place, and it is read for them once.

After a while in which the server was away none of what has happened meanwhile is in memory. Then what is to be read for
many is put there. And all of it may count as one transaction, through which each is read for a page at a time: what a
stretch so long says of its rows is kept, too, for as long as anybody reads.

And when a thousand fall behind together, all of them go through the same events at the same time: what their rows are
judged by is found for the first and kept for the others, until anything that it rests on has moved.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeAlias, TypeVar

import trio

from appliance.live.fanout.recent import Recent
from appliance.live.matching.course import Course
from appliance.live.matching.telling import Told
from appliance.store.outbox.replay import Page

#: From so many readings at a time on, what they have to read is put into memory, where there is room.
MANY: Final = 4
#: Of so many changes courses are kept, and so many of them, the last ones; they take about 400 bytes a change.
KEPT: Final = 50_000
COURSES: Final = 500
#: After which id and up to which, of which tables (folded), and by which state of what is granted on them.
Stretch: TypeAlias = tuple[int, int, frozenset[str], int]
#: Of what was found at one moment so much is kept, the last of it: each is of a hundred events.
FOUND: Final = 64

T = TypeVar("T")


class Once(Generic[T]):
    """What the first who asks finds out for all."""

    __slots__ = ("_at", "_finding", "_found")

    def __init__(self) -> None:
        self._finding = trio.Lock()
        self._found: T | None = None
        self._at = -math.inf

    async def get(self, find: Callable[[], Awaitable[T]], since: float = -math.inf) -> T:
        """Give what was found after ``since`` (``trio.current_time()``).

        What ``find`` raises is raised, and the next one asks again.
        """
        async with self._finding:
            if self._found is None or self._at <= since:
                at = trio.current_time()
                self._found, self._at = await find(), at
            return self._found


class Shared:
    """What was read for one and is for all: ``recent``, and the courses that were made last while anybody reads."""

    def __init__(self, recent: Recent) -> None:
        self._recent = recent
        self._courses: dict[Stretch, Course | None] = {}
        self._being_read: dict[Stretch, trio.Lock] = {}
        self._filling = trio.Lock()
        self._readings = 0
        self._moment: tuple[object, ...] = ()
        self._at_moment: dict[Hashable, Any] = {}
        #: Behind here, and behind whatever is before it, there was too much for memory.
        self._too_much = -1

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Have courses kept until this has ended, and all others."""
        self._readings += 1
        try:
            yield
        finally:
            self._readings -= 1
            if not self._readings:
                self._courses.clear()
                self._being_read.clear()
                self._moment, self._at_moment = (), {}

    @property
    def many(self) -> bool:
        """Whether so many read that what each of them needs is better had for all."""
        return self._readings >= MANY

    def at(self, moment: tuple[object, ...], what: Hashable, make: Callable[[], T]) -> T:
        """Give what was made for the first who asked for it at this moment, while many read."""
        if not self.many:
            return make()
        if moment != self._moment:
            self._moment, self._at_moment = moment, {}
        if what not in self._at_moment:
            if len(self._at_moment) >= FOUND:
                del self._at_moment[next(iter(self._at_moment))]
            self._at_moment[what] = make()
        found: T = self._at_moment[what]
        return found

    async def fill(self, position: int, page: Callable[[int, int], Awaitable[Page]]) -> bool:
        """Have all that came after a position in memory if many read and there is room; give whether it is there.

        ``page`` reads from the outbox what came after one id up to another, and may raise.
        """
        if not self.many:
            return False
        async with self._filling:
            while self._too_much < position < self._recent.after:
                upto, at, (most, most_bytes) = self._recent.after, position, self._recent.room()
                events: list[Told] = []
                size = 0
                while at < upto and len(events) <= most and size <= most_bytes:
                    found = await page(at, upto)
                    if found.trimmed or found.unknown or found.faults:  # for whoever reads to deal with
                        return False
                    events += [Told(each) for each in found.events]
                    size += found.size
                    at = found.end
                if len(events) > most or size > most_bytes:
                    self._too_much = position
                elif upto == self._recent.after:  # else some of it was forgotten meanwhile
                    self._recent.add_before(events, position, size)
        return position >= self._recent.after

    def __contains__(self, stretch: Stretch) -> bool:
        """Whether there is the course of a stretch, or it is known to be too much."""
        return stretch in self._courses

    async def get(self, stretch: Stretch, read: Callable[[], Awaitable[Course | None]]) -> Course | None:
        """Give the course of a stretch, which does not change; ``None``: too much. It is ``read`` once; may raise."""
        reading = self._being_read.setdefault(stretch, trio.Lock())
        try:
            async with reading:
                if stretch not in self._courses:
                    self._courses[stretch] = found = await read()
                    changes = sum(each.changes for each in self._courses.values() if each is not None)
                    while (changes > KEPT or len(self._courses) > COURSES) and len(self._courses) > 1:
                        oldest = self._courses.pop(next(iter(self._courses)))
                        changes -= 0 if oldest is None else oldest.changes
                    return found
                return self._courses[stretch]
        finally:
            if not reading.locked():
                self._being_read.pop(stretch, None)
