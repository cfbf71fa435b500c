"""The schema moves under subscribers: each is told what the protocol says, and nothing is silent."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.live import Client, again, serving, sql, standing_still, until

pytestmark = pytest.mark.e2e

TABLES = """
CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
CREATE TABLE bare(a);
CREATE INDEX i ON t(b);
INSERT INTO t VALUES(1, 'x', 'y');
INSERT INTO bare VALUES('x');
"""
#: A change of the schema, the notice that subscribers of ``t`` get, and the columns of ``t`` beside ``id`` afterwards.
MOVES = {
    "add a column": ("ALTER TABLE t ADD COLUMN c", "resync", "abc"),
    "rename a column": ("ALTER TABLE t RENAME COLUMN b TO d", "resync", "adc"),
    "add and update at once": ("BEGIN; ALTER TABLE t ADD COLUMN e; UPDATE t SET e = 1; COMMIT", "resync", "adce"),
    "rebuild in twelve steps": (
        "PRAGMA foreign_keys=OFF; BEGIN; CREATE TABLE new_t(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b);"
        "INSERT INTO new_t(id, a) SELECT id, a FROM t; DROP TABLE t; ALTER TABLE new_t RENAME TO t;"
        "CREATE INDEX i ON t(b); COMMIT; PRAGMA foreign_keys=ON",
        "resync", "ab"),
    "copy and swap, as graphical editors do": (
        "BEGIN; CREATE TABLE temp_table_1(id INTEGER PRIMARY KEY, a, b); INSERT INTO temp_table_1 SELECT * FROM t;"
        "PRAGMA defer_foreign_keys=1; DROP TABLE t; ALTER TABLE temp_table_1 RENAME TO t; COMMIT",
        "resync", "ab"),
    "rename away, copy, drop": (
        "BEGIN; ALTER TABLE t RENAME TO old_t; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);"
        "INSERT INTO t SELECT * FROM old_t; DROP TABLE old_t; COMMIT",
        "resync", "ab"),
    "drop our triggers": ("", "resync", "ab"),
    "rename the table": ("ALTER TABLE t RENAME TO u", "table-dropped", ""),
    "drop the table": ("DROP TABLE t", "table-dropped", ""),
}  # fmt: skip


def drop_ours(db: Path) -> None:
    """Drop our triggers at once: the server makes them anew after each commit that it sees lacks one."""
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        names = other.execute("SELECT name FROM sqlite_schema WHERE type='trigger' AND tbl_name='t'").fetchall()
        for (name,) in names:
            other.execute(f'DROP TRIGGER "{name}"')
        other.execute("COMMIT")


def resumed(client: Client, topic: str, position: dict[str, object]) -> str:
    """Resume from a position; ``ok``, or the code of the refusal."""
    reply = client.ask("subscribe", topic=topic, since=position["EventId"], epoch=position["epoch"])
    return "ok" if reply["EventType"] == "response" else str(reply["EventData"]["code"])


def test_each_move_is_told_and_what_comes_after_it_is_captured(tmp_path: Path) -> None:
    # One server for all: what takes time is starting one.
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db, "--no-accounts") as live, live.client() as client, live.client() as away:
        for name, (change, expected, columns) in MOVES.items():
            before = client.done("subscribe", topic="t")
            sql(db, change) if change else drop_ours(db)
            notice = client.event()
            assert (notice["EventType"], notice["ObjectType"]) == (expected, "t"), name
            if expected == "table-dropped":
                until(lambda: "t" not in client.done("list-topic")["topics"], "the topic is gone")
                sql(db, "DROP TABLE IF EXISTS u; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")
                until(lambda: "t" in client.done("list-topic")["topics"], "the table is there again")
                continue
            assert notice["EventData"] == {"reason": "schema"}, name
            sql(db, "DELETE FROM t WHERE id = 2; INSERT INTO t(id, a) VALUES(2, 'new')")
            created = next(event for event in iter(client.event, None) if event["EventType"] == "create")
            assert created["EventData"] == {"__type": "t", "id": 2} | dict.fromkeys(columns) | {"a": "new"}, name
            # Who was away meanwhile may have missed something, and is told so.
            assert resumed(away, "t", before) == "gap", name
            assert resumed(away, "t", client.done("ping")) == "ok", name
            for each in (client, away):
                each.done("unsubscribe", topic="t")
                each.waiting.clear()


def test_vacuum_may_give_rows_without_a_key_new_rowids(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db, "--no-accounts") as live, live.client() as client, live.client() as away:
        client.done("subscribe", topic="t")
        before = client.done("subscribe", topic="bare")
        sql(db, "VACUUM")
        assert client.event() == {
            "MessageSource": "system", "EventType": "resync", "ObjectType": "bare", "EventData": {"reason": "schema"},
        }  # fmt: skip
        sql(db, "UPDATE t SET a = 'z'")
        assert client.event()["ObjectType"] == "t"  # and no resync
        assert resumed(away, "bare", before) == "gap"
        assert resumed(away, "t", before) == "ok"


def test_a_vacuum_is_seen_beside_a_statement_that_changes_much(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES + "CREATE INDEX j ON t(a, b); CREATE VIEW v AS SELECT b FROM t;")
    with serving(db, "--no-accounts") as live, live.client() as client:
        client.done("subscribe", topic="bare")
        with standing_still(live):  # it sees both at once
            sql(db, "ALTER TABLE t RENAME COLUMN b TO c")
            sql(db, "VACUUM")
        notice = client.event()
        assert (notice["EventType"], notice["ObjectType"]) == ("resync", "bare")


def test_no_row_is_named_by_its_new_rowid_before_the_resync(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES + "INSERT INTO bare VALUES('y'); DELETE FROM bare WHERE rowid = 1;")
    with serving(db, "--no-accounts") as live, live.client() as client, live.client() as away:
        before = client.done("subscribe", topic="bare")
        with standing_still(live):  # it sees both at once
            sql(db, "VACUUM")
            sql(db, "DELETE FROM bare")
        # Again behind it, for whoever has loaded meanwhile what was there before it.
        assert [client.event()["EventType"] for _ in range(3)] == ["resync", "delete", "resync"]
        assert resumed(away, "bare", before) == "gap"


def test_vacuum_while_no_server_runs_is_no_secret_either(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db, "--no-accounts") as live, live.client() as client:
        before = client.done("ping")
    with serving(db, "--no-accounts") as live, live.client() as client:
        assert resumed(client, "bare", before) == "ok"
        before = client.done("ping")
    sql(db, "VACUUM")
    with serving(db, "--no-accounts") as live, live.client() as client:
        assert resumed(client, "bare", before) == "gap"
        assert resumed(client, "t", before) == "ok"


def recover(db: Path, to: Path) -> None:
    """Make a new file of what the old one holds, as ``.recover`` and ``.dump`` do."""
    with closing(sqlite3.connect(db)) as old, closing(sqlite3.connect(to)) as new:
        new.executescript("\n".join(old.iterdump()))


def test_a_file_made_anew_of_what_was_saved_is_served_under_a_new_epoch(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db, "--no-accounts") as live:
        with live.client() as client:
            before = client.done("subscribe", topic="t")
            recover(db, tmp_path / "new.db")
            os.replace(tmp_path / "new.db", db)
            assert client.close_code() == 1012
        with again(live) as client:
            assert client.done("ping")["epoch"] != before["epoch"]
            assert resumed(client, "t", before) == "gap"
            client.done("subscribe", topic="t")
            sql(db, "INSERT INTO t VALUES(2, 'new', NULL)")
            assert client.event()["EventData"] == {"__type": "t", "id": 2, "a": "new", "b": None}
