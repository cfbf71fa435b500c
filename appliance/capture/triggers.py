"""A table's shape to the SQL of its triggers."""

from __future__ import annotations

from appliance.capture.images import Images, Trigger
from appliance.capture.replace import Recipe, covers
from appliance.capture.shape import Table
from appliance.model import Shape


def triggers(table: Table, shape: Shape) -> tuple[Trigger, ...]:
    """Give all triggers of a table, in the order in which they must be created: SQLite fires the newest first."""
    writer = Recipe(table, shape) if covers(table, shape) else Images(table, shape)
    return writer.all()
