"""What there is in each block of the outbox, as far as it was seen: who looks for little need not look at all of it.

To look through a million rows takes SQLite a tenth of a second, most of it for going from one to the next, whatever is
asked. Which shapes and topics a block's rows are of, and roughly which values are in them, says of most blocks that
nothing in them can be wanted.

A block is left out only when all of its rows were seen and none is of a kind in question, or none of those has a value
in question; of any other it is said that there may be some. No row is ever changed or comes later to a place that was
seen; so what is known stays true while rows are deleted, and nobody has to be told of that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from appliance.model import Op, SQLiteValue, ascii_fold

#: Ids of a block. Of 100 wanted rows among a million, each alone in its block, a tenth is read; to pass over all of the
#: blocks takes 0.5 ms.
BLOCK: Final = 1024
#: Blocks of which something is known; the oldest are forgotten. 18 MiB at most, for 4 million rows.
BLOCKS: Final = 4096
#: Places for the signs of a block's values, a bit each. Where each row has 4 values of its own, an eighth is read of
#: the blocks that have not the wanted one. (A Bloom filter with one hash: a second would make it dearer to take note.)
PLACES: Final = 1 << 15

#: A shape's id, or a user topic's folded name.
Kind: TypeAlias = int | str

#: What is looked for, alternatives: rows of a kind that have, of each of these sets of ``signs``, at least one.
Sought: TypeAlias = tuple[tuple[Kind, tuple[frozenset[int], ...]], ...]

_id = itemgetter(0)
#: ``id, shape, op, cut`` come before a row's values.
_VALUES: Final = 4
_ONE: Final = ord("1")


def signs(values: Iterable[SQLiteValue]) -> frozenset[int]:
    """Give the signs of values, equal ones for equal values."""
    return frozenset(hash(value) % PLACES for value in values)


class _Block(NamedTuple):
    """One block: the kinds of its rows, and which signs their values have, a bit each."""

    kinds: frozenset[Kind]
    signs: bytes

    def may_hold(self, sought: Sought) -> bool:
        return any(
            kind in self.kinds and all(any(map(self._has, one_of)) for one_of in having) for kind, having in sought
        )

    def _has(self, sign: int) -> int:
        return self.signs[sign >> 3] & 0x80 >> (sign & 7)


class Contents:
    """What is in each block that was seen from its first row to its last. Of others nothing is known.

    One thread takes note; any may ask meanwhile.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._end = 0
        #: The block that is being seen, whether from its first row on, and what is in it so far.
        self._number = -1
        self._whole = False
        self._kinds: set[Kind] = set()
        self._hashes: set[int] = set()

    def note(self, after: int, rows: Sequence[tuple[Any, ...]], end: int) -> None:
        """Take note of ``rows``, as ``outbox.select_after`` gives them: all that there are in (``after``, ``end``]."""
        if after != self._end:
            self._blocks.clear()
            self._number, self._whole = -1, False
        self._end = end
        place = 0
        while place < len(rows):
            number = rows[place][0] // BLOCK
            if number != self._number:
                self._finish()
                self._number, self._whole = number, after < max(1, number * BLOCK)
            upto = len(rows) if rows[-1][0] // BLOCK == number else bisect_left(rows, (number + 1) * BLOCK, key=_id)
            if self._whole:
                self._take(rows if upto - place == len(rows) else rows[place:upto])
            place = upto

    def _take(self, rows: Sequence[tuple[Any, ...]]) -> None:
        # Of each change that there is: whole rows at a time, with as little of Python as can be.
        hashes = self._hashes
        for row in rows:
            hashes.update(map(hash, row[_VALUES:]))
            kind = row[1]
            if kind is not None:
                self._kinds.add(kind)
            elif row[2] == Op.MESSAGE and isinstance(row[4], str):
                self._kinds.add(ascii_fold(row[4]))

    def _finish(self) -> None:
        """Keep what is known of the block that has been seen; the next rows are of another."""
        if self._whole:
            marks = bytearray(b"0" * PLACES)
            for each in self._hashes:
                marks[each % PLACES] = _ONE
            bits = int(marks, 2).to_bytes(PLACES // 8, "big")
            self._blocks[self._number] = _Block(frozenset(self._kinds), bits)
            if len(self._blocks) > BLOCKS:
                del self._blocks[next(iter(self._blocks))]
        self._kinds.clear()
        self._hashes.clear()

    def stretches(self, after: int, upto: int, sought: Sought | None) -> Iterator[tuple[int, int]]:
        """Give, in order, the stretches of (``after``, ``upto``] that may hold what is sought, ``None``: anything.

        A stretch is given like that, too: after which id it begins, and its last one.
        """
        place, begun = after, None if sought is not None else after
        while sought is not None and place < upto:
            number = (place + 1) // BLOCK
            block = self._blocks.get(number)
            if block is None or block.may_hold(sought):
                begun = place if begun is None else begun
            elif begun is not None:
                yield begun, place
                begun = None
            place = min(upto, (number + 1) * BLOCK - 1)
        if begun is not None and begun < upto:
            yield begun, upto
