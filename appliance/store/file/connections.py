"""How a connection to the user's file is opened and set up, and what is refused before anything is written."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from appliance.errors import RequestError, StoreLinked, StoreLocked, StoreUnusable
from appliance.model import SQLiteValue
from appliance.store.file.locks import Connection, begin_immediate, is_locked
from appliance.store.file.soundness import Soundness, look
from appliance.store.file.texts import said, text

T = TypeVar("T")

#: The oldest SQLite that this program runs on itself; foreign writers may be as old as 3.31.
OLDEST_SQLITE = (3, 37, 0)

#: The first SQLite without the bugs that concern us, and these bugs.
SOUND_SQLITE = (3, 51, 3)
OLD_SQLITE_BUGS = (
    "a WAL reset at the wrong moment can corrupt the file, and before 3.45.3 UPSERT triggers see wrong values"
)

#: ``quick_check`` at the start only for files up to this size: about a second at 100 MB/s. Bytes.
QUICK_CHECK_LIMIT = 64 << 20

#: How SQLite's words begin where the schema holds what it cannot read: a newer SQLite's syntax, as a rule.
UNREADABLE_SCHEMA = "malformed database schema"

#: File systems whose locks SQLite cannot trust (https://sqlite.org/howtocorrupt.html, section 2.1).
NETWORK_FILE_SYSTEMS = frozenset(
    ("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2",
     "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs")
)  # fmt: skip


def connect(database: str | Path, *, busy_timeout_s: float = 0.0, uri: bool = False) -> sqlite3.Connection:
    """Connect to a file of the user's in autocommit mode; any thread may use it. Raises ``sqlite3.Error``.

    Its schema is trusted, whatever SQLite was compiled for: untrusted, it may in 3.40, which Debian 12 has, not use
    SQLite's own JSON functions, FTS and R*Tree either, and one CHECK that does makes the whole file unreadable. What a
    schema must not call in our process is not there: we register no function and no module; what no schema may call,
    such as ``load_extension``, SQLite refuses there all the same.
    """
    db = sqlite3.connect(
        database, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False, factory=Connection, uri=uri
    )
    db.execute("PRAGMA trusted_schema=ON")
    return db


def open_file(path: Path, *, busy_timeout_s: float, synchronous: str = "NORMAL") -> sqlite3.Connection:
    """Open ``path``, ready for any of our connections."""
    db = connect(path, busy_timeout_s=busy_timeout_s)
    try:
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        db.close()
        raise
    return db


def tolerant(db: sqlite3.Connection, read: Callable[[], T]) -> T:
    """Read, also where text is not UTF-8: then once more, with ``text`` as the decoder.

    Decoding by a function of ours costs every value, so only such reads pay it.
    """
    try:
        return read()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error).lower():
            raise
    db.text_factory = text
    try:
        return read()
    finally:
        db.text_factory = str


def fetch(db: sqlite3.Connection, sql: str, parameters: Sequence[SQLiteValue] = ()) -> list[tuple[Any, ...]]:
    """Give all rows of a query, also where text is not UTF-8."""
    return tolerant(db, lambda: db.execute(sql, parameters).fetchall())


def bounded(cursor: sqlite3.Cursor, most_bytes: int, at_least: int = 0) -> tuple[list[tuple[Any, ...]], int]:
    """Read rows until they have more than so many bytes of values, so many rows at least; then the cursor is closed.

    Gives them, and about how many bytes they have. One by one, because a row may have 24 MiB; that costs 1 to 2 % more
    than to have 50 at a time.
    """
    rows: list[tuple[Any, ...]] = []
    size = 0
    for row in cursor:
        rows.append(row)
        for value in row:
            if type(value) is str or type(value) is bytes:
                size += len(value)
        if size > most_bytes and len(rows) >= at_least:
            cursor.close()
            break
    return rows, size


def open_again(path: Path, *, busy_timeout_s: float, mode: str) -> sqlite3.Connection:
    """Open a file that is there, and make none where it has just been taken away. Raises ``sqlite3.Error``.

    With the ``mode`` ``ro`` it is not even checkpointed when the connection is closed; otherwise ``rw``. With
    ``ro&immutable=1`` what is in the WAL is not seen, and what it says of the file not believed.
    """
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    return connect(uri, busy_timeout_s=busy_timeout_s, uri=True)


def open_reader(path: Path, *, busy_timeout_s: float) -> sqlite3.Connection:
    """Open a file that is there for reading only: for the tail, whose ``data_version`` sees the commits of all others.

    Made where it has just been moved away, an empty one would be served in its place. Raises ``sqlite3.Error``.
    """
    db = open_again(path, busy_timeout_s=busy_timeout_s, mode="rw")
    db.execute("PRAGMA query_only=ON")
    return db


def is_unwritable(error: sqlite3.Error) -> bool:
    """Whether the disk is full, failing or read-only."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)


