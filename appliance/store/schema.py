"""What is ours in the user's file: the ``_appliance_*`` tables, their format, and the settings kept in them."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.capture import outbox
from appliance.errors import StoreUnusable
from appliance.store.connections import begin_immediate

#: The format of the tables below. A file of a later format is refused, one of an earlier is migrated.
FORMAT = 1

DDL = (
    """CREATE TABLE IF NOT EXISTS "_appliance_meta" (name TEXT PRIMARY KEY, value) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS "_appliance_topic" (
    name TEXT PRIMARY KEY COLLATE NOCASE, durable INTEGER NOT NULL, permission INTEGER NOT NULL, owner TEXT
) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS "_appliance_unwatched" (
    "table" TEXT PRIMARY KEY COLLATE NOCASE
) WITHOUT ROWID""",
    *outbox.DDL,
)

_GET = "SELECT value FROM _appliance_meta WHERE name=?"
_SET = "INSERT INTO _appliance_meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value=excluded.value"


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Run the block in one ``BEGIN IMMEDIATE`` transaction: committed at its end, rolled back if it raises.

    Waits for other writers for as long as the connection's busy timeout. Raises ``sqlite3.OperationalError``.
    """
    begin_immediate(db)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def exists(db: sqlite3.Connection) -> bool:
    """Whether this file is a store already."""
    return db.execute("SELECT 1 FROM sqlite_schema WHERE name='_appliance_meta'").fetchone() is not None


def get(db: sqlite3.Connection, name: str) -> str | int | None:
    """Read one setting; ``None`` when it was never set."""
    row = db.execute(_GET, (name,)).fetchone()
    return None if row is None else row[0]


def put(db: sqlite3.Connection, name: str, value: str | int) -> None:
    """Write one setting."""
    db.execute(_SET, (name, value))


def check_format(db: sqlite3.Connection) -> None:
    """Raise ``StoreUnusable`` when a later version of this program has made the tables."""
    found = get(db, "format") if exists(db) else None
    if isinstance(found, int) and found > FORMAT:
        raise StoreUnusable(
            f"this store has format {found}, this program knows formats up to {FORMAT}; use the newer live-appliance"
        )


def prepare(db: sqlite3.Connection) -> None:
    """Make what is missing of our tables. Idempotent; writes nothing when all is there.

    Raises ``StoreUnusable`` for a store of a later format.
    """
    check_format(db)
    if exists(db) and get(db, "format") == FORMAT:
        return
    with transaction(db):
        for statement in DDL:
            db.execute(statement)
        put(db, "format", FORMAT)
        put(db, "secret", secrets.token_hex(32))
        put(db, "generation", 0)


def bump(db: sqlite3.Connection) -> int:
    """Begin a new generation of topics and settings, so that a running server sees it with its next look."""
    db.execute("UPDATE _appliance_meta SET value = value + 1 WHERE name='generation'")
    return generation(db)


def generation(db: sqlite3.Connection) -> int:
    """Give the generation of topics and settings: it grows with each write of a command or request to them."""
    found = get(db, "generation")
    return found if isinstance(found, int) else 0


def highest(db: sqlite3.Connection) -> int:
    """Give the highest id that the outbox has handed out; 0 when none."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name='_appliance_outbox'").fetchone()
    return 0 if row is None else int(row[0])
