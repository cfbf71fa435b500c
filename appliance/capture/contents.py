"""What there is in each block of the outbox, as far as it was seen: who looks for little need not look at all of it.

To look through a million rows takes SQLite a tenth of a second, most of it for going from one to the next, whatever is
asked. Which shapes and topics a block's rows are of, from where to where each of their values goes, and roughly which
values those are, says of most blocks that nothing in them can be wanted.

A block is left out only when all of its rows were seen and none is of a kind in question, or none of those has a value
in question; of any other it is said that there may be some. No row is ever changed or comes later to a place that was
seen; so what is known stays true while rows are deleted, and nobody has to be told of that. For the same reason it is
true behind a start that goes on in the same epoch: of which kinds a block's rows are is kept, roughly, in a few bytes.
(What their values are takes a thousand times as much, and texts have other hashes in each process.)
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from appliance.model import Op, SQLiteValue, ascii_fold

#: Ids of a block. Of 100 wanted rows among a million, each alone in its block, a tenth is read; to pass over all of the
#: blocks takes 0.5 ms.
BLOCK: Final = 1024
#: Blocks of which something is known; the oldest are forgotten. 4 million rows take 40 MiB, a hundred at most.
BLOCKS: Final = 4096
#: Bits for the signs of a block's values, so many for each value that is not another's equal, at most all places that
#: the four 16-bit parts of a hash can name: a Bloom filter with four hashes. Where each row has 4 values of its own, a
#: fifth is read of the blocks that have none of 100 wanted values.
PLACES: Final = 1 << 16
EACH: Final = 16
LEAST: Final = 1 << 10
#: So many rows are gone through together, or of fewer so many bytes: one by one a row takes four times as long.
TOGETHER: Final = 64
TOGETHER_BYTES: Final = 1 << 20
#: Of a text so many bytes say where it is in the order; and of about so many of a block's columns, of all tables
#: together, it is known from where to where their values go: 16 KiB at most.
LEADING: Final = 32
COLUMNS: Final = 64
#: Bytes that say of which kinds a block's rows are, two bits for each kind: of one that is not among ten others it is
#: said that there may be some in one of a hundred blocks.
KINDS: Final = 28

#: A shape's id, or a user topic's folded name.
Kind: TypeAlias = int | str
#: Where a value that is not NULL is in SQLite's order: numbers, text by the bytes of its UTF-8, blobs all in one place.
Place: TypeAlias = tuple[int, Any]

_id = itemgetter(0)
#: ``id, shape, op, cut`` come before a row's values.
_VALUES: Final = 4
_ONE: Final = ord("1")
#: The signs of all values that there are.
_ALL: Final = b"\xff"


class Having(NamedTuple):
    """What a row must have at ``position``: a value in one of these stretches of the order, or one of ``these``."""

    position: int
    stretches: tuple[tuple[Place, Place], ...]
    these: tuple[tuple[Place | None, tuple[int, ...]], ...]


#: What is looked for, alternatives: rows of a kind that have all of this.
Sought: TypeAlias = tuple[tuple[Kind, tuple[Having, ...]], ...]


def within(position: int, stretches: Collection[tuple[SQLiteValue, SQLiteValue]]) -> Having:
    """Have a value that is, in SQLite's order, in one of these stretches, both ends included."""
    return Having(position, tuple((in_order(low), in_order(high)) for low, high in stretches), ())


def one_of(position: int, values: Collection[SQLiteValue]) -> Having:
    """Have one of these values, or one that equals it."""
    signs = (tuple(_parts([hash((each, position))])) for each in values)
    places = (None if each is None else in_order(each) for each in values)
    return Having(position, (), tuple(zip(places, signs, strict=True)))


def _parts(hashes: Collection[int]) -> Iterable[int]:
    """Give the four parts of each hash: where its bits are."""
    return memoryview(array("q", hashes)).cast("B").cast("H")


