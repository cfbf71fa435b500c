from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from appliance.errors import Conflict, TopicExists, Unavailable
from appliance.store.bridge import Database, connect, open_bridge
from appliance.store.connections import open_file
from appliance.store.writer import Writer


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


async def test_a_connection_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    with pytest.RaisesGroup(sqlite3.OperationalError, flatten_subgroups=True):
        async with opened(tmp_path / "missing" / "a.db"):
            pass
