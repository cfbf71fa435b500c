"""Measure: ``python -m tests.bench [SCENARIO …]``; see ``--help``."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import connections, cost, fanout, report, resuming
from tests.bench.figures import PRESETS, Bench, Figure
from tests.bench.tools import Missing, build

SCENARIOS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "throughput": fanout.throughput,
    "durable": fanout.durable,
    "latency": fanout.latency,
    "stopped": fanout.stopped,
    "matching": cost.matching,
    "owners": cost.owners,
    "filters": cost.filters,
    "permissions": cost.permissions,
    "behind": cost.behind,
    "capture": cost.capture,
    "idle": connections.idle,
    "leaks": connections.leaks,
    "handshakes": connections.handshakes,
    "reconnecting": connections.reconnecting,
    "resuming": resuming.resuming,
    "away": resuming.away,
    "tls": fanout.tls,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure live-appliance beside the physical limit and its peers. The servers run on core 0, the "
        "clients on core 1. Figures count as ratios to what was measured in the same run; the machine should be idle.",
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"which: {', '.join(SCENARIOS)} (default: all)"
    )
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--svg", type=Path, help="draw the plot of the throughput here")
    asked = parser.parse_args()
    unknown = set(asked.scenarios) - SCENARIOS.keys()
    if unknown:
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}")
    build()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(PRESETS[asked.preset], Path(folder))
        for name in asked.scenarios or SCENARIOS:
            try:
                for figure in SCENARIOS[name](bench):
                    figures.append(figure)
                    print(report.table([figure]).splitlines()[-1], file=sys.stderr, flush=True)
            except Missing as missing:
                print(f"{name} is left out: {missing}", file=sys.stderr)
    about = {
        "preset": asked.preset,
        "cores": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    if asked.json:
        asked.json.write_text(report.as_json(figures, about))
    if asked.svg and (drawn := report.plot(figures)):
        asked.svg.write_text(drawn)
    print(report.table(figures))


if __name__ == "__main__":
    main()
