"""A page of a snapshot, as of one moment: what its reader may see then, too, is as it was asked for.

Which rows somebody may read is known as of the tail's last look, and another process may have taken that away since.
Rows are read as they are now, so rights that are older would show what nobody could SELECT at any time.
"""

from __future__ import annotations

import sqlite3

from appliance.live import durable
from appliance.live.access import Access, Reader
from appliance.live.hub import Hub
from appliance.live.lapse import changed
from appliance.live.subscribers import Subscription
from appliance.model import Shape, ascii_fold
from appliance.store import callers, snapshot
from appliance.store.readable import readable
from appliance.store.snapshot import Condition, Place, RowsPage
from appliance.store.store import Store


async def read(
    hub: Hub, store: Store, subscription: Subscription, shape: Shape, condition: Condition, place: Place
) -> tuple[RowsPage, bool]:
    """Read the next rows, and say whether its reader might still see them behind that.

    Raises what ``snapshot.page`` raises.
    """
    reader, known = subscription.reader, durable.known(hub)

    def work(db: sqlite3.Connection) -> tuple[RowsPage, bool]:
        page = snapshot.page(db, shape, condition, place)
        return page, not durable.may_differ(db, known) or _sees_the_same(db, hub.access, reader, shape)

    return await store.read(work)


async def may_differ(hub: Hub, store: Store, reader: Reader, position: int) -> bool:
    """Whether something not known yet has changed a reader's rights, up to a position. Raises ``sqlite3.Error``.

    Rows are judged by the groups that they have as of a position.
    """
    stale = await changed(hub, store, hub.known_to, position)
    return stale.tables or stale.concerns(reader.principal)


def _sees_the_same(db: sqlite3.Connection, access: Access, reader: Reader, shape: Shape) -> bool:
    """Whether a reader may see the same of a table's rows now as is known of it."""
    granted, (caller,) = callers.with_grants(db, [reader.principal], tables=True)
    grant = granted.get(ascii_fold(shape.table)) if granted is not None and not caller.refused else None
    if grant is None:
        return False
    known = readable(access.grant(shape.table), reader.principal, reader.groups)
    return readable(grant, caller.principal, caller.groups) == known
