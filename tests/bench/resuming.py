"""Item 8: what it takes to resume over a long outbox of which little is to be delivered."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from appliance.store.tables import standard
from tests.bench.fanout import CREATE, TABLE, writing
from tests.bench.figures import Bench, Figure, median
from tests.bench.servers import OPTIONS, ours, write_tokens
from tests.bench.tools import SERVER_CORE, pinned
from tests.e2e.live import Client, Live, run, serving, sql

QUIET = "quiet"
#: So many come back to so many changes, of a table whose rows a group may read, among others.
COMING_BACK = 20
CHANGED = 5000
SHARED, SHARED_ROWS = "shared", 300
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
            for what in list(wishes)[:2]:
                written = f"{what}, written before the start, {when}"
                yield _figure(bench, again, kept, written, {**wishes[what], **position})


def away(bench: Bench) -> Iterator[Figure]:
    """Item 8: what it takes when many come back to what others have changed while the server was away."""
    many, changes = bench.preset.connections(COMING_BACK), bench.preset.amount(CHANGED)
    for what, table in (("a table", TABLE), ("rows of their group", SHARED)):
        costs: dict[int, list[float]] = {1: [], many: []}
        for _ in range(bench.preset.runs):
            for count, found in costs.items():
                found.append(_come_back(bench, table, count, changes))
        yield Figure(
            8, f"{many} come back to {changes:,} changes of {what}, made while the server was away",
            median(costs[many]), "ms of the server each", others={"if one comes": median(costs[1])},
        )  # fmt: skip


def _come_back(bench: Bench, table: str, count: int, changes: int) -> float:
    """Give the processor time that each of so many takes until it is live, milliseconds."""
    with ours(bench.folder, tables=CREATE) as live:
        done = run("table", "create", SHARED, "text:text", "--db", live.db)
        assert done.returncode == 0, done.stderr
        _write(live.db, _share)
        keys = [live.token] * count
        if table == SHARED:
            write_tokens(live, count, bench.folder / "users")
            keys = (bench.folder / "users").read_text().split()
        with live.client() as client:
            newest = int(sql(live.db, "SELECT max(id) FROM _appliance_outbox"))
            while client.done("ping")["EventId"] < newest:
                pass
            begun = client.done("ping")
    change = {TABLE: f"INSERT INTO {TABLE}(room) VALUES(?)", SHARED: f"UPDATE {SHARED} SET text = ?"}[table]
    rows = f" WHERE id = 1 + ? % {SHARED_ROWS}" if table == SHARED else ""
    values = [(number, number) if rows else (number,) for number in range(changes)]
    _write(live.db, lambda db: db.executemany(change + rows, values))
    with pinned(SERVER_CORE), serving(live.db, *OPTIONS) as again:
        before = sum(_spent(again.process.pid))
        with ExitStack() as open_:
            clients = [open_.enter_context(again.client(key, max_size=None)) for key in keys]
            for client in clients:
                client.send({"method": "subscribe", "attributes": {
                    "topic": table, "since": begun["EventId"], "epoch": begun["epoch"],
                }})  # fmt: skip
            for client in clients:
                events = [client.receive()["EventType"]]
                while events[-1] != "live":
                    events.append(client.receive()["EventType"])
                if len(events) != changes + 2:
                    raise RuntimeError(f"{len(events) - 2} events came, not {changes}")
        return (sum(_spent(again.process.pid)) - before) * 1e3 / count


def _write(path: Path, work: Callable[[sqlite3.Connection], object]) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        work(db)


def _share(db: sqlite3.Connection) -> None:
    """Make the rows of a group that all users are in."""
    db.executemany(f"INSERT INTO {SHARED}(text, permission) VALUES(?, 0)", [("",)] * SHARED_ROWS)
    joins = f"INSERT INTO {standard.join_table(SHARED)}({SHARED}_id, usergroup_id) "
    db.execute(f"{joins} SELECT reference_id, '{standard.USERS}' FROM {SHARED}")


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
