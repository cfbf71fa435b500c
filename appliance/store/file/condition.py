"""How the store's file is: what keeps it from being written and captured just now."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from appliance.store.file.writer import Writer


class Condition:
    """Says what is wrong with the file at ``path``, among it less than ``free_bytes`` on its disk."""

    def __init__(self, path: Path, writer: Writer, free_bytes: int) -> None:
        #: Whether somebody migrates, so that nothing is captured.
        self.suspended = False
        #: Whether there is no file at the path: somebody has moved it.
        self.absent = False
        #: Why nobody can read the file anew, who has not read it yet; ``None`` when that can be done.
        self.unreadable: str | None = None
        self._path = path
        self._writer = writer
        self._free_bytes = free_bytes

    def problems(self) -> list[str]:
        """Say what is wrong, a sentence each."""
        found = []
        if self.absent:
            found.append(f"there is no file {self._path} any more, so nothing is written; put it back")
        if self._writer.blocked is not None:
            found.append(f"the store cannot be written: {self._writer.blocked}")
        if self.unreadable is not None:
            found.append(f"the store cannot be opened by anybody: {self.unreadable}; see `live-appliance check`")
        if self.suspended:
            found.append("somebody migrates the schema: nothing is captured until that ends")
        try:
            free = shutil.disk_usage(self._path.parent).free
        except OSError as error:
            found.append(f"the directory of the store cannot be looked at: {error.strerror}")
        else:
            if free < self._free_bytes:
                found.append(f"only {free >> 20} MiB are free on the disk of the store; make room")
        return found

    async def try_writing(self) -> None:
        """Write what changes nothing if the last write could not be done. Raises as ``Writer.commit`` says."""
        if self._writer.blocked is not None:
            await self._writer.commit(_touch)


def _touch(db: sqlite3.Connection) -> None:
    db.execute("UPDATE _appliance_meta SET value = value WHERE name = 'format'")
