"""Whether a file is sound, as far as SQLite can tell without what only its application has."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.model import INTERNAL_PREFIX, quote_identifier

#: How SQLite's words begin where the schema names what is not in this program: a function, a module, a tokenizer. It
#: has a code of its own only for a collation. A table that is not there may be a module's.
_MISSING: Final = (
    "no such function: ", "unknown function: ", "no such module: ", "no such table: ", "no such tokenizer: ",
    "unknown tokenizer: ", "unsafe use of ",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Soundness:
    """What a check has found.

    ``unchecked`` are tables that SQLite cannot look at here, by name, each with SQLite's reason: no fault of theirs.
    """

    faults: tuple[str, ...]
    unchecked: Mapping[str, str]


def is_foreign(error: sqlite3.Error) -> bool:
    """Whether something is missing that only an application has: a collation, a function, a virtual table's module."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR_MISSING_COLLSEQ:
        return True
    return _is_refusal(error) and str(error).startswith(_MISSING) and INTERNAL_PREFIX not in str(error)


def look(db: sqlite3.Connection, check: str, most: int) -> Soundness:
    """Say what ``check``, a ``quick_check`` or ``integrity_check``, finds; about ``most`` faults at most.

    SQLite ends the whole check where it needs an application's collation or function, which is not here, as for an
    index by it: then each table is checked that needs none. Raises ``sqlite3.Error``.
    """
    # What a table's CHECK says of its rows is the application's affair, and may call what only that has.
    db.execute("PRAGMA ignore_check_constraints=ON")
    try:
        try:
            return Soundness(_faults(db, f"{check}({most})"), {})
        except sqlite3.OperationalError as error:
            if not _is_refusal(error):
                raise
        return _each(db, check, most)
    finally:
        db.execute("PRAGMA ignore_check_constraints=OFF")


def _each(db: sqlite3.Connection, check: str, most: int) -> Soundness:
    found: list[str] = []
    unchecked = {}
    for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type='table'").fetchall():
        try:
            found += _faults(db, f"{check}({quote_identifier(table)})")
        except sqlite3.OperationalError as error:
            if not _is_refusal(error):
                raise
            unchecked[table] = str(error)
    return Soundness(tuple(found[:most]), unchecked)


def _faults(db: sqlite3.Connection, check: str) -> tuple[str, ...]:
    found = db.execute(f"PRAGMA {check}").fetchall()
    return tuple(" ".join(str(fault).split()) for (fault,) in found if fault != "ok")


def _is_refusal(error: sqlite3.Error) -> bool:
    """Whether SQLite cannot do what it is asked, rather than cannot read the file: locked, failing, corrupt."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_ERROR
