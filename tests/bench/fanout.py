"""Items 1, 2, 3 and 9: from one writer to many readers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from websockets.sync.client import connect

from tests.bench.figures import Bench, Figure, median, ratio
from tests.bench.servers import KEPT, OURS, PASSING, PEERS, Target, address, framed, limit, ours, peer, subscribe, topic
from tests.bench.tools import CLIENT_CORE, Load, Missing, Result, cpu_s, has_tls, pinned
from tests.e2e.certificates import write_certificate
from tests.e2e.live import Live

TABLE = "changes"
CREATE = f"CREATE TABLE {TABLE}(id INTEGER PRIMARY KEY, seq TEXT, t TEXT, pad TEXT, room INTEGER);"
BURST = 1000  # messages


def throughput(bench: Bench) -> Iterator[Figure]:
    """Item 1: a topic that is not durable."""
    preset = bench.preset
    with ExitStack() as running:
        live = running.enter_context(ours(bench.folder))
        mine = topic(live, PASSING)
        batch, each = running.enter_context(limit("batch")), running.enter_context(limit("each"))
        peers = list(_peers(running)) if preset.peers else []
        for what, least, with_, counts, options, others in (
            (
                "not durable, window 10",
                0.8,
                batch,
                (100, 1000, 5000),
                {"window": 10, "duration": preset.seconds},
                peers,
            ),
            ("not durable, window 1", 0.9, each, (100, 1000), {"window": 1, "duration": preset.seconds}, []),
            (f"burst of {BURST}", 0.8, batch, (100, 1000), {"messages": BURST}, []),
        ):
            for count in counts:
                n = preset.connections(count)
                found: dict[str, list[float]] = defaultdict(list)
                lost = 0.0
                for _ in range(preset.runs):
                    for target in (with_, framed(with_), mine, *(others if count <= 1000 else ())):
                        result = target.fan_out(n, **options)
                        found[target.name].append(result["deliveries_per_s"])
                        lost += _lost(result) if target is mine else 0
                yield _compared(1, f"{what}, {n} subscribers", found, framed(with_), least, lost)


def durable(bench: Bench) -> Iterator[Figure]:
    """Item 2: durable messages, and changes that another process commits."""
    preset = bench.preset
    with ours(bench.folder, tables=CREATE) as live, limit("batch") as batch:
        n = preset.connections(1000)
        kept = topic(live, KEPT)
        found: dict[str, list[float]] = defaultdict(list)
        lost = 0.0
        for _ in range(preset.runs):
            for target in (batch, kept):
                result = target.fan_out(n, window=10, duration=preset.seconds)
                found[target.name].append(result["deliveries_per_s"])
                lost += _lost(result) if target is kept else 0
        base = found[batch.name]
        yield _compared(2, f"durable topic, window 10, {n} subscribers", found, batch, 0.5, lost)
        for rows, changes in ((100, preset.amount(3000)), (1, preset.amount(3000))):
            rates, lost = [], 0.0
            for _ in range(preset.runs):
                result = _changes(live, n, changes, rows)
                rates.append(result["deliveries_per_s"])
                lost += _lost(result)
            found = {OURS: rates, batch.name: base}
            yield _compared(2, f"changes, {rows} a transaction, {n} subscribers", found, batch, 0.5, lost)
        for rows, changes, least in ((100, preset.amount(100_000), 30_000), (1, preset.amount(30_000), 10_000)):
            results = [_changes(live, 1, changes, rows) for _ in range(preset.runs)]
            rate = median(result["messages_per_s"] for result in results)
            met = rate >= least and not sum(map(_lost, results))
            yield Figure(
                2, f"pipeline, {rows} a transaction", rate, "changes/s", f"≥ {least:,}/s, none lost", met,
            )  # fmt: skip


def latency(bench: Bench) -> Iterator[Figure]:
    """Item 3: from a foreign COMMIT to the last subscriber, ten changes a second; and what idling costs."""
    preset = bench.preset
    changes = preset.amount(500)
    with ours(bench.folder, tables=CREATE) as live, limit("each") as each:
        one = _changes(live, 1, changes, 1, rate=10)["last_ms"]
        yield Figure(3, "commit to the one subscriber, p50", one["p50"], "ms", "≤ 1 ms", one["p50"] <= 1)
        yield Figure(3, "commit to the one subscriber, p99", one["p99"], "ms", "≤ 4 ms", one["p99"] <= 4)
        n = preset.connections(1000)
        theirs = each.fan_out(n, rate=10, messages=changes)["last_ms"]
        many = _changes(live, n, changes, 1, rate=10)["last_ms"]
        yield Figure(
            3, f"commit to the last of {n} subscribers, p50", many["p50"], "ms", "≤ limit each + 1.5 ms",
            many["p50"] <= theirs["p50"] + 1.5, others={each.name: theirs["p50"]},
        )  # fmt: skip
        with Load(address(live), n, (subscribe(TABLE),), expect_setup=1, wait_stdin=True, external=0) as load:
            load.ready()
            time.sleep(2)
            before, begun = cpu_s(live.process.pid), time.monotonic()
            time.sleep(10 * preset.seconds)
            share = (cpu_s(live.process.pid) - before) / (time.monotonic() - begun) * 100
            load.go()
            load.end()
        yield Figure(3, f"idle, {n} subscribers", share, "% of a core", "< 0.3 %", share < 0.3)


def stopped(bench: Bench) -> Iterator[Figure]:
    """Beside item 3: one reader among many has stopped, with far more to come for it than may wait."""
    preset, n = bench.preset, bench.preset.connections(1000)
    slow, free = [], []
    with ours(bench.folder, "--write-s", "600", tables=CREATE) as live:
        kept = topic(live, KEPT)
        for _ in range(preset.runs):
            free.append(kept.fan_out(n, rate=20, duration=preset.seconds)["each_ms"]["p99"])
            with _stopped_reader(live, (KEPT, TABLE)):
                with writing(live, transactions=100, rows=1, pad=100_000):
                    pass
                slow.append(kept.fan_out(n, rate=20, duration=preset.seconds)["each_ms"]["p99"])
    yield Figure(
        3, f"p99 of {n} subscribers beside a reader that has stopped", median(slow), "ms", "≤ 1.5 × without it + 1 ms",
        median(slow) <= 1.5 * median(free) + 1, others={"without": median(free)},
    )  # fmt: skip


@contextmanager
def _stopped_reader(live: Live, topics: Sequence[str]) -> Iterator[None]:
    """Connect a client that subscribes, and reads nothing more."""
    with socket.create_connection(("127.0.0.1", live.port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with connect(address(live), sock=sock, max_queue=1, max_size=None, compression=None, close_timeout=1) as client:
            for each in topics:
                client.send(subscribe(each))
                client.recv()
            yield


def tls(bench: Bench) -> Iterator[Figure]:
    """Item 9: TLS beside plain, and one TLS reader that has stopped."""
    if not has_tls():
        raise Missing("TLS needs OpenSSL's headers (libssl-dev)")
    preset, n = bench.preset, bench.preset.connections(1000)
    chain, key = write_certificate(bench.folder, "localhost")
    options = ("--tls-cert", str(chain), "--tls-key", str(key))
    with ours(bench.folder) as plain, ours(bench.folder, *options) as secure:
        open_, sealed = topic(plain, PASSING), topic(secure, PASSING)
        found: dict[str, list[float]] = defaultdict(list)
        slow, free = [], []
        for _ in range(preset.runs):
            for name, target in (("plain", open_), (OURS, sealed)):
                found[name].append(target.fan_out(n, window=10, duration=preset.seconds)["deliveries_per_s"])
            free.append(sealed.fan_out(n, rate=20, duration=preset.seconds)["each_ms"]["p99"])
            slow.append(sealed.fan_out(n, rate=20, duration=preset.seconds, slow=1)["each_ms"]["p99"])
        times = ratio(found[OURS], found["plain"])
        yield Figure(
            9, f"TLS, window 10, {n} subscribers", median(found[OURS]), "deliveries/s", "≥ 0.25 × plain",
            times >= 0.25, times, {"plain": median(found["plain"])},
        )  # fmt: skip
        yield Figure(
            9, "TLS, p99 beside a reader that has stopped", median(slow), "ms", "≤ 1.5 × without it + 5 ms",
            median(slow) <= 1.5 * median(free) + 5, others={"without": median(free)},
        )  # fmt: skip


def _peers(running: ExitStack) -> Iterator[Target]:
    for name in PEERS:
        try:
            yield running.enter_context(peer(name))
        except Missing as missing:
            print(f"left out: {missing}", file=sys.stderr)


def _lost(result: Result) -> float:
    """Count what was lost, doubled or out of order."""
    return float(result["lost"] + result["duplicate"] + result["out_of_order"] + result["disconnected"])


def _compared(
    item: int, what: str, found: dict[str, list[float]], with_: Target, least: float, lost: float = 0.0
) -> Figure:
    mine = found[OURS]
    times = ratio(mine, found[with_.name])
    return Figure(
        item, what, median(mine), "deliveries/s", f"≥ {least} × {with_.name}, none lost",
        times >= least and not lost, times,
        {name: median(values) for name, values in found.items() if name != OURS},
    )  # fmt: skip


def _changes(live: Live, n: int, changes: int, rows: int, rate: float = 0) -> Result:
    """Have another process commit ``changes`` rows for ``n`` subscribers of the table."""
    with Load(address(live), n, (subscribe(TABLE),), expect_setup=1, wait_stdin=True, external=changes) as load:
        load.ready()
        with writing(live, transactions=changes // rows, rows=rows, rate=rate) as wrote:
            load.go()
            result = load.end()
    for latencies in (result["last_ms"], result["each_ms"]):
        for quantile in ("p50", "p99"):  # from the COMMIT on
            latencies[quantile] -= wrote.before_commit_ms
    return result


@dataclass
class Wrote:
    """What the writer said at its end: the median time from its message's ``t`` to the COMMIT, ms."""

    before_commit_ms: float = 0.0


@contextmanager
def writing(live: Live, table: str = TABLE, **options: float) -> Iterator[Wrote]:
    """Run the writer beside the block, and wait for its end."""
    wrote = Wrote()
    command = [sys.executable, "-m", "tests.bench.writer", str(live.db), table]
    for name, value in options.items():
        command += ["--" + name, str(value)]
    with pinned(CLIENT_CORE):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield wrote
    finally:
        said, _ = process.communicate()
        if process.returncode:
            raise RuntimeError("the writer failed")
        wrote.before_commit_ms = float(said)
