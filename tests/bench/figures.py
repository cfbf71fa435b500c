"""What was measured, and what is wanted of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One figure: the median of all runs. ``wanted`` says in words what ``met`` answers, ``others`` has the same figure
    of other servers, ``ratio`` is ours by the one that ``wanted`` names, the median of the ratios of each run.
    """

    item: int
    what: str
    value: float
    unit: str
    wanted: str = ""
    met: bool | None = None
    ratio: float | None = None
    others: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """How much is measured: ``scale`` multiplies numbers of connections, ``work`` numbers of messages and rows."""

    runs: int
    seconds: float
    scale: float = 1.0
    work: float = 1.0
    peers: bool = True

    def connections(self, count: int) -> int:
        """Scale a number of connections."""
        return max(2, int(count * self.scale))

    def amount(self, count: int) -> int:
        """Scale a number of messages, rows or handshakes, to a multiple of 100."""
        return max(1, int(count * self.work / 100)) * 100


PRESETS = {
    "smoke": Preset(runs=1, seconds=0.3, scale=0.02, work=0.02, peers=False),
    "quick": Preset(runs=5, seconds=1.0, work=0.2),
    "full": Preset(runs=5, seconds=3.0),
}


@dataclass(frozen=True)
class Bench:
    """What a scenario works with."""

    preset: Preset
    folder: Path


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Give the median of the ratios of each run; 0 where nothing was measured."""
    return median(mine / other if other else 0.0 for mine, other in zip(ours, theirs, strict=True))
