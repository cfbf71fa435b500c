"""The beat is one for all, and word of a write comes also where the system has none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from appliance.live.beat import next_beat
from appliance.live.fanout import sessions
from appliance.live.tail import announcements
from appliance.live.tail.waking import SAFETY_POLL_S
from appliance.live.upkeep import watchman


@given(seconds=st.floats(0, 1e9), every_s=st.floats(0.01, 1000))
def test_the_next_beat_is_after_now_and_soon(seconds: float, every_s: float) -> None:
    clock = trio.testing.MockClock()
    clock.jump(seconds)

    async def ask() -> tuple[float, float]:
        return trio.current_time(), next_beat(every_s)

    now, beat = trio.run(ask, clock=clock)
    assert now < beat <= now + every_s * 1.001


async def test_who_looks_every_second_is_woken_with_the_others(autojump_clock: trio.testing.MockClock) -> None:
    woken: list[float] = []

    async def look(begun: float) -> None:
        await trio.sleep(begun)
        for _ in range(3):
            await trio.sleep_until(next_beat(1.0))
            woken.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for begun in (0.1, 0.35, 0.9):
            nursery.start_soon(look, begun)
    assert len(set(woken)) == 3
    assert SAFETY_POLL_S == watchman.LOOK_S == sessions.CHECK_EVERY_S == 1.0


async def test_a_write_to_the_wal_is_noticed_without_the_systems_word(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    noticed = trio.Event()

    def notice() -> None:
        nonlocal noticed
        noticed.set()
        noticed = trio.Event()

    with closing(sqlite3.connect(path, isolation_level=None)) as db, trio.fail_after(30):
        db.execute("PRAGMA journal_mode=WAL").fetchall()
        db.execute("CREATE TABLE t(a)")
        async with trio.open_nursery() as nursery:
            first = noticed
            nursery.start_soon(announcements.poll, path, notice)
            await first.wait()
            second = noticed
            db.execute("INSERT INTO t VALUES(zeroblob(10000))")
            await second.wait()
            nursery.cancel_scope.cancel()
