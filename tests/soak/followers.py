"""What a client keeps of one topic, and what it must never see."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
#: Events that ``Again`` keeps.
MEMORY = 3000


class Wrong(AssertionError):
    """Something came that may not come."""


def must(holds: bool, what: str, *seen: object) -> None:
    if not holds:
        raise Wrong(f"{what}: {' | '.join(str(each)[:300] for each in seen)}")


@dataclass
class Follower:
    """One subscription, over any number of connections. ``position``: EventId and epoch to go on from."""

    topic: str
    filters: dict[str, Any] = field(default_factory=dict)
    position: tuple[int, str] | None = None
    #: The subscription is to be made anew: the server has said that something may be missing.
    stale: bool = False
    last: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def whole(self) -> bool:
        """Whether what it holds is what there was at its position."""
        return not self.stale

    def wish(self) -> dict[str, Any]:
        """Give the attributes of ``subscribe``."""
        wish: dict[str, Any] = {"topic": self.topic, "filters": self.filters}
        if self.position is not None:
            wish["since"], wish["epoch"] = self.position
        return wish

    def begun(self, reply: dict[str, Any]) -> None:
        """Take the reply to ``subscribe``."""
        self.stale = False
        if self.position is None:
            self.position = reply["EventId"], reply["epoch"]
        else:
            must(reply.get("recovered") is True, "resumed without being recovered", reply)

    def gap(self) -> None:
        """Take note that the position is not kept any more: begin anew."""
        self.seen["gap"] += 1
        self.anew()

    def anew(self) -> None:
        """Go on from no position."""
        self.position = None
        self.last = 0

    def passed(self, position: int, epoch: str) -> None:
        """Everything up to ``position`` has come."""
        if self.position is not None and self.whole:
            must(self.position[1] == epoch, "the epoch changed", self.position, epoch)
            self.position = max(position, self.position[0]), epoch

    def take(self, event: Event) -> None:
        kind = event["EventType"]
        self.seen[kind] += 1
        if event["MessageSource"] == "system":
            self.notice(event)
            return
        if "EventId" in event:
            must(event["EventId"] > self.last, "an event came twice or out of order", self.last, event)
            self.last = event["EventId"]
            if self.position is not None:
                must(self.last > self.position[0], "an event from before the position", self.position, event)
        self.apply(event)
        if "EventId" in event and self.position is not None and self.whole:
            self.position = self.last, self.position[1]

    def notice(self, event: Event) -> None:
        must(event["EventType"] in ("live", "resync"), "a notice that nothing explains", event)
        self.stale |= event["EventType"] == "resync"
        if event["EventType"] == "live":
            self.passed(event["EventData"]["EventId"], event["EventData"]["epoch"])

    def apply(self, event: Event) -> None:
        raise NotImplementedError

    def check(self, db: sqlite3.Connection) -> None:
        """Compare with the file, in which everything has come to the position."""


@dataclass
class Log(Follower):
    """Every row of the table ``log``, each once, without a hole."""

    row: int | None = None

    def anew(self) -> None:
        super().anew()
        self.row = None

    def notice(self, event: Event) -> None:
        super().notice(event)
        if self.stale:
            self.row = None

    def apply(self, event: Event) -> None:
        if self.stale:  # rows may be missing until it is subscribed to anew
            return
        row = event["EventData"]["id"]
        must(event["EventType"] == "create", "a row of the log was changed", event)
        must(self.row is None or row == self.row + 1, "a row of the log is missing or came twice", self.row, event)
        self.row = row

    def check(self, db: sqlite3.Connection) -> None:
        (last,) = db.execute("SELECT max(id) FROM log").fetchone()
        must(self.row in (None, last), "the last rows of the log have not come", self.row, last)


@dataclass
class Messages(Follower):
    """The numbered messages of a durable topic, each once."""

    number: int | None = None

    def anew(self) -> None:
        super().anew()
        self.number = None

    def notice(self, event: Event) -> None:
        super().notice(event)
        if self.stale:
            self.number = None

    def apply(self, event: Event) -> None:
        if self.stale:
            return
        number = event["EventData"]["number"]
        must(event["EventType"] == "new-message", "not a message", event)
        must(self.number is None or number == self.number + 1, "a message is missing or came twice", self.number, event)
        self.number = number


@dataclass
class Passing(Follower):
    """The numbered messages of a topic that is not durable: what has not come on one connection was counted."""

    number: int | None = None
    missing: int = 0

    def wish(self) -> dict[str, Any]:
        return {"topic": self.topic}

    def begun(self, reply: dict[str, Any]) -> None:
        self.number, self.missing = None, 0

    def notice(self, event: Event) -> None:
        must(event["EventType"] == "dropped", "a notice that nothing explains", event)
        self.missing -= event["EventData"]["count"]

    def apply(self, event: Event) -> None:
        number = event["EventData"]["number"]
        if self.number is not None:
            must(number > self.number, "a passing message came twice or out of order", self.number, event)
            self.missing += number - self.number - 1
        self.number = number

    def settled(self, last: int) -> None:
        """``last`` was sent last, and everything that is to come has come."""
        if self.number is not None:
            must(  # what was dropped before the first that came is counted, too, and cannot be known here
                last - self.number + self.missing <= 0,
                "passing messages are missing that were not counted", self.number, self.missing, last,
            )  # fmt: skip


@dataclass
class Again(Follower):
    """Events that are asked for again and again, from ever other positions: each time they must be the same ones."""

    chance: random.Random = field(default_factory=lambda: random.Random(0))
    known: dict[int, Event] = field(default_factory=dict)
    _expected: deque[int] = field(default_factory=deque)

    def wish(self) -> dict[str, Any]:
        wish = super().wish()
        if "since" in wish and self.known and not self.stale:
            wish["since"] = self.chance.choice([wish["since"], *self.known])
        return wish

    def begun(self, reply: dict[str, Any]) -> None:
        resumed = self.position is not None
        super().begun(reply)
        self.last = reply["EventId"]
        self._expected = deque(sorted(each for each in self.known if resumed and each > self.last))

    def anew(self) -> None:
        super().anew()
        self.known.clear()
        self._expected.clear()

    def take(self, event: Event) -> None:
        # The position goes back with the wish, and forth again with what is known.
        position, self.position = self.position, None if self._expected else self.position
        super().take(event)
        self.position = self.position or position

    def notice(self, event: Event) -> None:
        must(not self._expected or event["EventType"] != "live", "events did not come again", list(self._expected)[:9])
        super().notice(event)
        if self.stale:
            self.known.clear()
            self._expected.clear()

    def apply(self, event: Event) -> None:
        place = event["EventId"]
        if self._expected:
            first = self._expected.popleft()
            must(place == first and event == self.known[first], "another event than before", self.known[first], event)
        elif not self.stale:
            self.known[place] = event
            if len(self.known) > MEMORY:
                del self.known[min(self.known)]


@dataclass
class Rows(Follower):
    """The rows of a table that pass a filter: a live set. ``where`` is the filter in SQL.

    ``events``: no live set but plain events without a filter, which say as much once there was a snapshot.
    """

    where: str = "1"
    old: bool = False
    events: bool = False
    rows: dict[str, Event] = field(default_factory=dict)
    strict: bool = False

    @property
    def whole(self) -> bool:
        return self.strict and not self.stale

    def wish(self) -> dict[str, Any]:
        wish = super().wish()
        if self.stale:
            wish.pop("since", None)
            wish.pop("epoch", None)
        plain = self.events and "since" in wish
        return wish if plain else {**wish, "snapshot": True, "old": self.old}

    def begun(self, reply: dict[str, Any]) -> None:
        if self.position is None or self.stale or reply.get("recovered") is False:
            self.rows.clear()
            self.strict = False
            self.position = None
        self.stale = False
        self.last = 0

    def gap(self) -> None:
        super().gap()
        must(self.events, "a live set was refused")

    def notice(self, event: Event) -> None:
        if event["EventType"] == "live" and not self.stale:
            data = event["EventData"]
            self.strict = True
            self.position = data["EventId"], data["epoch"]
        super().notice(event)

    def apply(self, event: Event) -> None:
        kind, key = event["EventType"], json.dumps(event["Key"])
        if self.strict and not self.stale:
            self._expected(kind, event)
        if "OldKey" in event:
            self.rows.pop(json.dumps(event["OldKey"]), None)
        if kind == "delete":
            self.rows.pop(key, None)
        else:
            self.rows[key] = event["EventData"]

    def _expected(self, kind: str, event: Event) -> None:
        held = self.rows.get(json.dumps(event.get("OldKey", event["Key"])))
        must(kind in ("create", "update", "delete"), "a row of a snapshot after its end", event)
        must((held is None) == (kind == "create"), f"a {kind} of what is held", held, event)
        if kind == "delete":
            must(held == event["EventData"], "a delete of another row", held, event)
        elif kind == "update" and "OldData" in event and held is not None:
            was = {name: value for name, value in held.items() if value != event["EventData"].get(name)}
            must(was.items() <= event["OldData"].items(), "old values that were not", was, event)
        elif kind == "update":
            must(not self.old or self.events, "no old values", event)

    def check(self, db: sqlite3.Connection) -> None:
        if not self.whole:
            return
        cursor = db.execute(f"SELECT * FROM {self.topic} WHERE {self.where}")
        names = [each[0] for each in cursor.description]
        there = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        held = [{k: v for k, v in row.items() if k != "__type"} for row in self.rows.values()]
        missing, extra = [r for r in there if r not in held], [r for r in held if r not in there]
        must(not missing and not extra, f"{self.topic} where {self.where} is not what the file holds", missing, extra)
