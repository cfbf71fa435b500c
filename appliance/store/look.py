"""One look of the tail: what has come into the outbox, in one short read transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.capture import outbox
from appliance.model import SQLiteValue
from appliance.store import connections, schema

#: How many outbox rows one look fetches, and about how many bytes of values it stops at: a bound for memory, and
#: for how long one read keeps the WAL from being reset.
LOOK_ROWS = 1000
LOOK_BYTES = 8 << 20
_CHUNK_ROWS = 50

OutboxRow = tuple[SQLiteValue, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What the tail saw in one short read transaction.

    ``rows`` are the outbox rows after the position it asked for, in order, as far as the bounds allow; ``size`` is
    about how many bytes of values they hold, ``full`` says that there may be more.
    """

    data_version: int
    schema_version: int
    generation: int
    incarnation: str
    highest: int
    rows: Sequence[OutboxRow]
    size: int
    full: bool


def look(db: sqlite3.Connection, after: int, known: int | None, at_least: int) -> Look | None:
    """Read what comes after the event id ``after``, as ``Store.look`` says."""
    (version,) = db.execute("PRAGMA data_version").fetchone()
    if version == known:
        return None
    # One read transaction, so that rows, schema and settings are of one moment. data_version comes before it:
    # a commit in between is then seen twice rather than never.
    db.execute("BEGIN")
    try:
        settings = dict(
            db.execute("SELECT name, value FROM _appliance_meta WHERE name IN ('generation', 'incarnation')").fetchall()
        )
        (schema_version,) = db.execute("PRAGMA schema_version").fetchone()
        highest = schema.highest(db)
        rows, size, full = connections.tolerant(db, lambda: _rows(db, after, at_least))
    finally:
        db.execute("COMMIT")
    return Look(
        data_version=version,
        schema_version=schema_version,
        generation=settings.get("generation", 0),
        incarnation=settings.get("incarnation", ""),
        highest=highest,
        rows=rows,
        size=size,
        full=full,
    )


def _rows(db: sqlite3.Connection, after: int, at_least: int) -> tuple[list[OutboxRow], int, bool]:
    limit = max(LOOK_ROWS, at_least)
    cursor = db.execute(outbox.SELECT_AFTER, (after, limit))
    rows: list[OutboxRow] = []
    size = 0
    while chunk := cursor.fetchmany(_CHUNK_ROWS):
        rows += chunk
        size += sum([len(value) for row in chunk for value in row if isinstance(value, (str, bytes))])
        if size > LOOK_BYTES and len(rows) >= at_least:
            cursor.close()
            return rows, size, True
    return rows, size, len(rows) == limit
