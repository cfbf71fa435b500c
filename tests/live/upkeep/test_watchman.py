"""The watchman keeps the WAL short beside readers that never pause, and plagues nobody where it cannot."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import trio

from appliance.live.upkeep import watchman
from appliance.live.upkeep.keeper import MARK_EVERY_S
from appliance.live.upkeep.watchman import LOOK_S, PATIENCE_S, Watchman
from appliance.store.file.bridge import open_bridge
from appliance.store.store import StoreSettings, open_store
from appliance.store.tables.secrecy import Secrecy


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchman, "LONG_WAL", 1 << 20)


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)


def lengthen(path: Path) -> None:
    """Make the WAL longer than it should be."""
    with closing(connect(path)) as db:
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("CREATE TABLE IF NOT EXISTS t(a)")
        for _ in range(5):
            db.execute("INSERT INTO t VALUES(zeroblob(500000))")


def wal_bytes(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


class Relay:
    """Readers of whom there is always one: each ends when the next has begun."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(delay,)) for delay in (0, 0.01)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _read(self, delay: float) -> None:
        with closing(connect(self._path)) as db:
            while not self._over.wait(delay):
                db.execute("BEGIN")
                db.execute("SELECT count(*) FROM t").fetchone()
                self._over.wait(0.02)
                db.execute("COMMIT")
                delay = 0


async def test_a_long_wal_is_begun_anew_beside_readers_that_never_pause(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_bridge(), open_store(StoreSettings(path, Secrecy((), ()))) as store:
        lengthen(path)
        assert wal_bytes(path) > 2 << 20
        with Relay(path):
            keeper = Watchman(store, checkpoints=True)
            while wal_bytes(path) > 1 << 20:
                keeper._not_before = 0.0
                await keeper.look()
        assert wal_bytes(path) == 0


async def test_a_reader_that_stays_is_left_alone_for_ever_longer(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_bridge(), open_store(StoreSettings(path, Secrecy((), ()))) as store:
        lengthen(path)
        keeper = Watchman(store, checkpoints=True)
        with closing(connect(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM t").fetchone()
            pauses = []
            for _ in range(4):
                keeper._not_before = 0.0
                keeper._patience_s = PATIENCE_S[0]
                await keeper.look()
                pauses.append(keeper._not_before - trio.current_time())
            assert wal_bytes(path) > 2 << 20
            assert pauses == sorted(pauses)
            before = keeper._not_before
            await keeper.look()  # not its time yet
            assert keeper._not_before == before
            reader.execute("COMMIT")
        keeper._not_before = 0.0
        await keeper.look()
        assert wal_bytes(path) == 0


def in_the_file(path: Path) -> list[tuple[int]]:
    """Give what is in the file without its WAL, which is what a copy over it meets."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        return db.execute("SELECT a FROM kept").fetchall()


async def test_half_a_minute_after_the_last_write_the_file_is_whole_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_bridge(), open_store(StoreSettings(path, Secrecy((), ()))) as store:
        keeper = Watchman(store, checkpoints=True)
        with closing(connect(path)) as writer, closing(connect(path)) as reader:
            writer.executescript("CREATE TABLE kept(a); PRAGMA wal_checkpoint; INSERT INTO kept VALUES(1)")
            await keeper.look()
            assert in_the_file(path) == []
            # The keeper's mark comes up to so much later than what it is of, and a look up to a second after its time.
            mark = time.time() - 30 + MARK_EVERY_S + LOOK_S
            os.utime(f"{path}-wal", (mark, mark))
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM kept").fetchone()
            await keeper.look()
            assert in_the_file(path) == [(1,)]
            writer.execute("INSERT INTO kept VALUES(2)")
            os.utime(f"{path}-wal", (mark - 1, mark - 1))
            await keeper.look()
            assert in_the_file(path) == [(1,)]  # the reader is in the way
            reader.execute("COMMIT")
            await keeper.look()
            assert in_the_file(path) == [(1,), (2,)]


async def test_a_wal_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_bridge(), open_store(StoreSettings(path, Secrecy((), ()), checkpoints=False)) as store:
        lengthen(path)
        length = wal_bytes(path)
        await Watchman(store, checkpoints=False).look()
        for _ in range(3):
            await store.commit(lambda db: db.execute("INSERT INTO t VALUES(zeroblob(5000000))"))
        assert wal_bytes(path) > length + 15_000_000  # no checkpoint of ours at a commit, either
