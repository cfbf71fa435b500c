"""What else has happened in the transactions of some events.

Who is told of an event rests on what its transaction did beside it (``facts``): nobody could ever have read what one
transaction makes readable and takes back. The tail has whole transactions before it, but for those that are longer than
one look; a replay begins and ends its pages anywhere, and leaves out what nobody wants. So what it decides on is had
from memory, or read anew, as far back and ahead as where transactions are known to end (``store.borders``). Where that
is not known, what lies between is taken for one.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Final

from appliance.capture.contents import Contents
from appliance.errors import BadFilter
from appliance.live.facts import Together, value_of
from appliance.live.hub import Hub
from appliance.live.telling import Told
from appliance.model import Change, Shape, ascii_fold
from appliance.protocol.filters import RowFilter, compile_table
from appliance.store import replay, schema
from appliance.store.grants import TableKind
from appliance.store.replay import Wanted
from appliance.store.store import Store

#: In more ids than this only the same rows are looked for. So many lie between two ends that are known only where much
#: was written while no server ran.
MANY: Final = 50_000
#: So many events of a transaction that is longer than one look are thought of with the next: a few milliseconds.
BEGUN: Final = 2000


class Commits:
    """Finds the transactions that events are of."""

    def __init__(self, hub: Hub, store: Store) -> None:
        self._hub = hub
        self._store = store

    def begun(self, events: Sequence[Told]) -> Together:
        """Give these, which come next for the hub, as one, with what memory has of the transaction of the first."""
        position, recent = self._hub.position.id, self._hub.recent
        if self._store.borders.is_one(position):
            return Together(events)
        after = max(self._store.borders.before(position), recent.after)
        return Together([*deque(recent.events_after(after), maxlen=BEGUN), *events])

    async def of(self, events: Sequence[Told], topics: Collection[str]) -> Together:
        """Give these events, which were delivered, by transaction, with what else that did to these tables (folded).

        Raises ``sqlite3.Error``.
        """
        newest, borders, recent = self._hub.position.id, self._store.borders, self._hub.recent
        stretches = borders.stretches([each.id for each in events if isinstance(each.event, Change)], newest)
        if not topics or not stretches:
            return Together()
        after, end = stretches[0][0], stretches[-1][1]
        if after >= recent.after:
            return self._by_transaction(takewhile(lambda told: told.id <= end, recent.events_after(after)), newest)
        stretches = [(after, end) for after, end in stretches if end - after > 1]
        wanted = self._wanted(events, topics, many=sum(end - after for after, end in stretches) > MANY)
        if wanted is None or not stretches:
            return self._by_transaction(events, newest)
        shapes, contents = self._hub.shapes, self._store.contents
        found = await self._store.read(lambda db: _read(db, stretches, wanted, shapes, contents))
        every = {each.id: Told(each) for each in found} | {each.id: each for each in events}
        return self._by_transaction([told for _, told in sorted(every.items())], newest)

    def _by_transaction(self, events: Iterable[Told], newest: int) -> Together:
        transactions: list[list[Told]] = []
        end = 0
        for told in events:
            if told.id > end:
                end = self._store.borders.end(told.id, newest)
                transactions.append([])
            transactions[-1].append(told)
        return Together(*transactions)

    def _wanted(self, events: Sequence[Told], topics: Collection[str], *, many: bool) -> Wanted | None:
        """Say what of the outbox may decide; ``None`` where that is more than can be read."""
        asked: list[tuple[Shape, RowFilter | None]] = []
        for topic in topics:
            grant, shape = self._hub.access.grant(topic), self._hub.table(topic)
            key = "reference_id" if grant.kind is not TableKind.PLAIN else _key(shape)
            columns = {topic: key}
            if grant.join_table is not None:
                columns[ascii_fold(grant.join_table)] = grant.join_column
            named = {
                value_of(each.event, image, key)
                for each in events
                if key is not None and isinstance(each.event, Change) and each.topic == topic
                for image in (each.event.old, each.event.new)
                if image is not None
            }
            rows = [each for each in named if isinstance(each, (str, int))]
            if many and (key is None or len(rows) < len(named)):
                return None
            for shape in self._hub.shapes.values():
                column = columns.get(ascii_fold(shape.table))
                if ascii_fold(shape.table) in columns and (rows or not many):
                    asked.append((shape, _filter(shape, column, rows) if many else None))
        return Wanted.rows(asked)


def _key(shape: Shape | None) -> str | None:
    return shape.columns[shape.key[0]].name if shape is not None and len(shape.key) == 1 else None


def _filter(shape: Shape, column: str | None, rows: Sequence[str | int]) -> RowFilter | None:
    try:
        return None if column is None else compile_table({column: list(rows)}, shape)
    except BadFilter:  # it had another name then
        return None


def _read(
    db: sqlite3.Connection,
    stretches: Sequence[tuple[int, int]],
    wanted: Wanted,
    shapes: Mapping[int, Shape],
    contents: Contents,
) -> list[Change]:
    found: list[Change] = []
    for after, end in stretches:
        position = after
        while position < end:
            page = replay.page(db, position, end, wanted, shapes, contents, complete=True)
            position = schema.oldest(db) if page.trimmed else page.end
            found += [each for each in page.events if isinstance(each, Change)]
    return found
