"""A table's shape to the SQL of its triggers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from appliance.capture.images import Images, Trigger
from appliance.capture.replace import Recipe
from appliance.capture.shape import Table, covers
from appliance.model import Shape


def triggers(table: Table, shape: Shape) -> tuple[Trigger, ...]:
    """Give all triggers of a table, in the order in which they must be created: SQLite fires the newest first."""
    writer = Recipe(table, shape) if covers(table, shape) else Images(table, shape)
    return writer.all()


#: Tables whose fingerprint is known. To write the SQL of 500 tables takes 0.2 s, and it is asked for with each change
#: of the schema, whichever table it is of.
_KNOWN: Final = 4096


@lru_cache(_KNOWN)
def fingerprint(table: Table, shape: Shape) -> bytes:
    """Give the fingerprint of all triggers of a table, in their order."""
    return fingerprint_of((each.name, table.name, each.sql) for each in triggers(table, shape))


def fingerprint_of(made: Iterable[tuple[str, str, str]]) -> bytes:
    """Give the fingerprint of triggers, each its name, its table and the SQL that made it."""
    return hashlib.sha256(repr(list(made)).encode("utf-8", "surrogatepass")).digest()
