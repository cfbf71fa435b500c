from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.errors import StoreInUse, StoreUnusable
from appliance.store.file import incarnation, live_file, locks, schema
from appliance.store.file.birth import birth
from appliance.store.file.connections import open_file
from appliance.store.file.guard import Guard, is_same
from appliance.store.file.live_file import LiveFile, Record


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_file(tmp_path / "a.db", busy_timeout_s=1)
    schema.prepare(connection)
    yield connection
    connection.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveFile]:
    with live_file.hold(tmp_path / "a.db") as held:
        yield held


def add_events(db: sqlite3.Connection, count: int) -> None:
    db.executemany("INSERT INTO _appliance_outbox(op) VALUES(?)", [(4,)] * count)


def test_the_epoch_is_kept_when_nothing_can_be_given_out_twice(db: sqlite3.Connection, live: LiveFile) -> None:
    first, epoch = incarnation.begin(db, live, schema.highest(db))
    add_events(db, 3)
    live.note(3)
    second, again = incarnation.begin(db, live, schema.highest(db))  # a kill: no clean mark, the same boot
    assert (again, second != first) == (epoch, True)
    incarnation.end(db)
    assert incarnation.begin(db, live, schema.highest(db))[1] == epoch


#: What there may be in the file beside that nobody of ours has written.
GARBAGE = ("\0\0", "[1]", '{"highest": 1e999}')


@pytest.mark.parametrize("damage", ["no file", *GARBAGE, "other incarnation", "ids went back", "power cut"])
def test_a_new_epoch_begins_when_ids_could_be_given_out_twice(
    db: sqlite3.Connection, live: LiveFile, damage: str
) -> None:
    own, epoch = incarnation.begin(db, live, schema.highest(db))
    add_events(db, 3)
    live.note(3)
    record = live.read()
    assert record == Record(own, 3, record.boot if record else "")
    if damage == "no file":
        live.write(Record("", 0, ""))
    elif damage in GARBAGE:
        os.pwrite(live._descriptor, damage.encode().ljust(live_file.SIZE), 0)
    elif damage == "other incarnation":
        live.write(Record("another", 3, record.boot))
    elif damage == "ids went back":
        db.execute("DELETE FROM _appliance_outbox WHERE id > 2")
    else:
        live.write(Record(own, 3, "another boot"))
    assert incarnation.begin(db, live, schema.highest(db))[1] != epoch


@pytest.mark.parametrize("same", [True, False])
def test_a_backup_that_others_have_written_to_since_may_have_all_of_the_ids(
    db: sqlite3.Connection, live: LiveFile, same: bool
) -> None:
    _, epoch = incarnation.begin(db, live, schema.highest(db))
    insert = "INSERT INTO _appliance_outbox(op, v0, v1) VALUES(4, ?, ?)"
    long = "x" * 5000
    db.executemany(insert, [("kept", long), ("a", 0.1), ("b", b"b" * 5000), ("handed out", long)])
    live.note(4, db.execute("SELECT * FROM _appliance_outbox WHERE id = 4").fetchone())
    live.note(5)  # whose row was not at hand
    db.execute("DELETE FROM _appliance_outbox WHERE id > 1")
    db.executemany(insert, [("c", 1), ("d", 2), ("handed out" if same else "another", long), ("e", 3), ("f", 4)])
    assert (incarnation.begin(db, live, schema.highest(db))[1] == epoch) == same


def test_a_copy_of_the_file_beside_tells_nothing(tmp_path: Path, db: sqlite3.Connection) -> None:
    with live_file.hold(tmp_path / "a.db") as live:
        _, epoch = incarnation.begin(db, live, schema.highest(db))
        add_events(db, 3)
        live.note(3)
    beside = tmp_path / "a.db-live"
    beside.rename(tmp_path / "saved")
    shutil.copy2(tmp_path / "saved", beside)  # as it comes out of an archive, with the database that it was saved with
    with live_file.hold(tmp_path / "a.db") as live:
        assert incarnation.begin(db, live, schema.highest(db))[1] != epoch


def test_what_the_file_beside_held_before_a_start_tells_nothing_behind_it(tmp_path: Path) -> None:
    path, beside = tmp_path / "a.db", tmp_path / "a.db-live"

    def serve() -> str:
        with live_file.hold(path) as live, closing(open_file(path, busy_timeout_s=1)) as db:
            schema.prepare(db)
            _, epoch = incarnation.begin(db, live, schema.highest(db))
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return epoch

    def write(data: bytes, place: Path) -> None:
        with place.open("r+b") as file:  # at its inode
            file.truncate()
            file.write(data)

    epoch = serve()
    saved = path.read_bytes(), beside.read_bytes()
    write(saved[1], beside)
    assert serve() == epoch  # nothing has happened since
    write(saved[0], path)
    write(saved[1], beside)
    assert serve() != epoch


