"""``backup`` and ``restore``: a whole copy of the store in one file, and a copy put in its place.

A copy is made through SQLite, as of one moment, while whoever writes goes on. It is looked at in full before it gets
its name, so under that name there is never anything but a sound, complete file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import CommandError, StoreInUse, StoreUnusable
from appliance.store import offline
from appliance.store.file import connections, live_file, schema
from appliance.store.file.locks import is_locked
from appliance.store.file.soundness import look

#: What SQLite may have beside a file: left there, it would be taken for a part of the file that comes instead.
_BESIDE: Final = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that was made.

    ``position`` is the last event in it; ``None``: the file is no store yet. ``unchecked`` is as in ``Soundness``.
    """

    path: Path
    bytes: int
    position: int | None
    unchecked: Mapping[str, str]


def backup(database: Path, destination: Path, *, force: bool = False) -> Copy:
    """Copy the store at ``database`` to ``destination``, whether or not a server runs.

    Raises ``CommandError``: there is a file already and not ``force``, or no copy can be made; ``StoreUnusable`` for a
    store of a later version.
    """
    connections.inspect(database, busy_timeout_s=offline.BUSY_TIMEOUT_S, create=False, write=False)
    _check_replaceable(destination)
    if destination.exists():
        if destination.samefile(database):
            raise CommandError("a store cannot be backed up onto itself; name another file")
        if not force:
            raise CommandError(f"{destination} is there already; name another file, or replace it with --force")
        if offline.is_served(destination):
            raise StoreInUse(f"a live-appliance serves {destination}; name another file")
    try:
        with (
            closing(connections.open_reader(database, busy_timeout_s=offline.BUSY_TIMEOUT_S)) as source,
            _unfinished(destination, like=database) as unfinished,
        ):
            schema.check_format(source)
            position, unchecked = _copy(source, unfinished)
            _remove_beside(destination)
            _put(unfinished, destination)
    except sqlite3.Error as error:
        raise CommandError(
            f"the backup cannot be made ({error}); `live-appliance check` looks at the store, and {destination.parent} "
            "needs room for all of it"
        ) from error
    except OSError as error:
        raise CommandError(f"{destination} cannot be written: {error.strerror}") from error
    return Copy(destination, destination.stat().st_size, position, unchecked)


def restore(source: Path, database: Path) -> tuple[Copy, Path | None]:
    """Put a copy of ``source`` in the place of the store; give it, and where the old file is kept.

    The next server begins a new epoch, so that no client takes an event of before for one of after.

    Raises ``StoreInUse`` while a server or another program has the store open, ``StoreUnusable`` for a source that is
    not sound or of a later version, ``CommandError`` when it cannot be written.
    """
    database = database.resolve()  # what stands beside it is beside the file, not beside a link to it
    if not source.is_file() or not source.stat().st_size:
        raise CommandError(f"there is no file {source}, or it is empty; name a backup")
    if database.exists() and source.samefile(database):
        raise CommandError("a store cannot be restored from itself; name a backup")
    if not database.parent.is_dir():
        raise CommandError(f"there is no directory {database.parent}; make it, or name another file with --db")
    _check_replaceable(database)
    with live_file.hold(database) as live:
        try:
            # It may be on a medium that cannot be written.
            opened = connections.open_again(source, busy_timeout_s=offline.BUSY_TIMEOUT_S, mode="ro")
            with closing(opened) as db, _unfinished(database, like=_owner(database)) as unfinished:
                schema.check_format(db)
                position, unchecked = _copy(db, unfinished, wal=schema.exists(db))
                kept = _set_aside(database) if database.exists() else None
                _remove_beside(database)
                live.forget()
                _put(unfinished, database)
        except sqlite3.Error as error:
            raise connections.refusal(source, error) from error
        except OSError as error:
            raise CommandError(f"{database} cannot be written: {error.strerror}") from error
        _own(Path(f"{database}-live"), like=database)
    return Copy(database, database.stat().st_size, position, unchecked), kept


def _check_replaceable(path: Path) -> None:
    """Refuse a directory, and what would be no device or pipe any more once a file has its name: ``/dev/null``, say."""
    if path.exists() and not path.is_file():
        raise CommandError(
            f"{path} is {'a directory' if path.is_dir() else 'no file'}; name the file that is to be made"
        )


