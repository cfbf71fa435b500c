"""Word that somebody has written to the WAL: the system's (inotify, Linux), or a poll's where the system has none."""

from __future__ import annotations

import os
import select
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import trio

#: How often the WAL is looked at where the system announces nothing, seconds.
POLL_S: Final = 0.05
#: Announcements read at once, bytes: each takes 16 here, and many writes are one.
_READ_SIZE: Final = 1024
#: ``struct inotify_event`` without a name: whose watch, what, cookie, length (inotify(7)).
_EVENT: Final = struct.Struct("iIII")


def available() -> bool:
    """Whether this system announces writes to a file."""
    return sys.platform == "linux"


class Announcements:
    """The system's word that ``<database>-wal`` is written, for as long as that file exists.

    Also that the database itself is moved or another file is moved onto it: until that is seen, other programs may open
    the other file with this WAL beside it.
    A commit is announced a little before it can be seen, and a burst of writes as one.

    Resource handling: a context manager, to be entered when it is made; one task waits for word at a time. Raises
    ``OSError`` when it cannot be made.
    """

    def __init__(self, database: Path) -> None:
        from inotify_simple import INotify, flags, parse_events  # the package is there on Linux only

        #: Whether there is no more to come: the system has no watch left to give, or the file has gone away.
        self.over = False
        self._parse = parse_events
        self._gone = int(flags.IGNORED | flags.DELETE_SELF | flags.MOVE_SELF)  # a number: flags take so much longer
        self._inotify = INotify(nonblocking=True)
        try:
            self._wal = self._inotify.add_watch(f"{database}-wal", flags.MODIFY | flags.DELETE_SELF | flags.MOVE_SELF)
            self._inotify.add_watch(str(database), flags.MOVE_SELF | flags.ATTRIB)  # ATTRIB: it has a name less
        except OSError:
            self._inotify.close()
            raise
        #: What is read where nothing but the WAL was written, which is nearly always: all events wait for it.
        self._written = _EVENT.pack(self._wal, flags.MODIFY, 0, 0)
        self._poll = select.poll()
        self._poll.register(self._inotify.fileno(), select.POLLIN)

    def is_there(self) -> bool:
        """Whether there is word already."""
        return bool(self._poll.poll(0))

    async def word(self) -> bool:
        """Wait for word; give whether it is of a mere write to the WAL. None is lost when this is cancelled."""
        await trio.lowlevel.wait_readable(self._inotify.fileno())
        # The package's own ``read`` first asks how much there is.
        came = os.read(self._inotify.fileno(), _READ_SIZE)
        mere = came == self._written
        if not mere:
            self.over = any(event.wd == self._wal and event.mask & self._gone for event in self._parse(came))
        return mere

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.notify_closing(self._inotify.fileno())
        self._inotify.close()


async def poll(database: Path, notice: Callable[[], None]) -> None:
    """Call ``notice`` within ``POLL_S`` of a write to ``<database>-wal``, and once at first; until it is cancelled.

    Two writes within one tick of the file system's clock (some ms) may be noticed as one, and a commit a little before
    it can be seen.
    """
    token = trio.lowlevel.current_trio_token()
    over = threading.Lock()
    over.acquire()

    def look() -> None:
        # In a thread, which does nothing else: to turn trio's loop at each look takes three times as much of the
        # processor. And with a lock, as an Event's wait takes half as much again.
        wal, seen = f"{database}-wal", None
        while True:
            sign = _sign(wal)
            if sign != seen:
                seen = sign
                token.run_sync_soon(notice)
            if over.acquire(timeout=POLL_S):
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, look)
        try:
            await trio.sleep_forever()
        finally:
            over.release()


def _sign(wal: str) -> tuple[int, int]:
    """Give what changes in the WAL when somebody commits, as far as its clock tells: its size and time."""
    try:
        status = os.stat(wal)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
