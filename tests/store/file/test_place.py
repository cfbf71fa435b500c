"""Where the file is, and that it is let go of with all its rows."""

from __future__ import annotations

import fcntl
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.store.file import live_file, schema
from appliance.store.file.connections import open_file
from appliance.store.file.guard import Guard
from appliance.store.file.place import Place, identity


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_file(path, busy_timeout_s=1)
    connection.execute("PRAGMA journal_mode=WAL")
    schema.prepare(connection)
    schema.put(connection, "incarnation", "ours")
    connection.execute("CREATE TABLE t(a)")
    yield connection
    connection.close()


def make(path: Path) -> None:
    """Make another database, in WAL mode, that has been closed."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE theirs(a)")


def rows(path: Path, table: str = "t") -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def names(path: Path) -> set[str]:
    return {each.name for each in path.parent.iterdir()}


def test_the_place_is_ours_empty_or_taken(path: Path, db: sqlite3.Connection) -> None:
    place = Place(path, "ours")
    assert (place.is_ours(), place.is_taken()) == (True, False)
    path.rename(f"{path}.old")
    assert (place.is_ours(), place.is_taken()) == (False, False)
    make(path)
    assert (place.is_ours(), place.is_taken()) == (False, True)


def test_a_file_that_came_while_the_one_before_was_opened_is_another(path: Path, db: sqlite3.Connection) -> None:
    found = identity(path)
    path.rename(path.with_suffix(".old"))
    path.touch()
    place = Place(path, "ours", found=found)
    assert not place.is_ours()
    assert place.is_taken()
    place.leave(db)
    assert not Path(f"{path}-wal").exists()  # the next to open the other would write it into that


def test_a_place_that_there_is_no_way_to_is_empty(path: Path, db: sqlite3.Connection) -> None:
    place, folder = Place(path, "ours"), path.parent
    with live_file.hold(path) as live:
        guard = Guard(path, "ours", live)
        folder.rename(folder.with_suffix(".away"))
        folder.touch()
        assert (place.is_ours(), place.is_taken(), guard.is_ours(db)) == (False, False, False)


def test_a_link_that_leads_to_another_file_is_noticed_and_one_that_leads_to_none_may_come_back(
    path: Path, db: sqlite3.Connection, tmp_path: Path
) -> None:
    link, other = tmp_path / "link.db", tmp_path / "other.db"
    link.symlink_to(path)
    other.touch()
    place = Place(path, "ours", link)
    assert (place.is_ours(), place.is_left()) == (True, False)
    link.unlink()
    assert (place.is_ours(), place.is_left()) == (True, False)
    link.symlink_to(other)
    assert (place.is_ours(), place.is_left(), Place(path, "ours").is_left()) == (True, True, False)


def test_nothing_is_touched_beside_an_empty_place(path: Path, db: sqlite3.Connection) -> None:
    place = Place(path, "ours")
    db.execute("INSERT INTO t VALUES(1)")
    before = names(path)
    path.rename(f"{path}.old")
    place.leave(db)
    db.close()
    assert names(path) == before - {"a.db"} | {"a.db.old"}
    assert Path(f"{path}-wal").stat().st_size == 0
    assert rows(Path(f"{path}.old")) == 1


def test_beside_another_file_nothing_of_ours_stays(path: Path, db: sqlite3.Connection) -> None:
    place = Place(path, "ours")
    db.execute("INSERT INTO t VALUES(1)")
    path.rename(f"{path}.old")
    make(path.with_name("b.db"))
    path.with_name("b.db").rename(path)
    place.leave(db)
    assert names(path) == {"a.db", "a.db.old"}
    db.close()
    assert rows(Path(f"{path}.old")) == 1
    assert rows(path, "theirs") == 0


def test_a_wal_that_cannot_be_emptied_is_kept_under_another_name(path: Path, db: sqlite3.Connection) -> None:
    place = Place(path, "ours")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
        db.execute("INSERT INTO t VALUES(1)")
        path.rename(f"{path}.old")
        make(path.with_name("b.db"))
        path.with_name("b.db").rename(path)
        place.leave(db)
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    db.close()
    (wal,) = path.parent.glob("a.db-wal.of-*")
    assert rows(path, "theirs") == 0
    wal.rename(f"{path}.old-wal")
    assert rows(Path(f"{path}.old")) == 1


def test_what_another_program_commits_last_is_kept(path: Path, db: sqlite3.Connection) -> None:
    place = Place(path, "ours")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("SELECT * FROM t").fetchall()
        path.rename(f"{path}.old")
        assert place.save(db) is None
        make(path.with_name("b.db"))
        path.with_name("b.db").rename(path)
        other.execute("INSERT INTO t VALUES(1)")
        place.leave(db)
        assert not list(path.parent.glob("*.of-*"))
        assert rows(Path(f"{path}.old")) == 1


def test_another_file_has_room_at_once(path: Path, db: sqlite3.Connection) -> None:
    place = Place(path, "ours")
    path.rename(f"{path}.old")
    make(path.with_name("b.db"))
    path.with_name("b.db").rename(path)
    place.make_room()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("INSERT INTO theirs VALUES(1)")
        db.execute("INSERT INTO t VALUES(1)")
        place.leave(db)
        assert (place.is_ours(), place.is_taken()) == (False, True)
    db.close()
    assert names(path) == {"a.db", "a.db.old"}
    assert (rows(path, "theirs"), rows(Path(f"{path}.old"))) == (1, 1)


def test_pages_of_another_database_are_not_moved_into_ours(path: Path, db: sqlite3.Connection) -> None:
    place = Place(path, "ours")
    schema.put(db, "incarnation", "theirs")
    assert place.save(db) is not None


def test_a_wal_that_came_with_the_other_file_stays(path: Path, db: sqlite3.Connection) -> None:
    place = Place(path, "ours")
    path.rename(f"{path}.old")
    other = path.with_name("b.db")
    make(other)
    with closing(sqlite3.connect(other)) as theirs:
        theirs.execute("INSERT INTO theirs VALUES(1)")
        theirs.commit()
        other.rename(path)
        Path(f"{other}-wal").rename(f"{path}-wal")
    place.leave(db)
    assert "a.db-wal" in names(path)
    assert "a.db-shm" not in names(path)
    assert rows(path, "theirs") == 1


@pytest.mark.parametrize("deleted", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_before_a_deleted_wal_is_made_anew_all_is_moved_into_the_file(
    path: Path, db: sqlite3.Connection, deleted: tuple[str, ...]
) -> None:
    place = Place(path, "ours")
    assert place.lacks() == []
    db.execute("INSERT INTO t VALUES(1)")
    for suffix in deleted:
        Path(f"{path}{suffix}").unlink()
    assert place.lacks() == sorted(deleted)
    assert not place.unpin()
    place.part(db)
    db.close()
    assert place.unpin()
    assert rows(path) == 1


@pytest.mark.skipif(not hasattr(fcntl, "F_OFD_SETLK"), reason="this system has no such locks")
def test_a_wal_that_others_have_made_anew_is_left_to_them(path: Path, db: sqlite3.Connection) -> None:
    place = Place(path, "ours")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    db.execute("INSERT INTO t VALUES('lost')")
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    # Another process: in ours, SQLite would give it the index that we have.
    subprocess.run(["sqlite3", str(path), "INSERT INTO t VALUES('theirs')"], check=True)
    place.part(db)
    db.close()
    assert Path(f"{path}-wal").stat().st_size
    place.unpin()
    with closing(sqlite3.connect(path)) as theirs:
        assert theirs.execute("SELECT a FROM t").fetchall() == [("theirs",)]
        assert theirs.execute("PRAGMA integrity_check").fetchone() == ("ok",)
