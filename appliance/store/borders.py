"""Where in the outbox transactions are known to have ended.

A row of the outbox does not say which transaction it is of: nothing that a trigger can ask tells one from the next. But
whoever reads up to the newest row there is has read whole transactions, so that row is the last of one. The tail does
so all the time, and so does each page of a snapshot; of what they found out before a restart, the last is in
``<db>-live`` (``incarnation``), and some of the rest in the store's marks (``retention``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

from appliance.store import retention
from appliance.store.incarnation import LiveFile

#: Ids of a block, and blocks that are remembered, the oldest forgotten first: 16 million ids, 4 MiB at most.
BLOCK: Final = 1024
BLOCKS: Final = 16_384


class Borders:
    """Ids that were the newest when they were seen: no transaction has rows on both sides."""

    def __init__(self) -> None:
        #: By number, a bit for each id of a block.
        self._blocks: dict[int, int] = {}
        self._first = 0
        #: Keeps what is noted for the next start; ``None``: nothing does.
        self.keep: Callable[[int], None] | None = None

    def note(self, position: int) -> None:
        """Remember that a transaction ends with this id. They come in about their order: the tail is not alone."""
        number, place = divmod(position, BLOCK)
        known = self._blocks.get(number, 0)
        self._blocks[number] = known | 1 << place
        if not known:
            self._first = min(number, self._first if len(self._blocks) > 1 else number)
            if len(self._blocks) > BLOCKS:
                del self._blocks[self._first]
                while self._first not in self._blocks:
                    self._first += 1
        if self.keep is not None:
            self.keep(position)

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


def known(db: sqlite3.Connection, live: LiveFile) -> Borders:
    """Give those that are known from before a start; what is noted from now on is kept in ``live``, too."""
    found = Borders()
    for each in sorted({*live.borders(), *retention.marks(db)}):
        found.note(each)
    found.keep = live.note_border
    return found
