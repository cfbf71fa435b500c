"""The open store: one file, one writer, the tail's own reader, and what the server may ask of them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from appliance.capture.contents import Contents
from appliance.capture.shape import Secret
from appliance.counters import Histogram
from appliance.model import Position, Shape, SQLiteValue, ascii_fold
from appliance.store.access import grants, keys
from appliance.store.file import connections, incarnation, live_file, schema
from appliance.store.file.bridge import connect
from appliance.store.file.condition import Condition
from appliance.store.file.guard import Guard
from appliance.store.file.live_file import LiveFile
from appliance.store.file.place import Place, identity
from appliance.store.file.readers import Readers, open_readers
from appliance.store.file.writer import Job, Writer
from appliance.store.outbox import borders, topics
from appliance.store.outbox.idempotency import Sent
from appliance.store.outbox.look import Look, Lookout, open_lookout
from appliance.store.outbox.retention import Retention
from appliance.store.tables import breaks, migration, secrecy, standard, watch  # fmt: skip
from appliance.store.tables.catalog import Catalog, Settings
from appliance.store.tables.migration import Suspended
from appliance.store.tables.resources import Resources

log = structlog.get_logger()

T = TypeVar("T")

#: How often a start looks whether a migration has ended, seconds: a lock of another process tells nobody.
MIGRATION_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How a store is opened. ``secrets`` sign its tokens; without any it has its own. ``called`` is as ``Place`` says.

    ``secret(table, column)`` says which columns are never captured; ``accounts`` whether there are to be system tables;
    ``checkpoints`` whether the WAL is ours to move into the file, or somebody else's (Litestream). With less than
    ``free_bytes`` on its disk there is a problem.
    """

    path: Path
    secret: secrecy.Secrecy
    busy_timeout_s: float = 5.0
    synchronous: str = "NORMAL"
    retention: Retention = field(default_factory=Retention)
    accounts: bool = False
    checkpoints: bool = True
    free_bytes: int = 0
    secrets: tuple[str, ...] = ()
    called: Path | None = None


