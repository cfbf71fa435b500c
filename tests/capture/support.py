"""A captured file to test with: one connection writes, another captures and reads the outbox."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.capture import outbox
from appliance.capture.decode import decode
from appliance.model import Change, Image, Op, Shape
from appliance.model import quote_identifier as quote
from appliance.store.file import schema
from appliance.store.file.connections import open_file
from appliance.store.file.texts import text
from appliance.store.tables import watch

Row = tuple[Any, ...]


def exactly(values: Sequence[Any]) -> Row:
    """Make values that are equal only to the bit: 1, 1.0 and True are one to Python, and so are 0.0 and -0.0."""
    return tuple(None if value is None else (type(value).__name__, repr(value)) for value in values)


def nothing_secret(_table: str, _column: str, _key: bool) -> bool:
    return False


def everything(_table: str) -> bool:
    return True


class Captured:
    """A file under capture. ``events`` gives what has come since it was last asked."""

    def __init__(
        self, path: Path, ddl: str = "", *, prepare: Callable[[sqlite3.Connection], None] | None = None
    ) -> None:
        self.path = path
        self.writer = self.connect()
        if prepare is not None:
            prepare(self.writer)
        self.writer.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + ddl)
        self.server = open_file(path, busy_timeout_s=5)
        self.server.text_factory = text
        schema.prepare(self.server)
        self.position = 0
        self.secret: Callable[[str, str, bool], bool] = nothing_secret
        self.watched: Callable[[str], bool] = everything
        self.synced = self.synchronise()

    def connect(self) -> sqlite3.Connection:
        """Open the file as somebody else would."""
        db = sqlite3.connect(self.path, isolation_level=None, timeout=5)
        db.text_factory = text
        return db

    def close(self) -> None:
        self.writer.close()
        self.server.close()

    def synchronise(self) -> watch.Synced:
        self.synced = watch.synchronise(self.server, secret=self.secret, watched=self.watched)
        return self.synced

    def rows(self) -> list[Row]:
        return self.server.execute(outbox.select_after(), (self.position, 10_000_000)).fetchall()

    def events(self) -> list[Change]:
        """Decode what is new. Every row must say something, and no id may be missing."""
        rows = self.rows()
        assert [row[0] for row in rows] == list(range(self.position + 1, self.position + 1 + len(rows)))
        decoded = decode(rows, watch.load_shapes(self.server), more=False)
        assert decoded.faults == []
        assert decoded.consumed == len(rows)
        self.position += len(rows)
        return [event for event in decoded.events if isinstance(event, Change)]

    def said(self, sql: str, parameters: Sequence[Any] = (), *, by: sqlite3.Connection | None = None) -> list[Row]:
        """Run a statement; say what came of it: ``(op, table, old values, new values)``."""
        (by or self.writer).execute(sql, parameters).fetchall()
        return [brief(event) for event in self.events()]

    def content(self, table: str) -> list[Row]:
        """Give the captured columns of a table's rows, to the bit."""
        columns = ", ".join(quote(column.name) for column in self.synced.shapes[table].columns)
        return sorted((exactly(row) for row in self.writer.execute(f"SELECT {columns} FROM {quote(table)}")), key=repr)


def brief(event: Change) -> Row:
    """Say an event in short."""
    return (
        event.op.name.lower(),
        event.shape.table,
        event.old.values if event.old else None,
        event.new.values if event.new else None,
    )


class Replica:
    """Tables as a reader of the events has them: rows by table and key, to the bit."""

    def __init__(self) -> None:
        self.rows: dict[Row, Row] = {}

    def apply(self, events: Sequence[Change]) -> None:
        for event in events:
            if event.old is not None:
                key = self._key(event.shape, event.old)
                assert key in self.rows, f"{event.op.name} of a row that nobody has: {event}"
                before = self.rows.pop(key)
                assert before == exactly(event.old.values), f"the old row was {before}: {event}"
            if event.new is not None:
                key = self._key(event.shape, event.new)
                assert key not in self.rows, f"{event.op.name} of a row that is there already: {event}"
                self.rows[key] = exactly(event.new.values)

    def load(self, captured: Captured) -> None:
        """Take all rows as they are now, as a client does after a resync."""
        self.rows.clear()
        for shape in captured.synced.shapes.values():
            columns = ", ".join(quote(column.name) for column in shape.columns)
            rowid = "rowid" if shape.rowid else "NULL"
            for identity, *values in captured.writer.execute(f"SELECT {rowid}, {columns} FROM {quote(shape.table)}"):
                self.apply([Change(0, Op.CREATE, shape, Image(tuple(values), identity), None)])

    def content(self, table: str) -> list[Row]:
        return sorted((row for key, row in self.rows.items() if key[0] == table), key=repr)

    @staticmethod
    def _key(shape: Shape, image: Image) -> Row:
        if shape.rowid:
            return (shape.table, image.rowid)
        key = exactly([image.values[position] for position in shape.key])
        # NULLs in a primary key are all different; then the whole row has to do.
        return (shape.table, *key) if key and None not in key else (shape.table, *key, *exactly(image.values))


#: What ``writes.sql`` writes to.
TABLES = f"""
CREATE TABLE keyed(id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE, other);
CREATE TABLE named(name TEXT PRIMARY KEY COLLATE NOCASE, n INT, m INT UNIQUE) WITHOUT ROWID;
CREATE UNIQUE INDEX some ON named(n) WHERE m > 0 AND name IS NOT 'x';
CREATE TABLE pair(a, b, c TEXT UNIQUE, PRIMARY KEY(a, b));
CREATE TABLE bare(a, b);
CREATE TABLE wide({", ".join(f"c{number}" for number in range(30))}, PRIMARY KEY(c0), UNIQUE(c29));
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE tree(id INTEGER PRIMARY KEY, a UNIQUE, up REFERENCES tree(id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE busy(id INTEGER PRIMARY KEY, n);
CREATE TRIGGER counts AFTER INSERT ON busy BEGIN UPDATE busy SET n = n + 1 WHERE id <> NEW.id; END;
"""

WRITES = Path(__file__).with_name("writes.sql")


def check_replay(file: Captured) -> int:
    """Replay all that came since the start; it must be what the tables hold. Give the number of events."""
    replica, events = Replica(), file.events()
    replica.apply(events)
    for table in file.synced.shapes:
        assert replica.content(table) == file.content(table), table
    return len(events)