def in_order(value: SQLiteValue) -> Place:
    """Say where a value is, if it is not NULL; what SQLite has before another value is not behind it here."""
    if isinstance(value, str):
        return 1, value[:LEADING].encode("utf-8", "surrogateescape")[:LEADING]
    return (2, b"") if isinstance(value, bytes) else (0, value)


def _span(values: set[SQLiteValue]) -> tuple[Place, Place]:
    """Give the places of the least and the greatest of these values; there is one, and none is ``None``."""
    try:
        low, high = min(values), max(values)  # type: ignore[type-var]
        if not isinstance(low, str) or all(map(str.isascii, values)):  # type: ignore[arg-type]
            return in_order(low), in_order(high)
    except TypeError:
        pass  # values of several classes
    places = [in_order(each) for each in values]
    return min(places), max(places)


class _Roughly:
    """The kinds of a block as far as they were kept: all that there are, and perhaps some that there are not."""

    __slots__ = ("_bits",)

    def __init__(self, bits: bytes) -> None:
        self._bits = int.from_bytes(bits, "little")

    def __contains__(self, kind: Kind) -> bool:
        mark = _mark(kind)
        return self._bits & mark == mark

    def __getitem__(self, kind: Kind) -> None:
        """Say nothing of where its values go."""

    @staticmethod
    def keep(kinds: Iterable[Kind]) -> bytes:
        bits = 0
        for kind in kinds:
            bits |= _mark(kind)
        return bits.to_bytes(KINDS, "little")


@lru_cache(maxsize=4096)
def _mark(kind: Kind) -> int:
    """Give a kind's two bits, the same in each process."""
    hashed = zlib.crc32(str(kind).encode("utf-8", "surrogatepass"))
    return 1 << hashed % (8 * KINDS) | 1 << (hashed >> 16) % (8 * KINDS)


class _Block(NamedTuple):
    """One block: for each kind of its rows from where to where its values go, and which signs these have, a bit each.

    The ends of a kind's values follow each other, two for each position, ``None`` where all are NULL. They are ``None``
    altogether where they are not known.
    """

    kinds: dict[Kind, tuple[Place | None, ...] | None] | _Roughly
    signs: bytes

    def may_hold(self, sought: Sought) -> bool:
        return any(
            kind in self.kinds and all(self._may_have(each, self.kinds[kind]) for each in having)
            for kind, having in sought
        )

    def _may_have(self, having: Having, ends: tuple[Place | None, ...] | None) -> bool:
        position, stretches, these = having
        if ends is not None:
            low, high = ends[2 * position : 2 * position + 2] or (None, None)
            if low is None or high is None:
                stretches, these = (), tuple(each for each in these if each[0] is None)
            else:
                stretches = tuple(each for each in stretches if each[0] <= high and low <= each[1])
                these = tuple(each for each in these if each[0] is None or low <= each[0] <= high)
        return bool(stretches) or any(map(self._has, these))

    def _has(self, value: tuple[Place | None, tuple[int, ...]]) -> bool:
        mask = 8 * len(self.signs) - 1
        for part in value[1]:
            place = part & mask
            if not self.signs[place >> 3] & 0x80 >> (place & 7):
                return False
        return True


