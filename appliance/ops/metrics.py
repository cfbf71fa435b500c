"""What ``/metrics`` says: every metric with its words in one table, read when somebody asks.

Names follow Prometheus' rules (https://prometheus.io/docs/practices/naming/): base units, ``_total`` for what only
grows. The reference, the dashboard and the alert rules are tested against the table.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from appliance import __version__
from appliance.counters import OTHER_TABLES, Counters, Histogram
from appliance.errors import CloseCode
from appliance.live.fanout.sessions import NOTHING, Sessions, Traffic
from appliance.live.tail.state import TailState
from appliance.model import Op, Position
from appliance.ops.build import commit
from appliance.ops.health import Health
from appliance.protocol.requests import METHODS
from appliance.store.outbox.retention import Kept

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector

PREFIX: Final = "live_appliance_"
#: Stands for words of others – a method, a close code, a table beyond the bound – that are no label of ours.
OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from: what is asked when the metrics are.

    ``traffic`` is that of all ``sessions``, summed up once for all metrics that are made of it.
    """

    path: Path
    counters: Counters
    sessions: Sessions
    tail: TailState
    kept: Callable[[], Kept | None]
    health: Health
    commit_seconds: Histogram
    connections: Callable[[], int]
    position: Callable[[], Position]
    traffic: Traffic = NOTHING


