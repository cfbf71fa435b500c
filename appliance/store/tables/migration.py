"""Our triggers out of the way while somebody changes the schema (``live-appliance migrate``).

Who migrates holds ``<db>-migrating`` locked and leaves a marker in the store, in the same transaction that takes the
triggers off; so no server, started before or meanwhile, puts them back. If he is killed, the lock is free, whatever
process has his number now, and the marker says nothing any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from appliance.errors import ApplianceError, StoreInUse, StoreUnusable
from appliance.store.file import schema
from appliance.store.file.connections import file_of
from appliance.store.file.place import identity

MARKER = "migrating"


class Suspended(ApplianceError):
    """Nothing may be put under capture: a migration is under way."""


@contextlib.contextmanager
def hold(database: Path) -> Iterator[None]:
    """Be the one who migrates, for as long as the block runs. Raises ``StoreInUse`` and ``StoreUnusable``."""
    path = _lock_file(database)
    while True:
        try:
            # Readable for the server, whoever it runs as.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreUnusable(f"{path} cannot be made ({error.strerror}); give this user write permission there") \
                from error  # fmt: skip
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreInUse(f"another migration of {database} is under way; wait for its end") from error
            status = os.fstat(descriptor)
            if identity(path) != (status.st_dev, status.st_ino):
                continue  # who had it before has just removed it
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def is_held(database: Path) -> bool:
    """Whether somebody migrates just now."""
    try:
        descriptor = os.open(_lock_file(database), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreUnusable(f"{_lock_file(database)} cannot be read ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def mark(db: sqlite3.Connection) -> None:
    """Leave the marker, inside the transaction that takes the triggers off."""
    schema.put(db, MARKER, 1)
    schema.bump(db)


def unmark(db: sqlite3.Connection) -> None:
    """Take the marker away, inside the transaction that puts the triggers back; nothing where there is none."""
    if db.execute("DELETE FROM _appliance_meta WHERE name=?", (MARKER,)).rowcount:
        schema.bump(db)


def check(db: sqlite3.Connection) -> None:
    """Raise ``Suspended`` while a migration of this file is under way."""
    if schema.get(db, MARKER) is not None and is_held(file_of(db)):
        raise Suspended("a migration is under way")


def _lock_file(database: Path) -> Path:
    return Path(f"{database.resolve()}-migrating")
