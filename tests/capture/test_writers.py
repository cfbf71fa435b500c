"""Foreign writers: other programs, other settings. Nothing of theirs may fail, and all of it comes."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from appliance.capture import outbox
from appliance.capture.decode import decode
from appliance.model import Change
from appliance.store.tables import watch
from tests.capture.support import TABLES, WRITES, Captured, Replica, check_replay

SETTINGS = {
    "trusted_schema=OFF": lambda db: db.execute("PRAGMA trusted_schema=OFF"),
    "recursive_triggers=ON": lambda db: db.execute("PRAGMA recursive_triggers=ON"),
    "legacy_alter_table=ON": lambda db: db.execute("PRAGMA legacy_alter_table=ON"),
    "cell_size_check=ON": lambda db: db.execute("PRAGMA cell_size_check=ON"),
    "foreign_keys=ON": lambda db: db.execute("PRAGMA foreign_keys=ON"),
    "case_sensitive_like=ON": lambda db: db.execute("PRAGMA case_sensitive_like=ON"),
    "reverse_unordered_selects=ON": lambda db: db.execute("PRAGMA reverse_unordered_selects=ON"),
    "count_changes=ON": lambda db: db.execute("PRAGMA count_changes=ON"),
    "automatic_index=OFF": lambda db: db.execute("PRAGMA automatic_index=OFF"),
    # Only ``length`` and ``typeof`` are called by a trigger of ours.
    "functions of its own": lambda db: [
        db.create_function(name, -1, lambda *_: 1 / 0) for name in ("coalesce", "abs", "ifnull", "like", "json_object")
    ],
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_all_is_captured_whatever_the_writer_has_set(tmp_path: Path, setting: str) -> None:
    file = Captured(tmp_path / "a.db", TABLES)
    SETTINGS[setting](file.writer)
    file.writer.executescript(WRITES.read_text())
    assert check_replay(file) > 50
    file.close()


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3 shell on this machine")
@pytest.mark.parametrize(
    "options", [[], ["-safe"], ["-cmd", ".dbconfig defensive on"], ["-cmd", ".dbconfig dqs_dml off"]]
)
def test_all_that_the_sqlite3_shell_writes_is_captured(tmp_path: Path, options: list[str]) -> None:
    file = Captured(tmp_path / "a.db", TABLES)
    done = subprocess.run(
        ["sqlite3", *options, str(file.path)], input=WRITES.read_text(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert check_replay(file) > 50
    file.close()


def test_a_double_quoted_string_in_an_index_does_not_hinder_a_strict_writer(tmp_path: Path) -> None:
    file = Captured(
        tmp_path / "a.db",
        'CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE UNIQUE INDEX i ON t(a) WHERE b = "on" AND "a" <> "it\'s"',
    )
    assert not file.synced.warnings
    sql = "INSERT INTO t VALUES(1, 'x', 'on'), (2, 'x', 'off'); REPLACE INTO t VALUES(3, 'x', 'on')"
    shell = shutil.which("sqlite3")
    if shell is None:
        file.writer.executescript(sql)
    else:
        options = ["-cmd", ".dbconfig dqs_dml off", "-cmd", ".dbconfig dqs_ddl off"]
        done = subprocess.run([shell, *options, str(file.path), sql], capture_output=True, text=True, timeout=60)
        assert "rror" not in done.stderr
    assert [event.op.name for event in file.events()] == ["CREATE", "CREATE", "DELETE", "CREATE"]
    file.close()


def test_a_writer_without_the_tables_collation_can_write_it(tmp_path: Path) -> None:
    def prepare(db: sqlite3.Connection) -> None:
        db.create_collation("theirs", lambda one, other: (one > other) - (one < other))

    file = Captured(
        tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT COLLATE theirs, b UNIQUE)", prepare=prepare
    )
    with closing(file.connect()) as other:  # which has not registered it
        assert file.said("INSERT INTO t VALUES(1, 'a', 1), (2, 'b', 2)", by=other)[0] == (
            "create",
            "t",
            None,
            (1, "a", 1),
        )
        assert file.said("UPDATE t SET a = 'A' WHERE id = 1", by=other) == [("update", "t", (1, "a", 1), (1, "A", 1))]
        assert file.said("REPLACE INTO t VALUES(1, 'c', 2)", by=other) == [
            ("delete", "t", (2, "b", 2), None),
            ("update", "t", (1, "A", 1), (1, "c", 2)),
        ]
        assert file.said("DELETE FROM t", by=other) == [("delete", "t", (1, "c", 2), None)]
    file.close()


def test_a_writer_without_the_collation_of_a_unique_index_can_write_what_does_not_need_it(tmp_path: Path) -> None:
    def prepare(db: sqlite3.Connection) -> None:
        db.create_collation("theirs", lambda one, other: (one > other) - (one < other))

    file = Captured(
        tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT COLLATE theirs UNIQUE, b)", prepare=prepare
    )
    file.writer.execute("INSERT INTO t VALUES(1, 'a', 1)")
    file.events()
    with closing(file.connect()) as other:
        assert file.said("UPDATE t SET b = 2", by=other) == [("update", "t", (1, "a", 1), (1, "a", 2))]
    file.close()


def test_a_writer_without_a_function_can_delete_what_a_generated_column_needs_it_for(tmp_path: Path) -> None:
    def prepare(db: sqlite3.Connection) -> None:
        db.create_function("mine", 1, lambda value: value * 2, deterministic=True)

    file = Captured(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, s AS (mine(a)) STORED, v AS (mine(a)) VIRTUAL)",
        prepare=prepare,
    )
    assert file.said("INSERT INTO t(id, a) VALUES(1, 21)") == [("create", "t", None, (1, 21, 42))]
    with closing(file.connect()) as other:
        assert file.said("DELETE FROM t", by=other) == [("delete", "t", (1, 21, 42), None)]
    file.close()


def test_an_authorizer_is_asked_for_our_tables_too(tmp_path: Path) -> None:
    """What happens, not what we wish: a writer that may only use its own tables cannot write captured ones."""
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(a)")

    def only_theirs(action: int, table: str | None, *_: str | None) -> int:
        ours = action == sqlite3.SQLITE_INSERT and (table or "").startswith("_appliance")
        return sqlite3.SQLITE_DENY if ours else sqlite3.SQLITE_OK

    file.writer.set_authorizer(only_theirs)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        file.writer.execute("INSERT INTO t VALUES(1)")
    file.close()


def test_a_captured_table_can_be_altered(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", TABLES)
    altered = ("keyed", "named", "pair", "bare", "wide", "child", "tree", "busy")
    for table in altered:
        column = file.synced.shapes[table].columns[0].name
        file.writer.execute(f"ALTER TABLE {table} ADD COLUMN late DEFAULT 5")
        file.writer.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO renamed")
        file.writer.execute(f"INSERT INTO {table}(renamed) VALUES(99)")
        file.writer.execute(f"ALTER TABLE {table} RENAME TO {table}_renamed")
        file.writer.execute(f"DELETE FROM {table}_renamed")
    file.events()
    file.synchronise()
    assert sorted(file.synced.shapes) == sorted([f"{table}_renamed" for table in altered] + ["parent"])
    for table in altered:
        assert file.said(f"INSERT INTO {table}_renamed(renamed) VALUES(99)")[0][0] == "create"
        assert file.said(f"DELETE FROM {table}_renamed")[0][0] == "delete"
    file.close()


def test_a_table_renamed_in_the_legacy_way_can_be_written_after_the_next_synchronisation(tmp_path: Path) -> None:
    """``legacy_alter_table`` leaves the old name in the bodies of triggers, ours as everybody's."""
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)")
    file.writer.execute("PRAGMA legacy_alter_table=ON")
    file.writer.execute("ALTER TABLE t ADD COLUMN late")
    file.writer.execute("ALTER TABLE t RENAME COLUMN a TO b")
    assert file.said("INSERT INTO t VALUES(1, 2, 3)") == [("create", "t", None, (1, 2))]
    file.writer.execute("ALTER TABLE t RENAME TO u")
    with pytest.raises(sqlite3.OperationalError, match=r"no such table: main\.t"):
        file.writer.execute("INSERT INTO u VALUES(2, 3, 4)")
    file.synchronise()
    # A schema that is out of date is noticed by a statement that runs, not by an error in a trigger.
    file.writer.execute("SELECT 1 FROM u").fetchall()
    assert file.said("INSERT INTO u VALUES(2, 3, 4)") == [("create", "u", None, (2, 3, 4))]
    file.close()


