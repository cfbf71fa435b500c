"""All that the server writes, through one connection, as few commits as the load allows.

SQLite has one writer at a time and a commit costs far more than a row. So whoever finds the connection free takes
everything that waits along in its own transaction.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar, cast

import trio

from appliance.counters import Histogram
from appliance.errors import ApplianceError, Conflict, Internal, ReadOnly, Unavailable
from appliance.store.file import schema
from appliance.store.file.bridge import Database
from appliance.store.file.connections import is_unwritable
from appliance.store.file.locks import Connection, is_locked
from appliance.store.file.soundness import is_foreign

T = TypeVar("T")
#: Who has waited for another program's lock for so much less than the longest is refused with it, seconds.
TOGETHER_S: Final = 0.05


class Job(Generic[T]):
    """One piece of work that waits for its transaction, and what became of it."""

    __slots__ = ("asked", "done", "error", "result", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.asked = trio.current_time()
        self.done = False
        self.error: BaseException | None = None
        self.result: T | None = None

    def fail(self, error: Exception) -> None:
        """Take note that it could not be done."""
        self.error, self.done = _translated(error) if isinstance(error, sqlite3.Error) else error, True

    def outcome(self) -> T:
        """Give the result, or raise what has refused it."""
        if self.error is not None:
            raise self.error
        return cast(T, self.result)


def _nobody() -> None:
    """Do nothing, for whom nobody waits."""


class NotOurs(Unavailable):
    """The file is not the one that was opened, so nothing of ours is written to it."""


class Writer:
    """The one connection that writes for the server, for as long as ``ours`` says of it that the file is ours."""

    def __init__(self, database: Database, ours: Callable[[sqlite3.Connection], bool] = lambda _: True) -> None:
        #: Called after each commit.
        self.committed: Callable[[], None] = _nobody
        #: Why the last write could not be done: locked, full, read-only. ``None`` when the last one was done.
        self.blocked: str | None = None
        #: How long it took from asking for a write to its commit.
        self.seconds = Histogram()
        self._database = database
        self._ours = ours
        self._waiting: list[Job[object]] = []
        self._turn = trio.Lock()
        #: How long to wait for a lock, where that is not the connection's own busy timeout any more.
        self._patience_ms: int | None = None
        #: Since when a lock has been in the way of each batch (``trio.current_time()``); ``None``: not of the last.
        self._locked_since: float | None = None

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Job[T]:
        """Have ``work`` wait for the next transaction, behind what waits already; ``finish`` is to follow at once."""
        job = Job(work)
        self._waiting.append(cast("Job[object]", job))
        return job

    async def finish(self, job: Job[T]) -> T:
        """Commit what was submitted, unless another has done so meanwhile, and return its result.

        ``work`` may raise: then what it wrote is undone, and nothing else is. It may be run a second time, after what
        it wrote was undone. Cancelling does not take back a write that was begun; when this returns or raises, it is
        known what became of it.

        Raises: what ``work`` raises; ``Unavailable`` when the database is locked for longer than the busy
        timeout, ``ReadOnly`` when it cannot be written, ``Conflict`` when the file's constraints or
        its schema, which may need what only an application has, refuse it.
        """
        if job.done:
            await trio.lowlevel.checkpoint()
        else:
            with trio.CancelScope(shield=True):
                # The first to get its turn commits for all that wait by then; they find their work done.
                while not job.done:
                    async with self._turn:
                        if not job.done:
                            await self._commit_all()
        if job.error is None:
            self.seconds.observe(trio.current_time() - job.asked)
        return job.outcome()

    async def commit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in a transaction, perhaps together with others'. Returns and raises as ``finish`` does."""
        return await self.finish(self.submit(work))

    async def _commit_all(self) -> None:
        batch, self._waiting = self._waiting, []
        begun = trio.current_time()
        waited_s = self._waited_s(min(job.asked for job in batch))
        try:
            await self._database.run(lambda db: self._commit(db, batch, waited_s))
            self._locked_since = None
        except Exception as error:
            self._refuse([job for job in batch if not job.done], error, begun)
        self._note([job for job in batch if job.done])
        self.committed()

    def _refuse(self, jobs: list[Job[object]], error: Exception, begun: float) -> None:
        """Have jobs fail whose transaction was begun then; whoever came later than the first waits on for a lock."""
        if isinstance(error, sqlite3.Error) and is_locked(error):
            if self._locked_since is None:
                self._locked_since = begun
            latest = max(min(job.asked for job in jobs), self._locked_since) + TOGETHER_S
            self._waiting[:0] = [job for job in jobs if job.asked > latest]
            jobs = [job for job in jobs if job.asked <= latest]
        for job in jobs:
            job.fail(error)

    def _waited_s(self, asked: float) -> float:
        """Say for how long a lock has been in the way of what was asked for at ``asked``."""
        return 0.0 if self._locked_since is None else trio.current_time() - max(asked, self._locked_since)

    def _note(self, batch: list[Job[object]]) -> None:
        blocked = [job.error for job in batch if isinstance(job.error, (Unavailable, ReadOnly))]
        if blocked:
            self.blocked = str(blocked[0].__cause__ or blocked[0])
        elif any(job.error is None for job in batch):
            self.blocked = None

    async def alone(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work``, which makes its own transactions, while no batch is under way.

        Raises: what ``work`` raises, SQLite's errors translated as ``commit`` does.
        """

        def checked(db: sqlite3.Connection) -> T:
            with self._patient(db, waited_s):
                self._check(db)
                return work(db)

        asked = trio.current_time()
        with trio.CancelScope(shield=True):
            async with self._turn:
                waited_s = self._waited_s(asked)
                try:
                    result = await self._database.run(checked)
                except sqlite3.Error as error:
                    raise _translated(error) from error
        return result

    def hurry(self, patience_s: float) -> None:
        """From now on wait no longer than this for another program's lock; what waits already, ``HURRIED_S`` more."""
        self._patience_ms = round(patience_s * 1000)
        if isinstance(self._database.connection, Connection):
            self._database.connection.hurried = time.monotonic()

    async def is_ours(self) -> bool:
        """Say whether the file is ours. Raises ``sqlite3.Error``."""
        return await self.run(self._ours)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` between two batches, whether or not the file is ours. Raises: what ``work`` raises."""
        return await self._database.run(work)

    def _check(self, db: sqlite3.Connection) -> None:
        if not self._ours(db):
            raise NotOurs("the database file was moved, or another is at its place; send the request again soon")

    @contextlib.contextmanager
    def _patient(self, db: sqlite3.Connection, waited_s: float) -> Iterator[None]:
        """Have ``db`` wait for a lock as long as there is patience for, less what was waited already."""
        if self._patience_ms is not None:
            db.execute(f"PRAGMA busy_timeout={self._patience_ms}").fetchall()
        if not waited_s:
            yield
            return
        (full_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
        db.execute(f"PRAGMA busy_timeout={max(0, full_ms - round(waited_s * 1000))}").fetchall()
        try:
            yield
        finally:
            db.execute(f"PRAGMA busy_timeout={full_ms}").fetchall()

    def _commit(self, db: sqlite3.Connection, batch: list[Job[object]], waited_s: float) -> None:
        with self._patient(db, waited_s):
            self._commit_batch(db, batch)

    def _commit_batch(self, db: sqlite3.Connection, batch: list[Job[object]]) -> None:
        try:
            self._commit_together(db, batch)
        except (sqlite3.IntegrityError, ApplianceError):
            # A deferred foreign key, or a user's RAISE(ROLLBACK), takes all of it along: each by itself, then.
            if len(batch) == 1:
                raise
            for job in batch:
                try:
                    self._commit_together(db, [job])
                except (sqlite3.IntegrityError, ApplianceError) as error:
                    job.fail(error)

    def _commit_together(self, db: sqlite3.Connection, batch: list[Job[object]]) -> None:
        for job in batch:
            job.error = None
        with schema.transaction(db):
            self._check(db)
            for job in batch:
                db.execute("SAVEPOINT job")
                try:
                    job.result = job.work(db)
                    db.execute("RELEASE job")
                except Exception as error:
                    if not db.in_transaction:  # a full disk may have rolled back all of it, or a user's trigger
                        raise
                    job.error = _translated(error) if isinstance(error, sqlite3.Error) else error
                    db.execute("ROLLBACK TO job")
                    db.execute("RELEASE job")
        for job in batch:
            job.done = True


def _translated(error: sqlite3.Error) -> ApplianceError:
    if is_locked(error):
        translated: ApplianceError = Unavailable("the database is locked by another program; send the request again")
    elif is_unwritable(error):
        translated = ReadOnly("the database cannot be written just now (disk full or read-only); nothing was changed")
    elif isinstance(error, sqlite3.IntegrityError):
        translated = Conflict(f"the database refuses the write: {error}")
    elif is_foreign(error):
        translated = Conflict(f"the write needs what only the database's own application may have: {error}")
    else:
        translated = Internal("the database refused the write; the server's log names the reason")
    translated.__cause__ = error
    return translated
