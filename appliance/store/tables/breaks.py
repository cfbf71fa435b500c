"""Where the events of a table are not the whole story: its triggers were made anew, or its rowids may be others now.

Whoever resumes from before a table's break would miss, without knowing, what was written while nothing was captured. A
break is a row of the outbox, too, so that no position is before and after it at once: not even where nothing else was
written meanwhile. Works: plain functions on an open connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from appliance.model import Op, ascii_fold
from appliance.store.file import schema


def note(db: sqlite3.Connection, tables: Collection[str]) -> None:
    """Note, inside a transaction, that the events of these tables are complete only from now on."""
    known = breaks(db)
    position = 0
    # A table that is captured before any event is has none to miss.
    if schema.highest(db) > 0 or any(ascii_fold(table) in known for table in tables):
        position = int(db.execute("INSERT INTO _appliance_outbox(op) VALUES(?)", (int(Op.BREAK),)).lastrowid or 0)
    db.executemany(
        'INSERT INTO _appliance_break("table", id) VALUES(?, ?) ON CONFLICT("table") DO UPDATE SET id = excluded.id',
        [(table, position) for table in tables],
    )


def breaks(db: sqlite3.Connection) -> dict[str, int]:
    """Give the position of each table's last break, by folded name: its events are complete after it."""
    rows = db.execute('SELECT "table", id FROM _appliance_break').fetchall()
    return {ascii_fold(table): position for table, position in rows}
