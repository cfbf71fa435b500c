"""The database's place: which file is there, and how one that is there no more is let go of with all its rows.

Whoever moves the file (``mv``) moves neither its WAL, which stays at the place, nor our connections, which go by their
descriptors. Three things follow:

* While the place is empty nothing beside it is touched. The file may come back, and other programs that have it open go
  on writing to the very WAL that is there.
* What is in the WAL is moved into the file, wherever that is now, for as long as we have both open: a checkpoint goes
  by the descriptors, too. SQLite makes none by itself when the last connection to a file is closed that has moved.
* Beside another file the WAL must not stay: the next to open that one would replay it over it
  (https://sqlite.org/howtocorrupt.html, section 1.4). So it is renamed at once, before its checkpoint, and then removed
  if nothing is left in it.

And one more from there being two files beside it: who deletes one of them under those who have it open parts them from
all who open the database later, who make it anew. Then our connections are given up for new ones. If nobody has made
it anew yet, all is moved into the database before; else it must not be, and closing them must not do it, either.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import struct
import time
from pathlib import Path
from typing import Final

import structlog

from appliance.errors import StoreUnusable
from appliance.store.file import schema

log = structlog.get_logger()

#: For how long the readers and writers of a file that has moved are waited for, milliseconds: this WAL may be beside
#: another file meanwhile.
SAVE_PATIENCE_MS: Final = 500

#: What SQLite has beside a database. The index goes first: a WAL without one is read anew, but an index that is found
#: beside another WAL is believed.
_BESIDE: Final = ("-shm", "-wal")

#: ``struct flock`` of a shared lock on what each connection in WAL mode has a shared lock on (SQLite's os.h).
_SHARED: Final = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0x40000002, 510, 0)


class Place:
    """Where the file is that was opened as ``path`` and holds this incarnation. Made while it is open there.

    ``called`` is what it was called by, where that is not ``path``: a link may lead to it. ``found`` is which file was
    there before it was opened, if another may have come to its place since.
    """

    def __init__(
        self, path: Path, incarnation: str, called: Path | None = None, found: tuple[int, int] | None = None
    ) -> None:
        self.path = path
        self.incarnation = incarnation
        self._called = called
        self._file = found or identity(path)
        self._beside = {suffix: identity(Path(f"{path}{suffix}")) for suffix in _BESIDE}
        self._aside: dict[str, Path] = {}
        self._pin: int | None = None

    def is_ours(self) -> bool:
        """Whether our file is there, and has been all the time."""
        return not self._aside and identity(self.path) == self._file

    def is_left(self) -> bool:
        """Whether a link that led to our file, which may be where it was, leads to another one now."""
        return self._called is not None and identity(self._called) not in (None, self._file)

    def is_taken(self) -> bool:
        """Whether another file is there, or has been and was made room for."""
        return bool(self._aside) or identity(self.path) not in (None, self._file)

    def lacks(self) -> list[str]:
        """Name what was deleted from beside our file: SQLite itself never does that while we have it open."""
        return [suffix for suffix, known in self._beside.items() if identity(f"{self.path}{suffix}") != known]

    def save(self, db: sqlite3.Connection) -> str | None:
        """Move all that is in the WAL into the file that ``db`` has open, wherever it is; say what is in the way.

        ``None``: nothing is in the WAL any more. Waits for others for no longer than ``SAVE_PATIENCE_MS`` each.
        """
        (patience_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
        db.execute(f"PRAGMA busy_timeout={SAVE_PATIENCE_MS}").fetchall()
        try:
            if schema.get(db, "incarnation") != self.incarnation:
                return "somebody has opened the other file beside it, and written to it"
            (busy, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            return str(error)
        finally:
            db.execute(f"PRAGMA busy_timeout={int(patience_ms)}").fetchall()
        return "another program is in a transaction" if busy else None

    def make_room(self) -> None:
        """Take what is ours from beside the other file, at once: whoever has it open goes on by its descriptors.

        Raises ``StoreUnusable`` when it cannot be done.
        """
        end = f"of-{self._file[1] if self._file else 0}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        for suffix, known in self._beside.items():
            there = Path(f"{self.path}{suffix}")
            try:
                if known is not None and identity(there) == known:  # what came with the other file stays
                    self._aside[suffix] = there.rename(f"{there}.{end}")
            except OSError as error:
                raise StoreUnusable(
                    f"{there} belongs to the file that was at {self.path} before, and cannot be renamed "
                    f"({error.strerror}); move it away before anybody opens the file that is there now"
                ) from error

    def leave(self, db: sqlite3.Connection) -> None:
        """Let go of a file that is not there any more: what ``db`` has open, and then is to be closed.

        Raises as ``make_room``.
        """
        if self.is_taken():
            self.make_room()
        fault = self.save(db)
        wal = self._aside.get("-wal")
        if wal is not None and not fault and not wal.stat().st_size:
            for each in self._aside.values():
                each.unlink(missing_ok=True)
        elif wal is not None or fault:
            wal = wal or Path(f"{self.path}-wal")
            log.error("wal_kept", wal=str(wal), reason=fault or "another program has written to it since")

    def part(self, db: sqlite3.Connection) -> None:
        """Give up connections that are parted from all others', as something is lacking; close them, then ``unpin``.

        SQLite would move what is in our WAL into the file, over what others have put there since, and delete their WAL,
        if the last connection to be closed could lock the file. So that is prevented, where the system can (Linux).
        """
        if self._pin is not None:
            return
        there = [Path(f"{self.path}{suffix}") for suffix in self.lacks()]
        anew = any(identity(each) for each in there)
        fault = "others have made it anew already, so what was in no other file is lost" if anew else self.save(db)
        log.error("wal_deleted", path=" ".join(map(str, there)), reason=fault or "all that it held is in the database")
        # Opened by us: to close it drops SQLite's locks, so it stays open for as long as there are any.
        with contextlib.suppress(AttributeError, OSError):
            self._pin = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.fcntl(self._pin, fcntl.F_OFD_SETLK, _SHARED)  # a lock of another owner, though of this process

    def unpin(self) -> bool:
        """Let others lock the file again, once all our connections are closed; whether there was a ``part``."""
        pin, self._pin = self._pin, None
        if pin is not None:
            os.close(pin)
        return pin is not None


def identity(path: str | Path) -> tuple[int, int] | None:
    """Identify a file without opening it; ``None`` when it is not there, or there is no way to it."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
