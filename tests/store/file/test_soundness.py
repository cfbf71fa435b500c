"""A sound file is served whatever its schema calls; what is not sound is told from what SQLite cannot look at here."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from appliance.errors import StoreUnusable
from appliance.store.file import connections
from appliance.store.file.soundness import is_foreign

#: Schemas that use what every SQLite brings and SQLite 3.40 does not let an untrusted one have.
OWN = {
    "check": "CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT CHECK(json_valid(j)))",
    "generated": "CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT, v AS (json_extract(j, '$.x')))",
    "stored": "CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT, v AS (json_extract(j, '$.x')) STORED)",
    "index": "CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT); CREATE INDEX i ON t(json_extract(j, '$.x'))",
    "partial index": "CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT); CREATE INDEX i ON t(j) WHERE json_valid(j)",
    "trigger": "CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT); CREATE TRIGGER r AFTER INSERT ON t "
               "WHEN NOT json_valid(NEW.j) BEGIN SELECT RAISE(ABORT, 'no JSON'); END",
    "full text": "CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT); CREATE VIRTUAL TABLE f USING fts5(j);"
                 "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO f(rowid, j) VALUES(NEW.id, NEW.j); END",
    "pragma": "CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT); CREATE TRIGGER r AFTER INSERT ON t "
              "BEGIN SELECT name FROM pragma_table_info('t'); END",
}  # fmt: skip
#: Schemas that call what only their application has, and whether ``quick_check`` can do without.
THEIRS = {
    "check": ("CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT CHECK(mine(j) > 0))", True),
    "generated": ("CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT, v AS (mine(j)))", True),
    "never null": ("CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT, v AS (mine(j)) NOT NULL)", False),
    "strict": ("CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT, v INTEGER AS (mine(j))) STRICT", False),
    "stored": ("CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT, v AS (mine(j)) STORED)", True),
    "index": ("CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT); CREATE INDEX i ON t(mine(j))", True),
    "collation": ("CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT COLLATE theirs UNIQUE)", False),
    "trigger": ("CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT); "
                "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT mine(NEW.j); END", True),
}  # fmt: skip
INSERT = "INSERT INTO t(j) VALUES('{\"x\": 1}')"


def made(path: Path, statements: str) -> Path:
    """Make a file as the application does that has ``mine`` and ``theirs``."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.create_function("mine", 1, lambda value: 1, deterministic=True)
        db.create_collation("theirs", lambda one, other: (one > other) - (one < other))
        db.executescript(f"{statements}; CREATE TABLE other(a); INSERT INTO other VALUES(NULL)")
        db.execute(INSERT)
    return path


def inspected(path: Path) -> Mapping[str, str]:
    return connections.inspect(path, busy_timeout_s=1, create=False)


@pytest.mark.parametrize("name", OWN)
def test_a_schema_may_use_what_every_sqlite_has(name: str, tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", OWN[name])
    assert inspected(path) == {}
    with closing(connections.open_file(path, busy_timeout_s=1)) as db:
        db.execute(INSERT)
    with closing(connections.open_again(path, busy_timeout_s=1, mode="ro")) as db:
        assert db.execute("SELECT count(*) FROM t WHERE json_valid(j)").fetchone() == (2,)


def test_what_no_schema_may_call_stays_out(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(connections.open_file(path, busy_timeout_s=1)) as db:
        db.execute("CREATE TABLE t(j)")
        db.execute("CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT load_extension(NEW.j); END")
        with pytest.raises(sqlite3.OperationalError, match="unsafe use of load_extension"):
            db.execute(INSERT)


@pytest.mark.parametrize("name", THEIRS)
def test_what_only_its_application_can_check_is_no_fault_and_the_rest_is_looked_at(name: str, tmp_path: Path) -> None:
    statements, checked = THEIRS[name]
    path = made(tmp_path / "a.db", statements)
    unchecked = inspected(path)
    assert list(unchecked) == ([] if checked else ["t"])
    assert all("mine" in reason or "theirs" in reason for reason in unchecked.values())

    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA writable_schema=ON")
        db.execute("UPDATE sqlite_schema SET sql='CREATE TABLE other(a NOT NULL)' WHERE name='other'")
        db.commit()
    with pytest.raises(StoreUnusable, match=r"is corrupt \(NULL value in other\.a\)"):
        inspected(path)


def test_a_row_that_its_check_would_refuse_is_no_fault_of_the_file(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, j TEXT CHECK(j > 'z'));"
                                   "PRAGMA ignore_check_constraints=ON")  # fmt: skip
    assert inspected(path) == {}


@pytest.mark.parametrize("module", ["fts5", "fts4"])
def test_a_full_text_index_by_a_tokenizer_of_its_application_is_no_fault(module: str, tmp_path: Path) -> None:
    """Some versions of SQLite look into such a table when they check the file."""
    path = made(tmp_path / "a.db", f"CREATE TABLE t(j); CREATE VIRTUAL TABLE f USING {module}(j);"
                "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO f(rowid, j) VALUES(NEW.rowid, NEW.j); END;"
                "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET "
                f"sql='CREATE VIRTUAL TABLE f USING {module}(j, tokenize=mine)' WHERE name='f'")  # fmt: skip
    assert list(inspected(path)) in ([], ["f"])
    with closing(connections.open_file(path, busy_timeout_s=1)) as db:
        with pytest.raises(sqlite3.OperationalError, match="tokenizer: mine") as refused:
            db.execute(INSERT)
        assert is_foreign(refused.value)


def test_a_schema_that_this_sqlite_cannot_read_is_not_called_corrupt(tmp_path: Path) -> None:
    view = "CREATE VIEW v AS SELECT THEN"
    path = made(tmp_path / "a.db", "CREATE TABLE t(j); PRAGMA writable_schema=ON;"
                f"INSERT INTO sqlite_schema VALUES('view', 'v', 'v', 0, '{view}')")  # fmt: skip
    with pytest.raises(StoreUnusable) as refused:
        inspected(path)
    assert f"SQLite {sqlite3.sqlite_version} cannot read the schema" in str(refused.value)
    assert 'malformed database schema (v) - near "THEN": syntax error' in str(refused.value)
    assert "corrupt" not in str(refused.value)
    assert ".recover" not in str(refused.value)


@pytest.mark.parametrize(
    ("statement", "foreign"),
    [
        ("SELECT mine(1)", True),
        ("SELECT 1 COLLATE theirs = 2", True),
        ("SELECT * FROM generate_rows(1)", True),
        ("CREATE VIRTUAL TABLE v USING mine(a)", True),
        ("SELECT * FROM _appliance_outbox", False),
        ("SELECT", False),
    ],
)
def test_what_only_an_application_has_is_told_from_other_errors(statement: str, foreign: bool) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        with pytest.raises(sqlite3.OperationalError) as refused:
            db.execute(statement)
        assert is_foreign(refused.value) is foreign
