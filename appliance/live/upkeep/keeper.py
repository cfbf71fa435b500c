"""The keeper: one task that keeps the outbox, and what is remembered of dead tokens, within bounds, little by little.

It sets marks and deletes what is too old or too much, in batches of a few milliseconds with pauses between, so that
other writers are not kept waiting; never what the tail has not read yet. Whoever reads on from a position that is
trimmed meanwhile finds so by ``schema.oldest``.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final

import structlog
import trio

from appliance.errors import ApplianceError
from appliance.live.beat import next_beat
from appliance.store.access import accounts
from appliance.store.file import schema
from appliance.store.outbox import retention
from appliance.store.outbox.retention import BATCH_ROWS, BATCH_S, Clock, Found, Kept
from appliance.store.store import Store

log = structlog.get_logger()

#: Seconds between two marks at most, so also how exactly the age of an event is known.
MARK_EVERY_S: Final = 10.0
#: Marks in the time that events are kept for, at least.
MARKS: Final = 10
#: Seconds between two batches of deletions: the write lock is free for far longer than it is held.
PAUSE_S: Final = 0.01
#: Seconds between two looks for dead tokens that need not be remembered any more: they lived for a day at least.
FORGET_EVERY_S: Final = 3600.0


class Keeper:
    """Keeps the outbox within the store's bounds. ``position`` is up to where the tail has read."""

    def __init__(self, store: Store, position: Callable[[], int]) -> None:
        #: What the outbox holds, as of the last turn.
        self.kept: Kept | None = None
        #: The longest life of a token, seconds: for so long it is remembered since when a subject's are dead.
        self.token_lifetime_s = float(accounts.ENDED_S)
        self._store = store
        self._limits = store.retention
        self._position = position
        self._batch = BATCH_ROWS // 10
        self._failing = False
        self._forgotten = -FORGET_EVERY_S

    async def run(self) -> None:
        """Keep the bounds for as long as the server lives."""
        clock: Clock | None = None
        while True:
            try:
                if clock is None:
                    last = await self._store.read(retention.last_mark)
                    clock = Clock(last[1] if last is not None else None)
                await self.turn(clock)
                if trio.current_time() - self._forgotten >= FORGET_EVERY_S:
                    await self.forget_dead(time.time())
                    self._forgotten = trio.current_time()
                self._failing = False
            except (sqlite3.Error, ApplianceError) as error:
                # Locked or full just now; what is to be deleted is still there at the next turn.
                if not self._failing:
                    log.warning("not_trimmed", reason=str(error))
                self._failing = True
            await trio.sleep_until(next_beat(min(MARK_EVERY_S, self._limits.age_s / MARKS)))

    async def turn(self, clock: Clock) -> None:
        """Set a mark if anything was written since the last one, and delete what is to go."""
        found = await self._look(clock)
        if (size := found.unmarked) is not None:
            upto, now = found.highest, clock.now()
            await self._store.commit(lambda db: retention.mark(db, upto, now, size))
            found = await self._look(clock)
        oldest, trimmed = found.kept.oldest, 0
        while (last := min(found.upto, self._position())) > oldest:
            trimmed += await self._trim(last)
            await trio.sleep(PAUSE_S)
            oldest = await self._store.read(schema.oldest)
        self.kept = found.kept
        if trimmed:
            self.kept = await self._store.read(retention.kept)
            log.info("trimmed", rows=trimmed, oldest=self.kept.oldest)

    async def forget_dead(self, now: float) -> None:
        """Forget whose tokens were ended so long before ``now`` (seconds since 1970) that none can be alive."""
        before = now - max(self.token_lifetime_s, accounts.ENDED_S)
        if await self._store.read(lambda db: accounts.outlived(db, before)):
            await self._store.commit(lambda db: accounts.forget_outlived(db, before))

    async def _look(self, clock: Clock) -> Found:
        """In one crossing: where nothing happens, that is the whole of a turn."""
        now = clock.now()
        return await self._store.read(lambda db: retention.look(db, self._limits, now))

    async def _trim(self, last: int) -> int:
        rows, seconds = await self._store.commit(lambda db: retention.trim(db, last, self._batch))
        # As many rows as take the time they may: small ones by the thousand, of a MiB one or two.
        if seconds > BATCH_S:
            self._batch = max(1, self._batch // 2)
        elif seconds < BATCH_S / 4:
            self._batch = min(BATCH_ROWS, self._batch * 2)
        return rows