#: The samples of one metric: the values of its labels, and its own.
Samples: TypeAlias = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name without prefix, ``counter`` or ``gauge``, its words, its labels, how it is read."""

    name: str
    kind: str
    words: str
    read: Callable[[Sources], Samples]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Times:
    """One histogram of seconds: its name without prefix, its words, where it is."""

    name: str
    words: str
    read: Callable[[Sources], Histogram]


def _one(read: Callable[[Sources], float | None]) -> Callable[[Sources], Samples]:
    """Read a metric without labels; ``None``: it is not known just now."""

    def samples(sources: Sources) -> Samples:
        value = read(sources)
        return () if value is None else (((), value),)

    return samples


def _summed(pairs: Iterable[tuple[tuple[str, ...], int]]) -> Samples:
    found: dict[tuple[str, ...], float] = {}
    for labels, count in pairs:
        found[labels] = found.get(labels, 0) + count
    return found.items()


_METHODS: Final = frozenset(each.object_type for each in METHODS.values())
#: 1005 and 1006 stand for a Close frame without a code, and for none (RFC 6455, section 7.4.1).
_CODES: Final = frozenset((*map(int, CloseCode), 1005, 1006))


def _requests(sources: Sources) -> Samples:
    return _summed(
        ((method if method in _METHODS else OTHER, code), count)
        for (method, code), count in sources.counters.requests.items()
    )


def _closed(sources: Sources) -> Samples:
    return _summed(
        ((str(code) if code in _CODES else OTHER,), count) for code, count in sources.counters.closed.items()
    )


def _changes(sources: Sources) -> Samples:
    return _summed(
        ((OTHER if table == OTHER_TABLES else table, Op(op).name.lower()), count)
        for (table, op), count in sources.counters.changes.items()
    )


def _behind_s(sources: Sources) -> float:
    return max(0.0, trio.current_time() - sources.tail.last_whole)


def _outbox_rows(sources: Sources) -> float | None:
    kept = sources.kept()
    return None if kept is None else max(0, sources.position().id - kept.oldest)  # ids have no gaps


def _outbox_bytes(sources: Sources) -> float | None:
    kept = sources.kept()
    return None if kept is None else kept.bytes


def _outbox_age(sources: Sources) -> float | None:
    kept = sources.kept()
    return None if kept is None or kept.since is None else max(0.0, time.time() - kept.since)


def _size(path: Path) -> float | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _free(path: Path) -> float | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def _build(sources: Sources) -> Samples:
    return (((__version__, commit() or "source", platform.python_version(), sqlite3.sqlite_version), 1),)


METRICS: Final = (
    Metric("build_info", "gauge", "Always 1; the labels say what runs.", _build,
           ("version", "commit", "python", "sqlite")),
    Metric("ready", "gauge", "1 when /readyz answers 200, else 0.", _one(lambda s: not s.health.problems())),
    Metric("connections", "gauge", "Connections that are open, of any kind.", _one(lambda s: s.connections())),
    Metric("connections_accepted_total", "counter", "Connections that were accepted.",
           _one(lambda s: s.counters.connections)),
    Metric("connections_turned_away_total", "counter", "Connections that were one too many (setting connections).",
           _one(lambda s: s.counters.turned_away)),
    Metric("websockets", "gauge", "WebSockets that are open.", _one(lambda s: len(s.sessions))),
    Metric("websockets_opened_total", "counter", "WebSockets that were opened.",
           _one(lambda s: s.counters.websockets)),
    Metric("websockets_refused_total", "counter", "WebSockets that were refused, by error code.",
           lambda s: (((code,), count) for code, count in s.counters.refused.items()), ("code",)),
    Metric("websockets_closed_total", "counter", "WebSockets that have ended, by close code, whoever closed them.",
           _closed, ("code",)),
    Metric("auth_failures_total", "counter", "Times that somebody brought no token, or one that was not accepted.",
           _one(lambda s: s.counters.bad_tokens + s.counters.http_answers[401])),
    Metric("http_responses_total", "counter", "HTTP answers by status; a refused WebSocket is one, an accepted is not.",
           lambda s: (((str(status),), count) for status, count in s.counters.http_answers.items()), ("status",)),
    Metric("requests_total", "counter", "Requests on WebSockets, by method and code of the answer (ok or an error's).",
           _requests, ("method", "code")),
    Metric("subscriptions", "gauge", "Subscriptions there are.", _one(lambda s: s.traffic.subscriptions)),
    Metric("changes_total", "counter", "Changes of rows that were read from the outbox, by table and kind.",
           _changes, ("table", "kind")),
    Metric("messages_total", "counter", "Messages of durable topics that were read from the outbox.",
           _one(lambda s: s.counters.messages)),
    Metric("passing_messages_total", "counter", "Messages of topics that are not durable.",
           _one(lambda s: s.counters.passing_messages)),
    Metric("events_delivered_total", "counter", "Events that were handed to subscribers as they came, by kind.",
           lambda s: (((kind,), count) for kind, count in s.counters.delivered.items()), ("kind",)),
    Metric("batches_sent_total", "counter", "Batches of events that were handed to connections, each at one stroke.",
           _one(lambda s: s.traffic.batches)),
    Metric("sent_bytes_total", "counter", "Bytes that went to WebSockets, before TLS.",
           _one(lambda s: s.traffic.bytes_out)),
    Metric("received_bytes_total", "counter", "Bytes that came from WebSockets, behind TLS.",
           _one(lambda s: s.traffic.bytes_in)),
    Metric("replays_total", "counter", "Subscriptions that went on from a position (since).",
           _one(lambda s: s.counters.replays)),
    Metric("replayed_events_total", "counter", "Events that were read again for somebody: replays and catch-ups.",
           _one(lambda s: s.counters.replayed_events)),
    Metric("gaps_total", "counter", "Subscriptions refused because their position is not kept any more.",
           _one(lambda s: s.counters.gaps)),
    Metric("snapshots_total", "counter", "Subscriptions that began with a snapshot.",
           _one(lambda s: s.counters.snapshots)),
    Metric("snapshot_rows_total", "counter", "Rows that were sent in snapshots.",
           _one(lambda s: s.counters.snapshot_rows)),
    Metric("catch_ups_total", "counter", "How often a slow reader was left to read on at its own pace.",
           _one(lambda s: s.counters.catch_ups)),
    Metric("dropped_messages_total", "counter", "Messages of topics that are not durable that slow readers missed.",
           _one(lambda s: s.counters.dropped_messages)),
    Metric("resyncs_total", "counter", "How often subscribers were told that what they hold may be stale.",
           _one(lambda s: s.counters.resyncs)),
    Metric("unreadable_rows_total", "counter", "Rows of the outbox that could not be read; the log names them.",
           _one(lambda s: s.counters.unreadable_rows)),
    Metric("tail_position", "gauge", "The EventId up to which everything has been delivered.",
           _one(lambda s: s.position().id)),
    Metric("tail_lag_seconds", "gauge", "For how long the tail has not known that it has delivered everything.",
           _one(_behind_s)),
    Metric("tail_lag_rows", "gauge", "Rows of the outbox that were not delivered yet when the tail last looked.",
           _one(lambda s: s.tail.behind_rows)),
    Metric("outbox_rows", "gauge", "Rows that the outbox keeps.", _one(_outbox_rows)),
    Metric("outbox_bytes", "gauge", "About how many bytes the outbox keeps.", _one(_outbox_bytes)),
    Metric("outbox_oldest_age_seconds", "gauge", "How long ago the oldest event that is kept was committed, at most.",
           _one(_outbox_age)),
    Metric("database_bytes", "gauge", "Size of the database file.", _one(lambda s: _size(s.path))),
    Metric("wal_bytes", "gauge", "Size of the write-ahead log.", _one(lambda s: _size(Path(f"{s.path}-wal")))),
    Metric("disk_free_bytes", "gauge", "Space that is free on the disk of the database.",
           _one(lambda s: _free(s.path.parent))),
)  # fmt: skip

HISTOGRAMS: Final = (
    Times("delivery_seconds", "From the word that something was committed to the sockets of its subscribers.",
          lambda s: s.counters.delivery),
    Times("commit_seconds", "From asking for a write of the server's own to its commit.", lambda s: s.commit_seconds),
)  # fmt: skip

#: What the client library adds, from ``/proc``.
PROCESS: Final[Mapping[str, str]] = {
    "process_cpu_seconds_total": "Processor time that was used.",
    "process_resident_memory_bytes": "Memory in use.",
    "process_virtual_memory_bytes": "Address space in use.",
    "process_start_time_seconds": "When the process began, seconds since 1970.",
    "process_open_fds": "Descriptors in use.",
    "process_max_fds": "Descriptors that there may be (LimitNOFILE).",
}


class Metrics:
    """Gives the metrics as text, in the form that the asker prefers."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._process: Collector | None = None

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Give the metrics and their content type; ``accept`` is the request's header."""
        # The library brings an HTTP server of its own along: 80 ms that only who asks for metrics should wait for,
        # and nobody else meanwhile.
        await trio.to_thread.run_sync(importlib.import_module, "prometheus_client")
        from prometheus_client import ProcessCollector
        from prometheus_client.exposition import choose_encoder

        if self._process is None:
            self._process = ProcessCollector(registry=None)
        encode, content_type = choose_encoder(accept)
        return encode(self), content_type

    def collect(self) -> Iterator[Family]:
        """Read every metric now."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        sources = replace(self._sources, traffic=self._sources.sessions.traffic())
        for metric in METRICS:
            made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = made(PREFIX + metric.name, metric.words, labels=metric.labels)
            for labels, value in metric.read(sources):
                family.add_metric(labels, value)
            yield family
        for times in HISTOGRAMS:
            histogram = times.read(sources)
            buckets = list(_cumulative(histogram))
            yield HistogramMetricFamily(PREFIX + times.name, times.words, buckets=buckets, sum_value=histogram.sum)
        if self._process is not None:
            yield from self._process.collect()


def _cumulative(histogram: Histogram) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        yield ("+Inf" if bound == float("inf") else str(bound)), total
