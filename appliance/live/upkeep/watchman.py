"""The watchman: one task that looks once a second at what nobody tells us of.

Whether another file was copied over ours, and whether our lock beside it is still there; whether the WAL grows because
there is never a moment without a reader, whether a file that could not be written can be again, and whether somebody
who migrated the schema has gone without a word.
"""

from __future__ import annotations

import os
import sqlite3
import time
from functools import partial
from typing import Final

import structlog
import trio

from appliance.errors import ApplianceError
from appliance.live.beat import next_beat
from appliance.live.upkeep.keeper import MARK_EVERY_S
from appliance.store.file import connections
from appliance.store.file.incarnation import StoreReplaced
from appliance.store.store import Store

log = structlog.get_logger()

#: Seconds between two looks.
LOOK_S: Final = 1.0
#: When nothing was written for so long, what is in the WAL is moved into the file, seconds. The last that is written is
#: a mark of the keeper's: so it is done half a minute after anybody else's last write.
QUIET_S: Final = 30.0 - MARK_EVERY_S - 2 * LOOK_S
#: SQLite's own checkpoints, at a writer's commit, keep the WAL at about 4 MiB (1000 pages). From this length on we
#: help: something keeps it from being begun anew. Bytes.
LONG_WAL: Final = 16 << 20
#: For how long writers may be held up then, seconds: twice as long each time that nothing came of it, because readers
#: stay longer than that, up to the second number. Programs that wait for a lock at all usually wait for 5 s.
PATIENCE_S: Final = (0.1, 2.0)
#: How many times as long it is not tried again, at first; at most so many seconds.
PAUSE: Final = 10
PAUSE_S: Final = 60.0


class Watchman:
    """Looks after the store's file. ``checkpoints``: whether the WAL is ours to keep short."""

    def __init__(self, store: Store, *, checkpoints: bool) -> None:
        self._store = store
        self._settled = 0.0
        self._checkpoints = checkpoints
        self._patience_s = PATIENCE_S[0]
        self._pause_s = 0.0
        self._not_before = 0.0
        self._failing = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look for as long as the server lives; started once it has looked. Raises ``StoreReplaced``."""
        await self._try()
        task_status.started()
        while True:
            await trio.sleep_until(next_beat(LOOK_S))
            await self._try()

    async def _try(self) -> None:
        try:
            await self.look()
            self._failing = False
        except (sqlite3.Error, ApplianceError) as error:
            if not self._failing:
                log.warning("not_looked_after", reason=str(error))
            self._failing = True

    async def look(self) -> None:
        """Look once. Raises ``StoreReplaced``, ``sqlite3.Error`` and ``ApplianceError``."""
        place = self._store.place
        if not place.is_ours() or place.lacks():
            return  # The tail finds that, too; and to open the new file now would bring the old one's WAL into it.
        if not await self._is_ours():
            if not place.is_ours():
                return  # moved at this very moment
            self._store.replaced = True
            raise StoreReplaced("another database was copied over the file")
        self._store.keep_lock()
        await self._store.condition.try_writing()
        await self._store.resume_abandoned()
        if self._checkpoints:
            await self._checkpoint()

    async def _is_ours(self) -> bool:
        condition = self._store.condition
        try:
            ours = await self._store.is_ours()
        except sqlite3.Error as error:
            condition.unreadable = str(error)
            raise
        condition.unreadable = None
        return ours

    async def _checkpoint(self) -> None:
        try:
            wal = os.stat(f"{self._store.path}-wal")
        except FileNotFoundError:
            return
        if wal.st_size > LONG_WAL:
            if trio.current_time() >= self._not_before:
                await self._shorten()
        elif wal.st_mtime != self._settled and time.time() - wal.st_mtime > QUIET_S:
            # So that the file is whole by itself, for whoever copies it, or copies another over it.
            left = await trio.to_thread.run_sync(connections.checkpoint, self._store.path)
            self._settled = wal.st_mtime if left.whole else self._settled

    async def _shorten(self) -> None:
        """Have the WAL begun anew, after moving most of it into the file while nobody has to wait."""
        checkpoint = partial(connections.checkpoint, self._store.path)
        await trio.to_thread.run_sync(checkpoint)
        wal = await trio.to_thread.run_sync(partial(checkpoint, patience_s=self._patience_s))
        least, most = PATIENCE_S
        if wal.pages == 0:
            self._patience_s = max(least, self._patience_s / 2)
            self._pause_s = 0.0
            log.info("wal_shortened")
            return
        self._pause_s = min(max(PAUSE * self._patience_s, 2 * self._pause_s), PAUSE_S)
        self._patience_s = min(2 * self._patience_s, most)
        self._not_before = trio.current_time() + self._pause_s
        log.warning("wal_long", bytes=wal.bytes, again_s=self._pause_s)
