"""The harness itself: that it measures what it says. Nothing is asserted about how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.bench.figures import Figure
from tests.bench.report import plot, table
from tests.e2e.server_process import ROOT

RATE = Figure(
    1, "window 10, 100 subscribers", 1500.0, "deliveries/s", "≥ 0.8 × limit", True, 0.9, {"limit": 1600.0, "ws": 20.0}
)


def test_table_has_a_line_for_each_figure_with_its_ratio_and_verdict() -> None:
    failed = Figure(7, "memory", 25.25, "kB", "≤ 20 kB", False)
    assert table([RATE, failed]).splitlines()[2:] == [
        "| 1 | window 10, 100 subscribers | 1,500 deliveries/s; limit 1,600; ws 20 | 0.90 × | ≥ 0.8 × limit | yes |",
        "| 7 | memory | 25.2 kB |  | ≤ 20 kB | **no** |",
    ]


def test_plot_is_an_svg_with_a_bar_for_each_server() -> None:
    root = ElementTree.fromstring(plot([RATE]))
    assert len(root.findall("{*}rect")) == 1 + 3
    texts = {element.text for element in root.findall("{*}text")}
    assert {"live-appliance", "limit", "ws", "1,500/s"} <= texts


@pytest.mark.heavy
@pytest.mark.e2e
def test_smallest_run_delivers_everything(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "throughput", "handshakes", "--preset", "smoke", "--json", str(written)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(written.read_text())["figures"]
    assert {figure["item"] for figure in figures} == {1, 8}
    assert all(figure["value"] > 0 for figure in figures)
    assert len(done.stdout.splitlines()) == 2 + len(figures)
