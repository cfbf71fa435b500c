"""Whether the file is still the one that was opened, while it is served; at a start ``incarnation`` looks."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from appliance.store.file import incarnation, schema
from appliance.store.file.connections import open_again
from appliance.store.file.live_file import LiveFile
from appliance.store.file.place import identity


def is_same(database: Path, incarnation: str, position: int) -> bool:
    """Whether the file still holds this incarnation and ids up to ``position``, seen with eyes that have seen nothing.

    Whoever copies another file over this one (``cp``) keeps its inode, and SQLite's connections keep the pages that
    they have read. Raises ``sqlite3.Error``.
    """

    def holds(db: sqlite3.Connection) -> bool:
        db.execute("BEGIN")
        there = schema.exists(db)
        return there and schema.get(db, "incarnation") == incarnation and schema.highest(db) >= position

    try:
        with closing(open_again(database, busy_timeout_s=0, mode="ro")) as db:
            return holds(db)
    except sqlite3.DatabaseError as error:
        if not _is_corrupt(error):
            raise
        # A longer file than before: how many pages there are is in the index of the WAL, which knows of no copy.
        with closing(open_again(database, busy_timeout_s=0, mode="ro&immutable=1")) as db:
            if holds(db):
                raise
        return False


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT


class Guard:
    """Says whether the file is still the one that was opened: whoever copies another over it does not tell SQLite.

    Our connections keep pages of before, and would put them into the other file with whatever they write.
    """

    def __init__(self, database: Path, incarnation: str, live: LiveFile) -> None:
        self._database = database
        self._incarnation = incarnation
        self._live = live
        self._identity = identity(database)
        self._seen: tuple[int, int] | None = None

    def is_ours(self, db: sqlite3.Connection) -> bool:
        """Look at the file: 3 µs, or 1 ms when it was written to since, by a checkpoint as a rule.

        It must hold all that was handed out, and all that ``db``, which writes for us, has seen. Raises
        ``sqlite3.Error``.
        """
        try:
            status = os.stat(self._database)
        except OSError:  # as for ``identity``
            return False
        if (status.st_dev, status.st_ino) != self._identity:
            return False  # to open it would bring the old one's WAL into it
        state = status.st_mtime_ns, status.st_size
        if state != self._seen:
            handed_out = self._live.highest
            try:
                seen = schema.highest(db)
            except sqlite3.DatabaseError as error:
                if not _is_corrupt(error):
                    raise
                is_same(self._database, self._incarnation, handed_out)  # raises where the file is damaged
                return False  # the file is sound, but does not go with the pages that are kept
            if not is_same(self._database, self._incarnation, max(handed_out, seen)):
                return False
            self._seen = state
        return True

    def end(self, db: sqlite3.Connection, *, checkpoint: bool) -> None:
        """Mark a clean end as ``incarnation.end`` does, if the file is ours. Raises ``sqlite3.Error``."""
        if not self.is_ours(db):
            raise sqlite3.OperationalError("the file was moved away or replaced by another")
        incarnation.end(db, checkpoint=checkpoint)
