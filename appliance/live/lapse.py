"""Whether somebody's rights have changed while nobody was there to be told: what is held may be too much now."""

from __future__ import annotations

from functools import partial

from appliance.live.access import EVERYTHING, RIGHTS, Access, Reader, Stale
from appliance.live.hub import Hub
from appliance.live.telling import Told
from appliance.model import ascii_fold
from appliance.store import replay, schema
from appliance.store.store import Store
from appliance.store.wanted import Wanted


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
    return Access.stale(found)


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
        stale = await changed(hub, store, after, upto)
        if stale.tables or stale.concerns(principal):
            return True
        after = upto
    return False
