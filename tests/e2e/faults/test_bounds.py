"""What a long snapshot and a long replay cost: memory, the WAL, and a reader's time."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.live import Live, serving

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

#: The issue's proof is with 5,000,000; CI takes fewer.
ROWS = int(os.environ.get("SNAPSHOT_ROWS", "200000"))
GROWTH = 32 << 20
WAL = 32 << 20


@contextmanager
def writing(db: Path) -> Iterator[None]:
    """Have another program update rows all the time."""
    stop = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(db, timeout=30, isolation_level=None)) as writer:
            number = 0
            while not stop.wait(0.001):
                number += 1
                writer.execute("UPDATE t SET v = v + 1 WHERE id = ?", (number * 7919 % ROWS + 1,))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def wal(live: Live) -> int:
    return live.db.with_name(f"{live.db.name}-wal").stat().st_size


def test_a_snapshot_of_a_long_table_costs_little_memory_and_does_not_pin_the_wal(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    with closing(sqlite3.connect(db)) as made:
        made.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, v INTEGER)")
        made.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO t SELECT i, 'row number ' || i, 0 FROM n",
            (ROWS,),
        )
        made.commit()
    with serving(db) as live, writing(db), live.client(compression=None) as client:
        client.done("ping")
        before = live.memory()
        most = longest = rows = 0
        client.done("subscribe", topic="t", snapshot=True)
        while (event := client.event())["EventType"] != "live":
            rows += event["EventType"] == "snapshot"
            if rows % 1000 == 0:
                most, longest = max(most, live.memory()), max(longest, wal(live))
    assert rows == ROWS
    print(f"grown by {(most - before) / 2**20:.1f} MiB; WAL {longest / 2**20:.1f} MiB")
    assert most - before < GROWTH
    assert longest < WAL
