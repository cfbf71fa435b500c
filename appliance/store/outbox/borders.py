"""Where in the outbox transactions are known to have ended.

A row of the outbox does not say which transaction it is of: nothing that a trigger can ask tells one from the next. But
whoever reads up to the newest row there is has read whole transactions, so that row is the last of one. The tail does
so all the time, and so does each page of a snapshot. What they have found out is kept in ``<db>-live``, too
(``incarnation``): events that were decided on one transaction at a time must not count as one after a restart, or who
holds a row by one of them would not be told that another has taken it. For the same reason what the tail has decided on
as one stays one: a page that was read in the midst of that is a border for who has its rows only (``live.replay``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from appliance.store.file import live_file
from appliance.store.file.live_file import BLOCK, LiveFile


class Borders:
    """Ids that were the newest when they were seen: no transaction has rows on both sides.

    The oldest are forgotten first: 16 million ids take 4 MiB at most. ``known``: those of before, as ``keep`` was given
    them, by the number of the block and a bit for each of its ids.
    """

    def __init__(self, known: Mapping[int, int] | None = None, keep: Callable[[int, int], None] | None = None) -> None:
        self._blocks = dict(known or {})
        self._first = min(self._blocks, default=0)
        last = max(self._blocks, default=0)
        #: Up to here events may have been decided on: no border comes before it any more.
        self.decided = max(0, last * BLOCK + self._blocks.get(last, 0).bit_length() - 1)
        self._keep = keep

    def note(self, position: int) -> None:
        """Remember that a transaction ends with this id, up to which events are decided on from now on."""
        self._add(position)
        self.decided = max(self.decided, position)

    def note_ahead(self, position: int) -> bool:
        """Remember that a transaction ends with this id, unless it is too late; give whether it is known now.

        It is too late when what is before and behind it may have been decided on as one.
        """
        if position >= self.decided:
            self._add(position)
        return self.is_one(position)

    def _add(self, position: int) -> None:
        number, place = divmod(position, BLOCK)
        known = self._blocks.get(number, 0)
        self._blocks[number] = ends = known | 1 << place
        if not known:
            self._first = min(number, self._first if len(self._blocks) > 1 else number)
            if len(self._blocks) > live_file.BLOCKS:
                del self._blocks[self._first]
                while self._first not in self._blocks:
                    self._first += 1
        if self._keep is not None and ends != known:
            self._keep(number, ends)

    def is_one(self, position: int) -> bool:
        """Whether a transaction is known to end with this id."""
        number, place = divmod(position, BLOCK)
        return bool(self._blocks.get(number, 0) >> place & 1)

    def before(self, event: int) -> int:
        """Give the last id before an event that a transaction is known to end with; 0 where none is."""
        number, place = divmod(event, BLOCK)
        bits = self._blocks.get(number, 0) & (1 << place) - 1
        while not bits:
            number -= 1
            if number < self._first:
                return 0
            bits = self._blocks.get(number, 0)
        return number * BLOCK + bits.bit_length() - 1

    def end(self, event: int, newest: int) -> int:
        """Give the first id from an event on that a transaction is known to end with; ``newest`` where none is."""
        number, place = divmod(event, BLOCK)
        bits = self._blocks.get(number, 0) >> place << place
        while not bits:
            number += 1
            if number * BLOCK > newest:
                return newest
            bits = self._blocks.get(number, 0)
        return min(newest, number * BLOCK + (bits & -bits).bit_length() - 1)

    def stretches(self, events: Iterable[int], newest: int) -> list[tuple[int, int]]:
        """Give the stretches of ids that the transactions of these events are in: after which id, and up to which.

        The events are in order, and so are these, none of them beyond ``newest``.
        """
        found: list[tuple[int, int]] = []
        for event in events:
            if not found or event > found[-1][1]:
                begun, end = self.before(event), self.end(event, newest)
                if found and found[-1][1] == begun:
                    begun = found.pop()[0]
                found.append((begun, end))
        return found


def known(live: LiveFile) -> Borders:
    """Give those that are known from before a start; what is noted from now on is kept in ``live``, too."""
    return Borders(live.borders(), live.note_borders)
