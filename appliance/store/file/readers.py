"""The connections that read beside the tail: for replay, snapshots and the HTTP API.

Each has a thread of its own, and a work that waits for one waits in line: ten thousand clients that come back at once
ask one after another, and nothing of theirs is in memory meanwhile. The first is there from the start; another one is
opened when it is wanted, because to know the schema takes each some 10 ms and 1.5 MB.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Final, TypeVar

import trio

from appliance.store.file.bridge import Database, connect

T = TypeVar("T")

#: Connections: one more than there are long works at a time, on the smallest machine that is likely.
READERS: Final = 2


class Readers:
    """A few connections that only read, taken in turn. Made by ``open_readers``."""

    def __init__(self, open_another: Callable[[], Awaitable[Database]]) -> None:
        self._open_another = open_another
        self._free: list[Database] = []
        self._places = trio.Semaphore(READERS)
        #: Patient works that are under way, or stand in one line with all others: those are behind no more than these.
        self._patient = trio.Semaphore(READERS)

    async def read(self, work: Callable[[sqlite3.Connection], T], *, patient: bool = False) -> T:
        """Run ``work``, which leaves no transaction open, on a connection that is free.

        Works begin in the order in which they were asked for, but that the ``patient`` ones, of which there may be
        thousands, let the others pass. Raises: whatever ``work`` raises, and whatever opening a connection does.
        """
        async with self._patient if patient else nullcontext(), self._places:
            database = self._free.pop() if self._free else await self._open_another()
            try:
                return await database.run(work)
            finally:
                self._free.append(database)


@asynccontextmanager
async def open_readers(open_connection: Callable[[], sqlite3.Connection]) -> AsyncIterator[Readers]:
    """Open one; close all on the way out. Raises: whatever ``open_connection`` raises."""
    async with AsyncExitStack() as opened:
        readers = Readers(lambda: opened.enter_async_context(connect(open_connection)))
        # The first read opens the WAL and reads the schema: nobody's request is to wait for that.
        await readers.read(lambda db: db.execute("SELECT count(*) FROM sqlite_schema").fetchone())
        yield readers
