"""The dashboard and the alert rules ask for metrics that there are, and each metric has a place to be seen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.ops.metrics import HISTOGRAMS, METRICS, PREFIX, PROCESS, Metrics
from tests.ops.figures import sources

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "packaging/grafana/live-appliance.json"
RULES = ROOT / "packaging/prometheus/live-appliance.rules.yml"

#: Every metric, and under which names its samples can be asked for.
ASKED = {PREFIX + each.name: {PREFIX + each.name} for each in METRICS}
ASKED |= {PREFIX + each.name: {f"{PREFIX}{each.name}_{part}" for part in ("bucket", "sum", "count")}
          for each in HISTOGRAMS}  # fmt: skip
ASKED |= {name: {name} for name in PROCESS}

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool: apt install prometheus")


def panels() -> list[dict[str, Any]]:
    return [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]


def queries() -> Iterator[str]:
    """Give every query of the dashboard, its variables set."""
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".+")


def expressions() -> list[str]:
    return re.findall(r"^ +expr: (.+)$", RULES.read_text(), re.MULTILINE)


def named(query: str) -> set[str]:
    """Give the metrics that a query names."""
    return set(re.findall(r"\b(?:live_appliance|process)_\w+", re.sub(r'"[^"]*"', "", query)))


def labels(query: str) -> set[str]:
    """Give the labels that a query groups or selects by."""
    grouped = [word for group in re.findall(r"by \(([^)]+)\)", query) for word in group.split(", ")]
    return {*grouped, *re.findall(r"[{,](\w+)=", query)}


@pytest.mark.parametrize("query", [*queries(), *expressions()])
def test_a_query_asks_only_for_metrics_and_labels_that_there_are(query: str) -> None:
    known = set().union(*ASKED.values())
    having = {PREFIX + each.name: set(each.labels) for each in METRICS}

    assert named(query) <= known
    own = set().union(*(having.get(name, {"le"} if name.endswith("_bucket") else set()) for name in named(query)))
    assert labels(query) <= own | {"instance", "job"}


def test_every_metric_has_a_panel() -> None:
    shown = set().union(*map(named, queries()))

    assert [metric for metric, names in ASKED.items() if not names <= shown] == []


def test_panels_have_places_of_their_own_and_words() -> None:
    places = [(each["gridPos"]["x"], each["gridPos"]["y"]) for each in panels()]

    assert len(set(places)) == len(places)
    assert all(each["title"] for each in panels())
    assert all(target["legendFormat"] for each in panels() for target in each["targets"])


@needs_promtool
def test_prometheus_takes_every_query_and_rule(tmp_path: Path) -> None:
    # What is shown is checked as what could be recorded: it must be a query.
    rules = [
        {"record": "x", "expr": query, "labels": {"number": str(number)}} for number, query in enumerate(queries())
    ]
    dashboard = tmp_path / "dashboard.yml"
    dashboard.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

    checked = subprocess.run(["promtool", "check", "rules", RULES, dashboard], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


@needs_promtool
async def test_prometheus_finds_no_fault_with_the_metrics(tmp_path: Path) -> None:
    text, _ = await Metrics(sources(tmp_path)).text("")

    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)  # noqa: ASYNC221

    assert checked.returncode == 0, checked.stderr.decode()


#: What makes each alert fire: series in Prometheus' notation, a value a minute for six hours.
FIRING = {
    "LiveApplianceDown": {"up": "0x360"},
    "LiveApplianceNotReady": {"live_appliance_ready": "0x360"},
    "LiveApplianceTailBehind": {"live_appliance_tail_lag_seconds": "11x360"},
    "LiveApplianceEventsUnreadable": {"live_appliance_unreadable_rows_total": "0x350 1x10"},
    "LiveApplianceSlowDelivery": {
        'live_appliance_delivery_seconds_bucket{le="1.0"}': "0+90x360",
        'live_appliance_delivery_seconds_bucket{le="+Inf"}': "0+100x360",
        'live_appliance_delivery_seconds_bucket{le="10.0"}': "0+100x360",
    },
    "LiveApplianceSlowCommits": {
        'live_appliance_commit_seconds_bucket{le="1.0"}': "0+90x360",
        'live_appliance_commit_seconds_bucket{le="10.0"}': "0+100x360",
        'live_appliance_commit_seconds_bucket{le="+Inf"}': "0+100x360",
    },
    "LiveAppliancePositionsLost": {'live_appliance_websockets_closed_total{code="4410"}': "0+2x360"},
    "LiveApplianceSlowReaders": {'live_appliance_websockets_closed_total{code="4408"}': "0+90x360"},
    "LiveApplianceTurnsAway": {"live_appliance_connections_turned_away_total": "0x355 1x5"},
    "LiveApplianceFewDescriptors": {"process_open_fds": "95x360", "process_max_fds": "100x360"},
    "LiveApplianceTokensRefused": {"live_appliance_auth_failures_total": "0+600x360"},
    "LiveApplianceWalGrows": {"live_appliance_wal_bytes": "2000000000x360"},
    "LiveApplianceDiskFills": {"live_appliance_disk_free_bytes": "9000000000-20000000x360"},
    "LiveApplianceRestarts": {"process_start_time_seconds": "1x340 2 3 4 5x17"},
}
#: A server that does well.
QUIET = {
    "up": "1x360",
    "live_appliance_ready": "1x360",
    "live_appliance_tail_lag_seconds": "0.5x360",
    "live_appliance_unreadable_rows_total": "0x360",
    'live_appliance_delivery_seconds_bucket{le="1.0"}': "0+100x360",
    'live_appliance_delivery_seconds_bucket{le="+Inf"}': "0+100x360",
    'live_appliance_commit_seconds_bucket{le="1.0"}': "0+100x360",
    'live_appliance_commit_seconds_bucket{le="+Inf"}': "0+100x360",
    "live_appliance_gaps_total": "0x360",
    'live_appliance_websockets_closed_total{code="1000"}': "0+600x360",
    "live_appliance_connections_turned_away_total": "3x360",
    "live_appliance_auth_failures_total": "0+6x360",
    "live_appliance_wal_bytes": "4000000x360",
    "live_appliance_disk_free_bytes": "90000000000x360",
    "process_open_fds": "50x360",
    "process_max_fds": "20000x360",
    "process_start_time_seconds": "1x360",
}


def test_every_alert_has_its_case() -> None:
    assert re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE) == list(FIRING)


@needs_promtool
def test_each_alert_fires_when_it_should_and_none_when_all_is_well(tmp_path: Path) -> None:
    own = 'job="live-appliance", instance="here"'

    def case(series: dict[str, str], count: int) -> dict[str, Any]:
        named = {name[:-1] + f", {own}}}" if name.endswith("}") else f"{name}{{{own}}}": values
                 for name, values in series.items()}  # fmt: skip
        expected = [{"labels": "{}", "value": count}] if count else []
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in named.items()],
            "promql_expr_test": [
                {"expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})', "eval_time": "359m",
                 "exp_samples": expected}
                for alert in FIRING
            ],
        }  # fmt: skip

    everything = {name: values for series in FIRING.values() for name, values in series.items()}
    file = tmp_path / "test.yml"
    cases = [case(everything, 1), case(QUIET, 0)]
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases}))

    tested = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)

    assert tested.returncode == 0, tested.stdout + tested.stderr
