"""``migrate``: what triggers would block runs, whatever becomes of it, and subscribers know."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance.store.tables import watch
from tests.e2e.live import PROGRAM, Client, run, serving, sql, until
from tests.e2e.server_process import PATIENCE_S, ROOT

pytestmark = pytest.mark.e2e

TABLES = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE TABLE u(a); INSERT INTO t VALUES(1, 2, 3)"


def captured(db: Path) -> list[str]:
    """Name the tables of the test that have our triggers."""
    with closing(sqlite3.connect(db)) as connection:
        return [table for table in watch.captured(connection) if table in ("late", "t", "u")]


def migrate(db: Path, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run("migrate", "--db", db, "--", *command, **options)


def resyncs(client: Client, count: int) -> set[tuple[str, str]]:
    return {(event["EventType"], event["ObjectType"]) for event in client.events(count)}


def test_a_running_server_lets_the_command_work_and_tells_all_subscribers(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db) as live, live.client() as client:
        client.done("subscribe", topic="t")
        client.done("subscribe", topic="u")
        blocked = subprocess.run(["sqlite3", str(db), "ALTER TABLE t DROP COLUMN b"], capture_output=True, check=False)
        assert blocked.returncode != 0
        # Each statement is a connection of its own, with time between for a server that would put triggers back.
        script = (
            'sqlite3 "$LIVE_APPLIANCE_DB" "UPDATE t SET a = 9"; sleep 1.5;'
            'sqlite3 "$LIVE_APPLIANCE_DB" "ALTER TABLE t DROP COLUMN b"; exit 7'
        )
        done = migrate(db, "sh", "-c", script)
        assert (done.returncode, done.stderr) == (7, "")
        assert captured(db) == ["t", "u"]  # when it returns
        assert resyncs(client, 2) == {("resync", "t"), ("resync", "u")}
        sql(db, "INSERT INTO t(a) VALUES(5)")
        assert client.event()["EventData"] == {"__type": "t", "id": 2, "a": 5}
        assert not Path(f"{db}-migrating").exists()


def test_a_migration_too_quick_to_be_seen_is_told_all_the_same(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db) as live, live.client() as client:
        client.done("subscribe", topic="t")
        assert migrate(db, "true").returncode == 0
        assert resyncs(client, 1) == {("resync", "t")}


def test_a_table_that_the_command_drops_is_told_as_dropped(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db) as live, live.client() as client:
        client.done("subscribe", topic="t")
        client.done("subscribe", topic="u")
        assert migrate(db, "sqlite3", str(db), "DROP TABLE t; ALTER TABLE u ADD COLUMN b").returncode == 0
        assert resyncs(client, 2) == {("table-dropped", "t"), ("resync", "u")}


def test_watch_settings_and_secrets_are_kept_without_a_server(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db, "--secret-columns", "t.a"):
        assert run("table", "unwatch", "u", "--db", db).returncode == 0
    assert migrate(db, "sqlite3", str(db), "ALTER TABLE t DROP COLUMN b").returncode == 0
    assert captured(db) == ["t"]
    sql(db, "INSERT INTO t(a) VALUES('hush')")
    assert "hush" not in sql(db, "SELECT * FROM _appliance_outbox")


def test_a_store_that_was_never_served_gets_no_triggers(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    assert migrate(db, "sqlite3", str(db), "ALTER TABLE t DROP COLUMN b").returncode == 0
    assert captured(db) == []


@pytest.mark.parametrize(("command", "status"), [("no-such-command", 127), ("/", 126)])
def test_a_command_that_cannot_be_run_leaves_all_as_it_was(tmp_path: Path, command: str, status: int) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db):
        pass
    failed = migrate(db, command)
    assert failed.returncode == status
    assert len(failed.stderr.splitlines()) == 1
    assert captured(db) == ["t", "u"]


def begin(db: Path, *command: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [*PROGRAM, "migrate", "--db", str(db), "--", *command], cwd=ROOT, stdin=subprocess.DEVNULL
    )
    until(lambda: captured(db) == [], "the triggers are off")
    return process


def test_a_second_migration_is_refused_and_a_signal_ends_the_first_in_order(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db):
        pass
    first = begin(db, "sleep", "60")
    second = migrate(db, "true")
    assert second.returncode == 75
    assert "another migration" in second.stderr
    assert captured(db) == []
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE_S) == 128 + signal.SIGTERM
    assert captured(db) == ["t", "u"]


def test_a_killed_migration_does_not_stay_for_ever(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db) as live, live.client() as client:
        client.done("subscribe", topic="t")
        migration = begin(db, "sleep", "60")
        until(lambda: any("capture_suspended" in line for line in live.log()), "the server knows of it")
        sql(db, "CREATE TABLE late(a)")  # a change of the schema that the server sees
        client.done("ping")
        assert captured(db) == []
        migration.kill()
        migration.wait()
        until(lambda: captured(db) == ["late", "t", "u"], "the server puts the triggers back")
        assert resyncs(client, 1) == {("resync", "t")}


def test_a_server_waits_for_the_end_of_a_migration(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db):
        pass
    migration = begin(
        db, "sh", "-c", f'until grep -q capture_suspended "{db.with_suffix(".log")}"; do sleep 0.05; done'
    )
    with serving(db) as live, live.client() as client:
        assert migration.wait(PATIENCE_S) == 0
        client.done("subscribe", topic="t")
        sql(db, "DELETE FROM t")
        assert client.event()["EventType"] == "delete"


def test_a_server_that_waits_for_that_stops_when_it_is_told_to(tmp_path: Path) -> None:
    db, log = tmp_path / "a.db", tmp_path / "waiting.log"
    sql(db, TABLES)
    with serving(db):
        pass
    migration = begin(db, "sleep", "60")
    with log.open("wb") as stderr:
        waiting = subprocess.Popen([*PROGRAM, "serve", "--db", str(db), "--port", "0"], stderr=stderr, cwd=ROOT)
    until(lambda: "capture_suspended" in log.read_text(), "it waits")
    waiting.terminate()
    assert waiting.wait(PATIENCE_S) == 0
    migration.terminate()
    migration.wait()
