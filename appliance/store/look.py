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

    ``rows`` are the outbox rows after the position it asked for, in order, as far as the bounds allow; ``full``
    says that there may be more.
    """

    data_version: int
    schema_version: int
    generation: int
    incarnation: str
    highest: int
    rows: Sequence[OutboxRow]
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
        try:
            rows, full = _rows(db, after, at_least)
        except sqlite3.OperationalError as error:
            if "decode" not in str(error).lower():
                raise
            # Text that is not UTF-8. Decoding by a function of ours costs every row, so only these looks pay it.
            db.text_factory = connections.text
            try:
                rows, full = _rows(db, after, at_least)
            finally:
                db.text_factory = str
    finally:
        db.execute("COMMIT")
    return Look(
        version, schema_version, settings.get("generation", 0), settings.get("incarnation", ""), highest, rows, full
    )


def _rows(db: sqlite3.Connection, after: int, at_least: int) -> tuple[list[OutboxRow], bool]:
    limit = max(LOOK_ROWS, at_least)
    cursor = db.execute(outbox.SELECT_AFTER, (after, limit))
    rows: list[OutboxRow] = []
    size = 0
    while chunk := cursor.fetchmany(_CHUNK_ROWS):
        rows += chunk
        size += sum([len(value) for row in chunk for value in row if isinstance(value, (str, bytes))])
        if size > LOOK_BYTES and len(rows) >= at_least:
            cursor.close()
            return rows, True
    return rows, len(rows) == limit
