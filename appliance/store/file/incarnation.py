"""``<db>-live``: the file beside the database that knows what the database cannot know of itself.

A database file cannot remember what it was restored over: ``cp backup shop.db`` keeps even its inode. So a second
file beside it holds which incarnation of the store was served last, the highest event id that was handed out, and
during which boot. Where the two do not fit together, ids could be given out twice, and a new epoch begins. It also
keeps, through a kill, where transactions ended (``borders``).
The file is also the server's lock (``flock``: one server a database), so that the database itself is never
opened or closed by anything but SQLite.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from appliance.errors import StoreInUse, StoreUnusable
from appliance.store.file import schema
from appliance.store.file.connections import open_again
from appliance.store.file.place import identity

#: The file begins with one JSON line padded to this many bytes, so that each write is one in-place ``pwrite``.
SIZE = 512
#: Behind it is where transactions end (``borders``), in blocks of so many ids, a bit for each: a block's number is
#: before its bits, and its place is the number modulo how many are kept, 16 million ids in 2.2 MB at most.
BLOCK = 1024
BLOCKS = 16_384
_BLOCK = struct.Struct(f"<q{BLOCK // 8}s")
#: What these blocks begin with: a file of before has something else there.
_BLOCKS_MARK = b"borders1"

#: A server that stops waits no longer for other writers than this, milliseconds.
END_PATIENCE_MS = 2000


class StoreReplaced(Exception):
    """The database file is not the one that was opened: it was replaced, restored over, or its ids went back."""


@dataclass(frozen=True, slots=True)
class Record:
    """What ``<db>-live`` says. ``coming``: the incarnation that was to be next; the file may have it already."""

    incarnation: str
    highest: int
    boot: str
    coming: str | None = None


class LiveFile:
    """The open, locked file beside the database. Made by ``hold``."""

    def __init__(self, database: Path) -> None:
        self._database = database.resolve()  # one for one file, by whatever link it is reached
        self._path = _beside(self._database)
        self._descriptor = _lock(self._database)
        self._record: Record | None = None
        #: Blocks of borders that could not be written yet, by their place.
        self._unwritten: dict[int, tuple[int, int]] = {}

    def keep(self) -> None:
        """Make the file again if somebody has deleted it: without it a second server could begin.

        Raises ``StoreInUse`` when another server has been quicker, ``StoreUnusable``.
        """
        status = os.fstat(self._descriptor)
        if identity(self._path) != (status.st_dev, status.st_ino):
            anew = _lock(self._database)
            os.close(self._descriptor)
            self._descriptor = anew
            if self._record is not None:
                self.write(self._record)
            self.forget_borders()

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)

    def read(self) -> Record | None:
        """Give what the last server left; ``None`` for a new or unreadable file."""
        try:
            found = json.loads(os.pread(self._descriptor, SIZE, 0))
            return Record(str(found["incarnation"]), int(found["highest"]), str(found["boot"]), found.get("coming"))
        except (ValueError, KeyError, TypeError):
            return None

    def write(self, record: Record) -> None:
        """Put ``record`` into the file. Raises ``StoreUnusable``."""
        self._put(json.dumps(asdict(record)).encode().ljust(SIZE - 1) + b"\n", 0)
        self._record = record

    def _put(self, data: bytes, place: int) -> None:
        try:
            os.pwrite(self._descriptor, data, place)
        except OSError as error:
            raise StoreUnusable(f"{self._path} cannot be written ({error.strerror}); make room on its disk") from error

    @property
    def highest(self) -> int:
        """The highest id that was handed out, as far as was noted."""
        return self._record.highest if self._record is not None else 0

    def forget(self) -> None:
        """Have the next server begin a new epoch, whatever is in the database then."""
        self._record = None
        os.ftruncate(self._descriptor, 0)

    def note(self, highest: int) -> None:
        """Remember that ids up to ``highest`` were handed out (about 2 µs; survives a kill, not a power cut).

        Raises ``StoreUnusable``: then they must not be.
        """
        if self._record is not None and highest > self._record.highest:
            self.write(Record(self._record.incarnation, highest, self._record.boot))

    def note_borders(self, number: int, ends: int) -> None:
        """Remember the bits of a block: with which of its ids a transaction ends.

        That takes room on the disk now and then, while commits may go on in room that the database has. So where there
        is none, it is done with a later one.
        """
        self._unwritten[number % BLOCKS] = number, ends
        with contextlib.suppress(StoreUnusable):
            for place, (each, bits) in tuple(self._unwritten.items()):
                block = _BLOCK.pack(each, bits.to_bytes(BLOCK // 8, "little"))
                self._put(block, SIZE + len(_BLOCKS_MARK) + place * _BLOCK.size)
                del self._unwritten[place]

    def borders(self) -> dict[int, int]:
        """Give the bits of each block that is remembered, by its number."""
        kept = os.pread(self._descriptor, len(_BLOCKS_MARK) + BLOCKS * _BLOCK.size, SIZE)
        if not kept.startswith(_BLOCKS_MARK):
            self.forget_borders()
            return {}
        kept = kept[len(_BLOCKS_MARK) :]
        blocks = _BLOCK.iter_unpack(kept[: len(kept) - len(kept) % _BLOCK.size])
        return {number: ends for number, bits in blocks if (ends := int.from_bytes(bits, "little"))}

    def forget_borders(self) -> None:
        """Forget them: the ids mean something else now. Raises ``StoreUnusable``."""
        self._unwritten.clear()
        os.ftruncate(self._descriptor, SIZE)
        self._put(_BLOCKS_MARK, SIZE)


@contextlib.contextmanager
def hold(database: Path) -> Iterator[LiveFile]:
    """Lock ``<database>-live`` for as long as the block runs.

    Raises ``StoreInUse`` when another process holds it, ``StoreUnusable`` when it cannot be made.
    """
    live = LiveFile(database)
    try:
        yield live
    finally:
        live.close()


def _beside(database: Path) -> Path:
    return Path(f"{database}-live")


def _lock(database: Path) -> int:
    path = _beside(database)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnusable(
            f"{path} cannot be made ({error.strerror}); give this user write permission there"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreInUse(f"another live-appliance serves {database}; stop it first, or use that one") from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_free(database: Path) -> None:
    """Raise ``StoreInUse`` when a server holds ``<database>-live`` just now; no file is made."""
    if os.path.exists(_beside(database.resolve())):  # false, too, where it may not be looked at
        with hold(database):
            pass


def is_held(database: Path) -> bool:
    """Whether a server holds ``<database>-live`` just now."""
    try:
        check_free(database)
    except StoreInUse:
        return True
    return False


def begin(db: sqlite3.Connection, live: LiveFile, found: int) -> tuple[str, str]:
    """Begin a new incarnation of the store; give ``(incarnation, epoch)``.

    ``found`` is the highest id that was in the file before this start wrote anything.
    The epoch is kept only when every id that was ever handed out is still in the file. The mark of an unclean end is
    set by a FULL commit before anything is answered: foreign writers choose their own ``synchronous``, so after
    a power cut acknowledged rows may be gone whatever ours is.
    """
    boot = _boot_id()
    before = live.read()
    epoch = schema.get(db, "epoch")
    kept = (
        before is not None
        and schema.get(db, "incarnation") in (before.incarnation, before.coming or before.incarnation)
        and found >= before.highest
        and (before.boot == boot != "" or schema.get(db, "clean") == 1)
    )
    if not kept or not isinstance(epoch, str):
        epoch = secrets.token_hex(8)
    incarnation = secrets.token_hex(8)
    if not kept:
        live.forget_borders()
    elif before is not None:
        # A start that is killed behind the commit must not look like another file.
        live.write(replace(before, boot=boot, coming=incarnation))
    with _full_commit(db), schema.transaction(db):
        schema.put(db, "epoch", epoch)
        schema.put(db, "incarnation", incarnation)
        schema.put(db, "clean", 0)
    live.write(Record(incarnation, schema.highest(db), boot))
    return incarnation, epoch


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
        """Mark a clean end as ``end`` does, if the file is ours. Raises ``sqlite3.Error``."""
        if not self.is_ours(db):
            raise sqlite3.OperationalError("the file was moved away or replaced by another")
        end(db, checkpoint=checkpoint)


def end(db: sqlite3.Connection, *, checkpoint: bool = True) -> None:
    """Mark a clean end and, with ``checkpoint``, move what is in the WAL into the file; wait for nobody for long."""
    db.execute(f"PRAGMA busy_timeout={END_PATIENCE_MS}").fetchall()
    with _full_commit(db), schema.transaction(db):
        schema.put(db, "clean", 1)
    if checkpoint:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


@contextlib.contextmanager
def _full_commit(db: sqlite3.Connection) -> Iterator[None]:
    (former,) = db.execute("PRAGMA synchronous").fetchone()
    db.execute("PRAGMA synchronous=FULL")
    try:
        yield
    finally:
        db.execute(f"PRAGMA synchronous={int(former)}")


def _boot_id() -> str:
    """Name the boot of this machine; ``""`` where the system does not tell, which is the same as no other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