def test_a_file_that_is_made_at_the_inode_of_a_former_one_is_another_one(
    db: sqlite3.Connection, live: LiveFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_file, "birth", lambda _: 1)
    own, _ = incarnation.begin(db, live, schema.highest(db))
    monkeypatch.setattr(live_file, "birth", lambda _: None)
    live.write(Record(own, 0, ""))  # a file system that does not tell
    monkeypatch.setattr(live_file, "birth", lambda _: 2)
    assert live.read() == Record(own, 0, "")
    live.write(Record(own, 0, ""))
    monkeypatch.setattr(live_file, "birth", lambda _: 3)
    assert live.read() is None


def test_a_file_says_when_it_was_made_whatever_is_done_to_it_since(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("w+b") as file:
        before = birth(file.fileno())
        if before is None:
            pytest.skip("this file system does not tell")
        made_s = path.stat().st_ctime
        file.write(b"something")
        file.flush()
        path.chmod(0o640)
        os.utime(path, (1, 1))
        assert birth(file.fileno()) == before
    assert abs(before / 1e9 - made_s) < 1
    assert birth(-1) is None


@pytest.mark.parametrize("fault", ["no room", "no right"])
def test_where_the_file_beside_cannot_be_made_anew_the_former_stays(
    db: sqlite3.Connection, live: LiveFile, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    own, epoch = incarnation.begin(db, live, schema.highest(db))
    add_events(db, 3)
    live.note(3)
    beside = Path(f"{db.execute('PRAGMA database_list').fetchone()[2]}-live")
    before = beside.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC if fault == "no room" else errno.EACCES, "refused")

    monkeypatch.setattr(os, "fsync" if fault == "no room" else "open", refuse)
    with pytest.raises(StoreUnusable, match="refused"):
        live.renew(live.read())
    live.stop(goes_on=True)
    monkeypatch.undo()
    assert beside.read_bytes() == before
    assert {each.name for each in beside.parent.glob("*-live*")} == {beside.name}
    live.note(4)
    assert live.read() == Record(own, 4, live.read().boot)
    assert incarnation.begin(db, live, 4)[1] == epoch


@pytest.mark.parametrize("when", ["before", "behind"])
def test_who_is_killed_while_the_file_beside_is_made_anew_keeps_the_epoch(
    tmp_path: Path, db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    class Killed(BaseException):
        pass

    with live_file.hold(tmp_path / "a.db") as live:
        _, epoch = incarnation.begin(db, live, schema.highest(db))
        live.forget_blocks()
        live.note_borders(7, 5)
        add_events(db, 3)
        live.note(3)
        rename = Path.rename

        def kill(path: Path, to: Path) -> None:
            if when == "behind":
                rename(path, to)
            raise Killed

        monkeypatch.setattr(Path, "rename", kill)
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            live.stop(goes_on=True)
        monkeypatch.undo()
    with live_file.hold(tmp_path / "a.db") as live:
        assert live.borders() == {7: 5}
        assert incarnation.begin(db, live, schema.highest(db))[1] == epoch
        assert live.borders() == {7: 5}
        assert {each.name for each in tmp_path.glob("*-live*")} == {"a.db-live"}


def test_who_waits_for_a_lock_on_a_file_that_is_made_anew_meanwhile_does_not_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with live_file.hold(path) as live:
        flock = fcntl.flock

        def later(descriptor: int, how: int) -> None:
            monkeypatch.undo()
            live.renew(None)  # the file that is open here has no name and no lock any more
            flock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", later)
        with pytest.raises(StoreInUse), live_file.hold(path):
            pass


def test_an_equal_file_in_the_place_of_the_database_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def epoch() -> str:
        with live_file.hold(path) as live, closing(open_file(path, busy_timeout_s=1)) as db:
            schema.prepare(db)
            return incarnation.begin(db, live, schema.highest(db))[1]

    before = epoch()
    assert epoch() == before
    shutil.copyfile(path, tmp_path / "copy.db")
    (tmp_path / "copy.db").replace(path)
    after = epoch()
    assert after != before
    assert epoch() == after


def test_another_boot_after_a_clean_end_keeps_the_epoch(db: sqlite3.Connection, live: LiveFile) -> None:
    own, epoch = incarnation.begin(db, live, schema.highest(db))
    incarnation.end(db)
    live.write(Record(own, 0, "another boot"))
    assert incarnation.begin(db, live, schema.highest(db))[1] == epoch


def test_where_the_system_names_no_boot_only_a_clean_end_keeps_the_epoch(
    db: sqlite3.Connection, live: LiveFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incarnation, "_boot_id", lambda: "")
    _, epoch = incarnation.begin(db, live, schema.highest(db))
    incarnation.end(db)
    _, kept = incarnation.begin(db, live, schema.highest(db))
    _, another = incarnation.begin(db, live, schema.highest(db))  # a kill, or a power cut: nobody can tell
    assert (kept == epoch, another == epoch) == (True, False)


@pytest.mark.parametrize("held_s", [1.9, 3600.0])
def test_an_end_waits_for_another_program_s_lock_and_not_for_long(
    tmp_path: Path, db: sqlite3.Connection, live: LiveFile, monkeypatch: pytest.MonkeyPatch, held_s: float
) -> None:
    incarnation.begin(db, live, schema.highest(db))
    db.execute("PRAGMA busy_timeout=0").fetchall()
    now = 0.0

    class Clock:
        """Time passes only in sleep; the other program ends its transaction after ``held_s``."""

        monotonic = staticmethod(lambda: now)

        @staticmethod
        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds
            if now >= held_s and other.in_transaction:
                other.execute("ROLLBACK")

    monkeypatch.setattr(locks, "time", Clock)
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        if held_s < 2:
            incarnation.end(db)
        else:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                incarnation.end(db)
    assert (schema.get(db, "clean"), now < 2.5) == (int(held_s < 2), True)


@pytest.mark.parametrize("committed", [True, False])
def test_a_start_that_is_killed_in_its_midst_keeps_the_epoch(
    db: sqlite3.Connection, live: LiveFile, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    _, epoch = incarnation.begin(db, live, schema.highest(db))
    add_events(db, 3)
    live.note(3)
    incarnation.end(db)
    write = LiveFile.write

    def killed_behind_the_commit(self: LiveFile, record: Record) -> None:
        if record.coming is None:
            raise KeyboardInterrupt
        write(self, record)

    def killed_before_it(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if committed:
            patched.setattr(LiveFile, "write", killed_behind_the_commit)
        else:
            patched.setattr(schema, "put", killed_before_it)
        with pytest.raises(KeyboardInterrupt):
            incarnation.begin(db, live, schema.highest(db))
    assert incarnation.begin(db, live, schema.highest(db))[1] == epoch


def test_one_server_a_database(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    assert not live_file.is_held(path)
    with live_file.hold(path):
        assert live_file.is_held(path)
        with pytest.raises(StoreInUse), live_file.hold(path):
            pass
    with live_file.hold(path):
        pass


def test_a_lock_that_somebody_deleted_is_made_again_and_keeps_the_epoch(tmp_path: Path, db: sqlite3.Connection) -> None:
    path = tmp_path / "a.db"
    with live_file.hold(path) as live:
        _, epoch = incarnation.begin(db, live, schema.highest(db))
        add_events(db, 3)
        live.note(3)
        live.keep()
        Path(f"{path}-live").unlink()
        assert not live_file.is_held(path)
        live.keep()
        assert live_file.is_held(path)
    with live_file.hold(path) as live:
        assert incarnation.begin(db, live, schema.highest(db))[1] == epoch


def test_a_second_server_that_was_quicker_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with live_file.hold(path) as first:
        Path(f"{path}-live").unlink()
        with live_file.hold(path), pytest.raises(StoreInUse):
            first.keep()


def test_no_link_leads_to_the_file_beside(tmp_path: Path) -> None:
    (tmp_path / "a.db-live").symlink_to("elsewhere")
    with pytest.raises(StoreUnusable, match="link"), live_file.hold(tmp_path / "a.db"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_who_has_lost_the_lock_leaves_the_file_of_who_has_it_alone(tmp_path: Path) -> None:
    path, beside = tmp_path / "a.db", tmp_path / "a.db-live"
    with live_file.hold(path) as first:
        first.write(Record("first", 1, ""))
        beside.unlink()
        with live_file.hold(path) as second:
            second.write(Record("second", 2, ""))
            with pytest.raises(StoreInUse):
                first.renew(Record("first", 1, ""))
            first.stop(goes_on=True)
            assert json.loads(beside.read_bytes()[: live_file.SIZE])["incarnation"] == "second"
            second.keep()
            assert second.read() == Record("second", 2, "")
            assert {each.name for each in tmp_path.iterdir()} == {beside.name}


def test_a_server_that_stops_right_behind_the_deletion_of_its_file_makes_it_again(tmp_path: Path) -> None:
    path, beside = tmp_path / "a.db", tmp_path / "a.db-live"
    with live_file.hold(path) as live:
        live.write(Record("ours", 1, ""))
        beside.chmod(0o640)
        beside.unlink()
        live.stop(goes_on=True)
    assert beside.stat().st_mode & 0o777 == 0o640
    with live_file.hold(path) as live:
        assert live.read() == Record("ours", 1, "")


@pytest.mark.parametrize("may", ["all", "group", "nothing"])
def test_the_file_beside_stays_its_owners_as_far_as_who_serves_it_may_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may: str
) -> None:
    path, given = tmp_path / "a.db", list[tuple[int, int]]()
    path.touch()

    def fchown(_: int, owner: int, group: int) -> None:
        if may == "nothing" or (may == "group" and owner != -1):
            raise PermissionError
        given.append((owner, group))

    monkeypatch.setattr(os, "fchown", fchown)
    expected = {"all": os.geteuid(), "group": -1}
    with live_file.hold(path) as live:  # a new one is who has the database's, as its WAL is
        live.write(Record("ours", 1, ""))
        live.renew(live.read())
    ours = [] if may == "nothing" else [(expected[may], os.getegid())] * 2
    assert given == ours


def test_another_file_copied_over_ours_is_seen_though_our_connection_does_not(
    tmp_path: Path, db: sqlite3.Connection
) -> None:
    path, backup = tmp_path / "a.db", tmp_path / "backup.db"
    with live_file.hold(path) as live:
        db.execute("PRAGMA journal_mode=WAL")
        own, _ = incarnation.begin(db, live, schema.highest(db))
        add_events(db, 3)
        with closing(sqlite3.connect(backup)) as target:
            db.backup(target)
        add_events(db, 1)
        assert is_same(path, own, 4)
        db.execute("PRAGMA wal_checkpoint").fetchone()
        assert is_same(path, own, 4)
        assert not is_same(path, "another", 4)
        shutil.copyfile(backup, path)  # keeps the inode
        assert schema.highest(db) == 4
        assert not is_same(path, own, 4)
        backup.write_bytes(b"")
        shutil.copyfile(backup, path)
        assert not is_same(path, own, 4)


def test_a_copy_that_lacks_what_our_connection_has_seen_is_not_ours_though_nothing_of_that_was_handed_out(
    tmp_path: Path, db: sqlite3.Connection, live: LiveFile
) -> None:
    path, backup = tmp_path / "a.db", tmp_path / "backup.db"
    db.execute("PRAGMA journal_mode=WAL")
    own, _ = incarnation.begin(db, live, schema.highest(db))
    guard = Guard(path, own, live)
    with closing(sqlite3.connect(backup)) as target:
        db.backup(target)
    add_events(db, 3)
    db.execute("PRAGMA wal_checkpoint").fetchone()
    assert guard.is_ours(db)
    shutil.copyfile(backup, path)
    assert not guard.is_ours(db)
    path.unlink()
    assert not guard.is_ours(db)


@pytest.mark.parametrize("checkpoint", ["PASSIVE", "TRUNCATE"])
def test_a_copy_that_is_longer_than_the_file_was_is_not_ours(
    tmp_path: Path, db: sqlite3.Connection, live: LiveFile, checkpoint: str
) -> None:
    path, backup = tmp_path / "a.db", tmp_path / "backup.db"
    db.execute("PRAGMA journal_mode=WAL")
    own, _ = incarnation.begin(db, live, schema.highest(db))
    guard = Guard(path, own, live)
    db.execute("CREATE TABLE long(v)")
    db.execute("INSERT INTO long VALUES(zeroblob(1000000))")
    db.execute("CREATE TABLE last(v)")
    with closing(sqlite3.connect(backup)) as target:
        db.backup(target)
    db.execute("DROP TABLE long")
    db.execute("VACUUM")
    add_events(db, 3)
    db.execute(f"PRAGMA wal_checkpoint({checkpoint})").fetchone()
    assert guard.is_ours(db)
    shutil.copyfile(backup, path)
    assert not guard.is_ours(db)
    damaged = bytearray(backup.read_bytes())
    damaged[100:8192] = b"\xff" * 8092
    path.write_bytes(damaged)
    with pytest.raises(sqlite3.DatabaseError):
        guard.is_ours(db)


def test_borders_that_there_is_no_room_for_are_kept_when_there_is_again(live: LiveFile) -> None:
    live.write(Record("own", 0, ""))
    live.forget_blocks()
    unlimited, other = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, other))  # as on a disk that is full
    try:
        for number in (1, 5000, 6000):
            live.note_borders(number, 1 << number % 1024)
        live.note_borders(5000, 3)
        with pytest.raises(StoreUnusable, match="cannot be written"):
            live._put(b"record", 4096)
        assert live.borders() == {1: 2}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, other))
    live.note_borders(7000, 1)
    assert live.borders() == {1: 2, 5000: 3, 6000: 1 << 6000 % 1024, 7000: 1}