class Contents:
    """What is in each block that was seen from its first row to its last. Of others nothing is known.

    One thread takes note; any may ask meanwhile. Who reads elsewhere in the outbox has ``another``. ``known`` are the
    kinds of blocks that were seen before a start, as ``keep`` was given them.
    """

    def __init__(
        self, known: Mapping[int, bytes] | None = None, keep: Callable[[int, bytes], None] | None = None
    ) -> None:
        newest = sorted((known or {}).items())[-BLOCKS:]
        self._blocks = {number: _Block(_Roughly(kinds), _ALL) for number, kinds in newest}
        self._keep = keep
        self._unkept: list[tuple[int, bytes]] = []
        self._end = 0
        #: The block that is being seen, whether from its first row on, and what is in it so far.
        self._number = -1
        self._whole = False
        self._kinds: dict[Kind, list[Place | None] | None] = {}
        self._columns = 0
        self._hashes: set[int] = set()
        #: Of its rows, what has not yet been gone through, and about how many bytes of values that is.
        self._rows: list[tuple[Any, ...]] = []
        self._size = 0

    def another(self) -> Contents:
        """Give one that knows the same, and by which another thread takes note for both of what it reads."""
        other = Contents(keep=self._keep)
        other._blocks = self._blocks
        return other

    def keep(self) -> None:
        """Have it kept what was seen since the last time. For the thread that all is kept by."""
        found, self._unkept = self._unkept, []
        if self._keep is not None:
            for number, kinds in found:
                self._keep(number, kinds)

    def note(self, after: int, rows: Sequence[tuple[Any, ...]], end: int, size: int) -> None:
        """Take note of ``rows``, as ``outbox.select_after`` gives them: all that there are in (``after``, ``end``].

        ``size`` is about how many bytes of values they hold.
        """
        if after != self._end:
            self._rows.clear()
            self._number, self._whole = -1, False
        self._end = end
        if rows and self._rows and len(rows[0]) != len(self._rows[0]):  # a wider table is new
            self._go_through()
        self._size += size
        place = 0
        while place < len(rows):
            number = rows[place][0] // BLOCK
            if number != self._number:
                self._finish()
                self._number, self._whole = number, after < max(1, number * BLOCK)
            upto = len(rows) if rows[-1][0] // BLOCK == number else bisect_left(rows, (number + 1) * BLOCK, key=_id)
            if self._whole:
                self._rows += rows if upto - place == len(rows) else rows[place:upto]
            place = upto
        if len(self._rows) >= TOGETHER or self._size > TOGETHER_BYTES:
            self._go_through()

    def _go_through(self) -> None:
        # Of each change that there is: whole columns at a time, with as little of Python as can be.
        of_shape: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
        for row in self._rows:
            if row[1] is not None:
                of_shape[row[1]].append(row)
            elif row[2] == Op.MESSAGE and isinstance(row[4], str):
                self._kinds[ascii_fold(row[4])] = None
        for shape, some in of_shape.items():
            ends = self._kinds.setdefault(shape, [] if self._columns < COLUMNS else None)
            columns = list(zip(*some, strict=True))[_VALUES:]
            if ends is not None:
                ends += [None] * (2 * len(columns) - len(ends))
            for position, column in enumerate(columns):
                values = set(column)
                self._hashes.update(map(hash, zip(values, repeat(position))))
                values.discard(None)
                if values and ends is not None:
                    self._extend(ends, 2 * position, *_span(values))
        self._rows.clear()
        self._size = 0

    def _extend(self, ends: list[Place | None], at: int, low: Place, high: Place) -> None:
        before, behind = ends[at], ends[at + 1]
        if before is None or behind is None:
            self._columns += 1
            ends[at], ends[at + 1] = low, high
        else:
            ends[at], ends[at + 1] = min(before, low), max(behind, high)

    def _finish(self) -> None:
        """Keep what is known of the block that has been seen; the next rows are of another."""
        self._go_through()
        if self._whole:
            marks = bytearray(b"0" * PLACES)
            for place in _parts(self._hashes):
                marks[place] = _ONE
            bits, size = int(marks, 2), PLACES
            while size > max(LEAST, EACH * len(self._hashes)):
                size //= 2  # a place in the upper half is then the one in the lower half
                bits = bits >> size | bits & ((1 << size) - 1)
            kinds = {kind: None if ends is None else tuple(ends) for kind, ends in self._kinds.items()}
            self._blocks[self._number] = _Block(kinds, bits.to_bytes(size // 8, "big"))
            self._unkept.append((self._number, _Roughly.keep(kinds)))
            if len(self._blocks) > BLOCKS:
                self._blocks.pop(min(self._blocks), None)  # both may have found the same
        self._kinds.clear()
        self._columns = 0
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
