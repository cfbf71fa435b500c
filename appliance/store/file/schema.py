"""What is ours in the user's file: the ``_appliance_*`` tables, their format, and the settings kept in them."""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from appliance import __version__
from appliance.capture import outbox
from appliance.errors import StoreUnusable, Unavailable
from appliance.model import Op
from appliance.store.file.connections import keep_copy
from appliance.store.file.locks import begin_immediate

#: The format of the tables below. A file of a later format is refused, one of an earlier is migrated.
FORMAT = 4

DDL = (
    """CREATE TABLE IF NOT EXISTS "_appliance_meta" (name TEXT PRIMARY KEY, value) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS "_appliance_topic" (
    name TEXT PRIMARY KEY COLLATE NOCASE, durable INTEGER NOT NULL, permission INTEGER NOT NULL, owner TEXT
) WITHOUT ROWID""",
    # A topic's messages come after ``id``: up to there they are of others that had its name.
    """CREATE TABLE IF NOT EXISTS "_appliance_begun" (
    topic TEXT PRIMARY KEY COLLATE NOCASE, id INTEGER NOT NULL
) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS "_appliance_unwatched" (
    "table" TEXT PRIMARY KEY COLLATE NOCASE
) WITHOUT ROWID""",
    # The events of a table are complete only after ``id``: then its triggers were made anew.
    """CREATE TABLE IF NOT EXISTS "_appliance_break" (
    "table" TEXT PRIMARY KEY COLLATE NOCASE, id INTEGER NOT NULL
) WITHOUT ROWID""",
    # Messages sent with an idempotency key (``idempotency``).
    """CREATE TABLE IF NOT EXISTS "_appliance_sent" (
    issuer TEXT NOT NULL, sender TEXT NOT NULL, topic TEXT NOT NULL COLLATE NOCASE, key TEXT NOT NULL,
    digest BLOB NOT NULL, event INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY(issuer, sender, topic, key)
) WITHOUT ROWID""",
    """CREATE INDEX IF NOT EXISTS "_appliance_sent_at" ON "_appliance_sent"(at)""",
    # Which tables are standard (``standard``), tokens that are dead before their time (``accounts``).
    """CREATE TABLE IF NOT EXISTS "_appliance_standard" (
    "table" TEXT PRIMARY KEY COLLATE NOCASE, kind TEXT NOT NULL, object_table TEXT, object_column TEXT
) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS "_appliance_account" (
    subject TEXT PRIMARY KEY, not_before INTEGER NOT NULL
) WITHOUT ROWID""",
    """CREATE INDEX IF NOT EXISTS "_appliance_account_ended" ON "_appliance_account"(not_before)""",
    """CREATE TABLE IF NOT EXISTS "_appliance_revoked" (
    token_id TEXT PRIMARY KEY, expires_at INTEGER NOT NULL
) WITHOUT ROWID""",
    *outbox.DDL,
)
_NAMES = frozenset(re.findall(r'EXISTS "?(_appliance_\w+)', "\n".join(DDL)))

#: Those by which tokens are dead before their time.
_ENDED = frozenset(("_appliance_account", "_appliance_revoked"))

#: The setting that holds which version of the schema was last under capture.
SCHEMA_VERSION = "schema_version"

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


def remember(db: sqlite3.Connection, name: str, value: str | int) -> None:
    """Write one setting in a transaction of its own, unless it has this value already."""
    if get(db, name) != value:
        with transaction(db):
            put(db, name, value)


def check_format(db: sqlite3.Connection) -> None:
    """Raise ``StoreUnusable`` when a later version of this program has made the tables."""
    found = _format(db)
    if found is not None and found > FORMAT:
        maker = get(db, "program")
        name = f"live-appliance {maker}" if isinstance(maker, str) else "a newer live-appliance"
        raise StoreUnusable(
            f"this store was made by {name} (format {found}); this is {__version__}, which knows formats up to "
            f"{FORMAT}: use that version, or a newer one"
        )


def is_outdated(db: sqlite3.Connection) -> bool:
    """Whether an earlier version of this program has made the tables, so that ``prepare`` will migrate them."""
    found = _format(db)
    return found is not None and found < FORMAT


def prepare(db: sqlite3.Connection) -> None:
    """Make what is missing of our tables, and bring those of an earlier version up to date.

    Idempotent; writes nothing when all is there. Before a file is migrated, a copy of it is kept beside it. A
    migration is for who holds the store: nobody may serve it meanwhile.

    Raises ``StoreUnusable`` for a store of a later format, and when no copy can be made.
    """
    check_format(db)
    if _format(db) == FORMAT and _there(db) >= _NAMES:
        return
    if is_outdated(db):
        keep_copy(db, f"before-format-{FORMAT}")
    with transaction(db):
        check_format(db)  # somebody may have been quicker
        found = _format(db)
        forgotten = _ENDED - _there(db)
        for statement in DDL:
            db.execute(statement)
        for number in range(found or FORMAT, FORMAT):
            _MIGRATIONS[number](db)
        if found is None:
            _trim(db, outbox.ROW_BOUND)
            put(db, "secret", secrets.token_hex(32))
            put(db, "generation", 0)
        elif found == FORMAT and forgotten:
            # Nobody knows any more which tokens were ended before their time: so all of this secret's are.
            put(db, "secret", secrets.token_hex(32))
            put(db, "former_secret", "")
            bump(db)
        if found != FORMAT:
            put(db, "format", FORMAT)
            put(db, "program", __version__)


