"""The open store: one file, one writer, the tail's own reader, and what the server may ask of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from appliance.capture import outbox
from appliance.capture.shape import Secret
from appliance.counters import Histogram
from appliance.model import Position, Shape, SQLiteValue, Topic, ascii_fold
from appliance.store import breaks, connections, grants, idempotency, incarnation, schema, standard, topics, watch
from appliance.store.bridge import Database, connect
from appliance.store.incarnation import LiveFile
from appliance.store.readers import Readers, open_readers
from appliance.store.resources import Resources
from appliance.store.retention import Retention
from appliance.store.writer import Writer

log = structlog.get_logger()

#: How many outbox rows one look fetches, and about how many bytes of values it stops at: a bound for memory, and
#: for how long one read keeps the WAL from being reset.
LOOK_ROWS = 1000
LOOK_BYTES = 8 << 20
_CHUNK_ROWS = 50

OutboxRow = tuple[SQLiteValue, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How a store is opened.

    ``secret(table, column)`` says which columns are never captured; ``accounts`` whether there are to be system tables.
    """

    path: Path
    secret: Secret
    busy_timeout_s: float = 5.0
    synchronous: str = "NORMAL"
    retention: Retention = field(default_factory=Retention)
    accounts: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What the tail saw in one short read transaction.

    ``rows`` are the outbox rows after the position it asked for, in order, as far as the bounds allow; ``full``
    says that there may be more.
    """

    data_version: int
    schema_version: int
    generation: int
    incarnation: str
    highest: int
    rows: Sequence[OutboxRow]
    full: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """What commands and requests have set, as of one generation: user topics and unwatched tables, names folded."""

    generation: int
    topics: Mapping[str, Topic]
    unwatched: frozenset[str]


@dataclass(frozen=True, slots=True)
class Catalog:
    """All topics there are, and what has changed since the catalogue before it.

    ``tables`` by folded name; ``shapes`` by id, old ones included. ``changed`` and ``dropped`` name tables, ``taken``
    the user topics that ended because a table has their name. ``skipped`` and ``warnings`` say which tables are not,
    or not fully, captured and why. Events up to ``highest`` may be of the catalogue before.
    ``found_version`` and ``schema_version`` are the schema's before and after our own changes to it, ``foreign``
    is all of it that is not ours: SQL by type and name.
    """

    tables: Mapping[str, Shape]
    settings: Settings
    shapes: Mapping[int, Shape]
    found_version: int
    schema_version: int
    foreign: Mapping[str, str | None]
    highest: int
    changed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Store:
    """The store as the server uses it. Made by ``open_store``."""

    def __init__(
        self,
        settings: StoreSettings,
        writer: Writer,
        reader: Database,
        readers: Readers,
        live: LiveFile,
        epoch: str,
        incarnation: str,
    ) -> None:
        self.path = settings.path
        self.epoch = epoch
        self.incarnation = incarnation
        #: Set by who finds that the file at ``path`` is another one now.
        self.replaced = False
        self.identity = connections.identity(settings.path)
        self.retention = settings.retention
        #: By folded name, the position after which a table's events are complete: to resume from before is a gap.
        self.breaks: Mapping[str, int] = {}
        self.resources = Resources(settings.secret)
        self._secret = settings.secret
        self._writer = writer
        self._reader = reader
        self._readers = readers
        self._live = live

    def on_commit(self, committed: Callable[[], None]) -> None:
        """Have ``committed`` called after each commit of ours, so that the tail need not wait for its poll."""
        self._writer.committed = committed

    @property
    def commit_seconds(self) -> Histogram:
        """Tell how long our own commits have taken, from asking for them."""
        return self._writer.seconds

    async def signing_secret(self) -> str:
        """Give the secret that signs this store's tokens."""
        return await self._writer.alone(lambda db: str(schema.get(db, "secret")))

    async def position(self) -> Position:
        """Give the newest position in the store."""
        return Position(self.epoch, await self._writer.alone(schema.highest))

    async def look(self, after: int, known: int | None, at_least: int = 0) -> Look | None:
        """Read what comes after the event id ``after``; so many rows at least, however long they are.

        ``None`` when nothing was committed by anyone since a look whose ``data_version`` was ``known`` (about
        10 µs of SQL). Raises ``sqlite3.Error`` when the file cannot be read.
        """
        return await self._reader.run(lambda db: _look(db, after, known, at_least))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on a connection that only reads, beside the tail and the writer. Raises what it raises."""
        return await self._readers.read(work)

    def handed_out(self, highest: int) -> None:
        """Note that ids up to ``highest`` are about to be sent."""
        self._live.note(highest)

    async def synchronise(self) -> Catalog:
        """Put every watched table under capture, whatever has happened to the schema; give what there is now."""
        catalog, found = await self._writer.alone(lambda db: (_synchronise(db, self._secret), breaks.breaks(db)))
        before, self.breaks = self.breaks, found
        # Another process may have made triggers anew and left nothing to do.
        anew = {
            shape.table
            for folded, shape in catalog.tables.items()
            if folded in before and before[folded] != found.get(folded)
        }
        return replace(catalog, changed=tuple(sorted(anew.union(catalog.changed))))

    async def break_off(self, tables: Collection[str]) -> None:
        """Note that the events of these tables are complete only from now on. Raises as ``Writer.commit`` says."""

        def work(db: sqlite3.Connection) -> dict[str, int]:
            breaks.note(db, tables)
            return breaks.breaks(db)

        self.breaks = await self._writer.commit(work)

    async def read_settings(self) -> Settings:
        """Read what commands and requests have set: what there is to do when only the generation has moved."""
        return await self._writer.alone(_settings)

    async def read_shapes(self) -> Mapping[int, Shape]:
        """Read every shape that a row of the outbox may have."""
        return await self._writer.alone(watch.load_shapes)

    async def create_topic(self, topic: Topic) -> int:
        """Store a new user topic; give the generation. Raises ``TopicExists`` and what ``Writer.commit`` raises."""
        return await self._writer.commit(lambda db: topics.create(db, topic))

    async def destroy_topic(self, name: str) -> int:
        """Delete a user topic; give the generation. Raises ``UnknownTopic`` and what ``Writer.commit`` raises."""
        return await self._writer.commit(lambda db: topics.destroy(db, name))

    async def publish(self, topic: str, sender: str, body: bytes) -> int:
        """Commit a durable message and give its event id. Raises ``UnknownTopic`` and what ``commit`` raises."""
        published = await self._writer.commit(lambda db: topics.publish(db, topic, sender, body))
        self._live.note(published)  # the sender is told
        return published

    async def publish_once(self, topic: str, *, issuer: str, sender: str, body: bytes, key: str) -> idempotency.Sent:
        """Commit a durable message unless ``key`` has done so before. Raises as ``idempotency.publish`` says."""
        now = time.time()
        sent = await self._writer.commit(
            lambda db: idempotency.publish(db, topic, issuer=issuer, sender=sender, body=body, key=key, now=now)
        )
        self._live.note(sent.event_id)
        return sent

    async def commit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in a write transaction, perhaps together with others'. Raises as ``Writer.commit`` says."""
        return await self._writer.commit(work)


