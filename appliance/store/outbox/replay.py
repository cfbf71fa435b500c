"""Reading the outbox again: a page at a time, only what is wanted, with its position. Works on an open connection.

What a page says is decided by SQLite: rows that nobody wants never become Python objects. An event is several rows
(``capture.outbox``), and a condition is put to one row at a time; so rows that match are *candidates*, and the rows
round each are read as well, from which whole events are decoded. Whoever asks puts its filter to these once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from appliance.capture import outbox
from appliance.capture.contents import Contents
from appliance.capture.decode import Fault, decode
from appliance.model import Change, Message, Op, Shape
from appliance.store.file import connections, schema
from appliance.store.outbox.wanted import Wanted

#: Candidates of one page, and about how many bytes of values it stops at.
PAGE_ROWS: Final = 1000
PAGE_BYTES: Final = 512 << 10
#: Ids that one page looks at: some 30 ms of reading, during which the WAL cannot be reset.
PAGE_IDS: Final = 500_000

_CANDIDATES = "SELECT id FROM _appliance_outbox WHERE id > ?{} AND ({}) ORDER BY id LIMIT ?"
_RANGE = (
    f"SELECT id, shape, op, cut, {', '.join(outbox.VALUES)} FROM _appliance_outbox WHERE id BETWEEN ? AND ? ORDER BY id"
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
    rows, size = connections.bounded(db.execute(_RANGE, (first, last)), limit)
    return rows, size, size > limit and rows[-1][0] < last


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
