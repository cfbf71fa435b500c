"""Figures for ``/metrics`` that are not of a running server."""

from __future__ import annotations

from pathlib import Path

import trio

from appliance.counters import Counters, Histogram
from appliance.live.fanout.sessions import Sessions
from appliance.live.tail.state import TailState
from appliance.model import Position
from appliance.ops.health import Health
from appliance.ops.metrics import Sources
from appliance.store.outbox.retention import Kept

KEPT = Kept(oldest=100, newest=400, bytes=9000, since=0.0)


def sources(folder: Path, kept: Kept | None = KEPT) -> Sources:
    """Give the figures of a server that has just begun, but for its outbox."""
    tail = TailState(last_look=trio.current_time(), last_whole=trio.current_time())
    return Sources(
        path=folder / "x.db",
        counters=Counters(),
        sessions=Sessions(),
        tail=tail,
        kept=lambda: kept,
        health=Health(tail),
        commit_seconds=Histogram((0.1, 1.0)),
        connections=lambda: 3,
        position=lambda: Position("e", 412),
    )
