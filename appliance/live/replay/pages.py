"""A page of a snapshot, as of one moment: what its reader may see then, too, is as it was asked for.

Which rows somebody may read is known as of the tail's last look, and another process may have taken that away since.
Rows are read as they are now, so rights that are older would show what nobody could SELECT at any time.
"""

from __future__ import annotations

import sqlite3

from appliance.live.fanout.hub import Hub
from appliance.live.fanout.subscribers import Subscription
from appliance.live.matching.access import Access, Reader
from appliance.live.replay import lapse
from appliance.model import Shape, ascii_fold
from appliance.store.access import callers
from appliance.store.access.readable import readable
from appliance.store.store import Store
from appliance.store.tables import snapshot
from appliance.store.tables.snapshot import Condition, Place, RowsPage


async def read(
    hub: Hub, store: Store, subscription: Subscription, shape: Shape, condition: Condition, place: Place
) -> tuple[RowsPage, bool]:
    """Read the next rows, and say whether its reader might still see them behind that.

    Raises what ``snapshot.page`` raises.
    """
    reader, known = subscription.reader, lapse.known(hub)

    def work(db: sqlite3.Connection) -> tuple[RowsPage, bool]:
        page = snapshot.page(db, shape, condition, place)
        return page, not lapse.may_differ(db, known) or _sees_the_same(db, hub.access, reader, shape)

    return await store.read(work, patient=True)


def _sees_the_same(db: sqlite3.Connection, access: Access, reader: Reader, shape: Shape) -> bool:
    """Whether a reader may see the same of a table's rows now as is known of it."""
    granted, (caller,) = callers.with_grants(db, [reader.principal], tables=True)
    grant = granted.get(ascii_fold(shape.table)) if granted is not None and not caller.refused else None
    if grant is None:
        return False
    known = readable(access.grant(shape.table), reader.principal, reader.groups)
    return readable(grant, caller.principal, caller.groups) == known
