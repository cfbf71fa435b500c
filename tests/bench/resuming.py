"""Item 8: what it takes to resume over a long outbox of which little is to be delivered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.fanout import CREATE, TABLE, writing
from tests.bench.figures import Bench, Figure, median
from tests.bench.servers import OPTIONS, ours
from tests.bench.tools import SERVER_CORE, pinned
from tests.e2e.live import Client, Live, serving, sql

QUIET = "quiet"
#: So many are to be delivered, a hundredth of them at a time.
DELIVERED = 100
ROWS = 1000  # a transaction
IDLE_S = 0.02  # of a processor, in a second
WANTED = 0.1  # seconds of a reader for a million rows
#: No trimmer beside what is measured.
KEPT = ("--retention-rows", "10000000", "--retention-bytes", str(1 << 36))


def resuming(bench: Bench) -> Iterator[Figure]:
    """Item 8: the processor time of the threads that read, and of the event loop beside them."""
    kept = bench.preset.amount(1_000_000)
    with ours(bench.folder, *KEPT, tables=f"{CREATE} CREATE TABLE {QUIET}(id INTEGER PRIMARY KEY);") as live:
        with live.client() as client:
            begun = client.done("ping")
        position = {"since": begun["EventId"], "epoch": begun["epoch"]}
        _fill(live, kept)
        others = list(range(kept, kept + 99))
        wishes: dict[str, dict[str, Any]] = {
            "all others are of another table": {"topic": QUIET},
            "a value": {"topic": TABLE, "filters": {"room": 5}},
            "a range": {"topic": TABLE, "filters": {"room": {"gte": kept // DELIVERED - 1}}},
            "one of 100 values": {"topic": TABLE, "filters": {"room": [5, *others]}},
        }
        for what, wish in wishes.items():
            yield _figure(bench, live, kept, what, {**wish, **position})
    with pinned(SERVER_CORE), serving(live.db, *OPTIONS, *KEPT) as again:
        for when in ("not yet surveyed", "surveyed"):
            if when == "surveyed":
                _settle(again.process.pid)
            what = f"all others are of another table, written before the start, {when}"
            yield _figure(bench, again, kept, what, {"topic": QUIET, **position})


def _fill(live: Live, kept: int) -> None:
    """Write ``kept`` rows, each of ``DELIVERED`` parts with the same rooms, and rows of another table among them."""
    for _ in range(10):
        with writing(live, transactions=kept // 10 // ROWS, rows=ROWS, rooms=kept // DELIVERED):
            pass  # until its end
        sql(live.db, f"INSERT INTO {QUIET} SELECT NULL FROM {TABLE} LIMIT {DELIVERED // 10}")
    with live.client() as client:
        newest = int(sql(live.db, "SELECT max(id) FROM _appliance_outbox"))
        while client.done("ping")["EventId"] < newest:
            pass


def _figure(bench: Bench, live: Live, kept: int, what: str, wish: dict[str, Any]) -> Figure:
    reading, loop = [], []
    with live.client(max_size=None) as client:
        for _ in range(1 + bench.preset.runs):
            before = _spent(live.process.pid)
            _resume(client, wish)
            after = _spent(live.process.pid)
            reading.append((after[0] - before[0]) * 1e3)
            loop.append((after[1] - before[1]) * 1e3)
    most = WANTED * 1e3 * max(1.0, kept / 1e6)
    value = median(reading[1:])
    return Figure(
        8, f"resuming over {kept:,} rows, {DELIVERED} wanted: {what}", value, "ms of a reader", f"< {most:.0f} ms",
        value < most, others={"event loop": median(loop[1:])},
    )  # fmt: skip


def _resume(client: Client, wish: dict[str, Any]) -> None:
    client.done("subscribe", **wish)
    count = 0
    while client.event()["EventType"] != "live":
        count += 1
    if count != DELIVERED:
        raise RuntimeError(f"{count} events came, not {DELIVERED}, for {wish}")
    client.done("unsubscribe", topic=wish["topic"])


def _settle(pid: int) -> None:
    """Wait until the server does nothing by itself any more."""
    before, now = -1.0, 0.0
    while now - before > IDLE_S:
        time.sleep(1)
        before, now = now, sum(_spent(pid))


def _spent(pid: int) -> tuple[float, float]:
    """Give the processor time of a process's other threads, and of its first, seconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    times = {each.name: int((each / "schedstat").read_text().split()[0]) for each in threads}
    first = times.pop(str(pid))
    return sum(times.values()) / 1e9, first / 1e9
