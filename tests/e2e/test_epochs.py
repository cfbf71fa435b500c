"""Positions are of an epoch: a new one begins whenever ids could be given out twice, and only then."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from appliance.store.file.live_file import SIZE
from tests.e2e.live import Live, again, serving, sql, until
from tests.e2e.server_process import PATIENCE_S

pytestmark = pytest.mark.e2e


def backup(db: Path, to: Path) -> None:
    with closing(sqlite3.connect(db)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def copy_over(db: Path) -> None:
    """Do as ``cp backup shop.db`` does after the server has ended."""
    shutil.copyfile(db.with_name("backup.db"), db)


def is_moved(checkpoint: str) -> bool:
    """Say whether a checkpoint has moved all that was in the WAL, as it says itself."""
    busy, there, moved = map(int, checkpoint.split("|"))
    return (busy, there) == (0, moved)


def copy_over_and_write(db: Path) -> None:
    """Do as ``cp``, and then as an application that begins before the server: the file has as many events again."""
    copy_over(db)
    sql(db, "INSERT INTO t(a) VALUES('other'), ('others')")


def delete_lock(db: Path) -> None:
    Path(f"{db}-live").unlink()


def lose_power(db: Path) -> None:
    """Leave what a power cut leaves of a server that ran: no clean mark, and another boot comes."""
    lock = Path(f"{db}-live")
    record, _, rest = lock.read_bytes().partition(b"\n")
    anew = json.dumps({**json.loads(record), "boot": "another"}).encode()
    lock.write_bytes(anew.ljust(len(record)) + b"\n" + rest)


def nothing(db: Path) -> None:
    """Leave all as it is."""


@pytest.mark.parametrize(
    ("killed", "meanwhile", "kept"),
    [
        (False, nothing, True),
        (True, nothing, True),
        (False, lose_power, True),  # after a clean end nothing can be lost
        (True, lose_power, False),
        (False, delete_lock, False),
        (False, copy_over, False),
        (True, copy_over, False),
        (False, copy_over_and_write, False),
        (True, copy_over_and_write, False),
    ],
)
def test_a_position_is_good_as_long_as_no_id_can_be_given_out_twice(
    tmp_path: Path, killed: bool, meanwhile: Callable[[Path], None], kept: bool
) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    with serving(db, "--no-accounts") as live:
        with live.client() as client:
            client.done("subscribe", topic="t")
            sql(db, "INSERT INTO t(a) VALUES(1)")
            backup(db, tmp_path / "backup.db")
            sql(db, "INSERT INTO t(a) VALUES(2)")
            client.events(2)
            position = client.done("ping")
        if killed:
            live.kill()
            # What a killed server leaves in the WAL would be replayed over a file that is copied over this one.
            sql(db, "PRAGMA wal_checkpoint(TRUNCATE)")
    meanwhile(db)
    with serving(db, "--no-accounts") as live, live.client() as client:
        reply = client.ask("subscribe", topic="t", since=position["EventId"], epoch=position["epoch"])
        if kept:
            assert reply["EventData"]["recovered"] is True
            sql(db, "INSERT INTO t(a) VALUES(3)")
            created = next(event for event in iter(client.event, None) if event["EventType"] == "create")
            assert created["EventData"]["a"] == 3
        else:
            assert reply["EventData"]["code"] == "gap"
            assert reply["EventData"]["epoch"] != position["epoch"]


@pytest.mark.parametrize("copied", ["while it is stopped", "while it runs"])
def test_a_whole_folder_that_is_put_back_in_place_begins_a_new_epoch(tmp_path: Path, copied: str) -> None:
    folder, saved = tmp_path / "folder", tmp_path / "saved"
    folder.mkdir()
    db = folder / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")

    def copy(of: Path, to: Path) -> None:
        """Do as ``cp -a of/. to/``: what is there already is written over, at its own inode."""
        to.mkdir(exist_ok=True)
        for each in of.iterdir():
            shutil.copy2(each, to)

    with serving(db, "--no-accounts") as live:
        with live.client() as client:
            client.done("subscribe", topic="t")
            sql(db, "INSERT INTO t(a) VALUES(1)")
            client.event()
        if copied == "while it runs":
            copy(folder, saved)
    if copied == "while it is stopped":
        copy(folder, saved)
    with serving(db, "--no-accounts") as live, live.client() as client:
        client.done("subscribe", topic="t")
        sql(db, "INSERT INTO t(a) VALUES(2)")
        client.event()
        position = client.done("ping")
    copy(saved, folder)
    sql(db, "INSERT INTO t(a) VALUES('other'), ('others')")  # up to the position there are events, but not the same
    with serving(db, "--no-accounts") as live, live.client() as client:
        reply = client.ask("subscribe", topic="t", since=position["EventId"], epoch=position["epoch"])
        assert reply["EventData"]["code"] == "gap"
        assert reply["EventData"]["epoch"] != position["epoch"]


@pytest.mark.parametrize("killed", [False, True])
def test_who_gives_the_files_to_their_user_at_each_start_keeps_the_epoch(tmp_path: Path, killed: bool) -> None:
    # As containers do: `chown -R` in front of the program, or the volume's group by Kubernetes.
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    with serving(db, "--no-accounts") as live:
        with live.client() as client:
            before = client.done("ping")["epoch"]
        if killed:
            live.kill()
    for each in tmp_path.glob("a.db*"):
        os.chown(each, os.geteuid(), os.getegid())
        each.chmod(0o660)
        each.touch()
    with serving(db, "--no-accounts") as live, live.client() as client:
        assert client.done("ping")["epoch"] == before
        assert Path(f"{db}-live").stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize("longer", [False, True])
def test_a_file_copied_over_ours_while_it_is_served_is_served_under_a_new_epoch(tmp_path: Path, longer: bool) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    with serving(db, "--no-accounts") as live:
        with live.client() as client:
            client.done("subscribe", topic="t")
            sql(db, "INSERT INTO t(a) VALUES('kept')")
            client.event()
            if longer:
                sql(db, "CREATE TABLE much(v); INSERT INTO much VALUES(zeroblob(1000000))")
            backup(db, tmp_path / "backup.db")
            if longer:
                sql(db, "DROP TABLE much; VACUUM")
            sql(db, "INSERT INTO t(a) VALUES('lost')")
            client.event()
            before = client.done("ping")
            # As when nothing was written for half a minute: the server has nothing left to write, and nothing is in the
            # WAL that is not in the file.
            known = "SELECT value FROM _appliance_meta WHERE name = 'schema_version'"
            until(lambda: sql(db, known) == sql(db, "PRAGMA schema_version"), "the server knows the schema")
            with closing(sqlite3.connect(db, isolation_level=None)) as writer:
                writer.execute("BEGIN IMMEDIATE")  # nor does it set a mark just now
                until(lambda: is_moved(sql(db, "PRAGMA wal_checkpoint")), "nobody reads what was before")
                copy_over(db)
            assert client.close_code() == 1012
        until(lambda: any("store_replaced" in line for line in live.log()), "the copy is noticed")
        with again(live) as client:
            assert client.done("ping")["epoch"] != before["epoch"]
            reply = client.ask("subscribe", topic="t", since=before["EventId"], epoch=before["epoch"])
            assert reply["EventData"]["code"] == "gap"
            client.done("subscribe", topic="t")
            sql(db, "UPDATE t SET a = 'new'")
            assert client.event()["EventData"] == {"__type": "t", "id": 1, "a": "new"}
    assert sql(db, "PRAGMA integrity_check; SELECT a FROM t") == "ok\nnew\n"


@pytest.mark.parametrize("which", ["meta", "outbox", "scratch", "standard", ""])
def test_tables_of_ours_that_a_schema_tool_takes_for_left_over_are_made_anew(tmp_path: Path, which: str) -> None:
    # As `alembic revision --autogenerate` has it: all tables go that the tool's models do not have.
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)")
    with serving(db) as live:
        with live.client() as client:
            client.done("subscribe", topic="t")
            sql(db, "INSERT INTO t(a) VALUES('before')")
            client.event()
            ours = sql(
                db, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '\\_appliance\\_%' ESCAPE '\\'"
            )
            dropped = [name for name in ours.split() if which in name]
            sql(db, "".join(f"DROP TABLE {name};" for name in dropped))
            assert client.close_code() == 1012
        with again(live) as client:
            client.done("subscribe", topic="t")
            sql(db, "REPLACE INTO t(id, a) VALUES(1, 'after')")
            assert client.event()["EventData"] == {"__type": "t", "id": 1, "a": "after"}


def test_ids_that_go_back_while_it_is_served_begin_a_new_epoch(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    with serving(db, "--no-accounts") as live:
        with live.client() as client:
            client.done("subscribe", topic="t")
            sql(db, "INSERT INTO t(a) VALUES(1), (2), (3)")
            client.events(3)
            before = client.done("ping")
            sql(db, "DELETE FROM _appliance_outbox")
            assert client.close_code() == 1012
        until(lambda: any("disconnected" in line and "code=1012" in line for line in live.log()), "its end is logged")
        with again(live) as client:
            assert client.done("ping")["epoch"] != before["epoch"]


def test_a_file_that_is_replaced_while_it_is_begun_with_is_begun_with_anew(tmp_path: Path) -> None:
    db, beside = tmp_path / "a.db", tmp_path / "a.db-live"
    sql(db, "CREATE TABLE t(a)")

    def incarnation() -> str | None:
        with contextlib.suppress(ValueError):  # while it is begun with
            record = json.loads(beside.read_bytes()[:SIZE])
            return record["incarnation"] if record["coming"] is None else None
        return None

    with serving(db, "--no-accounts") as live:
        for number in range(8):
            before = incarnation()
            other = tmp_path / "other.db"
            sql(other, f"CREATE TABLE t{number}(a)")
            other.replace(db)
            # From here on the next one comes while the triggers are made in this one.
            until(lambda before=before: incarnation() not in (None, before), "it is begun with")
        with again(live) as client:
            assert client.topics() == ["t7"]


def test_of_files_that_come_faster_than_one_is_opened_the_last_is_served(tmp_path: Path) -> None:
    db, kept = tmp_path / "a.db", [tmp_path / f"{number}.db" for number in range(60)]
    sql(db, "CREATE TABLE t(a)")
    for number, other in enumerate(kept):
        sql(other, f"CREATE TABLE t{number}(a)")
    with serving(db, "--no-accounts") as live:
        for other in kept:
            before = Path(f"{db}-live").read_bytes()
            other.replace(db)
            # The next one comes when the server is at some place of its start with this one.
            until(lambda before=before: Path(f"{db}-live").read_bytes() != before, "it is begun with")
        with again(live) as client:
            assert client.topics() == ["t59"]


def test_a_lock_that_is_deleted_while_it_is_served_is_made_again(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(a)")
    with serving(db, "--no-accounts") as live:
        with live.client() as client:
            before = client.done("ping")
        Path(f"{db}-live").unlink()
        until(Path(f"{db}-live").exists, "the lock is there again")
    with serving(db, "--no-accounts") as live, live.client() as client:
        assert client.done("ping")["epoch"] == before["epoch"]


def readiness(live: Live) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{live.port}/readyz", timeout=PATIENCE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def until_logged(live: Live, event: str) -> None:
    until(lambda: any(f" {event} " in f"{line} " for line in live.log()), f"{event} is logged")


def fill(db: Path, rows: int = 50) -> None:
    """Commit rows one by one, as a program that closes the file each time, so that all of them are in the WAL."""
    for _ in range(rows):
        with closing(sqlite3.connect(db, isolation_level=None)) as writer:
            writer.execute("INSERT INTO t(a) VALUES('kept')")


def count(db: Path) -> int:
    return int(sql(db, "SELECT count(*) FROM t"))


def test_a_file_that_is_moved_away_and_back_is_served_on(tmp_path: Path) -> None:
    db, away = tmp_path / "a.db", tmp_path / "a.away"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    with serving(db, "--no-accounts") as live, live.client() as client:
        client.done("subscribe", topic="t")
        client.done("create-topic", name="kept")
        before = client.done("ping")
        fill(db)
        client.events(50)
        with closing(sqlite3.connect(db, isolation_level=None)) as holder:
            holder.execute("INSERT INTO t(a) VALUES('held')")
            db.rename(away)
            until_logged(live, "store_away")
            assert readiness(live) == 503
            assert client.refused("new-message", topic="kept", message=1) == "unavailable"
            holder.execute("INSERT INTO t(a) VALUES('away')")  # another program does not notice anything
            away.rename(db)
            until_logged(live, "store_back")
            until(lambda: readiness(live) == 200, "it is ready again")
            assert count(db) == 52
            holder.execute("INSERT INTO t(a) VALUES('back')")
        assert [event["EventData"]["a"] for event in client.events(3)] == ["held", "away", "back"]
        client.done("new-message", topic="kept", message=2)
        assert client.done("ping")["epoch"] == before["epoch"]
    assert sql(db, "PRAGMA integrity_check; SELECT count(*) FROM t") == "ok\n53\n"


def test_a_file_that_is_moved_away_for_good_has_all_its_rows(tmp_path: Path) -> None:
    db, away = tmp_path / "a.db", tmp_path / "a.away"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    with serving(db, "--no-accounts") as live:
        fill(db)
        db.rename(away)
        until_logged(live, "store_away")
        assert live.stop() == 0
    assert not db.exists()
    assert sql(away, "PRAGMA integrity_check; SELECT count(*) FROM t") == "ok\n50\n"


@pytest.mark.parametrize("pinned", [False, True])
def test_a_file_that_another_takes_the_place_of_has_all_its_rows(tmp_path: Path, pinned: bool) -> None:
    db, old = tmp_path / "a.db", tmp_path / "a.old"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    backup(db, tmp_path / "backup.db")
    with serving(db, "--no-accounts") as live:
        held = closing(sqlite3.connect(db, isolation_level=None)) if pinned else nullcontext()
        with live.client() as client, held as reader:
            if reader is not None:
                reader.execute("BEGIN")
                reader.execute("SELECT * FROM t").fetchall()
            fill(db)
            db.rename(old)
            (tmp_path / "backup.db").rename(db)
            assert client.close_code() == 1012
            until_logged(live, "store_replaced")
        with again(live) as client:
            client.done("subscribe", topic="t")
            sql(db, "INSERT INTO t(a) VALUES('new')")
            assert client.event()["EventData"] == {"__type": "t", "id": 1, "a": "new"}
    kept = list(tmp_path.glob("a.db-wal.of-*"))
    if pinned:  # what could not be moved into the old file is kept, and the log says where
        (wal,) = kept
        assert any("wal_kept" in line and str(wal) in line for line in live.log())
        wal.rename(f"{old}-wal")
    else:
        assert not kept
    assert sql(old, "PRAGMA integrity_check; SELECT count(*) FROM t") == "ok\n50\n"
    assert sql(db, "PRAGMA integrity_check; SELECT count(*) FROM t") == "ok\n1\n"


def test_where_a_link_leads_to_another_file_that_is_served(tmp_path: Path) -> None:
    old, new, link, other = (tmp_path / name for name in ("old.db", "new.db", "a.db", "other.db"))
    for each in (old, new):
        sql(each, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    link.symlink_to(old)
    other.symlink_to(new)
    with serving(link, "--no-accounts") as live:
        with live.client() as client:
            client.done("subscribe", topic="t")
            sql(old, "INSERT INTO t(a) VALUES('old')")
            assert client.event()["EventData"]["a"] == "old"
            before = client.done("ping")
            other.replace(link)
            assert client.close_code() == 1012
            until_logged(live, "store_replaced")
        with again(live) as client:
            assert client.done("subscribe", topic="t")["epoch"] != before["epoch"]
            sql(new, "INSERT INTO t(a) VALUES('new')")
            assert client.event()["EventData"] == {"__type": "t", "id": 1, "a": "new"}
    for each in (old, new):
        assert sql(each, "PRAGMA integrity_check; SELECT a FROM t") == f"ok\n{each.stem}\n"


def test_another_file_is_noticed_also_while_what_was_to_be_taken_up_of_the_one_before_cannot_be(tmp_path: Path) -> None:
    db, old = tmp_path / "a.db", tmp_path / "a.old"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    backup(db, tmp_path / "backup.db")
    with serving(db, "--no-accounts") as live:
        with live.client() as client, closing(sqlite3.connect(db, isolation_level=None)) as holder:
            holder.execute("INSERT INTO t(a) VALUES('before')")
            db.rename(old)
            until_logged(live, "store_away")
            holder.execute("CREATE TABLE u(a)")  # in the file that is away, where nothing can be put under capture
            until_logged(live, "store_unreadable")
            (tmp_path / "backup.db").rename(db)
            assert client.close_code() == 1012
        with again(live) as client:
            assert client.topics() == ["t"]
    assert sql(old, "PRAGMA integrity_check; SELECT count(*) FROM t") == "ok\n1\n"
    assert sql(db, "PRAGMA integrity_check; SELECT count(*) FROM t") == "ok\n0\n"


@pytest.mark.parametrize("deleted", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_a_wal_that_is_deleted_under_the_server_parts_it_from_nobody(tmp_path: Path, deleted: tuple[str, ...]) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    with serving(db, "--no-accounts") as live:
        with live.client() as client:
            before = client.done("ping")
            fill(db)
            for suffix in deleted:
                Path(f"{db}{suffix}").unlink()
            assert client.close_code() == 1012
        until_logged(live, "wal_deleted")
        with again(live) as client:
            assert client.done("ping")["epoch"] != before["epoch"]
            client.done("subscribe", topic="t")
            sql(db, "INSERT INTO t(a) VALUES('new')")
            assert client.event()["EventData"] == {"__type": "t", "id": 51, "a": "new"}
            assert sql(db, "PRAGMA integrity_check; SELECT count(*) FROM t") == "ok\n51\n"
    assert sql(db, "PRAGMA integrity_check; SELECT count(*) FROM t") == "ok\n51\n"
