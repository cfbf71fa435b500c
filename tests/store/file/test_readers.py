from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.store.file import connections
from appliance.store.file.bridge import open_bridge
from appliance.store.file.place import identity
from appliance.store.file.readers import READERS, open_readers
from appliance.store.store import StoreSettings, open_store
from appliance.store.tables.secrecy import Secrecy

#: For how long a work waits for another before something is wrong, seconds.
PATIENCE_S = 10.0


async def test_more_works_than_connections_are_done_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sqlite3.connect(path).close()
    found: list[int] = []

    async with open_bridge(), open_readers(lambda: connections.open_reader(path, busy_timeout_s=1)) as readers:

        async def read(number: int) -> None:
            found.append(await readers.read(lambda db: int(db.execute("SELECT ?", (number,)).fetchone()[0])))

        async with trio.open_nursery() as nursery:
            for number in range(READERS * 5):
                nursery.start_soon(read, number)

    assert sorted(found) == list(range(READERS * 5))


def test_no_file_is_made_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        connections.open_reader(tmp_path / "moved away.db", busy_timeout_s=1)
    assert not list(tmp_path.iterdir())


async def test_a_work_that_fails_leaves_its_connection_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sqlite3.connect(path).close()

    async with open_bridge(), open_readers(lambda: connections.open_reader(path, busy_timeout_s=1)) as readers:
        for _ in range(READERS + 1):
            with pytest.raises(sqlite3.OperationalError):
                await readers.read(lambda db: db.execute("SELECT * FROM nothing"))

        assert await readers.read(lambda db: db.execute("SELECT 1").fetchone()) == (1,)


async def test_nothing_can_be_written_there(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sqlite3.connect(path).close()

    async with open_bridge(), open_readers(lambda: connections.open_reader(path, busy_timeout_s=1)) as readers:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await readers.read(lambda db: db.execute("CREATE TABLE t(a)"))


async def test_works_that_have_patience_let_others_pass(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sqlite3.connect(path).close()
    begun: list[str] = []
    held = threading.Event()

    async with open_bridge(), open_readers(lambda: connections.open_reader(path, busy_timeout_s=1)) as readers:

        async def read(name: str, *, patient: bool) -> None:
            await readers.read(lambda db: begun.append(name) or held.wait(PATIENCE_S), patient=patient)

        async with trio.open_nursery() as nursery:
            for _ in range(READERS * 5):
                nursery.start_soon(partial(read, "page", patient=True))
            await wait_all_tasks_blocked()
            nursery.start_soon(partial(read, "question", patient=False))
            await wait_all_tasks_blocked()
            held.set()
    assert begun.index("question") <= 2 * READERS


async def test_another_connection_is_opened_when_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sqlite3.connect(path).close()
    opened: list[sqlite3.Connection] = []

    def opening() -> sqlite3.Connection:
        opened.append(connections.open_reader(path, busy_timeout_s=1))
        return opened[-1]

    async with open_bridge(), open_readers(opening) as readers:
        for _ in range(READERS + 1):
            await readers.read(lambda db: db.execute("SELECT 1").fetchone())
        assert len(opened) == 1
        together = threading.Barrier(READERS)
        async with trio.open_nursery() as nursery:
            for _ in range(READERS):
                nursery.start_soon(readers.read, lambda db: together.wait(PATIENCE_S))
        assert len(opened) == READERS


async def test_one_that_cannot_be_opened_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sqlite3.connect(path).close()
    refused = [False, True]

    def opening() -> sqlite3.Connection:
        if refused and refused.pop(0):
            raise sqlite3.OperationalError("the disk fails")
        return connections.open_reader(path, busy_timeout_s=1)

    async with open_bridge(), open_readers(opening) as readers:
        held, together = threading.Event(), threading.Barrier(READERS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(readers.read, lambda db: held.wait(PATIENCE_S))
            await wait_all_tasks_blocked()
            with pytest.raises(sqlite3.OperationalError, match="the disk fails"):
                await readers.read(lambda db: None)
            held.set()
        async with trio.open_nursery() as nursery:
            for _ in range(READERS):
                nursery.start_soon(readers.read, lambda db: together.wait(PATIENCE_S))


async def test_a_file_that_has_taken_the_place_of_ours_is_not_opened_for_those_who_read(tmp_path: Path) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE theirs(a)")
    async with open_bridge(), open_store(StoreSettings(path, Secrecy((), ()))) as store:
        wal, held = identity(f"{path}-wal"), threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.read, lambda db: held.wait(PATIENCE_S))
            await wait_all_tasks_blocked()
            other.replace(path)
            with pytest.raises(sqlite3.OperationalError, match="replaced"):
                await store.read(lambda db: db.execute("SELECT * FROM theirs").fetchall())
            held.set()
        store.replaced = True
        assert identity(f"{path}-wal") == wal  # to open the other file would have taken ours for its own
