"""What makes the server not ready, and that it is again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from appliance.errors import ReadOnly, Unavailable
from appliance.live.fanout.hub import Hub
from appliance.live.fanout.sessions import Sessions
from appliance.live.matching.access import Access
from appliance.live.tail.rights import Rights
from appliance.live.tail.state import TailState
from appliance.live.tail.tail import Tail
from appliance.live.tail.waking import Waking
from appliance.live.upkeep.watchman import Watchman
from appliance.ops.health import STUCK_S, Health
from appliance.protocol.values import ValueOptions
from appliance.store.file import connections
from appliance.store.file.bridge import open_bridge
from appliance.store.store import Store, StoreSettings, open_store
from appliance.store.tables.secrecy import Secrecy


async def healthy() -> TailState:
    now = trio.current_time()
    return TailState(last_look=now, last_whole=now)


async def test_a_tail_that_is_behind_by_time_or_rows_is_a_problem() -> None:
    tail = await healthy()
    health = Health(tail, lag_s=5, lag_rows=100)
    assert health.problems() == []
    tail.behind_rows = 100
    assert health.problems() == []
    tail.behind_rows = 101
    assert "101 rows of events wait" in health.problems()[0]
    tail.behind_rows = 1
    tail.last_whole -= 6
    assert "1 rows of events wait to be delivered, for 6 s" in health.problems()[0]


async def test_a_tail_that_fails_or_stands_still_is_a_problem() -> None:
    tail = await healthy()
    health = Health(tail)
    tail.last_look -= STUCK_S + 1
    assert health.problems() == ["the tail of the outbox does not move"]
    tail.failing = "disk I/O error"
    assert health.problems() == ["the store cannot be read or kept under capture: disk I/O error"]


async def test_a_server_whose_tail_is_about_to_look_for_the_first_time_is_ready(tmp_path: Path) -> None:
    async with open_bridge(), open_store(await open_one(tmp_path / "a.db")) as store:
        catalog, access = await store.synchronise(), Access(store)
        hub = Hub(catalog, await store.position(), ValueOptions(), access)
        tail = Tail(store, hub, Rights(access, hub, Sessions()), catalog, Waking(announced=True))

        assert Health(tail.state).problems() == []


async def test_a_table_that_is_not_captured_is_a_problem() -> None:
    tail = await healthy()
    tail.skipped = {"t": "too many columns"}
    assert Health(tail, lambda: ["full"]).problems() == ["full", "table t is not captured: too many columns"]


async def open_one(path: Path, free_bytes: int = 0) -> StoreSettings:
    return StoreSettings(path, Secrecy((), ()), busy_timeout_s=0.1, free_bytes=free_bytes)


async def write(store: Store) -> None:
    await store.commit(lambda db: db.execute("INSERT INTO _appliance_outbox(op, v0) VALUES(4, zeroblob(100000))"))


async def test_a_locked_store_is_a_problem_until_it_can_be_written(tmp_path: Path) -> None:
    async with open_bridge(), open_store(await open_one(tmp_path / "a.db")) as store:
        watchman = Watchman(store, checkpoints=True)
        await watchman.look()
        assert store.condition.problems() == []
        with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable):
                await write(store)
            assert store.condition.problems() == ["the store cannot be written: database is locked"]
            with pytest.raises(Unavailable):
                await watchman.look()
            assert store.condition.problems() != []
        await watchman.look()
        assert store.condition.problems() == []


async def test_a_full_store_is_a_problem_until_there_is_room(tmp_path: Path) -> None:
    async with open_bridge(), open_store(await open_one(tmp_path / "a.db")) as store:
        (pages,) = await store.commit(lambda db: db.execute("PRAGMA max_page_count=20").fetchone())
        assert pages < 100
        with pytest.raises(ReadOnly):
            await write(store)
        assert store.condition.problems() == ["the store cannot be written: database or disk is full"]
        await store.commit(lambda db: db.execute("PRAGMA max_page_count=100000").fetchone())
        await Watchman(store, checkpoints=True).look()
        assert store.condition.problems() == []
        await write(store)


async def test_a_store_that_is_damaged_is_a_problem_until_it_is_whole(tmp_path: Path) -> None:
    async with open_bridge(), open_store(await open_one(tmp_path / "a.db")) as store:
        watchman = Watchman(store, checkpoints=True)
        await watchman.look()
        connections.checkpoint(store.path)
        whole = store.path.read_bytes()
        store.path.write_bytes(b"this is not a database" + whole[22:])  # what was read before is still known
        with pytest.raises(sqlite3.DatabaseError):
            await watchman.look()
        assert store.condition.problems() == [
            "the store cannot be opened by anybody: file is not a database; see `live-appliance check`"
        ]
        store.path.write_bytes(whole)
        await watchman.look()
        assert store.condition.problems() == []


async def test_little_free_space_is_a_problem(tmp_path: Path) -> None:
    async with open_bridge(), open_store(await open_one(tmp_path / "a.db", free_bytes=1 << 60)) as store:
        (problem,) = store.condition.problems()
        assert "make room" in problem
