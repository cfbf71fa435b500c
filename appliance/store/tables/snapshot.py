"""The rows that a table has now, in short pages by its key. Works on an open connection.

Each page is a read transaction of its own: one that lasted for a whole table would keep the WAL from being reset. What
happens between two pages is in the outbox, after the first page's position.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from appliance.capture.expressions import Value, outbox_row, vector
from appliance.capture.shape import Table
from appliance.errors import BadRequest
from appliance.model import Affinity, Image, Shape, SQLiteValue, ascii_fold, quote_identifier
from appliance.protocol.collations import COLLATIONS
from appliance.store.file import connections, schema
from appliance.store.file.texts import placeholder
from appliance.store.tables import catalog

#: Rows of one page, and about how many bytes of values it stops at.
PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 1 << 20
#: Rows that one page looks at where no index leads to those that are wanted: a few milliseconds. First only so many as
#: are enough where most are wanted: to find where 20,000 rows end costs as much as to send 50.
SCAN_ROWS: Final = (2 * PAGE_ROWS, 20_000)


@dataclass(frozen=True, slots=True)
class Condition:
    """Which rows are wanted: an expression over a row of the table, and its parameters."""

    sql: str
    parameters: tuple[SQLiteValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Between which rows the next page begins: behind the one with this key. ``key`` is ``None`` before the first."""

    key: tuple[SQLiteValue, ...] | None = None


@dataclass(frozen=True, slots=True)
class RowsPage:
    """Some rows. ``next`` is where the next page begins, ``None`` when there is none; ``position`` that of this one."""

    images: list[Image]
    next: Place | None
    position: int


def page(db: sqlite3.Connection, shape: Shape, wanted: Condition, place: Place) -> RowsPage:
    """Read the next rows of a table that are wanted.

    Raises ``BadRequest`` when the table has no key that pages can go by, ``sqlite3.Error`` also when the table is not
    of this shape any more.
    """
    db.execute("BEGIN")
    try:
        position = schema.highest(db)
        table = catalog.table(db, shape.table)
        if table is None:
            raise sqlite3.OperationalError(f"no such table: {shape.table}")
        keys = _keys(table)
        return connections.tolerant(db, lambda: _page(db, shape, table, keys, wanted, place, position))
    finally:
        db.execute("COMMIT")


def is_doubtful(shape: Shape) -> bool:
    """Whether the table may have no key that pages can go by: ``check`` knows.

    Its columns have taken every name of the rowid, or it may have none, and a key under an application's collation.
    """
    if {"rowid", "oid", "_rowid_"} <= {ascii_fold(column.name) for column in shape.columns}:
        return True
    keys = [shape.columns[position] for position in shape.key]
    numbers = all(each.affinity is Affinity.INTEGER and each.collation.upper() in COLLATIONS for each in keys)
    return not (shape.rowid or shape.standard or (keys and numbers))


def check(db: sqlite3.Connection, shape: Shape) -> None:
    """Raise ``BadRequest`` when the table has no key that pages can go by."""
    table = catalog.table(db, shape.table)
    if table is not None:
        _keys(table)


def row(db: sqlite3.Connection, shape: Shape, reference_id: str) -> Image | None:
    """Read one row of a standard table as it is now; ``None`` when it is not there, or the table of another shape."""
    _, shown, cut = outbox_row([Value(quote_identifier(column.name)) for column in shape.columns])
    mark, bound = placeholder(reference_id)
    sql = f"SELECT {cut}, {','.join(shown)} FROM main.{quote_identifier(shape.table)} WHERE reference_id = {mark}"
    try:
        found = connections.tolerant(db, lambda: db.execute(sql, (bound,)).fetchone())
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR:
            raise
        return None
    return None if found is None else _image(found, shape)


