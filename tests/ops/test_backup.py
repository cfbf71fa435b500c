"""A backup is whole, sound and nobody's business; what is restored is what was backed up, and nothing is lost by it."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import CommandError, StoreInUse, StoreUnusable
from appliance.ops import backup as module
from appliance.ops.backup import backup, restore
from appliance.store import offline
from appliance.store.file import incarnation, live_file, schema
from tests.ops.stores import rows, sql, store


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return store(tmp_path / "shop.db", "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")


def siblings(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_a_backup_holds_everything_in_one_file(db: Path, tmp_path: Path) -> None:
    copy = backup(db, tmp_path / "b.db")

    assert rows(copy.path, "SELECT a FROM t") == [(1,)]
    assert rows(copy.path, "PRAGMA journal_mode") == [("delete",)]
    assert copy.bytes == copy.path.stat().st_size
    assert [name for name in siblings(db) if name.startswith("b.db")] == ["b.db"]


def test_a_store_of_a_later_version_is_left_to_that(db: Path, tmp_path: Path) -> None:
    with offline.open_store(db) as own, schema.transaction(own):
        schema.put(own, "format", schema.FORMAT + 1)
        schema.put(own, "program", "7.8.9")

    with pytest.raises(StoreUnusable, match=r"made by live-appliance 7\.8\.9"):
        backup(db, tmp_path / "b.db")
    assert not (tmp_path / "b.db").exists()


def test_what_only_its_application_can_compare_is_backed_up_and_the_rest_of_the_file_looked_at(tmp_path: Path) -> None:
    db = store(tmp_path / "shop.db", "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", "CREATE TABLE u(a)")
    with closing(sqlite3.connect(db, isolation_level=None)) as theirs:
        theirs.create_collation("theirs", lambda one, other: (one > other) - (one < other))
        theirs.execute("CREATE TABLE read(k TEXT COLLATE theirs PRIMARY KEY) WITHOUT ROWID")
        theirs.execute("INSERT INTO read VALUES('a')")
        theirs.create_function("mine", 1, str, deterministic=True)
        theirs.execute("CREATE TABLE said(k TEXT CHECK(mine(k) > ''), o)")
        theirs.execute("CREATE INDEX i ON said(mine(o))")
        theirs.execute("INSERT INTO said VALUES('a', 'b')")
        assert backup(db, tmp_path / "b.db").unchecked == {
            "read": "no such collation sequence: theirs", "said": "unknown function: mine()",
        }  # fmt: skip
        theirs.execute("INSERT INTO t VALUES(NULL)")
        theirs.execute("PRAGMA writable_schema=ON")
        theirs.execute("UPDATE sqlite_schema SET sql='CREATE TABLE t(a NOT NULL)' WHERE name='t'")
    with pytest.raises(StoreUnusable, match=r"NULL value in t\.a"):
        backup(db, tmp_path / "c.db")


def test_a_backup_beside_a_writer_is_of_one_moment(db: Path, tmp_path: Path) -> None:
    sql(db, "CREATE TABLE u(a)")
    stop = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(db, isolation_level=None, timeout=10)) as own:
            while not stop.is_set():
                own.execute("BEGIN IMMEDIATE")
                own.execute("INSERT INTO t VALUES(2)")
                own.execute("INSERT INTO u VALUES(2)")
                own.execute("COMMIT")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [backup(db, tmp_path / f"{number}.db") for number in range(10)]
    finally:
        stop.set()
        writer.join()

    for copy in copies:
        ((count, other),) = rows(copy.path, "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)")
        assert count == other + 1


def test_a_backup_is_readable_for_nobody_who_may_not_read_the_store(db: Path, tmp_path: Path) -> None:
    db.chmod(0o640)

    assert backup(db, tmp_path / "b.db").path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_there_is_replaced_only_by_force(db: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.db"
    target.write_text("mine")
    (tmp_path / "b.db-wal").write_text("of another")
    with pytest.raises(CommandError, match="--force"):
        backup(db, target)
    assert target.read_text() == "mine"

    backup(db, target, force=True)

    assert rows(target, "SELECT a FROM t") == [(1,)]
    assert "b.db-wal" not in siblings(db)


def test_of_two_backups_to_one_file_the_second_is_refused_and_what_a_killed_one_left_is_no_hindrance(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.db.unfinished").write_bytes(b"left")
    copying = module._copy

    def beside(*given: Any, **options: Any) -> Any:
        monkeypatch.setattr(module, "_copy", copying)
        with pytest.raises(CommandError, match="just now"):
            backup(db, tmp_path / "b.db")
        return copying(*given, **options)

    monkeypatch.setattr(module, "_copy", beside)
    backup(db, tmp_path / "b.db")

    assert rows(tmp_path / "b.db", "SELECT a FROM t") == [(1,)]
    assert "b.db.unfinished" not in siblings(db)


@pytest.mark.parametrize("force", [False, True])
def test_a_store_is_not_backed_up_onto_itself_nor_onto_another_that_is_served(
    db: Path, tmp_path: Path, force: bool
) -> None:
    os.symlink(db, tmp_path / "link.db")
    with pytest.raises(CommandError, match="itself"):
        backup(db, tmp_path / "link.db", force=force)
    other = store(tmp_path / "other.db")
    with live_file.hold(other), pytest.raises(CommandError):
        backup(db, other, force=force)
    with pytest.raises(CommandError, match="directory"):
        backup(db, tmp_path, force=force)


@pytest.mark.parametrize("by_link", [False, True])
def test_a_device_or_a_pipe_is_replaced_by_neither(db: Path, tmp_path: Path, by_link: bool) -> None:
    place = pipe = tmp_path / "pipe"  # as /dev/null is none that a test may risk
    os.mkfifo(pipe)
    if by_link:
        place = tmp_path / "link"
        place.symlink_to(pipe)
    before = siblings(db)

    for force in (False, True):
        with pytest.raises(CommandError, match="is no file"):
            backup(db, place, force=force)
    with pytest.raises(CommandError, match="is no file"):
        restore(db, place)
    with pytest.raises(CommandError, match="is a directory"):
        restore(db, tmp_path)
    assert (pipe.is_fifo(), siblings(db)) == (True, before)


def test_a_store_that_is_damaged_leaves_no_backup(db: Path, tmp_path: Path) -> None:
    damage(db)

    with pytest.raises((StoreUnusable, CommandError)):
        backup(db, tmp_path / "b.db")

    assert [name for name in siblings(db) if name.startswith("b.db")] == []


def damage(db: Path) -> None:
    """Write over the pages of a table so that what they hold is no table any more."""
    sql(db, "CREATE TABLE big(a)")
    sql(
        db,
        "INSERT INTO big WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 400) "
        "SELECT randomblob(1000) FROM n",
    )
    sql(db, "PRAGMA wal_checkpoint(TRUNCATE)")
    size = db.stat().st_size
    with db.open("r+b") as file:
        file.seek(size - 40 * 4096)
        file.write(b"\xff" * 20 * 4096)


def test_what_is_restored_is_what_was_backed_up_and_the_old_file_is_kept(db: Path, tmp_path: Path) -> None:
    copy = backup(db, tmp_path / "b.db")
    sql(db, "INSERT INTO t VALUES(2)")

    restored, kept = restore(copy.path, db)

    assert rows(db, "SELECT a FROM t") == [(1,)]
    assert kept is not None
    assert rows(kept, "SELECT a FROM t") == [(1,), (2,)]
    assert rows(db, "PRAGMA journal_mode") == [("wal",)]
    assert restored.position == copy.position
    assert not [name for name in siblings(db) if name.endswith(("-wal", "-journal", ".unfinished"))]


def test_of_two_restores_within_a_second_both_files_are_kept(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.gmtime", lambda: (2026, 1, 2, 3, 4, 5, 4, 2, 0))
    first = backup(db, tmp_path / "b.db")
    sql(db, "INSERT INTO t VALUES(2)")

    kept = [restore(first.path, db)[1], restore(first.path, db)[1]]

    assert kept == [Path(f"{db}.before-restore-20260102T030405Z"), Path(f"{db}.before-restore-20260102T030405Z-2")]
    assert rows(kept[0], "SELECT a FROM t") == [(1,), (2,)]


def test_a_restored_store_begins_a_new_epoch(db: Path, tmp_path: Path) -> None:
    def serve() -> str:
        with live_file.hold(db) as live, closing(sqlite3.connect(db, isolation_level=None)) as own:
            own.execute("PRAGMA journal_mode=WAL")
            _, epoch = incarnation.begin(own, live, schema.highest(own))
            incarnation.end(own)
            return epoch

    first = serve()
    copy = backup(db, tmp_path / "b.db")
    assert serve() == first

    restore(copy.path, db)

    assert serve() != first


def test_nothing_is_restored_while_a_server_or_another_program_has_the_store(db: Path, tmp_path: Path) -> None:
    copy = backup(db, tmp_path / "b.db")
    sql(db, "INSERT INTO t VALUES(2)")
    with live_file.hold(db), pytest.raises(StoreInUse, match="serves"):
        restore(copy.path, db)
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("SELECT * FROM t").fetchall()
        with pytest.raises(StoreInUse, match="another program"):
            restore(copy.path, db)

    assert rows(db, "SELECT a FROM t") == [(1,), (2,)]
    assert not [name for name in siblings(db) if "before-restore" in name or "unfinished" in name]


def test_a_damaged_store_can_be_restored(db: Path, tmp_path: Path) -> None:
    copy = backup(db, tmp_path / "b.db")
    db.write_bytes(b"no database at all" * 100)

    _, kept = restore(copy.path, db)

    assert rows(db, "SELECT a FROM t") == [(1,)]
    assert kept is not None
    assert kept.read_bytes().startswith(b"no database")


def test_a_store_can_be_restored_where_there_is_none_from_what_cannot_be_written(db: Path, tmp_path: Path) -> None:
    folder = tmp_path / "medium"
    folder.mkdir()
    copy = backup(db, folder / "b.db")
    copy.path.chmod(0o400)
    folder.chmod(0o500)
    try:
        _, kept = restore(copy.path, tmp_path / "new.db")
    finally:
        folder.chmod(0o700)

    assert kept is None
    assert rows(tmp_path / "new.db", "SELECT a FROM t") == [(1,)]


@pytest.mark.parametrize("content", [b"not SQLite" * 1000, b"", None])
def test_what_is_no_backup_is_refused_and_the_store_untouched(db: Path, tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "b.db"
    if content is not None:
        source.write_bytes(content)

    with pytest.raises(CommandError, match=r"name a(nother file| backup)$"):
        restore(source, db)

    assert rows(db, "SELECT a FROM t") == [(1,)]


def test_a_backup_of_a_later_version_is_refused(db: Path, tmp_path: Path) -> None:
    copy = backup(db, tmp_path / "b.db")
    with closing(sqlite3.connect(copy.path, isolation_level=None)) as own:
        schema.put(own, "format", schema.FORMAT + 1)

    with pytest.raises(StoreUnusable, match="format"):
        restore(copy.path, db)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_store_that_root_restores_stays_its_owners(db: Path, tmp_path: Path) -> None:
    copy = backup(db, tmp_path / "b.db")
    os.chown(db, 12345, 12345)

    restore(copy.path, db)

    assert (db.stat().st_uid, db.stat().st_gid) == (12345, 12345)
    assert Path(f"{db}-live").stat().st_uid == 12345
    assert offline.is_served(db) is False