def test_a_writer_that_changes_the_schema_in_its_transaction_is_captured_on_both_sides(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    file.writer.executescript(
        "BEGIN; INSERT INTO t VALUES(1, 1); ALTER TABLE t ADD COLUMN b DEFAULT 2; UPDATE t SET a = 3, b = 4; COMMIT"
    )
    assert [event.op.name for event in file.events()] == ["CREATE", "UPDATE"]
    assert file.synchronise().changed == ("t",)
    assert file.said("UPDATE t SET b = 5") == [("update", "t", (1, 3, 4), (1, 3, 5))]
    file.close()


# -- several at once ---------------------------------------------------------------------------------------


def write_at_random(path: Path, seed: int, steps: int) -> None:
    chance = random.Random(seed)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
        db.execute("PRAGMA synchronous=OFF")
        for _ in range(steps):
            db.execute("BEGIN IMMEDIATE")
            for _ in range(chance.randint(1, 5)):
                nested = chance.random() < 0.4
                if nested:
                    db.execute("SAVEPOINT one")
                key, name = chance.randint(1, 40), chance.choice("abcdefghijklmnop") + str(chance.randint(1, 3))
                db.execute(
                    chance.choice(
                        [
                            "INSERT OR REPLACE INTO keyed VALUES(?, ?, 1)",
                            "INSERT OR IGNORE INTO keyed VALUES(?, ?, 2)",
                            "INSERT INTO keyed VALUES(?1, ?2, 3) ON CONFLICT(id) DO UPDATE SET other = other + 1 "
                            "ON CONFLICT(name) DO UPDATE SET other = -1",
                            "UPDATE OR REPLACE keyed SET name = ?2 WHERE id = ?1",
                            "DELETE FROM keyed WHERE id = ? OR name = ?",
                            "REPLACE INTO wide(c0, c29) VALUES(?, ?)",
                            "UPDATE OR IGNORE wide SET c29 = ?2 WHERE c0 < ?1",
                        ]
                    ),
                    (key, name),
                )
                if nested:
                    if chance.random() < 0.5:
                        db.execute("ROLLBACK TO one")
                    db.execute("RELEASE one")
            db.execute("COMMIT" if chance.random() < 0.7 else "ROLLBACK")


@pytest.mark.heavy
def test_several_writers_with_rollbacks_are_read_in_order_and_whole(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", TABLES)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_at_random, args=(file.path, seed, 600)) for seed in range(4)]
    for each in writers:
        each.start()
    replica, position, events, rest = Replica(), 0, 0, []
    shapes = watch.load_shapes(file.server)
    running = True
    while running or rest:
        running = any(each.is_alive() for each in writers)
        rest = file.server.execute(outbox.select_after(), (position, 200)).fetchall()
        # No gap, nothing doubled, and nothing that turns up below what was read.
        assert [row[0] for row in rest] == list(range(position + 1, position + 1 + len(rest)))
        decoded = decode(rest, shapes, more=len(rest) == 200)
        assert decoded.faults == []
        replica.apply([event for event in decoded.events if isinstance(event, Change)])
        events += len(decoded.events)
        position += decoded.consumed
    for each in writers:
        each.join()
    assert [each.exitcode for each in writers] == [0] * 4
    assert events > 1000
    for table in ("keyed", "wide"):
        assert replica.content(table) == file.content(table)
    file.close()
