"""What else has happened to the rows of some events, and to what joins them to groups: asked of the outbox."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Final

from appliance.capture.contents import Contents
from appliance.live.fanout.hub import Hub
from appliance.live.matching.facts import value_of
from appliance.live.matching.telling import Told
from appliance.model import Change, Image, Shape, SQLiteValue, ascii_fold
from appliance.store.file.texts import is_utf_8
from appliance.store.outbox import replay
from appliance.store.outbox.wanted import Wanted
from appliance.store.store import Store

#: Pages of the outbox that are read, of half a MiB at most: where more has happened to the same rows in what counts as
#: one transaction, it is decided by the events in hand alone. Then who holds such rows may be told too little.
PAGES: Final = 32
#: Values that may be bound, of the 32,766 that SQLite takes; where they would be more, all rows of the tables are read.
BOUND: Final = 30_000
#: So many ids behind an event it is looked for how its row has ended, where another seems to have its name or place.
AHEAD: Final = 10_000


def wanted(hub: Hub, events: Sequence[Told], topics: Collection[str]) -> Wanted | None:
    """Want what has happened to the rows of these events, and to what joins them to groups; ``None``: to none."""
    rows: list[Wanted] = []
    asked: list[tuple[Shape, int]] = []
    for topic in topics:
        grant, now = hub.access.grant(topic), hub.table(topic)
        if now is None or grant.object_table is not None:  # what joins rows to groups is judged by those rows
            continue
        # Both tables name a row by the value of a column; ``None`` is the rowid.
        naming = {topic: now.columns[now.key[0]].name if now.key else None}
        if (joining := hub.access.joining(topic)) is not None:
            naming[joining] = grant.join_column
        named = {
            value
            for told in events
            if told.topic in naming and isinstance(told.event, Change)
            for image in (told.event.old, told.event.new)
            if image is not None and (value := _name(told.event, image, naming[told.topic])) is not None
        }
        places = [
            (shape, place)
            for shape in hub.shapes.values()
            if (folded := ascii_fold(shape.table)) in naming and (place := _place(shape, naming[folded])) is not None
        ]
        if named and places:
            rows.append(Wanted.named(places, tuple(named)))
            asked += places
    if not rows:
        return None
    every = Wanted.any_of(rows)
    return every if len(every.parameters) <= BOUND else Wanted.rows([(shape, None) for shape, _ in asked])


async def behind(
    hub: Hub, store: Store, changes: Sequence[Change], after: int, upto: int, most: int | None = None
) -> list[Change] | None:
    """Read what has happened to the rows of some changes in a stretch, as ``read`` does. Raises ``sqlite3.Error``."""
    topics = {ascii_fold(each.shape.table) for each in changes}
    asked = wanted(hub, [Told(each) for each in changes], topics)
    if asked is None:
        return []
    work = partial(read, stretches=[(after, upto)], wanted=asked, shapes=hub.shapes, contents=store.contents, most=most)
    return await store.read(work, patient=True)


def _name(change: Change, image: Image, column: str | None) -> SQLiteValue:
    """Give what names a row; ``None`` where that is nothing that SQLite can be asked for."""
    value = image.rowid if column is None else value_of(change, image, column)
    return None if isinstance(value, str) and not is_utf_8(value) else value


def _place(shape: Shape, column: str | None) -> int | None:
    """Say where in an image's values a column is, ``None``: the rowid; ``None`` where that shape has none."""
    if column is None:
        return 0 if shape.rowid else None
    folded = ascii_fold(column)
    return next(
        (place for place, each in enumerate(shape.columns, start=shape.rowid) if ascii_fold(each.name) == folded), None
    )


def read(
    db: sqlite3.Connection,
    stretches: Sequence[tuple[int, int]],
    wanted: Wanted,
    shapes: Mapping[int, Shape],
    contents: Contents,
    most: int | None = None,
) -> list[Change] | None:
    """Read what is wanted; ``None`` where it is more than ``PAGES``, or than ``most`` changes."""
    found: list[Change] = []
    several = (replay.pages(db, after, end, wanted, shapes, contents) for after, end in stretches)
    for number, page in enumerate(chain.from_iterable(several)):
        if number >= PAGES + len(stretches):
            return None
        found += [each for each in page.events if isinstance(each, Change)]
        if most is not None and len(found) > most:
            return None
    return found
