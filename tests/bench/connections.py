"""Items 7 and 8: what a connection takes, and how fast connections come."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.fanout import CREATE, TABLE, writing
from tests.bench.figures import Bench, Figure, median, ratio
from tests.bench.servers import KEPT, PASSING, address, ours, peer, subscribe, topic, write_tokens
from tests.bench.tools import PAYLOAD, Load, cpu_s, load, memory, most_connections
from tests.e2e.live import Live

USERS = 1000
#: What answers the handshakes of ours, too.
LIBRARY = "trio-websocket"
PING_EVERY_S = 25.0
#: Handshakes between two looks at the memory.
STEP = 200_000


def idle(bench: Bench) -> Iterator[Figure]:
    """Item 7: idle connections with one subscription each, and their heartbeats."""
    preset = bench.preset
    for count in (2000, 20_000):
        n = min(preset.connections(count), most_connections())
        with ours(bench.folder, "--ping-every-s", str(PING_EVERY_S)) as live:
            _warm(live)
            before = memory(live.process.pid)
            with Load(address(live), n, (subscribe(PASSING),), expect_setup=1, wait_stdin=True, external=0) as waiting:
                waiting.ready()
                time.sleep(1)
                taken = (memory(live.process.pid) - before) / n / 1000
                yield Figure(7, f"memory of one of {n} idle connections", taken, "kB", "≤ 20 kB", taken <= 20)
                if count == 20_000:
                    seconds = max(2.0, 2 * PING_EVERY_S * min(1.0, preset.seconds / 3))
                    spent, begun = cpu_s(live.process.pid), time.monotonic()
                    time.sleep(seconds)
                    share = (cpu_s(live.process.pid) - spent) / (time.monotonic() - begun) * 100
                    yield Figure(
                        7, f"{n} idle connections, heartbeats included", share, "% of a core", "< 10 %", share < 10
                    )
                waiting.go()
                result = waiting.end()
                if result["alive"] != n:
                    raise RuntimeError(f"connections were lost: {result}")


def leaks(bench: Bench) -> Iterator[Figure]:
    """Item 7: connections that come and go leave nothing behind."""
    step = bench.preset.amount(STEP)
    with ours(bench.folder) as live:
        url = _users(live, bench.folder)
        sizes = []
        for _ in range(5):
            result = load(url, 50, churn=step, tokens=bench.folder / "tokens", max_time=600)
            _all_served(result, step)
            sizes.append(memory(live.process.pid))
        # The first step fills caches and the allocator's arenas; what grows after it is a leak.
        grown = (sizes[-1] - sizes[0]) / (4 * step)
        yield Figure(
            7, f"memory that a connection leaves behind, over {4 * step:,}", grown, "B", "< 5 B", grown < 5,
            others={f"MB after {(at + 1) * step:,}": size / 1e6 for at, size in enumerate(sizes)},
        )  # fmt: skip


def handshakes(bench: Bench) -> Iterator[Figure]:
    """Item 8: handshakes with a token each, 50 at a time; beside them the WebSocket library's own, without any."""
    preset = bench.preset
    count = preset.amount(10_000)
    rates, costs, bare = [], [], []
    with ours(bench.folder) as live, peer(LIBRARY) as library:
        url = _users(live, bench.folder)
        for _ in range(preset.runs):
            bare.append(load(library.url, 50, churn=count)["handshakes_per_s"])
            before = cpu_s(live.process.pid)
            result = load(url, 50, churn=count, tokens=bench.folder / "tokens")
            _all_served(result, count)
            costs.append((cpu_s(live.process.pid) - before) / count * 1e6)
            rates.append(result["handshakes_per_s"])
        rate = median(rates)
        yield Figure(
            8, "handshakes with a token", rate, "1/s", "≥ 1,500/s", rate >= 1500, ratio(rates, bare),
            {"µs each": median(costs), LIBRARY: median(bare)},
        )  # fmt: skip


def reconnecting(bench: Bench) -> Iterator[Figure]:
    """Item 8: clients that come back at once with their position, beside subscribers that stay."""
    preset = bench.preset
    many, steady, missed = preset.connections(10_000), preset.connections(1000), 100
    with ours(bench.folder, tables=CREATE) as live:
        with live.client() as client:
            position = client.done("subscribe", topic=TABLE)
            with writing(live, transactions=1, rows=missed):
                client.events(missed)
        back = subscribe(TABLE, since=str(position["EventId"]), epoch=json.dumps(position["epoch"]))
        beside: list[dict[str, dict[str, float]]] = []
        for clients in (0, many):
            seconds = 10 * preset.seconds / 3
            watching = topic(live, PASSING)
            options = {"rate": 20, "duration": seconds, "warmup": 3, "payload": PAYLOAD, "publish": watching.publish}
            with Load(watching.url, steady, watching.setup, expect_setup=1, wait_stdin=True, **options) as staying:
                staying.ready()
                staying.go()
                if clients:
                    # The reply, the events that were missed, and the notice that it is live.
                    result = load(address(live), clients, (back,), expect_setup=2, conn_batch=clients, external=missed)
                    if result["lost"] or result["alive"] != clients:
                        raise RuntimeError(f"not all were served: {result}")
                    p99 = result["ready_ms"]["p99"] / 1000
                    yield Figure(8, f"{clients} come back at once, p99 until live", p99, "s", "< 12 s", p99 < 12)
                beside.append(staying.end())
        calm, storm = (each["each_ms"]["p99"] for each in beside)
        yield Figure(
            8, f"p99 of {steady} that stay meanwhile", storm, "ms", "≤ 3 × without", storm <= 3 * calm,
            storm / calm if calm else None, {"without": calm},
        )  # fmt: skip


def _users(live: Live, folder: Path) -> str:
    write_tokens(live, USERS, folder / "tokens")
    return address(live, "{token}")


def _warm(live: Live) -> None:
    """Have everything imported and cached that a first connection and a first message need."""
    for name in (KEPT, PASSING):
        topic(live, name).fan_out(20, messages=20)


def _all_served(result: dict[str, float], count: int) -> None:
    if result["handshakes"] != count:
        raise RuntimeError(f"only {result['handshakes']} of {count} were served: {result}")
