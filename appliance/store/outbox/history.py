"""What has happened to one row, as far back as the outbox goes. Works: plain functions on an open connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from appliance.capture.contents import Contents
from appliance.errors import BadFilter, CommandError
from appliance.model import JSON, Change, Image, Shape, ascii_fold
from appliance.protocol.filters import RowFilter, compile_table
from appliance.store.file import schema
from appliance.store.outbox import replay
from appliance.store.outbox.wanted import Wanted
from appliance.store.tables import watch


def history(db: sqlite3.Connection, table: str, key: Sequence[JSON]) -> Iterator[Change]:
    """Give the changes of the rows that have, or had, this primary key, in their order.

    ``key`` are the values of the key's columns, or the rowid of a table without a key, compared under each column's
    affinity and collation. Raises ``CommandError``: no such table, or no such key.
    """
    position, newest = schema.oldest(db), schema.highest(db)
    shapes = watch.load_shapes(db)
    named = [shape for shape in shapes.values() if ascii_fold(shape.table) == ascii_fold(table)]
    if not named:
        raise CommandError(f'no table "{table}" was ever captured; `live-appliance table list` names those there are')
    wanted = {shape.id: found for shape in named if (found := _Row.of(shape, key)) is not None}
    if not wanted:
        raise CommandError(_expected(named[-1], key))
    asked = Wanted.any_of([row.wanted for row in wanted.values()])
    for page in replay.pages(db, position, newest, asked, shapes, Contents()):
        for event in page.events:
            if isinstance(event, Change) and event.shape.id in wanted and wanted[event.shape.id].is_in(event):
                yield event


class _Row:
    """One row of a table, by its key under one shape of the table."""

    def __init__(self, shape: Shape, rowid: int | None, chosen: RowFilter | None) -> None:
        self._rowid = rowid
        self._filter = chosen
        self.wanted = Wanted.rows([(shape, chosen)])

    @classmethod
    def of(cls, shape: Shape, key: Sequence[JSON]) -> _Row | None:
        """Make one; ``None`` when the shape has no such key."""
        if shape.rowid:
            text = str(key[0]) if len(key) == 1 else ""
            return cls(shape, int(text), None) if text.removeprefix("-").isdecimal() and text.isascii() else None
        if not shape.key or len(key) != len(shape.key):
            return None
        names = [shape.columns[position].name for position in shape.key]
        filters: dict[str, JSON] = {name: {"eq": value} for name, value in zip(names, key, strict=True)}
        try:
            return cls(shape, None, compile_table(filters, shape))
        except BadFilter as error:
            raise CommandError(f"such a key cannot be looked for: {error}") from error

    def is_in(self, change: Change) -> bool:
        """Whether the change is one of this row, by its key before or after."""
        return any(image is not None and self._has(change, image) for image in (change.old, change.new))

    def _has(self, change: Change, image: Image) -> bool:
        if self._filter is None:
            return image.rowid == self._rowid
        return self._filter.matches(change.op, image)


def _expected(shape: Shape, key: Sequence[JSON]) -> str:
    if shape.rowid:
        return f'"{shape.table}" has no primary key: give the rowid, a whole number'
    if not shape.key:
        return f'the key of "{shape.table}" is not captured, so its rows cannot be told apart'
    names = ", ".join(shape.columns[position].name for position in shape.key)
    return f'the key of "{shape.table}" is {names}, not {len(key)} values: give a JSON list of {len(shape.key)}'
