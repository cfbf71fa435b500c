"""What wakes the tail, and whether it is of more than a write."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.live.tail import waking as module
from appliance.live.tail.announcements import Announcements
from appliance.live.tail.waking import Waking


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as made:
        made.execute("PRAGMA journal_mode=WAL").fetchall()
        made.execute("CREATE TABLE t(a)")
        yield made


@asynccontextmanager
async def listening(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Waking]:
    """Have words of the file waited for, with neither a poll nor a look that follows a word."""
    monkeypatch.setattr(module, "SAFETY_POLL_S", 3600)
    monkeypatch.setattr(module, "RECHECKS_S", ())
    waking = Waking(announced=True)
    with Announcements(path) as words, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waking.listen, words)
            await wait_all_tasks_blocked()
            assert await waking.wait(often=False)  # that there are words is a reason to look
            yield waking
            nursery.cancel_scope.cancel()


async def test_a_mere_write_is_told_from_what_becomes_of_the_file(
    db: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(tmp_path / "a.db", monkeypatch) as waking:
        for _ in range(3):
            db.execute("INSERT INTO t VALUES(1)")
            assert not await waking.wait(often=False)
        (tmp_path / "a.db").rename(tmp_path / "b.db")
        assert await waking.wait(often=False)
        db.execute("INSERT INTO t VALUES(1)")
        assert not await waking.wait(often=False)
        (tmp_path / "b.db").rename(tmp_path / "a.db")
        db.execute("INSERT INTO t VALUES(1)")
        assert await waking.wait(often=False)  # both at once


async def test_word_that_comes_meanwhile_is_not_lost_and_waits_for_nobody(
    db: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(tmp_path / "a.db", monkeypatch) as waking:
        db.execute("INSERT INTO t VALUES(1)")
        waking.look()
        assert await waking.wait(often=False)
        assert not await waking.wait(often=False)
        begun = trio.current_time()
        waking.begin()
        db.execute("INSERT INTO t VALUES(1)")
        await waking.wait(often=False)
        waking.begin()
        seconds = waking.delivered()
        assert seconds is not None
        assert 0 <= seconds <= trio.current_time() - begun


async def test_whoever_wants_a_look_ends_the_waiting(
    db: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(tmp_path / "a.db", monkeypatch) as waking, trio.open_nursery() as nursery:
        for wake in (waking.look, waking.wake, waking.notice):
            nursery.start_soon(waking_soon, wake)
            assert await waking.wait(often=False)


async def waking_soon(wake: Callable[[], None]) -> None:
    await wait_all_tasks_blocked()
    wake()


async def test_without_the_wal_there_is_no_word_any_more(
    db: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAFETY_POLL_S", 3600)
    waking, path = Waking(announced=True), tmp_path / "a.db"
    with Announcements(path) as words, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waking.listen, words)
            await wait_all_tasks_blocked()
            await waking.wait(often=False)
            (tmp_path / "a.db-wal").rename(tmp_path / "elsewhere")
            assert await waking.wait(often=False)
    assert words.over
    assert not waking.announced


async def test_what_cannot_be_watched_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Announcements(tmp_path / "a.db")
