"""SQLite from trio: one thread a connection (aiosqlite), one asyncio loop for all of them (trio-asyncio).

Nothing outside this module knows either. A crossing costs about 40 µs beside the SQL itself, so the unit that
crosses is a *work*: a plain function on the open ``sqlite3.Connection`` that does everything it has to do in
one visit and returns plain values.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import aiosqlite
import trio

with warnings.catch_warnings():
    # It makes a subclass of what asyncio has deprecated in 3.12 and not any more in 3.14, where it cannot be imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    import trio_asyncio

T = TypeVar("T")


class _Connection(aiosqlite.Connection):
    """aiosqlite's connection, which can also run a function of ours in its thread.

    aiosqlite gives no public way to run several statements in one crossing; ``_execute`` is what all its own
    methods are made of. Nor does it say when the thread of a connection that could not be opened is over. The
    version is pinned, and the tests of the bridge hold it to both.
    """

    @property
    def itself(self) -> sqlite3.Connection:
        return self._conn

    def join(self) -> None:
        """Wait for the thread to end."""
        self._thread.join()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result


class Database:
    """One SQLite connection with a thread of its own, in autocommit mode.

    Its works run one after another, in the order of their ``run``.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection itself, for what another thread may say to it while a work of its own is under way."""
        return self._connection.itself

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in the connection's thread and return its result.

        Cancelling the caller cannot stop SQL that has begun, so it does not cut the wait short either: when
        this returns or raises, the work is over. Works are to be short.

        Raises: whatever ``work`` raises.
        """
        with trio.CancelScope(shield=True):
            result: T = await trio_asyncio.aio_as_trio(self._connection.run)(work)
        return result


@asynccontextmanager
async def open_bridge() -> AsyncIterator[None]:
    """Run the asyncio loop that aiosqlite needs; every ``connect`` must be inside. Opened once, at the root."""
    async with trio_asyncio.open_loop():
        yield


@asynccontextmanager
async def connect(open_connection: Callable[[], sqlite3.Connection]) -> AsyncIterator[Database]:
    """Open a connection in a new thread; close it and end the thread on the way out.

    ``open_connection`` runs in that thread. Raises: whatever it raises.
    """
    connection = _Connection(open_connection, iter_chunk_size=64)
    # Shielded: an aiosqlite thread that nobody closes keeps the interpreter from exiting.
    with trio.CancelScope(shield=True):
        try:
            await trio_asyncio.aio_as_trio(connection.__aenter__)()
        except BaseException:
            # Its thread says a last word to the loop, which must be there to hear it.
            await trio.to_thread.run_sync(connection.join)
            raise
    try:
        yield Database(connection)
    finally:
        with trio.CancelScope(shield=True):
            await trio_asyncio.aio_as_trio(connection.close)()
