from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio

from appliance.store import connections
from appliance.store.bridge import open_bridge
from appliance.store.readers import READERS, open_readers


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
