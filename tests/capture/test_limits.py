"""Writers with SQLite's recommended limits against hostile input (https://sqlite.org/security.html).

A trigger that is over a limit does not only fail: the writer cannot even read the schema any more.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from appliance.model import quote_identifier as quote
from appliance.store.file import schema
from tests.capture.support import Captured, Replica

HARDENED = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 10,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 3,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 8,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 50,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 10,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 10,
}


def columns(count: int) -> str:
    return ", ".join(f"c{number}" for number in range(count))


#: Each has the columns ``a``, ``b`` and ``c``.
TABLES = {
    "eight columns": f"CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c, {columns(5)})",
    "forty columns": f"CREATE TABLE t(a PRIMARY KEY, b UNIQUE, c, {columns(37)})",
    "ninety columns": f"CREATE TABLE t(a PRIMARY KEY, b UNIQUE, c, {columns(87)})",
    "ninety-nine, without rowid": f"CREATE TABLE t(a, b, c, {columns(96)}, PRIMARY KEY(a, b)) WITHOUT ROWID",
    "composite key": "CREATE TABLE t(a, b, c, d DEFAULT 1, e DEFAULT 2, f DEFAULT 3, g DEFAULT 4, h DEFAULT 5, "
    "PRIMARY KEY(a, b, d, e, f, g, h))",
    "key of eight": "CREATE TABLE t(a, b, c, d DEFAULT 1, e DEFAULT 2, f DEFAULT 3, g DEFAULT 4, h DEFAULT 5, "
    "i DEFAULT 6, PRIMARY KEY(a, b, d, e, f, g, h, i)) WITHOUT ROWID",
    "many unique indexes": "CREATE TABLE t(a PRIMARY KEY, b UNIQUE, c UNIQUE, d, UNIQUE(a, b), UNIQUE(b, c, d));"
    "CREATE UNIQUE INDEX p ON t(b) WHERE c IS NOT NULL AND d > 1;"
    "CREATE UNIQUE INDEX q ON t(c COLLATE NOCASE, b COLLATE NOCASE) WHERE a IN (1, 2, 3) OR d BETWEEN 1 AND 2",
    "triggers of its own": "CREATE TABLE t(a PRIMARY KEY, b UNIQUE, c);"
    "CREATE TRIGGER one AFTER INSERT ON t BEGIN UPDATE t SET c = 'one' WHERE a = NEW.a; END;"
    "CREATE TRIGGER two BEFORE DELETE ON t BEGIN UPDATE OR REPLACE t SET b = OLD.b WHERE a = OLD.a + 1; END;",
    "parent of itself": "CREATE TABLE t(a PRIMARY KEY, b UNIQUE, c REFERENCES t(a) ON DELETE SET NULL, d, UNIQUE(a, b),"
    "UNIQUE(b, d))",
    "parent of itself, without rowid": "CREATE TABLE t(a, b UNIQUE, c, d DEFAULT 1, e DEFAULT 2, f DEFAULT 3, "
    "g DEFAULT 4, h DEFAULT 5 REFERENCES t(b) ON DELETE CASCADE, PRIMARY KEY(a, d, e, f, g)) WITHOUT ROWID",
    "parent of itself, with a key that may be NULL": "CREATE TABLE t(a, b REFERENCES t(c) ON DELETE SET NULL, "
    "c UNIQUE, PRIMARY KEY(a, b))",
    "defaults in the place of NULL": "CREATE TABLE t(a NOT NULL DEFAULT 0 PRIMARY KEY, c,"
    "b TEXT NOT NULL DEFAULT 'x' UNIQUE, d TEXT NOT NULL DEFAULT (lower('D')) COLLATE NOCASE,"
    "UNIQUE(b, d), UNIQUE(d COLLATE BINARY, a));"
    "CREATE TRIGGER one AFTER INSERT ON t BEGIN UPDATE t SET c = 'one' WHERE a = NEW.a; END",
    "wide, with triggers of its own": f"CREATE TABLE t(a PRIMARY KEY, b UNIQUE, c, {columns(80)});"
    "CREATE TRIGGER one AFTER INSERT ON t BEGIN UPDATE t SET c = 'one' WHERE a = NEW.a; END",
}


def harden(db: sqlite3.Connection) -> None:
    for limit, value in HARDENED.items():
        db.setlimit(limit, value)


#: A UNIQUE index whose own WHERE has some depth takes more.
DEEPER = {"many unique indexes": 11}


@pytest.mark.parametrize("table", TABLES)
def test_a_hardened_writer_can_write_in_every_way_and_is_captured(tmp_path: Path, table: str) -> None:
    file = Captured(tmp_path / "a.db", TABLES[table])
    assert not file.synced.skipped
    file.writer.close()
    file.writer = file.connect()  # one that reads the schema under its limits
    harden(file.writer)
    if table in DEEPER:
        file.writer.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, DEEPER[table])
    replica = Replica()
    for sql in (
        "INSERT INTO t(a, b, c) VALUES(1, 'x', 1), (2, 'y', 2), (3, 'z', 3)",
        "REPLACE INTO t(a, b, c) VALUES(4, 'x', 9)",
        "REPLACE INTO t(a, b, c) VALUES(2, 'w', 3)",
        "INSERT OR IGNORE INTO t(a, b, c) VALUES(2, 'w', 8)",
        "INSERT INTO t(a, b, c) VALUES(3, 'q', 1) ON CONFLICT DO UPDATE SET c = 7",
        "UPDATE t SET c = c || 'more'",
        "UPDATE OR REPLACE t SET b = 'w', a = 3 WHERE a = 2",
        "UPDATE t SET a = a + 10",
        "DELETE FROM t WHERE a = 13",
        "DELETE FROM t",
    ):
        file.writer.execute(sql)
        replica.apply(file.events())
        assert replica.content("t") == file.content("t"), sql
    file.close()


def test_a_hardened_writer_can_write_a_table_of_one_column(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(a INTEGER PRIMARY KEY)")
    harden(file.writer)
    assert [said[0] for said in file.said("INSERT INTO t VALUES(1), (2)")] == ["create", "create"]
    assert file.said("REPLACE INTO t VALUES(1)") == []
    assert file.said("UPDATE OR REPLACE t SET a = 2 WHERE a = 1") == [
        ("delete", "t", (2,), None),
        ("update", "t", (1,), (2,)),
    ]
    file.close()


def test_a_hardened_writers_insert_can_trim_the_outbox(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(a INTEGER PRIMARY KEY)")
    schema.keep_rows(file.server, 100)
    harden(file.writer)
    for number in range(300):
        file.writer.execute("INSERT INTO t VALUES(?)", (number,))
    assert file.server.execute("SELECT min(id), max(id) FROM _appliance_outbox").fetchone() == (157, 300)
    file.close()


def test_a_schema_of_long_names_stays_within_a_hardened_writers_reach(tmp_path: Path) -> None:
    names = ", ".join(quote(f"a rather long name for a column, number {number}") for number in range(60))
    file = Captured(tmp_path / "a.db", f"CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, {names})")
    longest = file.server.execute("SELECT max(length(sql)) FROM sqlite_schema").fetchone()[0]
    assert longest <= HARDENED[sqlite3.SQLITE_LIMIT_SQL_LENGTH]
    db = file.connect()
    harden(db)
    assert file.said("REPLACE INTO t(id, a) VALUES(1, 2)", by=db)[0][0] == "create"
    db.close()
    file.close()


def test_a_value_as_long_as_a_hardened_writer_may_have_is_captured(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")
    harden(file.writer)
    size = 999_900  # SQLite's limit is on the record: its header and the other values count
    for value in ("x" * size, b"x" * size):
        file.writer.execute("REPLACE INTO t VALUES(1, ?, 2)", (value,))
        file.writer.execute("UPDATE t SET b = b + 1")
        file.writer.execute("DELETE FROM t")
        assert {len(image.values[1]) for event in file.events() for image in (event.old, event.new) if image} == {size}
    file.close()


def test_a_wide_table_with_many_unique_indexes_stays_within_a_hardened_writers_reach(tmp_path: Path) -> None:
    uniques = "".join(f"CREATE UNIQUE INDEX u{number} ON t(c{number});" for number in range(6))
    file = Captured(tmp_path / "a.db", f"CREATE TABLE t(a INTEGER PRIMARY KEY, {columns(90)}); {uniques}")
    longest = file.server.execute("SELECT max(length(sql)) FROM sqlite_schema").fetchone()[0]
    assert longest <= HARDENED[sqlite3.SQLITE_LIMIT_SQL_LENGTH]
    db = file.connect()
    harden(db)
    for sql in (
        "INSERT INTO t(a, c0, c5) VALUES(1, 'x', 1), (2, 'y', 2), (3, 'z', 3)",
        "INSERT OR IGNORE INTO t(a, c0, c5) VALUES(9, 'x', 8), (8, 'w', 2)",
        "REPLACE INTO t(a, c0, c5) VALUES(1, 'y', 3)",
    ):
        db.execute(sql)
    said = [(event.op.name, (event.old or event.new).values[0]) for event in file.events()]  # type: ignore[union-attr]
    assert said == [("CREATE", 1), ("CREATE", 2), ("CREATE", 3), ("DELETE", 2), ("DELETE", 3), ("UPDATE", 1)]
    db.close()
    file.close()
