"""The shapes that no table has any more: forgotten once no kept row of the outbox has them.

Whoever makes a table for each of its tasks, or migrates often, would else have all that there ever were read with each
change of the schema. Works: plain functions on an open connection.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from typing import Final

from appliance.store.file import schema

#: Each of them, with the newest id of the outbox when that was found: none of its rows comes later.
_ENDED: Final = "ended"


def ended(db: sqlite3.Connection) -> dict[int, int]:
    """Give the shapes that have ended, as far as that was noted, each with the last id that a row of it may have."""
    return {int(shape): last for shape, last in json.loads(str(schema.get(db, _ENDED) or "{}")).items()}


def forget(db: sqlite3.Connection, captured: Collection[int]) -> None:
    """Note, inside a transaction, which shapes have ended but for those that are ``captured``, and forget what can be.

    That is a shape whose rows were all trimmed, copies of its rows, and the break of a table that has no shape left:
    whoever comes back from before it has lost its position anyway. The newest shape stays: the next id comes from it.
    """
    before, newest, oldest = ended(db), schema.highest(db), schema.oldest(db)
    shapes = [shape for (shape,) in db.execute("SELECT id FROM _appliance_shape ORDER BY id").fetchall()]
    now = {shape: before.get(shape, newest) for shape in shapes[:-1] if shape not in captured}
    gone = [(shape,) for shape, last in now.items() if last < oldest]
    if gone:
        db.executemany("DELETE FROM _appliance_shape WHERE id=?", gone)
        db.executemany("DELETE FROM _appliance_scratch WHERE shape=?", gone)
        db.execute('DELETE FROM _appliance_break WHERE "table" NOT IN (SELECT "table" FROM _appliance_shape)')
    left = {shape: last for shape, last in now.items() if last >= oldest}
    if left != before:
        schema.put(db, _ENDED, json.dumps(left))