@asynccontextmanager
async def open_store(settings: StoreSettings) -> AsyncIterator[Store]:
    """Open the store for serving; close it, marked clean, on the way out.

    Raises ``StoreInUse`` and ``StoreUnusable``.
    """
    path, busy = settings.path, settings.busy_timeout_s
    await trio.to_thread.run_sync(
        lambda: connections.inspect(path, busy_timeout_s=busy, create=True), abandon_on_cancel=False
    )
    store: Store | None = None
    with incarnation.hold(path) as live:
        try:
            async with _connected(settings, live) as store:
                wal = connections.wal_identity(path)
                yield store
        finally:
            if store is not None and store.replaced and connections.identity(path) != store.identity:
                connections.forget_stale_wal(path, wal)


@asynccontextmanager
async def _connected(settings: StoreSettings, live: LiveFile) -> AsyncIterator[Store]:
    path, busy = settings.path, settings.busy_timeout_s
    async with (
        connect(lambda: connections.open_file(path, busy_timeout_s=busy, synchronous=settings.synchronous)) as writing,
        connect(lambda: connections.open_reader(path, busy_timeout_s=busy)) as reading,
        open_readers(lambda: connections.open_reader(path, busy_timeout_s=busy)) as readers,
    ):
        try:
            own, epoch = await writing.run(lambda db: _begin(db, settings, live))
        except sqlite3.Error as error:
            raise connections.refusal(path, error) from error
        store = Store(settings, Writer(writing), reading, readers, live, epoch, own)
        try:
            yield store
        finally:
            if not store.replaced:
                try:
                    await writing.run(incarnation.end)
                except sqlite3.Error as error:
                    log.error("store_not_marked_clean", reason=str(error))


