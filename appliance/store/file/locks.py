"""Waiting for the write lock, which SQLite gives to one connection at a time, of any program."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

#: The shortest and the longest pause between two tries for the write lock, seconds.
LOCK_PAUSE_S: Final = (0.0001, 0.001)

#: How long a wait for the write lock goes on at most from when there is a hurry, seconds: the default busy timeout.
HURRIED_S: Final = 5.0


class Connection(sqlite3.Connection):
    """A connection whose wait for the write lock another thread can cut short (``begin_immediate``).

    ``hurried``: since when there is a hurry, ``time.monotonic()``; what waits then waits ``HURRIED_S`` more at most.
    """

    hurried: float | None = None


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another program's lock was in the way, so that trying again can help."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def begin_immediate(db: sqlite3.Connection) -> None:
    """Take the write lock; wait for it as long as the connection's busy timeout.

    SQLite's own busy handler sleeps up to 100 ms between two tries and so loses for seconds against a program that
    writes in a loop. Tries that follow each other within a millisecond find the gap between two of its commits.

    Raises ``sqlite3.OperationalError``.
    """
    (patience_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    begun = time.monotonic()
    db.execute("PRAGMA busy_timeout=0").fetchall()
    try:
        pause = LOCK_PAUSE_S[0]
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                deadline, hurried = begun + patience_ms / 1000, getattr(db, "hurried", None)
                if hurried is not None:
                    deadline = min(deadline, max(begun, hurried) + HURRIED_S)
                if not is_locked(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(pause)  # in the connection's own thread
                pause = min(pause * 2, LOCK_PAUSE_S[1])
            else:
                return
    finally:
        db.execute(f"PRAGMA busy_timeout={int(patience_ms)}").fetchall()
