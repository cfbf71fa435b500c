"""Figures as JSON, as a table for a terminal or README, and as a plot in SVG."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from html import escape

from tests.bench.figures import Figure
from tests.bench.servers import OURS

_COLOURS = ("#0b6e4f", "#8d99ae", "#c8553d", "#588b8b", "#a26769")
_ROW, _BAR, _LEFT, _WIDTH = 18, 13, 190, 720


def as_json(figures: Sequence[Figure], about: dict[str, object]) -> str:
    """Give all figures and what they were measured on."""
    return json.dumps({"about": about, "figures": [asdict(figure) for figure in figures]}, indent=1, ensure_ascii=False)


def read(text: str) -> list[Figure]:
    """Give the figures that ``as_json`` wrote."""
    return [Figure(**each) for each in json.loads(text)["figures"]]


def table(figures: Sequence[Figure]) -> str:
    """Give a Markdown table, a line for each figure."""
    lines = ["| | what | measured | ratio | wanted | |", "|---|---|---|---|---|---|"]
    for each in figures:
        beside = "".join(f"; {name} {_number(value)}" for name, value in each.others.items())
        times = "" if each.ratio is None else f"{each.ratio:.2f} ×"
        verdict = "" if each.met is None else "yes" if each.met else "**no**"
        cells = (str(each.item), each.what, f"{_number(each.value)} {each.unit}{beside}", times, each.wanted, verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(figures: Sequence[Figure]) -> str:
    """Draw the deliveries a second of item 1 for every server, on a logarithmic scale."""
    shown = [each for each in figures if each.item == 1 and "window 10" in each.what]
    if not shown:
        return ""
    rates = [rate for each in shown for rate in (each.value, *each.others.values()) if rate > 0]
    low = 10 ** math.floor(math.log10(min(rates)))
    high = max(rates) * 1.1
    parts, y = [], 34
    for each in shown:
        parts.append(f'<text x="0" y="{y}" font-weight="bold">{escape(each.what)}</text>')
        y += 10
        for number, (name, rate) in enumerate(
            sorted({OURS: each.value, **each.others}.items(), key=lambda pair: -pair[1])
        ):
            length = max(1.0, (_WIDTH - _LEFT - 90) * math.log(max(rate, low) / low) / math.log(high / low))
            colour = _COLOURS[0] if name == OURS else _COLOURS[1 + number % 4] if "limit" not in name else _COLOURS[1]
            parts.append(
                f'<text x="{_LEFT - 6}" y="{y + _BAR - 2}" text-anchor="end">{escape(name)}</text>'
                f'<rect x="{_LEFT}" y="{y}" width="{length:.0f}" height="{_BAR}" fill="{colour}"/>'
                f'<text x="{_LEFT + length + 5:.0f}" y="{y + _BAR - 2}">{_number(rate)}/s</text>'
            )
            y += _ROW
        y += 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" '
        'font-family="sans-serif" font-size="12" fill="#222"><rect width="100%" height="100%" fill="#fff"/>'
        '<text x="0" y="14">Deliveries a second, 200-byte messages, server on one core (logarithmic)</text>'
        + "".join(parts)
        + "</svg>\n"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
