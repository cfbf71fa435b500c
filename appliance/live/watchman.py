"""The watchman: one task that looks once a second at what nobody tells us of.

Whether the WAL grows because there is never a moment without a reader, whether a file that could not be written can be
again, and whether somebody who migrated the schema has gone without a word.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Final

import structlog
import trio

from appliance.errors import ApplianceError
from appliance.store import connections
from appliance.store.store import Store

log = structlog.get_logger()

#: Seconds between two looks.
LOOK_S: Final = 1.0
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
        self._checkpoints = checkpoints
        self._patience_s = PATIENCE_S[0]
        self._pause_s = 0.0
        self._not_before = 0.0
        self._failing = False

    async def run(self) -> None:
        """Look for as long as the server lives."""
        while True:
            try:
                await self.look()
                self._failing = False
            except (sqlite3.Error, ApplianceError) as error:
                if not self._failing:
                    log.warning("not_looked_after", reason=str(error))
                self._failing = True
            await trio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once."""
        await self._store.condition.try_writing()
        await self._store.resume_abandoned()
        if self._checkpoints and self._wal_bytes() > LONG_WAL and trio.current_time() >= self._not_before:
            await self._shorten()

    def _wal_bytes(self) -> int:
        try:
            return self._store.path.with_name(f"{self._store.path.name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

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
