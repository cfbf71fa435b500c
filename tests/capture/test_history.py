"""Random histories: what the outbox says is replayed and must be the table, to the bit, after every commit."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from appliance.capture import outbox
from appliance.capture.decode import decode
from appliance.model import Change, Image, Op, Shape
from appliance.model import quote_identifier as quote
from appliance.store.file import schema
from appliance.store.file.connections import open_file
from appliance.store.file.texts import text
from appliance.store.tables import watch

WIDE = ", ".join(f"c{number}" for number in range(30))
#: Table shapes: each has columns a, b, c to write to, whatever else it has.
TABLES = {
    "integer key": "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b UNIQUE, c)",
    "autoincrement": "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT COLLATE NOCASE UNIQUE, c REAL)",
    "text key": "CREATE TABLE t(a TEXT PRIMARY KEY, b INT, c NUMERIC, UNIQUE(b, c))",
    "nocase key": "CREATE TABLE t(a TEXT PRIMARY KEY COLLATE NOCASE, b, c COLLATE RTRIM UNIQUE)",
    "composite key": "CREATE TABLE t(a, b, c, PRIMARY KEY(b, a))",
    "no key": "CREATE TABLE t(a, b, c)",
    "unique only": "CREATE TABLE t(a UNIQUE, b UNIQUE, c UNIQUE)",
    "without rowid": "CREATE TABLE t(a, b UNIQUE, c, PRIMARY KEY(a)) WITHOUT ROWID",
    "without rowid, composite": "CREATE TABLE t(c, a COLLATE NOCASE, b, PRIMARY KEY(a, b), UNIQUE(c)) WITHOUT ROWID",
    "strict": "CREATE TABLE t(id INTEGER PRIMARY KEY, a ANY UNIQUE, b TEXT, c ANY) STRICT",
    "generated": "CREATE TABLE t(a PRIMARY KEY, b, c, v AS (a || b) VIRTUAL, "
    "s AS (typeof(b) || typeof(c)) STORED UNIQUE)",
    "partial": "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c); "
    "CREATE UNIQUE INDEX u ON t(a) WHERE b = 1; CREATE UNIQUE INDEX w ON t(c COLLATE NOCASE) WHERE a IS NOT NULL",
    "defaults in the place of NULL": "CREATE TABLE t(a TEXT NOT NULL DEFAULT 'a' COLLATE NOCASE PRIMARY KEY, "
    "b NOT NULL DEFAULT 1 UNIQUE, c NOT NULL DEFAULT 2.5, UNIQUE(c, a))",
    "wide": f"CREATE TABLE t(a, {WIDE}, b UNIQUE, c, PRIMARY KEY(a))",
    "wide without rowid": f"CREATE TABLE t({WIDE}, a, b UNIQUE, c, PRIMARY KEY(a, b)) WITHOUT ROWID",
    "parent of itself": "CREATE TABLE t(id INTEGER PRIMARY KEY, "
    "a UNIQUE REFERENCES t(b) ON DELETE CASCADE ON UPDATE CASCADE, b UNIQUE, c REFERENCES t(b) ON DELETE SET NULL)",
    "written before it is written": "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b UNIQUE, c); "
    "CREATE TRIGGER m BEFORE INSERT ON t WHEN NEW.c = 1 "
    "BEGIN INSERT OR IGNORE INTO t(a, b, c) VALUES(NEW.a, NEW.b, 9); END; "
    "CREATE TRIGGER n BEFORE UPDATE ON t WHEN NEW.c = 2 "
    "BEGIN UPDATE OR IGNORE t SET b = NEW.b WHERE a = 3 AND id <> OLD.id; END",
    "triggers of its own": "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b UNIQUE, c); "
    "CREATE TRIGGER m1 BEFORE INSERT ON t WHEN NEW.a = 1 BEGIN UPDATE t SET c = 'm1' WHERE b = NEW.b OR a = 2; END; "
    "CREATE TRIGGER m2 AFTER INSERT ON t WHEN NEW.a = 2 BEGIN UPDATE t SET c = 'm2' WHERE id = NEW.id; END; "
    "CREATE TRIGGER m3 AFTER DELETE ON t WHEN OLD.a = 3 BEGIN DELETE FROM t WHERE b = OLD.c; END; "
    # To displace the very row that is being updated would be undefined: lang_createtrigger.html, section 5.
    "CREATE TRIGGER m4 BEFORE UPDATE ON t WHEN NEW.a = 1 AND OLD.a IS NOT 7 AND OLD.b IS NOT 'm4' "
    "BEGIN INSERT OR REPLACE INTO t(a, b) VALUES(7, 'm4'); END",
}
COLUMNS = ("a", "b", "c")

#: Histories of each table, and statements in each. CI plays always the same ones; HISTORIES=1000 plays others.
EXAMPLES, STEPS = int(os.environ.get("HISTORIES", "12")), 30

VALUES = st.one_of(
    st.sampled_from([None, 0, 1, 2, 3, 1.0, 2.5, "a", "A", "b", "B ", "b", "1", "", b"", b"a"]),
    st.integers(-3, 3),
)  # fmt: skip
ROW = st.tuples(VALUES, VALUES, VALUES)
VERBS = st.sampled_from(
    ["INSERT", "INSERT OR REPLACE", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR FAIL", "INSERT OR ROLLBACK"]
)
UPSERTS = st.sampled_from(
    ["ON CONFLICT DO NOTHING", "ON CONFLICT DO UPDATE SET c = excluded.c", "ON CONFLICT DO UPDATE SET a = 3, b = b"]
)
WHERE = st.sampled_from(["a = ?", "b = ?", "c IS ?", "a > ?", "b < ? OR a IS NULL", "typeof(?) <> 'x'"])


class Replica:
    """The table as a reader of the outbox has it: rows by key."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        #: Rows with NULL in their primary key, which SQLite lets be there more than once.
        self._loose: Counter[tuple[Any, ...]] = Counter()

    def content(self) -> list[tuple[Any, ...]]:
        return sorted([*self._rows.values(), *self._loose.elements()], key=repr)

    def apply(self, change: Change) -> None:
        if change.old is not None:
            self._take(change, change.old)
        if change.new is not None:
            self._put(change, change.new)

    def _take(self, change: Change, image: Image) -> None:
        key, row = self._key(change.shape, image), exactly(image.values)
        if None in key:
            assert self._loose[row], f"{change.op.name} of a row that nobody has: {change}"
            self._loose[row] -= 1
            return
        assert key in self._rows, f"{change.op.name} of a row that nobody has: {change}"
        before = self._rows.pop(key)
        assert before == row, f"{change.op.name}: the old row was {before}: {change}"

    def _put(self, change: Change, image: Image) -> None:
        key, row = self._key(change.shape, image), exactly(image.values)
        if None in key:
            self._loose[row] += 1
            return
        assert key not in self._rows, f"{change.op.name} of a row that is there already: {change}"
        self._rows[key] = row

    @staticmethod
    def _key(shape: Shape, image: Image) -> tuple[Any, ...]:
        return (image.rowid,) if shape.rowid else exactly(tuple(image.values[position] for position in shape.key))