def _begin(db: sqlite3.Connection, settings: StoreSettings, live: LiveFile) -> tuple[str, str]:
    schema.check_format(db)
    former = connections.enter_wal(db, settings.path, patience_s=settings.busy_timeout_s)
    schema.prepare(db)
    schema.keep_rows(db, settings.retention.rows)
    if settings.accounts:
        standard.prepare(db)
    if former != "wal":
        with schema.transaction(db):
            schema.put(db, "journal_mode", former)  # what ``offline.release`` restores
    return incarnation.begin(db, live)


def _look(db: sqlite3.Connection, after: int, known: int | None, at_least: int) -> Look | None:
    (version,) = db.execute("PRAGMA data_version").fetchone()
    if version == known:
        return None
    # One read transaction, so that rows, schema and settings are of one moment. data_version comes before it:
    # a commit in between is then seen twice rather than never.
    db.execute("BEGIN")
    try:
        settings = dict(
            db.execute("SELECT name, value FROM _appliance_meta WHERE name IN ('generation', 'incarnation')").fetchall()
        )
        (schema_version,) = db.execute("PRAGMA schema_version").fetchone()
        highest = schema.highest(db)
        try:
            rows, full = _rows(db, after, at_least)
        except sqlite3.OperationalError as error:
            if "decode" not in str(error).lower():
                raise
            # Text that is not UTF-8. Decoding by a function of ours costs every row, so only these looks pay it.
            db.text_factory = connections.text
            try:
                rows, full = _rows(db, after, at_least)
            finally:
                db.text_factory = str
    finally:
        db.execute("COMMIT")
    return Look(
        version, schema_version, settings.get("generation", 0), settings.get("incarnation", ""), highest, rows, full
    )


def _rows(db: sqlite3.Connection, after: int, at_least: int) -> tuple[list[OutboxRow], bool]:
    limit = max(LOOK_ROWS, at_least)
    cursor = db.execute(outbox.SELECT_AFTER, (after, limit))
    rows: list[OutboxRow] = []
    size = 0
    while chunk := cursor.fetchmany(_CHUNK_ROWS):
        rows += chunk
        size += sum([len(value) for row in chunk for value in row if isinstance(value, (str, bytes))])
        if size > LOOK_BYTES and len(rows) >= at_least:
            cursor.close()
            return rows, True
    return rows, len(rows) == limit


def _settings(db: sqlite3.Connection) -> Settings:
    generation = schema.generation(db)  # before all that it is the generation of
    return Settings(
        generation=generation,
        topics={ascii_fold(topic.name): topic for topic in topics.topics(db)},
        unwatched=frozenset(map(ascii_fold, topics.unwatched(db))),
    )


def _synchronise(db: sqlite3.Connection, secret: Secret) -> Catalog:
    off = _settings(db).unwatched
    synced = watch.synchronise(db, secret=secret, watched=lambda table: ascii_fold(table) not in off)
    taken = topics.end_taken(db, synced.shapes)
    grants.adopt(db, synced.shapes)
    settings = _settings(db)
    return Catalog(
        tables={ascii_fold(name): shape for name, shape in synced.shapes.items()},
        # Were a table taken off the watch only now, the next look would find a generation that nobody has seen.
        settings=settings if settings.unwatched == off else replace(settings, unwatched=off, generation=-1),
        shapes=watch.load_shapes(db),
        found_version=synced.found_version,
        schema_version=synced.schema_version,
        foreign=synced.foreign,
        highest=schema.highest(db),
        changed=synced.changed,
        dropped=synced.dropped,
        taken=tuple(taken),
        skipped=synced.skipped,
        warnings=synced.warnings,
    )
