"""The tail of the outbox: one task that reads every committed change once and hands it to the hub.

It is woken by our own commits, by the system when somebody writes to the WAL, and by a poll where neither
tells. Each look is one short read transaction that is over before anything is delivered, so the WAL is never
pinned. Whether a look can find anything is first asked of ``PRAGMA data_version`` (10 µs), so waking costs little.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog
import trio

from appliance.capture.decode import decode
from appliance.errors import ApplianceError
from appliance.live.fanout.hub import Hub
from appliance.live.fanout.subscribers import doubt
from appliance.live.matching.facts import NOTHING, Facts
from appliance.live.matching.stale import stale
from appliance.live.matching.telling import Told
from appliance.live.replay.commits import Commits
from appliance.live.tail.absence import Absence
from appliance.live.tail.ground import Ground
from appliance.live.tail.rights import Rights
from appliance.live.tail.state import TailState
from appliance.live.tail.turns import Turns
from appliance.live.tail.waking import BUSY_POLL_S, Waking
from appliance.model import Op
from appliance.store.file.incarnation import StoreReplaced
from appliance.store.file.texts import said
from appliance.store.outbox.look import Look, OutboxRow
from appliance.store.store import Store
from appliance.store.tables.catalog import Catalog

log = structlog.get_logger()

#: How long the tail waits after the file could not be read, seconds.
RETRY_S: Final = 0.25


class Tail:
    """Reads the outbox from the hub's position on, whenever ``waking`` says."""

    def __init__(self, store: Store, hub: Hub, rights: Rights, catalog: Catalog, waking: Waking) -> None:
        self.waking = waking
        # The hub begins where the store ends: so far all has been delivered, though the first look is to come.
        now = trio.current_time()
        self.state = TailState(now, now, last_turn=now, skipped=dict(catalog.skipped))
        self._store = store
        self._hub = hub
        self._rights = rights
        self._commits = Commits(hub, store)
        self._generation = catalog.settings.generation
        self._distrusted = False
        self._schema = Ground(hub, store, catalog)
        self._unwatched = catalog.settings.unwatched
        self._changed: set[str] = set()
        self._told = True
        #: The newest break (``tables.breaks``) that all know of: what stands behind a later one waits for its news.
        self._known_break = max(store.breaks.values(), default=0)
        self._at_break = False
        self._at_least = 0
        self._known: int | None = None
        self._turns = Turns()
        self._absence = Absence(store)

    def distrust(self) -> None:
        """Read everybody's rights anew before anything else is delivered: what they rest on has changed."""
        self._distrusted = True
        self.waking.look()

    def has_all(self) -> bool:
        """Whether all that is committed by now has surely been taken up: events, tables and rights (2 µs)."""
        return self._turns.idle and not self._distrusted and self._store.quiet(self._known)

    async def caught_up(self, *, however_much: bool = False) -> None:
        """Wait until it has been. Not for longer than ``turns.PATIENCE_S``, and only ``however_much`` there is where so
        much waits that one look does not find all of it.
        """
        if (self.state.behind and not however_much) or self.has_all():
            return
        self.waking.look()
        await self._turns.next()

    async def run(self) -> None:
        """Read and deliver for as long as the server lives. Raises ``StoreReplaced`` and as ``Absence.look`` says."""
        try:
            await self._run()
        except StoreReplaced:
            self._store.replaced = True
            raise

    async def _run(self) -> None:
        while True:
            self.state.last_turn = trio.current_time()
            try:
                await self._catch_up()
                self._failed(None)
            except (sqlite3.Error, ApplianceError) as error:
                # The file cannot be read or the triggers not be made just now (disk full, locked, EIO). Nothing is
                # lost: the position stays, and what was committed is read when it can be.
                self._failed(said(error))
                self._known, self._distrusted = None, True  # what this look was to lead to is still to be done
                self._turns.end()
                until = trio.current_time() + RETRY_S
                while trio.current_time() < until:
                    await trio.sleep(BUSY_POLL_S if self._absence.is_on else RETRY_S)
                    await self._absence.look()  # nobody else does, and that may be why
                if "_appliance_" in said(error):  # there is no table of this name
                    await self._absence.look_for_tables()
            else:
                if await self.waking.wait(often=self._absence.is_on) or self._absence.is_on:
                    await self._absence.look()

    async def _catch_up(self) -> None:
        """Deliver everything that is committed."""
        while True:
            # A work of the store's is not cut short; who writes as fast as this reads must not hold up the stop.
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._at_break:
                await self._renew()
                self._known_break = max(self._known_break, self._hub.position.id)
                self._at_break = False
            self.waking.begin()
            self._turns.begin()
            known = None if self._distrusted else self._known
            look = await self._store.look(self._hub.position.id, known, self._at_least)
            self.state.last_look = trio.current_time()
            if look is None:
                self.state.behind, self.state.last_whole = False, self.state.last_look
                self._turns.end()
                return
            self._check_identity(look)
            self.state.behind_rows = look.highest - self._hub.position.id
            await self._renew_rights(look.generation, missed=self._schema.misses_rights(look))
            await self._schema.forewarn(look)
            before = self._before_a_break(look)
            await self._deliver(before)
            # Everybody else's turn, which a look does not give: not before what it has found is delivered.
            await trio.lowlevel.checkpoint()
            await self._absence.look()  # who catches up for long would not wait before that
            self.state.behind_rows = max(0, look.highest - self._hub.position.id)
            self.state.behind = look.full
            if before is not look:  # made by another process, or by us, and the news was not told then
                self._known, self._at_break = None, True
                continue
            self._known = None if look.full else look.data_version
            if look.full:
                continue
            self.state.last_whole = self.state.last_look
            if look.schema_version != self._schema.version or not self._told:
                await self._renew()
            elif look.generation != self._hub.generation:
                await self._renew_settings()
            self._turns.end()

    def _check_identity(self, look: Look) -> None:
        if look.incarnation != self._store.incarnation:
            raise StoreReplaced("another database was written over the file")
        if look.highest < self._hub.position.id:
            raise StoreReplaced("the outbox has lost events that were sent")

    async def _renew_rights(self, generation: int, *, missed: bool = False) -> None:
        """Read all rights anew if a command or request has changed some: before the hub goes on, to this generation."""
        if missed or self._distrusted or generation not in (self._generation, self._hub.generation):
            self._distrusted = False
            await self._rights.renew()
        self._generation = generation

    def _before_a_break(self, look: Look) -> Look:
        """Leave out what stands behind a break that not everybody knows of.

        Whoever had an event from behind it, and then lost its connection, would go on from there and never know.
        """
        if look.schema_version == self._schema.version and self._told:
            return look
        for place, row in enumerate(look.rows):
            if row[2] == Op.BREAK and _id(row) > self._known_break:
                return replace(look, rows=look.rows[: place + 1], full=False)
        return look

    async def _deliver(self, look: Look) -> None:
        first = _id(look.rows[0]) if look.rows else look.highest + 1
        if first > self._hub.position.id + 1:
            # Ids have no gaps, so rows were trimmed that nobody has read: a transaction larger than the outbox.
            # What is left of an event that was cut is lost with it.
            begun = next((place for place, row in enumerate(look.rows) if row[2] != Op.MORE), len(look.rows))
            first += begun
            log.warning("events_lost", after=self._hub.position.id, before=first)
            await self._rights.renew()  # they may have been of somebody's rights
            self._hub.lost(first - 1)
            look = replace(look, rows=look.rows[begun:])
        if not look.rows:
            return
        self.waking.found()
        hub = self._hub
        decoded = decode(look.rows, hub.shapes, more=look.full)
        if any(fault.unknown_shape for fault in decoded.faults):
            # A shape that another process stored: rows can be read as soon as it is known.
            hub.shapes = await self._store.read_shapes()
            decoded = decode(look.rows, hub.shapes, more=look.full)
        for fault in decoded.faults:
            hub.counters.unreadable_rows += 1
            log.error("outbox_row_unreadable", event_id=fault.id, reason=fault.reason)
        # An event that is longer than a look: the next one is to be longer.
        self._at_least = 0 if decoded.consumed else 2 * len(look.rows)
        if decoded.consumed:
            told = [Told(event) for event in decoded.events]
            if changed := stale(told):
                await self._rights.renew(changed)
            told = [each for each in told if not hub.withheld.has(each.event)]
            hub.known_to = max(hub.known_to, told[-1].id) if told else hub.known_to
            await self._publish(told, look.rows[: decoded.consumed], look)
            hub.counters.count_read(decoded.events)
            if (seconds := self.waking.delivered()) is not None:
                hub.counters.delivery.observe(seconds)

    async def _publish(self, told: Sequence[Told], rows: Sequence[OutboxRow], look: Look) -> None:
        """Deliver these events, which these rows tell of, a turn at a time."""
        hub, size, highest = self._hub, look.size, _id(rows[-1])
        # Where the newest row was that there is, a transaction has ended, whether or not this look has come so far.
        self._store.borders.note(look.highest)
        facts = await self._facts(told, look.highest)
        self._store.handed_out(highest, rows[-1])
        while rows:
            before = hub.position.id
            self._rights.end_expired()
            done = hub.publish(told, highest, size, facts)
            doubt(hub.subscriptions_to(facts.doubtful), hub.counters, hub.position.id)
            delivered = bisect_right(rows, hub.position.id, key=_id)
            # Readings ask for what is up to the hub's position; none of them has had its turn since that moved.
            share = size * delivered // len(rows)
            self._store.contents.note(before, rows[:delivered], hub.position.id, share)
            self._store.contents.keep()
            told, rows, size = told[done:], rows[delivered:], size - share
            if rows:
                self.state.last_look, self.state.behind_rows = trio.current_time(), look.highest - hub.position.id
                await trio.lowlevel.checkpoint()
                await self._absence.look()
                await self._renew_rights(self._generation)
                facts = await self._facts(told, look.highest)

    async def _facts(self, told: Sequence[Told], newest: int) -> Facts:
        subscribers = self._hub.subscribers
        while True:
            known = subscribers.grown, subscribers.filtered
            facts = NOTHING
            if subscribers.by_row:
                course = await self._commits.coming(told, newest, frozenset(subscribers.by_row))
                facts = await self._commits.facts(told, course)
            # A transaction that is longer than this look may take away at its end what its beginning would show.
            renewed = await self._rights.renew_to(self._store, max(facts.newest, newest))
            # Of another table or filter, too, it is to be known what is done to its rows; or rights are others.
            if known == (subscribers.grown, subscribers.filtered) and not renewed:
                return facts

    async def _renew_settings(self) -> None:
        """Take up what a command or request has set; only if that concerns tables, the schema is looked at, too."""
        settings, highest = await self._store.read_settings()
        if settings.unwatched != self._unwatched:
            await self._renew()
        else:
            await self._renew_rights(settings.generation)
            await self._deliver_upto(highest)  # a topic that is gone may have been told something before
            self._hub.refresh_topics(settings)

    async def _renew(self) -> None:
        """Take up what has changed in the schema or by a command: first all events of before, then the news."""
        catalog = await self._store.synchronise()
        # Remembered until everybody has been told, even if reading fails in between.
        self._changed.update(catalog.changed)
        if moved := self._schema.moved_by(catalog):
            self._changed.update(moved)
            await self._store.break_off(moved)
        self._schema.take_up(catalog)
        self._told = False
        self._hub.shapes = catalog.shapes
        await self._rights.renew(self._schema.stale(catalog, self._changed))
        await self._renew_rights(catalog.settings.generation)
        upto = min([catalog.highest, *(each for each in self._store.breaks.values() if each > self._known_break)])
        await self._deliver_upto(upto)  # whoever has had an event of the new shape is to know of it
        self._hub.refresh(replace(catalog, changed=tuple(self._changed)))
        self._changed.clear()
        self._told = True
        self._known_break = max(self._store.breaks.values(), default=0)
        self._unwatched = catalog.settings.unwatched
        self.state.skipped = dict(catalog.skipped)
        for table, reason in self.state.skipped.items():
            log.warning("table_not_captured", table=table, reason=reason)

    async def _deliver_upto(self, upto: int) -> None:
        while self._hub.position.id < upto:
            await trio.lowlevel.checkpoint()
            look = await self._store.look(self._hub.position.id, None, self._at_least)
            if look is None or not look.rows:
                break
            self._check_identity(look)
            await self._renew_rights(look.generation)
            before = [row for row in look.rows if _id(row) <= upto]
            await self._deliver(replace(look, rows=before, full=look.full and len(before) == len(look.rows)))

    def _failed(self, reason: str | None) -> None:
        if reason is not None and self.state.failing is None:
            log.error("store_unreadable", reason=reason)
        if reason is None and self.state.failing is not None:
            log.info("store_readable_again")
        self.state.failing = reason


def _id(row: OutboxRow) -> int:
    return int(str(row[0]))
