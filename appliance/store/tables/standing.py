"""What stands in the schema: our triggers, and what is not ours. Works: plain functions on an open connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from appliance.capture.triggers import fingerprint_of
from appliance.model import INTERNAL_PREFIX, ascii_fold
from appliance.store.file import connections


@dataclass(frozen=True, slots=True)
class Standing:
    """One of our triggers as it stands in the schema."""

    name: str
    table: str
    sql: str
    place: int


def ours(db: sqlite3.Connection) -> list[Standing]:
    """Give our triggers on other people's tables, in the order in which they were made."""
    rows = connections.fetch(
        db,
        "SELECT name, tbl_name, sql, rowid FROM main.sqlite_schema WHERE type='trigger' "
        "AND name LIKE '\\_appliance\\_%' ESCAPE '\\' AND tbl_name <> '_appliance_outbox' ORDER BY rowid",
    )
    return [Standing(*row) for row in rows]


def texts(triggers: Iterable[Standing]) -> dict[int, bytes]:
    """Give, by shape, the fingerprint of its triggers (``capture.triggers``).

    It is another one when somebody has renamed a column or a table that they name: SQLite writes them anew then.
    """
    said: dict[int, list[tuple[str, str, str]]] = {}
    for each in triggers:
        said.setdefault(shape_id(each), []).append((each.name, each.table, each.sql))
    return {each: fingerprint_of(several) for each, several in said.items()}


def shape_id(trigger: Standing) -> int:
    """Give the shape that a trigger captures; -1: its name is none of ours."""
    digits = trigger.name.removeprefix(INTERNAL_PREFIX).partition("_")[0]
    return int(digits) if digits.isdecimal() else -1


def newest_foreign(db: sqlite3.Connection) -> dict[str, int]:
    """Give, by table, the place of the newest trigger that is not ours: SQLite fires the newest first."""
    rows = connections.fetch(
        db,
        "SELECT tbl_name, rowid FROM main.sqlite_schema WHERE type='trigger' "
        "AND name NOT LIKE '\\_appliance\\_%' ESCAPE '\\' ORDER BY rowid",
    )
    return {ascii_fold(table): place for table, place in rows}


def foreign(db: sqlite3.Connection) -> dict[str, str | None]:
    """Give the SQL of everything in the schema that is not ours, by its type and name."""
    rows = connections.fetch(
        db,
        "SELECT type || ' ' || name, sql FROM main.sqlite_schema WHERE name NOT LIKE '\\_appliance\\_%' ESCAPE '\\'",
    )
    return dict(rows)