def inspect(
    path: Path,
    *,
    busy_timeout_s: float,
    create: bool,
    write: bool = True,
    content: Callable[[sqlite3.Connection], None] = lambda db: None,
) -> Mapping[str, str]:
    """Refuse what cannot serve as a store, before anything is written; give the tables that cannot be checked, and why.

    Who is not to ``write`` need not wait for somebody else's write, which may be long.

    Raises ``StoreUnusable``: no such file or directory, not SQLite, corrupt, not writable, on a network file
    system, locked, or SQLite itself too old; and what ``content`` raises, which looks at what is in the file. The file
    is only ever touched by SQLite: an ``open`` and ``close`` of ours would drop the POSIX locks of every other
    connection in this process.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old; use a Python with SQLite {oldest} or newer")
    try:
        _look_at(path, create)
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be looked at ({error.strerror}); give this user the right to") from error
    return _examine(path, busy_timeout_s, content, write=write) if path.exists() else {}


def _look_at(path: Path, create: bool) -> None:
    """Refuse by what the file system says. Raises ``StoreUnusable`` and ``OSError``."""
    folder = path.parent
    if not folder.is_dir():
        raise StoreUnusable(f"there is no directory {folder}; make it, or name another file with --db")
    if path.exists() and not path.is_file():
        raise StoreUnusable(f"{path} is not a file; name a SQLite file with --db")
    if not path.exists() and not create:
        raise StoreUnusable(f"there is no file {path}; name an existing SQLite file with --db")
    if path.exists() and path.stat().st_nlink > 1:
        # By the other name it would have another WAL and another lock (https://sqlite.org/howtocorrupt.html, 2.4).
        raise StoreLinked(f"{path} has another name (a hard link), by which others may write past this one; remove "
                          f"that, which `find {folder} -samefile {path}` may name")  # fmt: skip
    kind = _file_system(folder)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreUnusable(f"{path} is on a network file system ({kind}), where SQLite's locks cannot be trusted; "
                            "move it to a local disk")  # fmt: skip
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise StoreUnusable(f"{path} or its directory cannot be written; give this user write permission on both")


def _examine(
    path: Path, busy_timeout_s: float, content: Callable[[sqlite3.Connection], None], *, write: bool
) -> Mapping[str, str]:
    found = Soundness((), {})
    try:
        with closing(connect(path, busy_timeout_s=busy_timeout_s)) as db:
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            pages, size = db.execute("PRAGMA page_count").fetchone()[0], db.execute("PRAGMA page_size").fetchone()[0]
            if pages * size <= QUICK_CHECK_LIMIT:
                found = look(db, "quick_check", 1)
            if found.faults:
                raise _corrupt(path, found.faults[0])
            content(db)
            if write:
                begin_immediate(db)
                db.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise refusal(path, error) from error
    return found.unchecked


def _corrupt(path: Path, fault: str) -> StoreUnusable:
    return StoreUnusable(f"{path} is corrupt ({fault}); restore a backup, or recover it with "
                         f"`sqlite3 {path} .recover | sqlite3 recovered.db`")  # fmt: skip


def refusal(path: Path, error: sqlite3.Error) -> StoreUnusable:
    """Say of any SQLite error at the start what it means for this file and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return StoreUnusable(f"{path} is not a SQLite database (or is encrypted); name another file")
    if code == sqlite3.SQLITE_CORRUPT and str(error).startswith(UNREADABLE_SCHEMA):
        return StoreUnusable(f"SQLite {sqlite3.sqlite_version} cannot read the schema of {path} ({error}); if a newer "
                             "SQLite can, serve it with that one, or drop there what is named; if none can, restore a "
                             "backup")  # fmt: skip
    if code == sqlite3.SQLITE_CORRUPT:
        return _corrupt(path, str(error))
    if is_locked(error):
        return StoreLocked(f"{path} is locked by another program ({error}); stop that program, or end its transaction, "
                           "and start again")  # fmt: skip
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreUnusable(f"{path} cannot be opened ({error}); check the permissions of it and its directory")
    if is_unwritable(error):
        return StoreUnusable(f"{path} cannot be written ({error}); make room on the disk or give write permission")
    return StoreUnusable(f"{path} cannot be used: {said(error)}")


