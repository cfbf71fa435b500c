"""Whether a file is sound, as far as SQLite can tell without what only its application has."""

from __future__ import annotations

import sqlite3

from appliance.model import quote_identifier


def is_foreign(error: sqlite3.Error) -> bool:
    """Whether a collation is missing that only an application has."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR_MISSING_COLLSEQ


def faults(db: sqlite3.Connection, check: str, most: int) -> list[str]:
    """Say what ``check``, a ``quick_check`` or ``integrity_check``, finds; about ``most`` faults at most.

    SQLite cannot check an index under an application's collation, which is not here: then each table is checked that
    has none. Raises ``sqlite3.Error``.
    """
    whole = _faults(db, f"{check}({most})")
    if whole is not None:
        return whole
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type='table' AND rootpage > 0").fetchall()
    each = [_faults(db, f"{check}({quote_identifier(name)})") or [] for (name,) in tables]
    return [fault for found in each for fault in found][:most]


def _faults(db: sqlite3.Connection, check: str) -> list[str] | None:
    """Give the faults that a check finds; ``None`` where a collation is not here."""
    try:
        found = db.execute(f"PRAGMA {check}").fetchall()
    except sqlite3.OperationalError as error:
        if not is_foreign(error):
            raise
        return None
    return [" ".join(str(fault).split()) for (fault,) in found if fault != "ok"]
