"""Whose the rows of a plain table are just now. Works: plain functions on an open connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from appliance.model import Row, Shape, quote_identifier
from appliance.protocol.collations import COLLATIONS
from appliance.protocol.permissions import owner_of
from appliance.store.file import connections
from appliance.store.file.texts import placeholder
from appliance.store.tables.resources import Resource


def key_of(shape: Shape) -> tuple[str, ...] | None:
    """Name the columns that a row is found by; none for the rowid, ``None`` where there is no index to find it by."""
    columns = [shape.columns[position] for position in shape.key]
    known = all(column.collation.upper() in COLLATIONS for column in columns)
    return tuple(column.name for column in columns) if known and (columns or shape.rowid) else None


def owners(db: sqlite3.Connection, resource: Resource, column: str, keys: Iterable[Row]) -> dict[Row, str | None]:
    """Say whom a column names as the owner of the rows that have these keys (``key_of``).

    Nothing of a key that no row has, or several have, as SQLite lets them have NULL.
    """
    names = [quote_identifier(name) for name in key_of(resource.shape) or ()] or resource.place

    def read() -> dict[Row, str | None]:
        found = {}
        for key in keys:
            bound = [placeholder(value) for value in key]
            where = " AND ".join(f"{name} IS {mark}" for name, (mark, _) in zip(names, bound, strict=True))
            sql = f"SELECT {quote_identifier(column)} FROM main.{quote_identifier(resource.name)} WHERE {where} LIMIT 2"
            these = db.execute(sql, [value for _, value in bound]).fetchall()
            if len(these) == 1:
                found[key] = owner_of(these[0][0])
        return found

    return connections.tolerant(db, read)
