"""One look of the tail: what has come into the outbox, in one short read transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import trio

from appliance.capture import outbox
from appliance.model import SQLiteValue
from appliance.store.file import connections
from appliance.store.file.bridge import Database
from appliance.store.tables import standing, watch

#: How many outbox rows one look fetches, and about how many bytes of values it stops at: a bound for memory, and
#: for how long one read keeps the WAL from being reset.
LOOK_ROWS = 1000
LOOK_BYTES = 8 << 20
#: The same for a glance: a bound for how long the event loop does nothing else (about a millisecond).
GLANCE_ROWS = 128
GLANCE_BYTES = 128 << 10

OutboxRow = tuple[SQLiteValue, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look:
    """What the tail saw in one short read transaction.

    ``rows`` are the outbox rows after the position it asked for, in order, as far as the bounds allow, each with as
    many values as the widest of them can have; ``size`` is about how many bytes of values they hold, ``full`` says that
    there may be more. ``texts`` are those of our triggers then (``standing.texts``).
    """

    data_version: int | None
    schema_version: int
    generation: int
    incarnation: str
    highest: int
    rows: Sequence[OutboxRow]
    size: int
    full: bool
    texts: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Beyond:
    """That there is more than a glance may read; ``data_version`` is that of before."""

    data_version: int | None


class Seen(NamedTuple):
    """The schema as a connection knows it: its version, and the texts of our triggers."""

    schema_version: int | None
    texts: Mapping[int, bytes]


def glance(db: sqlite3.Connection, after: int, known: int | None, schema: Seen) -> Look | Beyond | None:
    """Read what comes after the event id ``after``, if it is little; ``None``: there was no commit since ``known``.

    Little is no look at another ``schema`` than this: to read that takes 50 ms where there are 100 tables.
    """
    (version,) = db.execute("PRAGMA data_version").fetchone()
    if version == known:
        return None
    seen = _read(db, version, after, GLANCE_ROWS, GLANCE_BYTES, schema=schema, little=True)
    return seen or Beyond(version)


class Lookout:
    """The tail's connection. Made by ``open_lookout``."""

    def __init__(self, database: Database, connection: sqlite3.Connection, busy_timeout_s: float) -> None:
        self._database = database
        self._connection = connection
        self._busy_timeout_s = busy_timeout_s
        self._schema = Seen(None, {})
        self._tail: trio.lowlevel.Task | None = None

    @property
    def is_asked(self) -> bool:
        """Whether it is the tail that asks: the task that looks."""
        return trio.lowlevel.current_task() is self._tail

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a work for the tail, which does not look meanwhile. Raises what it raises."""
        return await self._database.run(lambda db: self._patiently(db, work))

    async def look(self, after: int, known: int | None, at_least: int) -> Look | None:
        """Read what comes after the event id ``after``, as ``Store.look`` says; one look after another.

        What is little is read right here: to have a thread do it takes five times as long, and the events wait for it.
        What is more, or has somebody's lock or a fault of the disk in its way, is for the thread that has the same
        connection and has nothing to do meanwhile: a second one would take 1.5 MB for knowing the schema. Only then is
        this a checkpoint.
        """
        self._tail = trio.lowlevel.current_task()
        try:
            seen = glance(self._connection, after, known, self._schema)
        except sqlite3.Error:
            seen = Beyond(None)
        if isinstance(seen, Beyond) or (at_least and seen is not None):
            version = seen.data_version
            seen = await self.read(lambda db: self._look(db, version, after, at_least))
            self._schema = Seen(seen.schema_version, seen.texts)
        return seen

    def quiet(self, known: int | None) -> bool:
        """Say what ``Store.quiet`` says."""
        try:
            return known is not None and self._connection.execute("PRAGMA data_version").fetchone() == (known,)
        except sqlite3.Error:
            return False

    def _look(self, db: sqlite3.Connection, version: int | None, after: int, at_least: int) -> Look:
        seen = _read(db, version, after, max(LOOK_ROWS, at_least), LOOK_BYTES, at_least, schema=self._schema)
        assert seen is not None  # noqa: S101 – nothing is beyond this
        return seen

    def _patiently(self, db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        """Wait for a lock, as a glance does not."""
        db.execute(f"PRAGMA busy_timeout={int(self._busy_timeout_s * 1000)}").fetchall()
        try:
            return work(db)
        finally:
            db.execute("PRAGMA busy_timeout=0").fetchall()


async def open_lookout(database: Database, busy_timeout_s: float) -> Lookout:
    """Make a connection the tail's: the WAL opened and the schema read, so that no event has to wait for that.

    A look waits for a lock up to so long, in the connection's thread. Raises ``sqlite3.Error``.
    """

    def prepare(db: sqlite3.Connection) -> sqlite3.Connection:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        db.execute("PRAGMA busy_timeout=0").fetchall()
        return db

    return Lookout(database, await database.run(prepare), busy_timeout_s)


def behind(db: sqlite3.Connection, after: int, most: int, most_bytes: int) -> Look:
    """Read what comes after the event id ``after``, so many rows and about so many bytes at most.

    Raises ``sqlite3.Error``.
    """
    seen = _read(db, None, after, most, most_bytes, schema=None)
    assert seen is not None  # noqa: S101 – nothing is beyond this
    return seen


def _read(
    db: sqlite3.Connection,
    version: int | None,
    after: int,
    most: int,
    most_bytes: int,
    at_least: int = 0,
    *,
    schema: Seen | None,
    little: bool = False,
) -> Look | None:
    """Read rows as far as the bounds allow; ``None``: it was to be ``little`` and is not, or of another ``schema``.

    Without a ``schema`` nobody asks for the texts of our triggers.
    """
    # One read transaction, so that rows, schema and settings are of one moment. ``data_version`` was read before it:
    # a commit in between is then seen twice rather than never.
    db.execute("BEGIN")
    try:
        (schema_version,) = db.execute("PRAGMA schema_version").fetchone()
        known = schema is None or schema_version == schema.schema_version
        if little and not known:
            return None
        generation, incarnation, highest, newest_shape = db.execute(_STATE).fetchone()
        if little and highest - after > most:
            return None
        rows: list[tuple[Any, ...]] = []
        size = 0
        if highest > after:
            select = outbox.select_after(_width(db, incarnation, newest_shape))
            rows, size = connections.tolerant(
                db, lambda: connections.bounded(db.execute(select, (after, most)), most_bytes, at_least)
            )
        full = bool(rows) and rows[-1][0] < highest
        if little and full:
            return None
        texts = standing.texts(standing.ours(db)) if not known else schema.texts if schema is not None else {}
    finally:
        db.execute("COMMIT")
    return Look(
        data_version=version,
        schema_version=schema_version,
        generation=generation,
        incarnation=incarnation,
        highest=highest,
        rows=rows,
        size=size,
        full=full,
        texts=texts,
    )


#: The generation, the incarnation, the highest id, and the newest shape's.
_STATE: Final = """SELECT ifnull((SELECT value FROM _appliance_meta WHERE name='generation'), 0),
ifnull((SELECT value FROM _appliance_meta WHERE name='incarnation'), ''),
ifnull((SELECT max(id) FROM _appliance_outbox), 0),
ifnull((SELECT max(id) FROM _appliance_shape), 0)"""

#: ``_width`` by incarnation and newest shape: a shape that is stored never changes.
_widths: dict[tuple[str, int], int] = {}
_WIDTHS_LIMIT: Final = 64


def _width(db: sqlite3.Connection, incarnation: str, newest_shape: int) -> int:
    """Say how many values a row has at most, by the shapes there are: what comes after them is NULL and not read."""
    known = _widths.get((incarnation, newest_shape))
    if known is None:
        if len(_widths) >= _WIDTHS_LIMIT:
            _widths.clear()
        widest = max((shape.width for shape in watch.load_shapes(db).values()), default=0)
        known = min(outbox.WIDTH, max(outbox.MESSAGE_WIDTH, widest))
        if incarnation:
            _widths[incarnation, newest_shape] = known
    return known
