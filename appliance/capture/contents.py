"""What there is in each block of the outbox, as far as it was seen: who looks for little need not look at all of it.

To look through a million rows takes SQLite a tenth of a second, most of it for going from one to the next, whatever is
asked. Which shapes and topics a block's rows are of, says of most blocks that nothing in them can be wanted.

A block is left out only when all of its rows were seen and none is of a kind in question; of any other it is said that
there may be some. No row is ever changed or comes later to a place that was seen; so what is known stays true while
rows are deleted, and nobody has to be told of that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

from appliance.model import Op, ascii_fold

#: Ids of a block. Of 100 wanted rows among a million, each alone in its block, a tenth is read; to pass over all of the
#: blocks takes 0.2 ms.
BLOCK: Final = 1024
#: Blocks of which something is known; the oldest are forgotten. 2 MiB at most, for 16 million rows.
BLOCKS: Final = 16_384

#: A shape's id, or a user topic's folded name.
Kind: TypeAlias = int | str

_id = itemgetter(0)


class Contents:
    """Which kinds of rows there are in each block. Nothing is known of what was not noted.

    One thread takes note; any may ask meanwhile.
    """

    def __init__(self) -> None:
        #: Only of blocks that were seen from their first id on, and as far as ``_end``.
        self._blocks: dict[int, frozenset[Kind]] = {}
        self._end = 0

    def note(self, after: int, rows: Sequence[tuple[Any, ...]], end: int) -> None:
        """Take note of ``rows``, as ``outbox.select_after`` gives them: all that there are in (``after``, ``end``]."""
        if after != self._end:
            self._blocks.clear()
        blocks, place = self._blocks, 0
        while place < len(rows):
            block = rows[place][0] // BLOCK
            upto = bisect_left(rows, (block + 1) * BLOCK, place, key=_id)
            if block in blocks or after < max(1, block * BLOCK):  # seen from its first row on
                known = blocks.get(block, frozenset()) | _kinds(rows[place:upto])
                before = blocks.get(block - 1)
                blocks[block] = before if before is not None and before == known else known  # most are alike
            place = upto
        while len(blocks) > BLOCKS:
            del blocks[next(iter(blocks))]
        self._end = end

    def stretches(self, after: int, upto: int, kinds: frozenset[Kind] | None) -> Iterator[tuple[int, int]]:
        """Give, in order, the stretches of (``after``, ``upto``] that may hold rows of these kinds, ``None``: of any.

        A stretch is given like that, too: after which id it begins, and its last one.
        """
        # In this order: what ``note`` writes first is there when its end is.
        seen, place, begun = self._end, after, None if kinds is not None else after
        while kinds is not None and place < upto:
            block = (place + 1) // BLOCK
            last = min(upto, (block + 1) * BLOCK - 1)
            known = self._blocks.get(block) if last <= seen else None
            if known is None or not kinds.isdisjoint(known):
                begun = place if begun is None else begun
            elif begun is not None:
                yield begun, place
                begun = None
            place = last
        if begun is not None and begun < upto:
            yield begun, upto


def _kinds(rows: Sequence[tuple[Any, ...]]) -> frozenset[Kind]:
    shapes = {row[1] for row in rows}
    if None in shapes:  # messages, and what nobody looks for
        shapes.remove(None)
        shapes |= {ascii_fold(row[4]) for row in rows if row[2] == Op.MESSAGE and isinstance(row[4], str)}
    return frozenset(shapes)