@contextlib.contextmanager
def _unfinished(destination: Path, *, like: Path) -> Iterator[Path]:
    """Give an empty file beside ``destination`` that nobody may read who may not read ``like``; gone at the end.

    Who was killed has left his. Raises ``CommandError`` while somebody else is still at it: his would get the name.
    """
    unfinished = Path(f"{destination}.unfinished")
    with contextlib.suppress(FileNotFoundError), unfinished.open("rb") as former:
        _lock(former.fileno(), destination)
        unfinished.unlink()
    with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as ours:
        _lock(ours.fileno(), destination)
        try:
            if like.is_file():
                unfinished.chmod(like.stat().st_mode & 0o666)
            _own(unfinished, like=like)
            yield unfinished
        finally:
            unfinished.unlink(missing_ok=True)
            _remove_beside(unfinished)


def _lock(descriptor: int, destination: Path) -> None:
    """Hold an unfinished file as one's own. Raises ``CommandError`` where it is another's, or has just been."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return
    raise CommandError(f"another command makes {destination} just now; wait for its end")


def _copy(source: sqlite3.Connection, unfinished: Path, *, wal: bool = False) -> tuple[int | None, Mapping[str, str]]:
    """Copy everything as of one moment, and look at all of the copy; give ``Copy.position`` and ``unchecked``.

    With ``wal`` the copy is in WAL mode, as a store is that is served; without, it can be read where nothing can be
    written. Raises ``StoreUnusable``.
    """
    with closing(connections.connect(unfinished)) as target:
        source.backup(target)  # in one step, so in one read transaction
        target.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}").fetchall()
        found = look(target, "integrity_check", 3)
        if found.faults:
            raise StoreUnusable(
                "the copy is not sound, so it is not kept; what it was made of has this fault: "
                f"{'; '.join(found.faults)}; "
                "recover what can be with the sqlite3 shell's .recover, or take an older backup"
            )
        return schema.highest(target) if schema.exists(target) else None, found.unchecked


def _set_aside(database: Path) -> Path:
    """Keep the file that is to be replaced under another name, and what it needs with it.

    Raises ``StoreInUse`` when another program has it open: what that one writes from then on would be lost.
    """
    kept = _free(f"{database}.before-restore-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    try:
        _leave_wal(database)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        # Damaged: what was committed last is in the WAL, and stays there.
        with contextlib.suppress(FileNotFoundError):
            Path(f"{database}-wal").rename(f"{kept}-wal")
    try:
        os.link(database, kept)  # so that there is a file under the store's name at every moment
    except OSError:
        database.rename(kept)
    return kept


def _free(name: str) -> Path:
    """Give a path that nothing has yet: two may be wanted within a second, and what is kept is kept."""
    path, number = Path(name), 2
    while path.exists():
        path, number = Path(f"{name}-{number}"), number + 1
    return path


def _leave_wal(database: Path) -> None:
    """Bring all that was committed into the file. Raises ``StoreInUse`` and ``sqlite3.Error``."""
    with closing(connections.open_file(database, busy_timeout_s=offline.BUSY_TIMEOUT_S)) as db:
        try:
            # Only the last connection may leave WAL, and it brings what is in there into the file.
            alone = db.execute("PRAGMA journal_mode=DELETE").fetchone()[0] == "delete"
        except sqlite3.OperationalError as error:
            if not is_locked(error):
                raise
            alone = False
    if not alone:
        raise StoreInUse(f"another program has {database} open; end it, or what it writes would be lost, and try again")


def _put(unfinished: Path, destination: Path) -> None:
    """Give a finished file its name, for good: on the disk, it and its name."""
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(destination)
    folder = os.open(destination.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove_beside(path: Path) -> None:
    for suffix in _BESIDE:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _owner(database: Path) -> Path:
    """Give what tells whose a restored store is to be: the one that is there, or its directory."""
    return database if database.exists() else database.parent


def _own(path: Path, *, like: Path) -> None:
    """Give a file to the owner of another; only root can, and only root needs to."""
    if os.geteuid() == 0:
        status = like.stat()
        os.chown(path, status.st_uid, status.st_gid)
