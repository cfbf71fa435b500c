"""The metrics keep Prometheus' rules, and are read from what is counted."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from appliance.live.fanout.sessions import Traffic
from appliance.model import Op
from appliance.ops.metrics import HISTOGRAMS, METRICS, PREFIX, PROCESS, Metrics, Sources
from tests.ops.figures import sources


class Connected:
    """A session of which only the traffic is asked for."""

    traffic = Traffic(subscriptions=2, batches=10, bytes_out=1000, bytes_in=50)

    def check(self, now: float, ping_every_s: float, pong_within_s: float) -> None: ...

    def end(self, code: int, reason: str) -> None: ...


async def samples(read: Sources) -> dict[tuple[str, tuple[str, ...]], float]:
    """Give every sample by name and the values of its labels, these in the order of their names."""
    text, _ = await Metrics(read).text("")
    return {
        (each.name, tuple(each.labels[label] for label in sorted(each.labels))): each.value
        for family in text_string_to_metric_families(text.decode())
        for each in family.samples
    }


def test_names_keep_the_rules_of_prometheus() -> None:
    names = [metric.name for metric in METRICS] + [times.name for times in HISTOGRAMS]

    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.words.endswith(".")
    assert all(times.name.endswith("_seconds") for times in HISTOGRAMS)


async def test_every_metric_is_given_and_no_other(tmp_path: Path) -> None:
    read = sources(tmp_path)
    (tmp_path / "x.db").write_bytes(b"1234")
    (tmp_path / "x.db-wal").write_bytes(b"12")
    read.counters.refused["unauthorized"] += 1
    read.counters.closed[1000] += 1
    read.counters.requests["subscribe", "ok"] += 1
    read.counters.http_answers[200] += 1
    read.counters.changes["t", Op.CREATE] += 1
    read.counters.delivered["create"] += 1

    text, content_type = await Metrics(read).text("text/plain")

    given = re.findall(r"^# TYPE (\S+) ", text.decode(), re.MULTILINE)
    assert len(given) == len(set(given))
    assert set(given) == {*(PREFIX + each.name for each in (*METRICS, *HISTOGRAMS)), *PROCESS}
    assert content_type.startswith("text/plain")
    assert all(re.search(rf"^{name}[{{_ ]", text.decode(), re.MULTILINE) for name in given)


async def test_openmetrics_is_given_to_who_asks_for_it(tmp_path: Path) -> None:
    text, content_type = await Metrics(sources(tmp_path)).text("application/openmetrics-text;version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


async def test_what_has_gone_to_connections_never_shrinks(tmp_path: Path) -> None:
    read = sources(tmp_path)
    one, other = Connected(), Connected()
    read.sessions.add(one, None)
    read.sessions.add(other, None)
    before = await samples(read)

    read.sessions.remove(one)
    after = await samples(read)

    assert before["live_appliance_subscriptions", ()] == 4
    assert after["live_appliance_subscriptions", ()] == 2
    for name in ("batches_sent_total", "sent_bytes_total", "received_bytes_total"):
        assert before[PREFIX + name, ()] == after[PREFIX + name, ()] > 0


async def test_words_of_clients_do_not_become_labels(tmp_path: Path) -> None:
    read = sources(tmp_path)
    read.counters.requests["drop database", "unknown-method"] += 2
    read.counters.requests["", "bad-json"] += 1
    read.counters.closed[4123] += 1
    read.counters.closed[3000] += 1
    read.counters.closed[1006] += 1

    given = await samples(read)

    assert given["live_appliance_requests_total", ("unknown-method", "other")] == 2
    assert given["live_appliance_requests_total", ("bad-json", "other")] == 1
    assert given["live_appliance_websockets_closed_total", ("other",)] == 2
    assert given["live_appliance_websockets_closed_total", ("1006",)] == 1


async def test_histograms_are_cumulative(tmp_path: Path) -> None:
    read = sources(tmp_path)
    for seconds in (0.05, 0.5, 5.0):
        read.commit_seconds.observe(seconds)

    given = await samples(read)

    assert [given["live_appliance_commit_seconds_bucket", (bound,)] for bound in ("0.1", "1.0", "+Inf")] == [1, 2, 3]
    assert given["live_appliance_commit_seconds_count", ()] == 3
    assert given["live_appliance_commit_seconds_sum", ()] == 5.55


async def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    read = sources(tmp_path, kept=None)

    given = await samples(read)

    assert not {PREFIX + name for name in ("outbox_rows", "outbox_bytes", "wal_bytes", "database_bytes")} & {
        name for name, _ in given
    }


async def test_the_outbox_is_counted_up_to_this_moment(tmp_path: Path) -> None:
    given = await samples(sources(tmp_path))

    assert given["live_appliance_outbox_rows", ()] == 312
