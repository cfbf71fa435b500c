from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.errors import Conflict, TopicExists, Unavailable
from appliance.model import Topic
from appliance.store.file import locks
from appliance.store.file.bridge import Database, connect, open_bridge
from appliance.store.file.connections import open_file
from appliance.store.file.locks import begin_immediate
from appliance.store.file.writer import Job, Writer
from appliance.store.outbox import topics
from appliance.store.outbox.idempotency import Sent
from appliance.store.store import StoreSettings, open_store
from appliance.store.tables.secrecy import Secrecy


@asynccontextmanager
async def opened(path: Path, busy_timeout_s: float = 5.0) -> AsyncIterator[Database]:
    async with open_bridge(), connect(lambda: open_file(path, busy_timeout_s=busy_timeout_s)) as database:
        yield database


def insert(value: int) -> object:
    def work(db: sqlite3.Connection) -> int:
        db.execute("INSERT INTO t VALUES(?)", (value,))
        return value * 2

    return work


def rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute("SELECT a FROM t ORDER BY a")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        db.execute("CREATE TABLE t(a UNIQUE)")
    return tmp_path / "a.db"


async def test_what_waits_together_is_committed_together(path: Path) -> None:
    async with opened(path) as database:
        commits = 0

        def count() -> None:
            nonlocal commits
            commits += 1

        writer = Writer(database)
        writer.committed = count
        results = {}

        async def write(value: int) -> None:
            results[value] = await writer.commit(insert(value))  # type: ignore[arg-type]

        async with trio.open_nursery() as nursery:
            for value in range(100):
                nursery.start_soon(write, value)
    assert results == {value: value * 2 for value in range(100)}
    assert rows(path) == list(range(100))
    assert commits <= 2  # the first, perhaps alone, and then all that came meanwhile


async def test_a_write_that_fails_takes_no_other_with_it(path: Path) -> None:
    def refuse(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO t VALUES(1000)")
        raise TopicExists("no")

    async with opened(path) as database:
        writer = Writer(database)

        async def fails(work: object, error: type[Exception]) -> None:
            with pytest.raises(error):
                await writer.commit(work)  # type: ignore[arg-type]

        await writer.commit(insert(2))  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.commit, insert(1))
            nursery.start_soon(fails, refuse, TopicExists)
            nursery.start_soon(fails, insert(2), Conflict)  # UNIQUE
            nursery.start_soon(writer.commit, insert(3))
    assert rows(path) == [1, 2, 3]


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE u(a REFERENCES t(a) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE u(a); CREATE TRIGGER r BEFORE INSERT ON u BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
    ],
)
async def test_a_write_that_rolls_back_the_transaction_takes_no_other_with_it(path: Path, schema: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(schema)

    def refused(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO u VALUES(99)")

    async with opened(path) as database:
        writer = Writer(database)

        async def fails() -> None:
            with pytest.raises(Conflict):
                await writer.commit(refused)

        await fails()
        async with trio.open_nursery() as nursery:
            for value in range(3):
                nursery.start_soon(writer.commit, insert(value))
                nursery.start_soon(fails)
    assert rows(path) == [0, 1, 2]


async def test_a_cancelled_write_is_committed_all_the_same(path: Path) -> None:
    async with opened(path) as database:
        writer = Writer(database)
        with trio.CancelScope() as scope:
            scope.cancel()
            assert await writer.commit(insert(7)) == 14  # type: ignore[arg-type]
    assert rows(path) == [7]


async def test_a_database_that_stays_locked_is_unavailable_and_then_works_again(path: Path) -> None:
    async with opened(path, busy_timeout_s=0.05) as database:
        writer = Writer(database)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable):
                await writer.commit(insert(1))  # type: ignore[arg-type]
            with pytest.raises(Unavailable):
                await writer.alone(insert(1))  # type: ignore[arg-type]
        await writer.commit(insert(2))  # type: ignore[arg-type]
    assert rows(path) == [2]


async def test_each_waits_for_a_lock_as_long_as_any_other(path: Path) -> None:
    async with opened(path, busy_timeout_s=5) as database:
        writer = Writer(database)
        first, second = writer.submit(insert(1)), writer.submit(insert(2))  # type: ignore[arg-type]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            # As behind a batch that a lock has been in the way of, for all of the busy timeout.
            writer._locked_since = first.asked = first.asked - 5
            begun = trio.current_time()
            with pytest.raises(Unavailable):
                await writer.finish(first)
            assert trio.current_time() - begun < 4
            writer._locked_since -= 5
            with pytest.raises(Unavailable):
                await writer.alone(begin_immediate)
            assert not second.done
        await writer.finish(second)
        assert await database.run(lambda db: db.execute("PRAGMA busy_timeout").fetchone()) == (5000,)
    assert rows(path) == [2]


async def test_who_is_in_a_hurry_waits_less_for_others(path: Path) -> None:
    async with opened(path, busy_timeout_s=3600) as database:
        writer = Writer(database)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writer.hurry(0.01)
            with pytest.raises(Unavailable):
                await writer.commit(insert(1))  # type: ignore[arg-type]
            with pytest.raises(Unavailable):
                await writer.alone(lambda db: begin_immediate(db))


async def test_who_waits_already_when_there_is_a_hurry_does_not_wait_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "HURRIED_S", 0.01)
    async with opened(path, busy_timeout_s=3600) as database:
        writer = Writer(database)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_is_refused, writer)
                await wait_all_tasks_blocked()
                writer.hurry(0.01)


async def _is_refused(writer: Writer) -> None:
    with pytest.raises(Unavailable):
        await writer.commit(insert(1))  # type: ignore[arg-type]


async def test_a_connection_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    with pytest.RaisesGroup(sqlite3.OperationalError, flatten_subgroups=True):
        async with opened(tmp_path / "missing" / "a.db"):
            pass


@pytest.mark.parametrize("copied", [True, False])
async def test_nothing_is_written_into_a_file_that_came_in_the_place_of_ours(tmp_path: Path, copied: bool) -> None:
    path, backup = tmp_path / "a.db", tmp_path / "backup.db"
    async with open_bridge(), open_store(StoreSettings(path, Secrecy((), ()))) as store:

        def send() -> Job[Sent]:
            return store.send(lambda db: Sent(topics.publish(db, "news", "ann", b"x" * 5000), replayed=False))

        await store.commit(lambda db: topics.create(db, Topic("news", True, 0, None)))
        with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(backup)) as target:
            await store.sent(send())
            db.backup(target)
            await store.sent(send())
            # As after half a minute without a write: all is in the file.
            assert len(set(db.execute("PRAGMA wal_checkpoint").fetchone()[1:])) == 1
        await store.sent(send())  # a checkpoint does not look like another file
        with closing(sqlite3.connect(path)) as db:
            assert len(set(db.execute("PRAGMA wal_checkpoint").fetchone()[1:])) == 1
        if copied:
            shutil.copyfile(backup, path)
        else:
            shutil.copyfile(backup, tmp_path / "other.db")
            (tmp_path / "other.db").replace(path)
        for write in (store.sent(send()), store.position(), store.read_shapes()):
            with pytest.raises(Unavailable, match="another"):
                await write
    assert path.read_bytes() == backup.read_bytes()
