"""What is counted while the server runs: plain numbers on plain objects, read when somebody asks for the metrics.

Counting costs the hot path an addition: no lock, no label looked up, nothing allocated. All of it belongs to the trio
thread. Names, units and words for the outside are in ``ops.metrics``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from appliance.model import Change, Message, Op

#: The upper bounds of the histograms' buckets, seconds: from what a commit to memory takes to what nobody waits for.
LATENCY_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: So many tables are counted by name, the others together: each is a time series for whoever collects them.
TABLES_BY_NAME: Final = 200
OTHER_TABLES: Final = ""


class Histogram:
    """How often a time was how long. ``counts`` has one more number than ``bounds``: for all above the last."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one time."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


@dataclass(slots=True)
class Counters:
    """What is counted in more than one place, since the store was opened; it only grows.

    What is counted by a word is a ``Counter``; the words come from a fixed vocabulary, but for the names of tables,
    which are bounded here.
    """

    #: Connections accepted, and those that were turned away because there were too many.
    connections: int = 0
    turned_away: int = 0
    #: WebSockets opened; refused, by the error's code; closed, by close code (1006: without any).
    websockets: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    closed: Counter[int] = field(default_factory=Counter)
    #: Tokens in frames that were not accepted; of those in a request, the answers' status 401 tells.
    bad_tokens: int = 0
    #: HTTP answers by status, and requests on WebSockets by method and by the code of the answer (``ok``);
    #: those that could not be read under no method.
    http_answers: Counter[int] = field(default_factory=Counter)
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: What was read from the outbox: changes by table and ``Op`` (as a plain number, whose hash costs a tenth), durable
    #: messages, and rows that could not be read.
    changes: Counter[tuple[str, int]] = field(default_factory=Counter)
    messages: int = 0
    unreadable_rows: int = 0
    #: Messages of topics that are not durable.
    passing_messages: int = 0
    #: Events that were handed to subscribers as they came, by what they were told as.
    delivered: Counter[str] = field(default_factory=Counter)
    #: Subscriptions that began with a replay or a snapshot, that were refused for a gap, and what they were sent.
    replays: int = 0
    snapshots: int = 0
    gaps: int = 0
    replayed_events: int = 0
    snapshot_rows: int = 0
    #: How often a slow reader was left to read on at its own pace, and messages dropped meanwhile.
    catch_ups: int = 0
    dropped_messages: int = 0
    #: How often subscribers were told that what they hold may be stale.
    resyncs: int = 0
    #: From the word that something was committed to the sockets.
    delivery: Histogram = field(default_factory=Histogram)

    def count_read(self, events: Iterable[Change | Message]) -> None:
        """Count what came out of the outbox, in one go."""
        found = Counter([(each.shape.table, +each.op) if isinstance(each, Change) else _MESSAGE for each in events])
        self.messages += found.pop(_MESSAGE, 0)
        for (table, op), count in found.items():
            known = (table, op) in self.changes or len(self.changes) < TABLES_BY_NAME * len(_CHANGES)
            self.changes[(table if known else OTHER_TABLES, op)] += count


_CHANGES: Final = (Op.CREATE, Op.UPDATE, Op.DELETE)
_MESSAGE: Final = ("", int(Op.MESSAGE))
