"""Whose the rows of plain tables are by now that say whose they are.

Who has lost a row is not sent what it was before, however long ago that was; for rows of standard tables the facts say
so by themselves (``Access.guard``). Only a replay asks: what comes next for the hub is told as it comes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from appliance.live.fanout.hub import Hub
from appliance.live.matching.course import is_renamed
from appliance.live.matching.facts import Facts, name_of, row_of, value_of
from appliance.live.matching.telling import Told
from appliance.live.replay import beside
from appliance.model import Change, Image, ascii_fold
from appliance.protocol.permissions import Guarded, owner_of
from appliance.store.access.grants import CLOSED, TableKind
from appliance.store.file import schema
from appliance.store.store import Store
from appliance.store.tables.owners import key_of, owners

#: More changes than this are not gone through to find whether another row has taken the place of an event's own.
CHANGES: Final = 500


async def known(hub: Hub, store: Store, facts: Facts, events: Sequence[Told], topics: Collection[str]) -> Facts:
    """Add to the facts of these events whose the rows are by now, of plain tables among these (folded).

    Nothing of a row whose place another has taken since, where that is found: it is judged as one that is gone. Raises
    ``sqlite3.Error``.
    """
    columns = {topic: column for topic in topics if (column := hub.access.grant(topic).owner_column) is not None}
    changes = _made(events, columns)
    if not changes:
        return facts
    now, newest = await store.read(lambda db: _read(db, store, columns, changes))
    lost = [
        (change, row)
        for change, image in changes
        if (row := row_of(change, image)) in now
        and now[row] != owner_of(value_of(change, image, columns[ascii_fold(change.shape.table)]))
    ]
    left = await _left(hub, store, lost, newest) if lost else {}
    mine = [(each, row) for each, row in lost if left.get(row, 0) < each.id]
    return replace(facts, owners={each.id: now[row] for each, row in mine})


async def as_now(hub: Hub, store: Store, facts: Facts, events: Sequence[Told], topics: Collection[str]) -> Facts:
    """Have what these events made of rows of these tables (folded), and found, be for whom the rows are for now only.

    That is nobody where they are gone. It is for where too little is known of what else a transaction has done to them:
    none of it is shown to whom the transaction gives a row and takes it away from again; and of what rows were nothing
    but their keys, as nobody may have read them so. Raises ``sqlite3.Error``.
    """
    grants = {topic: grant for topic in topics if (grant := hub.access.grant(topic)).object_table is None}
    columns = {topic: grant.owner_column for topic, grant in grants.items() if grant.owner_column is not None}
    changes = _made(events, grants)
    now, _ = await store.read(lambda db: _read(db, store, columns, changes)) if columns else ({}, 0)
    last: dict[int, Guarded] = {}
    for change, image in changes:
        topic, row = ascii_fold(change.shape.table), row_of(change, image)
        if grants[topic].kind is not TableKind.PLAIN:
            last[change.id] = facts.guards.get(name_of(change, image)) or CLOSED
        elif topic in columns:
            last[change.id] = grants[topic].guarded._replace(owner=now[row]) if row in now else CLOSED
    veiled = dict.fromkeys(topics, events[-1].id)
    return replace(facts, last={**facts.last, **last}, between={*facts.between, *last}, closed={}, veiled=veiled)


def _made(events: Sequence[Told], topics: Collection[str]) -> list[tuple[Change, Image]]:
    """Give the changes of rows of these tables (folded) that leave a row, and what it is then."""
    return [
        (change, change.new)
        for told in events
        if told.topic in topics and isinstance(change := told.event, Change) and change.new is not None
    ]


def _read(
    db: sqlite3.Connection, store: Store, columns: Mapping[str, str], changes: Sequence[tuple[Change, Image]]
) -> tuple[dict[Hashable, str | None], int]:
    """Read whose the rows of these changes are, and the newest position then."""
    found: dict[Hashable, str | None] = {}
    every = store.resources.read(db)
    db.execute("BEGIN")
    try:
        for topic, column in columns.items():
            resource = every.get(topic)
            if resource is None or (names := key_of(resource.shape)) is None:
                continue
            rows = {}
            for change, image in changes:
                if ascii_fold(change.shape.table) == topic and key_of(change.shape) == names:
                    key = tuple(value_of(change, image, name) for name in names) or (image.rowid,)
                    rows[key] = row_of(change, image)
            found.update({rows[key]: owner for key, owner in owners(db, resource, column, rows).items()})
        return found, schema.highest(db)
    finally:
        db.execute("COMMIT")


async def _left(hub: Hub, store: Store, changes: Sequence[tuple[Change, Hashable]], newest: int) -> dict[Hashable, int]:
    """Say of these changes' rows when one last went, or took another key: what is there now came behind that."""
    recent = [each for each, _ in changes if newest - each.id <= beside.AHEAD]
    found = await beside.behind(hub, store, recent, recent[0].id, newest, CHANGES) if recent else []
    return {
        row_of(each, each.old): each.id
        for each in found or ()
        if each.old is not None and (each.new is None or is_renamed(each))
    }