def exactly(values: Sequence[Any]) -> tuple[Any, ...]:
    """Make values that are equal only to the bit: 1, 1.0 and True are one to Python."""
    return tuple(None if value is None else (type(value).__name__, repr(value)) for value in values)


class History(RuleBasedStateMachine):
    """Writes through one connection, reads the outbox through another."""

    table = "integer key"
    recursive = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="history"))
        path = self.folder / "a.db"
        self.writer = sqlite3.connect(path, isolation_level=None)
        self.writer.text_factory = text
        self.writer.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF")
        self.writer.executescript(TABLES[self.table])
        self.writer.execute("PRAGMA trusted_schema=OFF")
        self.writer.execute("PRAGMA foreign_keys=ON")
        self.writer.execute(f"PRAGMA recursive_triggers={'ON' if self.recursive else 'OFF'}")
        self.server = open_file(path, busy_timeout_s=5)
        self.server.text_factory = text
        self.server.execute("PRAGMA synchronous=OFF")
        schema.prepare(self.server)
        self.position = 0
        self.replica = Replica()
        self.columns = list(COLUMNS)
        self.extra = 0
        self.synchronise()

    def teardown(self) -> None:
        self.writer.close()
        self.server.close()
        shutil.rmtree(self.folder)

    def synchronise(self) -> None:
        self.synced = watch.synchronise(self.server, secret=lambda *_: False, watched=lambda _: True)
        assert not self.synced.skipped, self.synced.skipped
        self.shapes = watch.load_shapes(self.server)

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement. It may violate the user's own constraints, and nothing else may go wrong."""
        try:
            self.writer.execute(sql, parameters).fetchall()
        except sqlite3.IntegrityError as error:
            if "_appliance" in str(error):
                raise
        except sqlite3.OperationalError as error:
            if "no such savepoint" not in str(error) and "within a transaction" not in str(error):
                raise

    # -- what is written ---------------------------------------------------------------------------------

    @rule(verb=VERBS, rows=st.lists(ROW, min_size=1, max_size=4), returning=st.booleans())
    def insert(self, verb: str, rows: list[tuple[Any, ...]], returning: bool) -> None:
        values = ", ".join("(?, ?, ?)" for _ in rows)
        flat = [value for row in rows for value in row]
        self.run(f"{verb} INTO t(a, b, c) VALUES {values}" + (" RETURNING *" if returning else ""), flat)

    @rule(rows=st.lists(ROW, min_size=1, max_size=3), upsert=UPSERTS)
    def upsert(self, rows: list[tuple[Any, ...]], upsert: str) -> None:
        values = ", ".join("(?, ?, ?)" for _ in rows)
        self.run(f"INSERT INTO t(a, b, c) VALUES {values} {upsert}", [value for row in rows for value in row])

    @rule(verb=VERBS, identity=st.integers(-1, 6), row=ROW)
    def insert_at_rowid(self, verb: str, identity: int, row: tuple[Any, ...]) -> None:
        if "without" not in self.table:
            self.run(f"{verb} INTO t(rowid, a, b, c) VALUES(?, ?, ?, ?)", (identity, *row))

    @rule(verb=VERBS, column=st.sampled_from(COLUMNS))
    def insert_from_itself(self, verb: str, column: str) -> None:
        if self.writer.execute("SELECT count(*) FROM t").fetchone()[0] < 40:
            self.run(f"{verb} INTO t(a, b, c) SELECT {column}, a, b FROM t")

    @rule(
        verb=st.sampled_from(
            ["UPDATE", "UPDATE OR REPLACE", "UPDATE OR REPLACE", "UPDATE OR IGNORE", "UPDATE OR FAIL"]
        ),
        column=st.sampled_from(COLUMNS),
        value=VALUES,
        where=WHERE,
        operand=VALUES,
    )
    def update(self, verb: str, column: str, value: Any, where: str, operand: Any) -> None:
        self.run(f"{verb} t SET {column} = ? WHERE {where}", (value, operand))

    @rule(verb=st.sampled_from(["UPDATE", "UPDATE OR REPLACE"]))
    def rotate(self, verb: str) -> None:
        self.run(f"{verb} t SET a = b, b = a")

    @rule(verb=st.sampled_from(["UPDATE", "UPDATE OR REPLACE", "UPDATE OR IGNORE"]), step=st.integers(-2, 2))
    def move_rowids(self, verb: str, step: int) -> None:
        if "without" not in self.table:
            self.run(f"{verb} t SET rowid = rowid + ?", (step,))

    @rule(where=WHERE, operand=VALUES)
    def delete(self, where: str, operand: Any) -> None:
        self.run(f"DELETE FROM t WHERE {where}", (operand,))

    @rule()
    def delete_everything(self) -> None:
        self.run("DELETE FROM t")

    @rule(what=st.sampled_from(["SAVEPOINT one", "SAVEPOINT two", "ROLLBACK TO one", "ROLLBACK TO two", "RELEASE one"]))
    def savepoint(self, what: str) -> None:
        self.run(what)

    @rule(what=st.sampled_from(["BEGIN", "BEGIN IMMEDIATE", "COMMIT", "COMMIT", "ROLLBACK"]))
    def transaction(self, what: str) -> None:
        if what.startswith("BEGIN") != self.writer.in_transaction:
            with suppress(sqlite3.IntegrityError):  # deferred constraints
                self.writer.execute(what)

    @precondition(lambda self: not self.writer.in_transaction and self.extra < 2)
    @rule(default=st.sampled_from(["", " DEFAULT 7", " COLLATE NOCASE DEFAULT 'x'"]))
    def add_column(self, default: str) -> None:
        self.extra += 1
        declared = " ANY" if self.table == "strict" else ""
        self.writer.execute(f"ALTER TABLE t ADD COLUMN x{self.extra}{declared}{default}")
        self.catch_up()
        self.synchronise()
        assert self.synced.changed == ("t",)
        self.reload()

    @precondition(lambda self: not self.writer.in_transaction and self.extra)
    @rule()
    def rename_column(self) -> None:
        self.writer.execute(f"ALTER TABLE t RENAME COLUMN x{self.extra} TO y")
        self.writer.execute(f"ALTER TABLE t RENAME COLUMN y TO x{self.extra}")
        self.catch_up()
        self.synchronise()
        self.reload()

    @precondition(lambda self: not self.writer.in_transaction)
    @rule()
    def add_and_drop_a_unique_index(self) -> None:
        try:
            self.writer.execute("CREATE UNIQUE INDEX late ON t(c, a)")
        except sqlite3.IntegrityError:
            return
        self.catch_up()
        self.synchronise()
        self.run("INSERT OR REPLACE INTO t(a, b, c) SELECT a, NULL, c FROM t LIMIT 2")
        self.catch_up()
        self.writer.execute("DROP INDEX late")
        self.synchronise()

    # -- what must be true -------------------------------------------------------------------------------

    @invariant()
    def the_outbox_says_what_the_table_holds(self) -> None:
        if not self.writer.in_transaction:
            self.catch_up()
            assert self.replica.content() == self.content()

    def content(self) -> list[tuple[Any, ...]]:
        columns = [quote(column.name) for column in self.synced.shapes["t"].columns]
        return sorted(map(exactly, self.writer.execute(f"SELECT {', '.join(columns)} FROM t")), key=repr)

    def catch_up(self) -> None:
        rows = self.server.execute(outbox.select_after(), (self.position, 1_000_000)).fetchall()
        assert [row[0] for row in rows] == list(range(self.position + 1, self.position + 1 + len(rows)))
        decoded = decode(rows, self.shapes, more=False)
        assert not decoded.faults
        assert decoded.consumed == len(rows)
        for event in decoded.events:
            assert isinstance(event, Change)
            self.replica.apply(event)
        self.position += len(rows)

    def reload(self) -> None:
        """Take the rows as they are now, as a client does after a resync."""
        self.replica = Replica()
        shape = self.synced.shapes["t"]
        names = [quote(column.name) for column in shape.columns]
        rowid = "rowid, " if shape.rowid else "NULL, "
        for identity, *values in self.writer.execute(f"SELECT {rowid}{', '.join(names)} FROM t").fetchall():
            self.replica.apply(Change(0, Op.CREATE, shape, Image(tuple(values), identity), None))


@pytest.mark.heavy
@pytest.mark.parametrize("recursive", [False, True], ids=["plain", "recursive_triggers"])
@pytest.mark.parametrize("table", TABLES)
def test_the_outbox_replayed_is_the_table(table: str, recursive: bool) -> None:
    machine = type("History", (History,), {"table": table, "recursive": recursive})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            derandomize="HISTORIES" not in os.environ,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
        ),
    )
