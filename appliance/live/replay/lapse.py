"""Whether somebody's rights have changed while nobody was there to be told: what is held may be too much now."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Final, NamedTuple

from appliance.live.fanout.hub import Hub
from appliance.live.matching.access import Reader
from appliance.live.matching.stale import EVERYTHING, RIGHTS, Stale, stale
from appliance.live.matching.telling import Told
from appliance.model import ascii_fold
from appliance.store.file import schema
from appliance.store.outbox import replay
from appliance.store.outbox.wanted import Wanted
from appliance.store.store import Store

#: Behind so many rows that nobody has looked at, the store is asked: that takes less than to look at them.
UNSEEN: Final = 1000


class Known(NamedTuple):
    """What rights rest on that were decided by: all up to an event id and a generation.

    ``shapes`` are those of the tables whose rows are rights, ``newest`` is the newest of any table.
    """

    position: int
    generation: int
    shapes: tuple[int, ...]
    newest: int


def known(hub: Hub) -> Known:
    """Say what is known at this moment."""
    shapes, newest = hub.access.shapes_of_rights(hub.shapes)
    return Known(hub.position.id, hub.generation, shapes, newest)


def may_differ(db: sqlite3.Connection, decided: Known) -> bool:
    """Whether somebody's rights may be others than they were."""
    position, generation, shapes, newest = decided
    listed = ",".join(map(str, shapes))
    row = db.execute(_MOVED % listed, (generation, position + UNSEEN, position, newest)).fetchone()
    return bool(row[0])


_MOVED: Final = """SELECT CASE
WHEN ifnull((SELECT value FROM _appliance_meta WHERE name='generation'), 0) <> ? THEN 1
WHEN ifnull((SELECT max(id) FROM _appliance_outbox), 0) > ? THEN 1
ELSE EXISTS(SELECT 1 FROM _appliance_outbox WHERE id > ? AND (shape IN (%s) OR shape > ?)) END"""


async def changed(hub: Hub, store: Store, after: int, upto: int) -> Stale:
    """Say which rights have changed by what is in a stretch of the outbox; all may have, where that is not kept.

    Read from the outbox: the changes of accounts, memberships and grants. What concerns single rows, their own events
    tell. Raises ``sqlite3.Error``.
    """
    found: list[Told] = []
    while after < upto:
        shapes = hub.shapes
        wanted = Wanted.rows([(shape, None) for shape in shapes.values() if ascii_fold(shape.table) in RIGHTS])
        read = partial(
            replay.page, after=after, upto=upto, wanted=wanted, shapes=shapes, contents=store.contents, complete=True
        )
        page = await store.read(read)
        if page.trimmed or page.faults:
            return EVERYTHING
        found += [Told(event) for event in page.events]
        after = page.end
    return stale(found)


async def changed_upto(hub: Hub, store: Store, reader: Reader, position: int) -> bool:
    """Whether something not known yet has changed a reader's rights, up to a position. Raises ``sqlite3.Error``.

    Rows are judged by the groups that they have as of a position.
    """
    rights = await changed(hub, store, hub.known_to, position)
    return rights.tables or rights.concerns(reader.principal)


async def changed_since(hub: Hub, store: Store, reader: Reader, since: int) -> bool:
    """Whether something after the position ``since`` has changed what the rights of ``reader`` rest on.

    Raises ``sqlite3.Error``.
    """
    principal = reader.principal
    if principal.admin and not principal.appointed:
        return False
    renewed, after, upto = -1, since, since
    while renewed != hub.access.renewed or after < upto:
        if renewed != hub.access.renewed:
            # Rights are read as they are in the store, where the hub has not come to yet, too.
            renewed = hub.access.renewed
            upto = await store.read(schema.highest)
        rights = await changed(hub, store, after, upto)
        if rights.tables or rights.concerns(principal):
            return True
        after = upto
    return False