def keep_rows(db: sqlite3.Connection, rows: int) -> None:
    """Have the outbox keep the newest ``rows`` rows; writes nothing when it does so already, but for a new file.

    Somebody may have dropped all triggers that there were. Raises as ``demand`` does.
    """
    found = db.execute("SELECT sql FROM sqlite_schema WHERE type='trigger' AND name='_appliance_trim'").fetchone()
    if found is not None and found[0] == outbox.trim_trigger(rows) and not _is_as_of_a_dump(db):
        return
    demand(db)
    with transaction(db):
        _trim(db, rows)


def _is_as_of_a_dump(db: sqlite3.Connection) -> bool:
    """Whether the schema's version is no higher than that of a file which is made anew of a dump of this one.

    By that the other is told from this one (``highest_found``). To make the trigger anew takes it two further.
    """
    return bool(version(db) <= db.execute(_DUMPED).fetchone()[0])


def version(db: sqlite3.Connection) -> int:
    """Give the schema's version, which every change of the schema and VACUUM move on."""
    return int(db.execute("PRAGMA schema_version").fetchone()[0])


#: Statements of a dump that change the schema: virtual tables come by none, and ``sqlite_sequence`` by itself.
_DUMPED = """SELECT count(*) FROM main.sqlite_schema
WHERE sql IS NOT NULL AND (type <> 'table' OR rootpage <> 0) AND name <> 'sqlite_sequence'"""


def _trim(db: sqlite3.Connection, rows: int) -> None:
    db.execute("DROP TRIGGER IF EXISTS main._appliance_trim")
    db.execute(outbox.trim_trigger(rows))


def _from_1(db: sqlite3.Connection) -> None:
    # Format 1 could delete any number of rows in one statement of a user's.
    _trim(db, outbox.ROW_BOUND)


def _from_2(db: sqlite3.Connection) -> None:
    # Format 2 drew ids from sqlite_sequence. They go on from there, which the newest row now stands for.
    (last,) = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name='_appliance_outbox'").fetchone()
    if last is not None and last > highest(db):
        db.execute("INSERT INTO _appliance_outbox(id, op) VALUES(?, ?)", (last, int(Op.BREAK)))
    db.execute("DELETE FROM sqlite_sequence WHERE name='_appliance_outbox'")
    # Rows are stored alike with and without AUTOINCREMENT, so the table need not be copied
    # (https://sqlite.org/lang_altertable.html, section 7, the simpler of the two procedures).
    before = version(db)
    db.execute("PRAGMA writable_schema=ON")
    try:
        db.execute(
            "UPDATE sqlite_schema SET sql=replace(sql, ' AUTOINCREMENT', '') "
            "WHERE type='table' AND name='_appliance_outbox'"
        )
        db.execute(f"PRAGMA schema_version={before + 1}")
    finally:
        db.execute("PRAGMA writable_schema=RESET")


def _from_3(_db: sqlite3.Connection) -> None:
    # Format 4 writes some rows otherwise (``outbox.LONG_TEXT``, a ``create`` behind an update's old image), and reads
    # those of format 3, whose triggers go on until they are renewed.
    pass


#: What leads from each format to the next, beside the tables that were missing.
_MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {1: _from_1, 2: _from_2, 3: _from_3}


def _format(db: sqlite3.Connection) -> int | None:
    found = get(db, "format") if exists(db) else None
    return found if isinstance(found, int) else None


def _there(db: sqlite3.Connection) -> set[str]:
    rows = db.execute("SELECT name FROM sqlite_schema WHERE name LIKE '\\_appliance\\_%' ESCAPE '\\'")
    return {name for (name,) in rows.fetchall()}


def lacking(db: sqlite3.Connection) -> list[str]:
    """Name what is not there of our tables and their indexes: somebody has dropped it."""
    return sorted(_NAMES - _there(db))


def demand(db: sqlite3.Connection) -> None:
    """Raise ``Unavailable`` where something of it is not there: users' writes may fail for want of it."""
    if dropped := lacking(db):
        raise Unavailable(f"somebody has dropped {', '.join(dropped)}")


def bump(db: sqlite3.Connection) -> int:
    """Begin a new generation of topics and settings, so that a running server sees it with its next look."""
    db.execute("UPDATE _appliance_meta SET value = value + 1 WHERE name='generation'")
    return generation(db)


def generation(db: sqlite3.Connection) -> int:
    """Give the generation of topics and settings: it grows with each write of a command or request to them."""
    found = get(db, "generation")
    return found if isinstance(found, int) else 0


def highest(db: sqlite3.Connection) -> int:
    """Give the highest id that the outbox has handed out; 0 when none. Its row is always kept."""
    (found,) = db.execute("SELECT max(id) FROM _appliance_outbox").fetchone()
    return int(found or 0)


def highest_found(db: sqlite3.Connection) -> int:
    """Give the same for a file that may be no store yet, or lack what somebody has dropped.

    -1: it was made anew of a dump, rows and all: in one and the same file the schema's version never goes back.
    """
    if "_appliance_outbox" in lacking(db):
        return 0
    known = get(db, SCHEMA_VERSION) if exists(db) else None
    return -1 if isinstance(known, int) and version(db) < known else highest(db)


def oldest(db: sqlite3.Connection) -> int:
    """Give the lowest position that can still be resumed from: everything after it is in the outbox.

    What is left of an event whose first row was trimmed is not: somebody may have been told a part of it, with a
    position in its midst.
    """
    row = db.execute(_FIRST, (int(Op.MORE),)).fetchone()
    return highest(db) if row is None else int(row[0]) - 1


_FIRST = "SELECT id FROM _appliance_outbox WHERE op IS NOT ? ORDER BY id LIMIT 1"