def _page(
    db: sqlite3.Connection,
    shape: Shape,
    table: Table,
    keys: Sequence[str],
    wanted: Condition,
    place: Place,
    position: int,
) -> RowsPage:
    name, order = quote_identifier(table.name), ",".join(keys)
    behind, start = _beyond(keys, ">", place.key)
    values = [Value(quote_identifier(column.name)) for column in shape.columns]
    if shape.rowid:
        values.insert(0, Value(str(table.rowid)))
    _, shown, cut = outbox_row(values)
    select = ",".join([*keys, cut, *shown])

    def images(rows: Sequence[tuple[Any, ...]]) -> list[Image]:
        return [_image(row[len(keys) :], shape) for row in rows]

    chosen, rest = f"SELECT {select} FROM main.{name} WHERE", f"AND ({wanted.sql}) ORDER BY {order} LIMIT"
    rows: list[tuple[Any, ...]] = []
    looks: Sequence[int | None] = SCAN_ROWS
    if _led(db, f"{chosen} {behind} {rest} 1", (*start, *wanted.parameters)):
        looks = (None,)
    for ahead in looks:
        bound: tuple[SQLiteValue, ...] | None = None
        within, parameters = behind, start
        if ahead is not None:
            bound = db.execute(
                f"SELECT {order} FROM main.{name} WHERE {behind} ORDER BY {order} LIMIT 1 OFFSET {ahead - 1}", start
            ).fetchone()
        if bound is not None:
            end, values_of_end = _beyond(keys, "<=", bound)
            within, parameters = f"{behind} AND {end}", (*start, *values_of_end)
        cursor = db.execute(f"{chosen} {within} {rest} {PAGE_ROWS - len(rows)}", (*parameters, *wanted.parameters))
        if _is_full(rows, cursor):
            return RowsPage(images(rows), Place(rows[-1][: len(keys)]), position)
        if bound is None:
            return RowsPage(images(rows), None, position)
        behind, start = _beyond(keys, ">", bound)
    return RowsPage(images(rows), Place(bound), position)


def _is_full(rows: list[tuple[Any, ...]], cursor: sqlite3.Cursor) -> bool:
    """Read on to the end of a page; false when the rows end before."""
    room = PAGE_BYTES - sum([_size(row) for row in rows])
    found, size = connections.bounded(cursor, room)
    rows += found
    return size > room or len(rows) == PAGE_ROWS


def _size(row: tuple[Any, ...]) -> int:
    return sum([len(value) for value in row if isinstance(value, (str, bytes))])


def _image(row: tuple[Any, ...], shape: Shape) -> Image:
    cut, *values = row
    missing: frozenset[int] = frozenset()
    if cut:  # the values that are too long stand as empty blobs, as in the outbox
        missing = frozenset(place - shape.rowid for place, value in enumerate(values) if value == b"")
        values = [None if value == b"" else value for value in values]
    if shape.rowid:
        return Image(tuple(values[1:]), values[0], missing)
    return Image(tuple(values), None, missing)


def _keys(table: Table) -> list[str]:
    """Give the columns whose values lead from one row to the next. Raises ``BadRequest``."""
    if table.without_rowid:
        missing = catalog.missing_collation(table)
        if missing is not None:
            raise BadRequest(
                f'"{table.name}" gives no snapshot: it is WITHOUT ROWID, and SQLite cannot read it without its key\'s '
                f'collation "{missing}", which its application has and this server has not; subscribe without it, or '
                "give the key a collation of SQLite's own"
            )
        return [quote_identifier(column.name) for column in table.key]
    if table.rowid is None:
        raise BadRequest(
            f'"{table.name}" gives no snapshot: its columns are called rowid, oid and _rowid_, so its rows cannot be '
            "read page by page; subscribe without it"
        )
    return [table.rowid]


def _beyond(
    keys: Sequence[str], relation: str, bound: tuple[SQLiteValue, ...] | None
) -> tuple[str, tuple[SQLiteValue, ...]]:
    """Say that a row's key is beyond a bound; text goes in as its bytes, which need not be UTF-8."""
    if bound is None:
        return "1", ()
    marks = ["CAST(? AS TEXT)" if isinstance(value, str) else "?" for value in bound]
    values = (value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value for value in bound)
    return f"{vector(keys)}{relation}{vector(marks)}", tuple(values)


def _led(db: sqlite3.Connection, sql: str, parameters: Sequence[SQLiteValue]) -> bool:
    """Whether an index leads to the rows in question, in their order, so that no others have to be looked at."""
    steps = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()]
    return any("INDEX" in step and "=?" in step for step in steps) and not any("TEMP B-TREE" in step for step in steps)
