"""The keeper, on a real store: what goes, what must stay, and what it does when it cannot write."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TypeVar

import pytest

from appliance.errors import Unavailable
from appliance.live.upkeep.keeper import Keeper
from appliance.store.file import schema
from appliance.store.file.bridge import open_bridge
from appliance.store.file.connections import open_file
from appliance.store.outbox import retention
from appliance.store.outbox.retention import Clock, Retention
from appliance.store.store import Store, StoreSettings, open_store
from appliance.store.tables.secrecy import Secrecy

T = TypeVar("T")


class Set(Clock):
    """A clock that is set by hand."""

    def __init__(self) -> None:
        super().__init__(None)
        self.time = 1000.0

    def now(self) -> float:
        return self.time


@asynccontextmanager
async def opened(path: Path, limits: Retention) -> AsyncIterator[Store]:
    settings = StoreSettings(path, Secrecy((), ()), busy_timeout_s=0.2, retention=limits)
    async with open_bridge(), open_store(settings) as store:
        yield store


def write(path: Path, count: int, value: str = "") -> None:
    """Write into the outbox as another program's triggers do."""
    with closing(open_file(path, busy_timeout_s=5)) as db, schema.transaction(db):
        db.executemany("INSERT INTO _appliance_outbox(op, v0) VALUES(4, ?)", [(value,)] * count)


async def test_what_is_old_goes_in_batches_but_never_what_is_unread(tmp_path: Path) -> None:
    path, clock, position = tmp_path / "a.db", Set(), 0
    async with opened(path, Retention(age_s=60)) as store:
        keeper = Keeper(store, lambda: position)
        write(path, 5000)
        await keeper.turn(clock)
        assert keeper.kept is not None
        assert (keeper.kept.oldest, keeper.kept.newest) == (0, 5000)
        clock.time += 61
        await keeper.turn(clock)
        assert await store.read(schema.oldest) == 0  # the tail has read nothing yet
        position = 3210
        await keeper.turn(clock)
        assert await store.read(schema.oldest) == 3210
        position = 5000
        await keeper.turn(clock)
        assert await store.read(schema.oldest) == 4999  # the newest stays: the next id comes from it
        assert await store.read(schema.highest) == 5000


async def test_bytes_are_kept_within_their_bound(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.db", Set()
    async with opened(path, Retention(bytes=1_000_000)) as store:
        keeper = Keeper(store, lambda: 1 << 62)
        for _ in range(5):
            write(path, 500, "x" * 960)
            await keeper.turn(clock)
            assert keeper.kept is not None
            assert keeper.kept.bytes <= 1_000_000
        assert keeper.kept.rows == 1000


async def test_the_row_bound_of_the_configuration_is_put_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for rows in (2000, 1000):
        async with opened(path, Retention(rows=rows)) as store:
            await store.synchronise()  # as each server does before it serves
        write(path, 10_000)  # and no server runs
        with closing(open_file(path, busy_timeout_s=1)) as db:
            assert rows <= schema.highest(db) - schema.oldest(db) < rows + 64


async def test_an_idle_store_is_not_written(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.db", Set()
    async with opened(path, Retention()) as store:
        keeper = Keeper(store, lambda: 1 << 62)
        write(path, 10)
        await keeper.turn(clock)
        with closing(sqlite3.connect(path)) as db:
            before = db.execute("PRAGMA data_version").fetchone()
            clock.time += 3600
            await keeper.turn(clock)
            assert db.execute("PRAGMA data_version").fetchone() == before


async def test_an_idle_store_is_asked_once_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, clock, asked = tmp_path / "a.db", Set(), 0
    async with opened(path, Retention()) as store:
        read = store.read

        async def counted(work: Callable[[sqlite3.Connection], T]) -> T:
            nonlocal asked
            asked += 1
            return await read(work)

        keeper = Keeper(store, lambda: 1 << 62)
        write(path, 10)
        await keeper.turn(clock)
        monkeypatch.setattr(store, "read", counted)
        await keeper.turn(clock)
        assert asked == 1


async def test_a_store_that_is_locked_is_tried_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.db", Set()
    async with opened(path, Retention(age_s=60)) as store:
        keeper = Keeper(store, lambda: 1 << 62)
        write(path, 10)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable):
                await keeper.turn(clock)
        await keeper.turn(clock)
        assert await store.read(retention.last_mark) == (10, 1000.0)


async def test_batches_grow_and_shrink_with_what_a_row_takes(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.db", Set()
    async with opened(path, Retention(rows=1000)) as store:
        keeper = Keeper(store, lambda: 1 << 62)
        write(path, 5000)
        small = keeper._batch
        await keeper.turn(clock)
        assert keeper._batch > small
        large = keeper._batch
        write(path, 40, "x" * (1 << 20))
        write(path, 1000)
        await keeper.turn(clock)
        assert keeper._batch < large
