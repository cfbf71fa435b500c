"""The schema of a database that somebody has already: whatever it calls, the file is served, other tables as ever."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.e2e.live import Live, run, serving, sql, until
from tests.e2e.test_api import api, document

pytestmark = pytest.mark.e2e

#: What every SQLite brings. Each table has a column ``j``.
OWN = (
    "CREATE TABLE plain(id INTEGER PRIMARY KEY, j TEXT);"
    "CREATE TABLE checked(id INTEGER PRIMARY KEY, j TEXT CHECK(json_valid(j)));"
    "CREATE TABLE generated(id INTEGER PRIMARY KEY, j TEXT, v AS (j->>'$.x'), s AS (json_extract(j, '$.x')) STORED);"
    "CREATE TABLE indexed(id INTEGER PRIMARY KEY, j TEXT);"
    "CREATE INDEX by_x ON indexed(json_extract(j, '$.x'));"
    "CREATE INDEX valid ON indexed(j) WHERE json_valid(j);"
    "CREATE TABLE triggered(id INTEGER PRIMARY KEY, j TEXT);"
    "CREATE TRIGGER t BEFORE INSERT ON triggered WHEN NOT json_valid(NEW.j) BEGIN SELECT RAISE(ABORT, 'no JSON'); END;"
    "CREATE TABLE searched(id INTEGER PRIMARY KEY, j TEXT);"
    "CREATE VIRTUAL TABLE words USING fts5(j, content='searched', content_rowid='id');"
    "CREATE TRIGGER s AFTER INSERT ON searched BEGIN INSERT INTO words(rowid, j) VALUES(NEW.id, NEW.j); END;"
)
#: What only the application has: ``mine``.
THEIRS = (
    "CREATE TABLE plain(id INTEGER PRIMARY KEY, j TEXT);"
    "CREATE TABLE checked(id INTEGER PRIMARY KEY, j TEXT CHECK(mine(j) > 0));"
    "CREATE TABLE generated(id INTEGER PRIMARY KEY, j TEXT, v INTEGER AS (mine(j)), "
    "s INTEGER AS (mine(j)) STORED) STRICT;"
    "CREATE TABLE indexed(id INTEGER PRIMARY KEY, j TEXT);"
    "CREATE INDEX by_x ON indexed(mine(j));"
    "CREATE TABLE triggered(id INTEGER PRIMARY KEY, j TEXT);"
    "CREATE TRIGGER t AFTER INSERT ON triggered BEGIN SELECT mine(NEW.j); END;"
)
J = '{"x": 1}'


def application(db: Path) -> sqlite3.Connection:
    """Open the file as the program does that has ``mine``."""
    connection = sqlite3.connect(db, timeout=10, isolation_level=None)
    connection.create_function("mine", 1, lambda value: 1, deterministic=True)
    return connection


def ready(live: Live) -> int:
    return httpx.get(f"http://localhost:{live.port}/readyz").status_code


def test_a_schema_with_what_every_sqlite_has_is_served_and_written(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, OWN)
    with serving(db) as live, live.client() as client, api(live) as http:
        for table in ("plain", "checked", "generated", "indexed", "triggered", "searched"):
            client.done("subscribe", topic=table)
            sql(db, f"INSERT INTO {table}(j) VALUES('{J}')")
            assert http.post(f"/api/{table}", json=document(table, j=J)).status_code == 201
            assert [(each["EventType"], each["EventData"]["j"]) for each in client.events(2)] == [("create", J)] * 2
            assert len(http.get(f"/api/{table}").json()["data"]) == 2
        refused = http.post("/api/checked", json=document("checked", j="{"))
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "invalid")
        assert sql(db, "SELECT count(*) FROM words WHERE words MATCH 'x'") == "2\n"
    assert not [line for line in live.log() if "table_not" in line]


def test_a_schema_that_comes_while_it_is_served_takes_nothing_from_the_other_tables(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    with serving(db) as live, live.client() as client, api(live) as http, closing(application(db)) as theirs:
        client.done("subscribe", topic="t")
        for number, made in enumerate((OWN, THEIRS)):
            theirs.executescript(made)
            sql(db, f"INSERT INTO t VALUES({number}, 0)")
            assert client.event()["Key"] == [number]
            until(lambda: "checked" in client.topics(), "a table of the new schema is a topic")
            assert ready(live) == 200
            assert http.get("/api/t").status_code == 200
            position = client.done("subscribe", topic="checked")
            theirs.execute("INSERT INTO checked(j) VALUES('{}')")
            assert client.event()["EventId"] > position["EventId"]
            assert "captured" not in run("check", "--db", db).stdout
            theirs.executescript("".join(f"DROP TABLE IF EXISTS {table};" for table in (
                "plain", "checked", "generated", "indexed", "triggered", "words", "searched")))  # fmt: skip
            until(lambda: "checked" not in client.topics(), "it is none any more")
            assert client.event()["EventType"] == "table-dropped"


def test_what_only_the_application_can_write_is_its_to_write_and_everything_else_works(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    with closing(application(db)) as theirs:
        theirs.executescript(THEIRS)
        with serving(db) as live, live.client() as client, api(live) as http:
            for table in ("checked", "generated", "indexed", "triggered"):
                client.done("subscribe", topic=table, snapshot=True)
                assert client.event()["EventType"] == "live"
                theirs.execute(f"INSERT INTO {table}(j) VALUES('a')")
                theirs.execute(f"UPDATE {table} SET j = 'b'")
                assert [each["EventType"] for each in client.events(2)] == ["create", "update"]
                assert [row["attributes"]["j"] for row in http.get(f"/api/{table}").json()["data"]] == ["b"]

                refused = http.post(f"/api/{table}", json=document(table, j="c"))
                (error,) = refused.json()["errors"]
                assert (refused.status_code, error["code"]) == (409, "conflict")
                assert "only the database's own application may have" in error["detail"]
                assert "function: mine" in error["detail"]
            assert http.delete("/api/indexed/1").status_code == 409
            assert http.post("/api/plain", json=document("plain", j="c")).status_code == 201
            assert ready(live) == 200
            # One request's refusal is nobody else's, though they are committed together.
            assert client.done("create-topic", name="lobby") is not None
        # Without a CHECK's function the pages can be looked at all the same, but not those of ``generated``.
        (said,) = [line for line in live.log() if "table_not_checked" in line]
        assert "table=generated" in said
        assert "mine()" in said
        assert not [line for line in live.log() if "[error" in line]


def test_commands_take_such_a_file_as_any_other(tmp_path: Path) -> None:
    db, copy = tmp_path / "a.db", tmp_path / "b.db"
    with closing(application(db)) as theirs:
        theirs.executescript(THEIRS + "CREATE TABLE j(id INTEGER PRIMARY KEY, j TEXT CHECK(json_valid(j)))")
        with serving(db):
            theirs.execute("INSERT INTO checked(j) VALUES('a')")
            theirs.execute("INSERT INTO indexed(j) VALUES('a')")
        checked = run("check", "--db", db)
        assert (checked.returncode, "corrupt" in checked.stdout.lower().replace("can corrupt", "")) == (0, False)
        assert "table generated: only its application can check whether it is sound" in checked.stdout
        assert "checked: watched" in run("table", "list", "--db", db).stdout
        assert '"create"' in run("history", "checked", "1", "--db", db).stdout
        made = run("table", "create", "todo", "title:text", "--db", db)
        assert made.returncode == 0, made.stderr
        change = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('ALTER TABLE checked ADD COLUMN late')"
        migrated = run("migrate", "--db", db, "--", sys.executable, "-c", change, db)
        assert (migrated.returncode, migrated.stderr) == (0, "")
        kept = run("backup", copy, "--db", db)
        assert kept.returncode == 0, kept.stderr
        assert (
            "verified but for what only an application can check: generated (unknown function: mine())" in kept.stdout
        )
    restored = run("restore", copy, "--db", db)
    assert (restored.returncode, "but for what only an application" in restored.stdout) == (0, True), restored.stderr
    assert sql(copy, "SELECT j, late FROM checked") == "a|\n"