class Store:
    """The store as the server uses it. Made by ``open_store``."""

    def __init__(
        self,
        settings: StoreSettings,
        writer: Writer,
        lookout: Lookout,
        readers: Readers,
        live: LiveFile,
        epoch: str,
        place: Place,
    ) -> None:
        self.path = settings.path
        self.epoch = epoch
        self.place = place
        self.incarnation = place.incarnation
        #: Set by who finds that the file at ``path`` is another one now.
        self.replaced = False
        self.retention = settings.retention
        #: By folded name, the position after which a table's events are complete: to resume from before is a gap.
        self.breaks: Mapping[str, int] = {}
        #: Where in the outbox which kinds of rows are: the tail, which reads them all, takes note.
        self.contents = Contents()
        self.borders = borders.Borders()
        self.resources = Resources(settings.secret)
        self.secrets = keys.Secrets(settings.secrets)
        self.condition = Condition(settings.path, writer, settings.free_bytes)
        self._secret = settings.secret
        self._catalog: Catalog | None = None
        self._writer = writer
        self._lookout = lookout
        self._readers = readers
        self._live = live
        #: As ``Guard``, ``LiveFile`` and ``Writer`` say: is the file ours, keep our lock, wait for others' less.
        self.is_ours, self.keep_lock, self.hurry = writer.is_ours, live.keep, writer.hurry

    def on_commit(self, committed: Callable[[], None]) -> None:
        """Have ``committed`` called after each commit of ours, so that the tail need not wait for its poll."""
        self._writer.committed = committed

    @property
    def commit_seconds(self) -> Histogram:
        """Tell how long our own commits have taken, from asking for them."""
        return self._writer.seconds

    async def save(self) -> str | None:
        """Move all that is in the WAL into the file, wherever that is now; say what is in the way (``Place.save``)."""
        return await self._writer.run(self.place.save)

    async def part(self) -> None:
        """Give up our connections, which are parted from all others'; they are to be closed (``Place.part``)."""
        await self._writer.run(self.place.part)

    async def position(self) -> Position:
        """Give the newest position in the store."""
        newest = await self._writer.alone(schema.highest)
        self.borders.note(newest)
        return Position(self.epoch, newest)

    async def look(self, after: int, known: int | None, at_least: int = 0) -> Look | None:
        """Read what comes after the event id ``after``; so many rows at least, however long they are.

        ``None`` when nothing was committed by anyone since a look whose ``data_version`` was ``known`` (about
        10 µs of SQL). Raises ``sqlite3.Error`` when the file cannot be read.
        One look at a time: the tail's.
        """
        return await self._lookout.look(after, known, at_least)

    def quiet(self, known: int | None) -> bool:
        """Whether surely nobody has committed anything since a look whose ``data_version`` was ``known`` (10 µs).

        Not to be asked while a look is under way.
        """
        return self._lookout.quiet(known)

    async def read(self, work: Callable[[sqlite3.Connection], T], *, patient: bool = False) -> T:
        """Run ``work`` as ``Readers.read`` does, the tail's on its own connection: all live events wait for these."""
        own = self._lookout.is_asked
        return await (self._lookout.read(work) if own else self._readers.read(work, patient=patient))

    def handed_out(self, highest: int, row: Sequence[SQLiteValue] = ()) -> None:
        """Note that ids up to ``highest`` are about to be sent, as ``LiveFile.note`` does, and raises."""
        self._live.note(highest, row)

    async def synchronise(self, stop: trio.Event | None = None) -> Catalog:
        """Put every watched table under capture, whatever has happened to the schema; give what there is now.

        While somebody migrates that is what there was before, and nobody's last word: whatever is committed next is
        to be looked at anew. A server that is just starting waits for the end of the migration, but not once it is to
        ``stop``: then it raises ``Suspended``.
        """
        while True:
            try:
                catalog, found = await self._writer.alone(
                    lambda db: (_synchronise(db, self._secret, self.retention), breaks.breaks(db))
                )
            except Suspended as error:
                if not self.condition.suspended:
                    log.warning("capture_suspended", reason=str(error))
                self.condition.suspended = True
                if self._catalog is not None:
                    settings, highest = await self._writer.alone(lambda db: (_settings(db), schema.highest(db)))
                    return replace(
                        self._catalog, settings=settings, highest=highest, found_version=-1, schema_version=-1,
                        changed=(), dropped=(), taken=(),
                    )  # fmt: skip
                if stop is not None and stop.is_set():
                    raise
                await trio.sleep(MIGRATION_POLL_S)
            else:
                break
        if self.condition.suspended:
            log.info("capture_resumed")
        self.condition.suspended, before, self.breaks = False, self.breaks, found
        # Another process may have made triggers anew and left nothing to do.
        anew = {
            shape.table
            for folded, shape in catalog.tables.items()
            if folded in before and before[folded] != found.get(folded)
        }
        self._catalog = replace(catalog, changed=tuple(sorted(anew.union(catalog.changed))))
        return self._catalog

    async def resume_abandoned(self) -> None:
        """Have the tail look anew if whoever migrated has gone without a word (killed)."""
        if self.condition.suspended and not migration.is_held(self.path):
            await self._writer.commit(schema.bump)

    async def break_off(self, tables: Collection[str]) -> None:
        """Note that the events of these tables are complete only from now on. Raises as ``Writer.finish`` says."""

        def work(db: sqlite3.Connection) -> dict[str, int]:
            breaks.note(db, tables)
            return breaks.breaks(db)

        self.breaks = await self._writer.commit(work)

    async def read_settings(self) -> tuple[Settings, int]:
        """Read what commands and requests have set, for when only the generation has moved, and the newest id then."""
        return await self._writer.alone(lambda db: (_settings(db), schema.highest(db)))

    async def read_shapes(self) -> Mapping[int, Shape]:
        """Read every shape that a row of the outbox may have."""
        return await self._writer.alone(watch.load_shapes)

    def send(self, message: Callable[[sqlite3.Connection], Sent]) -> Job[Sent]:
        """Have a durable message wait for the next commit; ``sent`` is to follow at once."""
        return self._writer.submit(message)

    async def sent(self, message: Job[Sent]) -> Sent:
        """Commit a message. Raises what its work raises, and as ``Writer.finish`` and ``handed_out`` say."""
        sent = await self._writer.finish(message)
        self.handed_out(sent.event_id)  # the sender is told
        return sent

    async def commit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in a write transaction, perhaps together with others'. Raises as ``Writer.finish`` says."""
        return await self._writer.commit(work)

    async def commit_alone(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` alone in a write transaction; the tables it makes are captured at once. Raises as ``commit``."""

        def whole(db: sqlite3.Connection) -> T:
            with schema.transaction(db):
                done = work(db)
                watch.capture(db, secret=self._secret, unwatched=topics.unwatched(db))
                return done

        done = await self._writer.alone(whole)
        self._writer.committed()
        return done


@asynccontextmanager
async def open_store(settings: StoreSettings) -> AsyncIterator[Store]:
    """Open the store for serving; close it, marked clean, on the way out.

    Raises ``StoreInUse`` and ``StoreUnusable``.
    """
    path, busy = settings.path, settings.busy_timeout_s
    unchecked = await trio.to_thread.run_sync(
        lambda: connections.inspect(path, busy_timeout_s=busy, create=True, content=lambda db: _check(db, settings)),
        abandon_on_cancel=False,
    )
    for table, reason in unchecked.items():
        log.warning("table_not_checked", table=table, reason=reason)
    store: Store | None = None
    with live_file.hold(path) as live:
        try:
            async with _connected(settings, live) as store:
                yield store
        finally:
            if store is not None:
                # Another file there: a new epoch, whatever it holds.
                live.stop(goes_on=not (store.place.unpin() or store.replaced or store.place.is_taken()))


@asynccontextmanager
async def _connected(settings: StoreSettings, live: LiveFile) -> AsyncIterator[Store]:
    path, busy, found = settings.path, settings.busy_timeout_s, identity(settings.path)
    store: Store | None = None

    def another() -> sqlite3.Connection:
        if store is not None and (not store.place.is_ours() or store.place.lacks()):
            # To open the other would give it our WAL, or this one another than we have.
            raise sqlite3.OperationalError("the file was moved away or replaced by another")
        return connections.open_reader(path, busy_timeout_s=busy)

    async with (
        connect(lambda: connections.open_file(path, busy_timeout_s=busy, synchronous=settings.synchronous)) as writing,
        connect(lambda: connections.open_reader(path, busy_timeout_s=busy)) as reading,
        open_readers(another) as readers,
    ):
        with connections.starting(path):
            own, epoch = await writing.run(lambda db: _begin(db, settings, live))
        lookout = await open_lookout(reading, busy)
        guard, place = Guard(path, own, live), Place(path, own, settings.called, found)
        store = Store(settings, Writer(writing, guard.is_ours), lookout, readers, live, epoch, place)
        store.borders, store.contents = borders.known(live), Contents(live.contents(), live.note_contents)
        try:
            yield store
        finally:
            if not store.place.is_ours():
                await writing.run(store.place.leave)
            elif store.place.lacks():
                await writing.run(store.place.part)
            elif not store.replaced:
                try:
                    await writing.run(lambda db: guard.end(db, checkpoint=settings.checkpoints))
                except sqlite3.Error as error:
                    log.error("store_not_marked_clean", reason=str(error))


def _check(db: sqlite3.Connection, settings: StoreSettings) -> None:
    """Refuse what is in the way of a start before it changes anything. Raises ``StoreUnusable``."""
    schema.check_format(db)
    if settings.accounts:
        standard.check(db)


def _begin(db: sqlite3.Connection, settings: StoreSettings, live: LiveFile) -> tuple[str, str]:
    schema.check_format(db)
    if not settings.checkpoints:
        db.execute("PRAGMA wal_autocheckpoint=0").fetchall()
    former = connections.enter_wal(db, settings.path, patience_s=settings.busy_timeout_s)
    # As the file was before we change anything, or it would look newer than it is.
    moved, found = schema.exists(db) and watch.has_moved(db), schema.highest_found(db)
    schema.prepare(db)
    if settings.accounts:
        standard.prepare(db)
    secrecy.remember(db, settings.secret)  # for commands, and for requests that name a column
    keys.Secrets(settings.secrets).note(db)
    if former != "wal":
        schema.remember(db, "journal_mode", former)  # what ``offline.release`` restores
    if moved:
        watch.break_off_unkeyed(db)
    return incarnation.begin(db, live, found)


def _settings(db: sqlite3.Connection) -> Settings:
    generation = schema.generation(db)  # before all that it is the generation of
    return Settings(
        generation=generation,
        topics={ascii_fold(topic.name): topic for topic in topics.topics(db)},
        unwatched=topics.unwatched(db),
    )


def _synchronise(db: sqlite3.Connection, secret: Secret, retention: Retention) -> Catalog:
    off = _settings(db).unwatched
    schema.keep_rows(db, retention.rows)
    synced = watch.synchronise(db, secret=secret, watched=lambda table: ascii_fold(table) not in off)
    watch.remember(db, synced)
    taken = topics.end_taken(db, synced.shapes)
    grants.adopt(db, synced.shapes)
    settings = _settings(db)
    db.execute("PRAGMA shrink_memory").fetchall()  # the pages of all the schema: the next writes want others
    return Catalog(
        tables={ascii_fold(name): shape for name, shape in synced.shapes.items()},
        # Were a table taken off the watch only now, the next look would find a generation that nobody has seen.
        settings=settings if settings.unwatched == off else replace(settings, unwatched=off, generation=-1),
        shapes=watch.load_shapes(db),
        found_version=synced.found_version,
        schema_version=synced.schema_version,
        foreign=synced.foreign,
        found_texts=synced.found_texts,
        texts=synced.texts,
        highest=schema.highest(db),
        changed=synced.changed,
        dropped=synced.dropped,
        taken=tuple(taken),
        skipped=synced.skipped,
        warnings=synced.warnings,
    )
