"""``<db>-live``: the file beside the database that knows what the database cannot know of itself.

A database file cannot remember what it was restored over: ``cp backup shop.db`` keeps even its inode. So a second
file beside it holds which incarnation of the store was served last, the highest event id that was handed out, and
during which boot (``incarnation`` says what follows from it). It also keeps, through a kill, where transactions ended
(``borders``) and of which kinds the rows of the outbox are (``contents``). The file is also the server's lock
(``flock``: one server a database), so that the database itself is never opened or closed by anything but SQLite.

Whoever copies a whole folder back (``cp -a backup/. folder/``) brings back what this file held, too, in the very file
that held it. So each start and each orderly stop makes the file anew, and what it holds says which file it is of, by
the inode and by when it was made: in another one it counts for nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.capture import contents
from appliance.errors import StoreInUse, StoreUnusable
from appliance.model import SQLiteValue
from appliance.store.file.birth import birth
from appliance.store.file.place import identity

#: The file begins with one JSON line padded to this many bytes, so that each write is one in-place ``pwrite``.
SIZE = 512
#: Behind it are blocks of so many ids each, whose place is their number modulo how many are kept, 16 million ids in 2.9
#: MB at most. Where transactions end (``borders``) is a block's number and a bit for each id; behind that is of which
#: kinds its rows are (``contents``), a number, too, and with a sum, as a write may be cut short by a kill.
BLOCK = 1024
BLOCKS = 16_384
_ENDS = struct.Struct(f"<q{BLOCK // 8}s")
_CONTENTS = struct.Struct(f"<q{contents.KINDS}sI")
_BLOCK = struct.Struct(f"<{_ENDS.format[1:]}{_CONTENTS.format[1:]}")
#: What these blocks begin with: a file of before has something else there.
_BLOCKS_MARK = b"blocks 2"
#: How many bytes all of it takes at most.
_BLOCKS_SIZE = len(_BLOCKS_MARK) + BLOCKS * _BLOCK.size

#: Of each text or blob so much tells a row of the outbox from others.
_SIGNED = 64
_KINDS = {"incarnation": str, "highest": int, "boot": str, "coming": str, "signed": int, "sign": str}


@dataclass(frozen=True, slots=True)
class Record:
    """What ``<db>-live`` says. ``coming``: the incarnation that was to be next; the file may have it already.

    ``sign`` is of the row of the outbox with the id ``signed``, one of the last that were handed out.
    """

    incarnation: str
    highest: int
    boot: str
    coming: str | None = None
    signed: int = 0
    sign: str = ""


class LiveFile:
    """The open, locked file beside the database. Made by ``hold``."""

    def __init__(self, database: Path) -> None:
        self._database = database.resolve()  # one for one file, by whatever link it is reached
        self._path = _beside(self._database)
        self._descriptor = _lock(self._database)
        self._record: Record | None = None
        #: The line of the file as far as it stays the same while ids are noted.
        self._begun = ""
        #: The database's number on its disk, as of when it was first asked for: another may come to its place.
        self._inode_beside: int | None = None
        #: Blocks of borders that could not be written yet, by their place.
        self._unwritten: dict[int, tuple[int, int]] = {}

    def keep(self) -> None:
        """Make the file again if somebody has deleted it: without it a second server could begin.

        Raises ``StoreInUse`` when another server has been quicker, ``StoreUnusable``.
        """
        status = os.fstat(self._descriptor)
        if identity(self._path) != (status.st_dev, status.st_ino):
            anew = _lock(self._database)
            if not os.fstat(anew).st_size:
                _be_like(anew, status)
            os.close(self._descriptor)
            self._descriptor = anew
            if self._record is not None:
                self.write(self._record)
            self.forget_blocks()

    def renew(self, record: Record | None) -> None:
        """Go on in a new file that holds ``record`` and the blocks, or nothing where it is ``None``.

        What was copied from the former one counts for nothing in it. It stays the former's owner's. Raises ``keep``'s
        errors; then what was there stays.
        """
        self.keep()  # or it would take the place of who has been quicker
        unfinished = _unfinished(self._path)
        former = self._descriptor, self._begun, self._record
        blocks = os.pread(self._descriptor, _BLOCKS_SIZE, SIZE) if record is not None else b""
        try:
            unfinished.unlink(missing_ok=True)  # of who was killed here: it is nobody else's, as we have the lock
            self._descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _be_like(self._descriptor, os.fstat(former[0]))
            if record is not None:
                self._put(blocks, SIZE)
                self.write(record)
            os.fsync(self._descriptor)
            unfinished.rename(self._path)
        except BaseException as error:
            if self._descriptor != former[0]:
                os.close(self._descriptor)
                unfinished.unlink(missing_ok=True)
            self._descriptor, self._begun, self._record = former
            if isinstance(error, OSError):
                raise StoreUnusable(
                    f"{self._path} cannot be made anew ({error.strerror}); make room there, or let this user write"
                ) from error
            raise
        os.close(former[0])

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)

    def read(self) -> Record | None:
        """Give what the last server left; ``None``: it is new or unreadable, a copy, or beside another database."""
        try:
            found = json.loads(os.pread(self._descriptor, SIZE, 0))
            record = Record(**{name: kind(found[name]) for name, kind in _KINDS.items() if found.get(name) is not None})
            return record if all(found.get(name) in (None, mark) for name, mark in self._marks().items()) else None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return None

    def _marks(self) -> dict[str, int | None]:
        """Give what tells this file, and the database, from copies of them, such as one made anew of a dump."""
        if self._inode_beside is None and (there := identity(self._database)) is not None:
            self._inode_beside = there[1]
        inode = os.fstat(self._descriptor).st_ino
        return {"inode": inode, "born": birth(self._descriptor), "database": self._inode_beside}

    def write(self, record: Record) -> None:
        """Put ``record`` into the file. Raises ``StoreUnusable``."""
        lasting = {"incarnation": record.incarnation, "boot": record.boot, "coming": record.coming, **self._marks()}
        self._begun = json.dumps(lasting)[:-1]
        self._put_line(record)

    def _put_line(self, record: Record) -> None:
        # By hand, as every event waits for this, mostly in a process that has slept: a fifth of what json.dumps takes.
        line = f'{self._begun}, "highest": {record.highest}, "signed": {record.signed}, "sign": "{record.sign}"}}'
        self._put(line.encode().ljust(SIZE - 1) + b"\n", 0)
        self._record = record

    def _put(self, data: bytes, place: int) -> None:
        try:
            os.pwrite(self._descriptor, data, place)
        except OSError as error:
            raise StoreUnusable(f"{self._path} cannot be written ({error.strerror}); make room on its disk") from error

    def stop(self, *, goes_on: bool) -> None:
        """Have the next server go on from here, unless what it finds is a copy of before; or else in a new epoch."""
        if goes_on:
            # On a full disk it stays as it is, and each start makes it anew; and if it is another's by now, it is his.
            with contextlib.suppress(StoreUnusable, StoreInUse):
                self.renew(self._record)
        else:
            self.forget()

    @property
    def highest(self) -> int:
        """The highest id that was handed out, as far as was noted."""
        return self._record.highest if self._record is not None else 0

    def forget(self) -> None:
        """Have the next server begin a new epoch, whatever is in the database then."""
        self._record = None
        os.ftruncate(self._descriptor, 0)

    def note(self, highest: int, row: Sequence[SQLiteValue] = ()) -> None:
        """Remember that ids up to ``highest`` were handed out (some µs; survives a kill, not a power cut).

        ``row`` is the outbox's with that id, where it is at hand. Raises ``StoreUnusable``: then they must not be.
        """
        known = self._record
        if known is not None and (highest > known.highest or (row and highest > known.signed)):
            signed = (highest, sign(row)) if row else (known.signed, known.sign)
            self._put_line(Record(known.incarnation, max(highest, known.highest), known.boot, known.coming, *signed))

    def note_borders(self, number: int, ends: int) -> None:
        """Remember the bits of a block: with which of its ids a transaction ends.

        That takes room on the disk now and then, while commits may go on in room that the database has. So where there
        is none, it is done with a later one.
        """
        self._unwritten[number % BLOCKS] = number, ends
        with contextlib.suppress(StoreUnusable):
            for place, (each, bits) in tuple(self._unwritten.items()):
                self._put(_ENDS.pack(each, bits.to_bytes(BLOCK // 8, "little")), _place(place))
                del self._unwritten[place]

    def borders(self) -> dict[int, int]:
        """Give the bits of each block that is remembered, by its number."""
        return {number: ends for number, bits, *_ in self._blocks() if (ends := int.from_bytes(bits, "little"))}

    def note_contents(self, number: int, kinds: bytes) -> None:
        """Remember of which kinds the rows of a block are. Where there is no room for it, that is not known."""
        with contextlib.suppress(StoreUnusable):
            self._put(_CONTENTS.pack(number, kinds, _sum(number, kinds)), _place(number) + _ENDS.size)

    def contents(self) -> dict[int, bytes]:
        """Give of which kinds the rows of each block are that is remembered, by its number."""
        return {number: kinds for *_, number, kinds, total in self._blocks() if total == _sum(number, kinds)}

    def _blocks(self) -> Iterator[tuple[Any, ...]]:
        kept = os.pread(self._descriptor, _BLOCKS_SIZE, SIZE)
        if not kept.startswith(_BLOCKS_MARK):
            self.forget_blocks()
            return iter(())
        kept = kept[len(_BLOCKS_MARK) :]
        return _BLOCK.iter_unpack(kept + bytes(-len(kept) % _BLOCK.size))

    def forget_blocks(self) -> None:
        """Forget borders and contents: the ids mean something else now. Raises ``StoreUnusable``."""
        self._unwritten.clear()
        os.ftruncate(self._descriptor, SIZE)
        self._put(_BLOCKS_MARK, SIZE)


def _place(number: int) -> int:
    """Say where in the file a block is."""
    return SIZE + len(_BLOCKS_MARK) + number % BLOCKS * _BLOCK.size


def _sum(number: int, kinds: bytes) -> int:
    return zlib.crc32(kinds, number & 0xFFFFFFFF)


def sign(row: Sequence[SQLiteValue]) -> str:
    """Give what tells a row of the outbox from another that may have its id; NULLs at its end do not count."""
    values = [(len(each), each[:_SIGNED]) if isinstance(each, (str, bytes)) else each for each in row]
    while values and values[-1] is None:
        values.pop()
    return hashlib.blake2b(repr(values).encode(), digest_size=8).hexdigest()


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


def remove(database: Path) -> None:
    """Take it from beside the database, as who has the lock, and what may be left of one that was to be made."""
    beside = _beside(database.resolve())
    for each in _unfinished(beside), beside:
        each.unlink(missing_ok=True)


def _beside(database: Path) -> Path:
    return Path(f"{database}-live")


def _unfinished(beside: Path) -> Path:
    return Path(f"{beside}.new")


def _lock(database: Path) -> int:
    path = _beside(database)
    while True:
        try:
            # Not by a link, which could lead root to any file.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StoreUnusable(f"{path} is a link; it must be a file of its own: remove it") from error
            raise StoreUnusable(
                f"{path} cannot be made ({error.strerror}); give this user write permission there"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
        except BlockingIOError as error:
            os.close(descriptor)
            raise StoreInUse(f"another live-appliance serves {database}; stop it first, or use that one") from error
        except BaseException:
            os.close(descriptor)
            raise
        if identity(path) == (status.st_dev, status.st_ino):
            if not status.st_size:
                _be_of(descriptor, database)
            return descriptor
        os.close(descriptor)  # whoever had the lock has made the file anew, or has removed it


def _be_like(descriptor: int, former: os.stat_result) -> None:
    """Give a new file the rights of a former one, and its owner as far as one may: root serves another user's."""
    os.fchmod(descriptor, stat.S_IMODE(former.st_mode))
    _give(descriptor, former)


def _be_of(descriptor: int, database: Path) -> None:
    """Give a file that is new to whose the database is, as SQLite does with the WAL: it is he who serves it next."""
    with contextlib.suppress(FileNotFoundError):
        _give(descriptor, os.stat(database))


def _give(descriptor: int, like: os.stat_result) -> None:
    for owner in (like.st_uid, -1):  # to a group of one's own anybody may
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, owner, like.st_gid)
            return


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