@contextlib.contextmanager
def starting(path: Path) -> Iterator[None]:
    """Have an error of SQLite's say what it means for a start, also one that the writer has translated for clients.

    Raises ``StoreUnusable``.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise refusal(path, error) from error
    except RequestError as error:
        if not isinstance(error.__cause__, sqlite3.Error):
            raise
        raise refusal(path, error.__cause__) from error


def enter_wal(db: sqlite3.Connection, path: Path, *, patience_s: float) -> str:
    """Put the file into WAL mode and return the mode it had.

    Another connection that is just now inside a transaction stands in the way, and SQLite's busy handler does
    not cover this, so it is tried again until ``patience_s`` is over. Raises ``StoreUnusable``.
    """
    former = str(db.execute("PRAGMA journal_mode").fetchone()[0])
    if former == "wal":
        return former
    deadline = time.monotonic() + patience_s
    while True:
        try:
            mode = str(db.execute("PRAGMA journal_mode=WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() >= deadline:
                raise refusal(path, error) from error
            time.sleep(0.02)  # a thread of its own; nothing else waits for it
            continue
        if mode == "wal":
            return former
        raise StoreUnusable(f"{path} cannot be put into WAL mode (it stays {mode!r}): its file system has no shared "
                            "memory; move it to a local disk")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wal:
    """What a checkpoint has left: the WAL's length in pages, 0 where it was begun anew.

    ``whole``: the file is whole without it, because no reader was in the way.
    """

    pages: int
    page_bytes: int
    whole: bool

    @property
    def bytes(self) -> int:
        """Its length."""
        return self.pages * self.page_bytes


def checkpoint(path: Path, *, patience_s: float | None = None) -> Wal:
    """Move what is in the WAL into the file, as far as readers let us, and keep nobody waiting.

    With a ``patience_s``: hold up writers and new readers of the WAL for no longer than that, wait for the readers that
    are there, and begin the WAL anew with length 0: what a checkpoint beside ever new readers never comes to
    (https://sqlite.org/wal.html#avoiding_excessively_large_wal_files). Raises ``sqlite3.Error``.
    """
    with closing(open_again(path, busy_timeout_s=patience_s or 0.0, mode="rw")) as db:
        db.execute("PRAGMA wal_autocheckpoint=0").fetchall()
        (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
        how = "PASSIVE" if patience_s is None else "TRUNCATE"
        _, pages, moved = db.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
        return Wal(max(0, pages), page_bytes, moved == pages)


def file_of(db: sqlite3.Connection) -> Path:
    """Give the path of the file that ``db`` has open, with no symbolic link in it."""
    (path,) = (file for _, name, file in db.execute("PRAGMA database_list").fetchall() if name == "main")
    return Path(path)


def keep_copy(db: sqlite3.Connection, suffix: str) -> Path:
    """Copy the file that ``db`` has open to ``<file>.<suffix>``, as of one moment; one that is there is replaced.

    Made whole under another name first, and readable for nobody who may not read the original.
    Raises ``StoreUnusable`` when it cannot be made.
    """
    path = file_of(db)
    copy, unfinished = Path(f"{path}.{suffix}"), Path(f"{path}.{suffix}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        unfinished.chmod(path.stat().st_mode & 0o666)
        with closing(connect(unfinished)) as target:
            db.backup(target)  # in one step, so in one read transaction
            target.execute("PRAGMA journal_mode=DELETE").fetchall()  # a copy is one file
        unfinished.replace(copy)
    except (OSError, sqlite3.Error) as error:
        unfinished.unlink(missing_ok=True)
        raise StoreUnusable(
            f"{path} must be migrated, and the copy {copy} that is kept before cannot be made ({error}); "
            "make room on the disk, or give write permission on the directory"
        ) from error
    return copy


def _file_system(folder: Path) -> str:
    """Name the type of the file system that holds ``folder``; ``""`` where the system does not tell (not Linux)."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
    best, kind = -1, ""
    real = os.path.realpath(folder)
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), after.split(" ")[0]
    return kind
