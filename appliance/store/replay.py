"""Reading the outbox again: a page at a time, only what is wanted, with its position. Works on an open connection.

What a page says is decided by SQLite: rows that nobody wants never become Python objects. An event is several rows
(``capture.outbox``), and a condition is put to one row at a time; so rows that match are *candidates*, and the rows
round each are read as well, from which whole events are decoded. Whoever asks puts its filter to these once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, NamedTuple

from appliance.capture import outbox
from appliance.capture.contents import Contents, Having, Kind, Sought, one_of, within
from appliance.capture.decode import Fault, decode
from appliance.model import Change, Message, Op, Shape, SQLiteValue, ascii_fold
from appliance.protocol.filters import RowFilter
from appliance.store import connections, schema

#: Candidates of one page, and about how many bytes of values it stops at.
PAGE_ROWS: Final = 1000
PAGE_BYTES: Final = 512 << 10
#: Ids that one page looks at: some 30 ms of reading, during which the WAL cannot be reset.
PAGE_IDS: Final = 500_000
#: What a filter may bind for each subscription, and the filters that the shapes of its table may differ in: of more,
#: SQLite is asked for the rows of the table. Of 32 subscriptions it is then less than the 32,766 values that SQLite
#: takes, and no deeper than the 1000 levels (https://sqlite.org/limits.html).
BOUND_VALUES: Final = 1000
VARIANTS: Final = 100
#: Of so many shapes it is asked one by one: a list costs each row as much as three tests (measured).
FEW_SHAPES: Final = 3
_CHUNK_ROWS: Final = 50

_CANDIDATES = "SELECT id FROM _appliance_outbox WHERE id > ?{} AND ({}) ORDER BY id LIMIT ?"
_RANGE = (
    f"SELECT id, shape, op, cut, {', '.join(outbox.VALUES)} FROM _appliance_outbox WHERE id BETWEEN ? AND ? ORDER BY id"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of the outbox: an expression over its rows that holds for at least one row of each such event.

    ``reach`` is how many rows an event that a candidate belongs to may go on before and behind it. Rows for which it
    holds are among what is ``sought``; ``None``: they may be any.
    """

    sql: str
    parameters: tuple[Any, ...] = ()
    reach: int = 0
    sought: Sought | None = None

    @classmethod
    def rows(cls, shapes: Sequence[tuple[Shape, RowFilter | None]]) -> Wanted:
        """Want the changes of a table: each shape that it has had, with its filter."""
        variants: dict[_Condition, list[int]] = {}
        sought: list[tuple[Kind, tuple[Having, ...]]] = []
        for shape, wanted in shapes:
            condition, having = _condition(shape, wanted)
            variants.setdefault(condition, []).append(shape.id)
            sought.append((shape.id, having))
        if len(variants) > VARIANTS or sum(len(each.parameters) for each in variants) > BOUND_VALUES:
            variants = {_ANY: [shape.id for shape, _ in shapes]}
        return cls(
            " OR ".join(f"({each.first}{_among(ids)}{each.then})" for each, ids in variants.items()) or "0",
            tuple(value for each in variants for value in each.parameters),
            max((2 * outbox.parts(shape.width) - 1 for shape, _ in shapes), default=0),
            tuple(sought),
        )

    @classmethod
    def named(cls, shapes: Sequence[tuple[Shape, int]], names: Sequence[SQLiteValue]) -> Wanted:
        """Want the changes of rows that have one of these values, of which none is ``None``, at each shape's place.

        They are bound once for all shapes that have the same place in a row.
        """
        by_value: dict[int, list[Shape]] = {}
        for shape, place in shapes:
            by_value.setdefault(place % outbox.WIDTH, []).append(shape)
        listed = ",".join("?" * len(names))
        sought: list[tuple[Kind, tuple[Having, ...]]] = []
        for value, some in by_value.items():
            having = (one_of(value, names),)
            sought += [(shape.id, having) for shape in some]
        return cls(
            " OR ".join(
                f"({_among([shape.id for shape in some])} AND {outbox.VALUES[value]} IN ({listed}))"
                for value, some in by_value.items()
            )
            or "0",
            tuple(names) * len(by_value),
            max((2 * outbox.parts(shape.width) - 1 for shape, _ in shapes), default=0),
            tuple(sought),
        )

    @classmethod
    def messages(cls, topic: str) -> Wanted:
        """Want the messages of a user topic."""
        return cls(f"op={int(Op.MESSAGE)} AND v0=? COLLATE NOCASE", (topic,), sought=((ascii_fold(topic), ()),))

    @classmethod
    def everything(cls, shapes: Iterable[Shape]) -> Wanted:
        """Want every event; ``shapes`` are all that there are."""
        return cls("1", (), max((2 * outbox.parts(shape.width) - 1 for shape in shapes), default=0))

    @classmethod
    def any_of(cls, several: Sequence[Wanted]) -> Wanted:
        """Want what any of these wants."""
        if len(several) == 1:
            return several[0]
        known = [each.sought for each in several]
        return cls(
            " OR ".join(f"({each.sql})" for each in several) or "0",
            tuple(value for each in several for value in each.parameters),
            max((each.reach for each in several), default=0),
            None if None in known else tuple(chain.from_iterable(each for each in known if each is not None)),
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Events in their order; ``end`` is the position up to which all has been looked at.

    ``trimmed``: what comes after the position is not all there any more; then there are no events. ``unknown``: a shape
    was not known; read the shapes again, then the page, with what there is now for all there ever will be. ``size`` is
    about how many bytes of values were read.
    """

    events: list[Change | Message]
    end: int
    trimmed: bool = False
    unknown: bool = False
    faults: tuple[Fault, ...] = ()
    size: int = 0


def page(
    db: sqlite3.Connection,
    after: int,
    upto: int,
    wanted: Wanted,
    shapes: Mapping[int, Shape],
    contents: Contents,
    *,
    complete: bool,
) -> Page:
    """Read what is wanted of the events in (``after``, ``upto``], as far as a page goes.

    ``upto`` is the id of an event; what ``contents`` says is not there is not looked for. With ``complete`` shapes a
    row of another one is a fault, not ``unknown``. Two pages in a row, the second from the ``end`` of the first, give
    every such event once: an event across the border is given with the candidate that was met first, and ``end`` is not
    before its id.
    Raises ``sqlite3.Error``.
    """
    db.execute("BEGIN")
    try:
        if after < schema.oldest(db):
            return Page([], after, trimmed=True)
        found, stop = _candidates(db, after, upto, wanted, contents)
        return connections.tolerant(db, lambda: _events(db, found, after, stop, upto, wanted.reach, shapes, complete))
    finally:
        db.execute("COMMIT")


def pages(
    db: sqlite3.Connection, after: int, upto: int, wanted: Wanted, shapes: Mapping[int, Shape], contents: Contents
) -> Iterator[Page]:
    """Read page by page what is kept of that; ``shapes`` are all that there are. Raises ``sqlite3.Error``."""
    while after < upto:
        found = page(db, after, upto, wanted, shapes, contents, complete=True)
        if found.trimmed:  # meanwhile, perhaps
            after = schema.oldest(db)
        else:
            yield found
            after = found.end


def last_message(db: sqlite3.Connection, topic: str, after: int, upto: int) -> int:
    """Give the id of the last kept message of topics of that name in (``after``, ``upto``]; 0 when there is none."""
    wanted = Wanted.messages(topic)
    sql = f"SELECT max(id) FROM _appliance_outbox WHERE id > ? AND id <= ? AND ({wanted.sql})"
    (found,) = db.execute(sql, (after, upto, *wanted.parameters)).fetchone()
    return int(found or 0)


def _candidates(
    db: sqlite3.Connection, after: int, upto: int, wanted: Wanted, contents: Contents
) -> tuple[list[int], int]:
    """Give the ids of the next rows that are wanted, and up to which id these are all."""
    found: list[int] = []
    unread = PAGE_IDS
    highest = schema.highest(db)
    for begun, last in contents.stretches(after, upto, wanted.sought):
        end = min(last, begun + unread)
        # A bound is another test of each row, and a quarter of the time: the last rows need none.
        bounded = end < upto or highest - begun > PAGE_IDS
        sql = _CANDIDATES.format(" AND id <= ?" if bounded else "", wanted.sql)
        bounds = (begun, end) if bounded else (begun,)
        rows = db.execute(sql, (*bounds, *wanted.parameters, PAGE_ROWS - len(found))).fetchall()
        found += [row[0] for row in rows if row[0] <= end]
        unread -= end - begun
        if len(found) == PAGE_ROWS:
            return found, found[-1]
        if unread <= 0:
            return found, end
    return found, upto


def _events(
    db: sqlite3.Connection,
    found: Sequence[int],
    after: int,
    stop: int,
    upto: int,
    reach: int,
    shapes: Mapping[int, Shape],
    complete: bool,
) -> Page:
    events: list[Change | Message] = []
    faults: list[Fault] = []
    size = 0
    for near, last in _ranges(found, reach):
        # What ends before the range is no candidate's, and another range may have given it.
        before = max(after, near - 1)
        rows, length, cut_off = _rows(db, _whole(db, near), last, PAGE_BYTES - size)
        size += length
        decoded = decode(_from_a_first(rows), shapes, more=True)
        while cut_off and not any(before < _id(each) for each in decoded.events):  # longer than a page
            rest, length, cut_off = _rows(db, rows[-1][0] + 1, last, PAGE_BYTES)
            rows += rest
            size += length
            decoded = decode(_from_a_first(rows), shapes, more=True)
        if not complete and any(fault.unknown_shape for fault in decoded.faults):
            return Page([], after, unknown=True)
        events += [each for each in decoded.events if before < _id(each) <= upto]
        faults += [fault for fault in decoded.faults if after < fault.id <= upto]
        if cut_off:
            return Page(events, _id(events[-1]) if events else stop, faults=tuple(faults), size=size)
    end = max(stop, _id(events[-1])) if events else stop
    return Page(events, end, faults=tuple(faults), size=size)


def _id(event: Change | Message) -> int:
    return event.id or 0  # in the outbox every event has one


def _whole(db: sqlite3.Connection, first: int) -> int:
    """Begin where an event begins: the groups that a deleted row was joined to stand before it, any number of them.

    And the new image of a row that was replaced, which is written as any inserted row is, stands behind the old one.
    """
    row = db.execute(
        "SELECT id, op FROM _appliance_outbox WHERE id < ? AND op NOT IN (?, ?) ORDER BY id DESC LIMIT 1",
        (first, int(Op.MORE), int(Op.GRANTS)),
    ).fetchone()
    if row is not None and row[1] == Op.UPDATE:
        return int(row[0])
    row = db.execute(
        "SELECT id FROM _appliance_outbox WHERE id < ? AND op <> ? ORDER BY id DESC LIMIT 1", (first, int(Op.GRANTS))
    ).fetchone()
    return first if row is None else min(first, int(row[0]) + 1)


def _from_a_first(rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
    """Leave out the end of an event whose first row is not among these."""
    return rows[next((place for place, row in enumerate(rows) if row[2] != Op.MORE), len(rows)) :]


def _rows(db: sqlite3.Connection, first: int, last: int, limit: int) -> tuple[list[tuple[Any, ...]], int, bool]:
    """Read rows until about ``limit`` bytes; give them, how many bytes they have, and whether there may be more."""
    cursor = db.execute(_RANGE, (first, last))
    rows: list[tuple[Any, ...]] = []
    size = 0
    while chunk := cursor.fetchmany(_CHUNK_ROWS):
        rows += chunk
        size += sum([len(value) for row in chunk for value in row if isinstance(value, (str, bytes))])
        if size > limit:
            cursor.close()
            return rows, size, rows[-1][0] < last
    return rows, size, False


def _ranges(found: Sequence[int], reach: int) -> Iterator[tuple[int, int]]:
    """Give the ranges of ids to read, disjoint and in order."""
    if not found:
        return
    first, last = found[0] - reach, found[0] + reach
    for candidate in found[1:]:
        if candidate - reach > last + 1:
            yield first, last
            first = candidate - reach
        last = candidate + reach
    yield first, last


def _among(shapes: Sequence[int]) -> str:
    """Say that a row is of one of these shapes."""
    if len(shapes) <= FEW_SHAPES:
        return "(" + " OR ".join(f"shape={each}" for each in shapes) + ")"
    # The tables of accounts, say, were there before any other: what is refused is beyond the last of them.
    within, listed = f"shape<={max(shapes)} AND shape>={min(shapes)}", ",".join(map(str, shapes))
    return f"({within} AND shape IN ({listed}))"


class _Condition(NamedTuple):
    """What stands before the test of a row's shape, and what behind it, with the parameters of both in their order."""

    first: str
    then: str
    parameters: tuple[SQLiteValue, ...]


_ANY: Final = _Condition("", "", ())


def _condition(shape: Shape, wanted: RowFilter | None) -> tuple[_Condition, tuple[Having, ...]]:
    """Say which rows of this shape can belong to an event that the filter lets through, and what these have.

    Conditions on values that stand in other rows of the same image cannot be put to one row; so only those of the
    part that has the first of them are. Such a row is the first of an event where it is of the first part, unless it is
    of an update's new image.

    Where many rows have to be looked at, most are of the table in question, or they would have been left out; so what
    costs no more than the test of the shape is tested before it.
    """
    if wanted is None:
        return _ANY, ()
    first, then = _Part(), _Part()
    part: int | None = None
    having: list[Having] = []
    for condition in wanted.conditions:
        place = condition.position + shape.rowid
        if part is not None and place // outbox.WIDTH != part:
            continue
        part = place // outbox.WIDTH
        stored, value = condition.stored, place % outbox.WIDTH
        into = first if stored.cheap else then
        into.sql.append("(" + stored.sql.replace("{}", outbox.VALUES[value]) + ")")
        into.values += stored.parameters
        if stored.among is not None:
            having.append(one_of(value, stored.among))
        if stored.between is not None:
            having.append(within(value, stored.between))
    if len(wanted.events) < len(_ROW_EVENTS) and not part:
        # An update's new image is written as a create where an insert has replaced the row.
        among = {*wanted.events, *((Op.MORE, Op.CREATE) if Op.UPDATE in wanted.events else ())}
        then.sql.insert(0, f"op IN ({','.join(str(int(op)) for op in sorted(among))})")
    made = _Condition(
        "".join(f"{each} AND " for each in first.sql),
        "".join(f" AND {each}" for each in then.sql),
        (*first.values, *then.values),
    )
    return made, tuple(having)


@dataclass(slots=True)
class _Part:
    sql: list[str] = field(default_factory=list)
    values: list[SQLiteValue] = field(default_factory=list)


_ROW_EVENTS: Final = frozenset((Op.CREATE, Op.UPDATE, Op.DELETE))
