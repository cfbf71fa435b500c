"""Word that somebody has written to the WAL: the system's (inotify, Linux), or a poll's where the system has none."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import trio

#: How often the WAL is looked at where the system announces nothing, seconds.
POLL_S: Final = 0.05
#: Announcements read at once, bytes: each takes 16 here, and many writes are one.
_READ_SIZE: Final = 1024


def available() -> bool:
    """Whether this system announces writes to a file."""
    return sys.platform == "linux"


async def listen(database: Path, stir: Callable[[], None]) -> None:
    """Call ``stir`` whenever ``<database>-wal`` is written, for as long as that file exists.

    Also when the database itself is moved or another file is moved onto it: until that is seen, other programs may open
    the other file with this WAL beside it.
    A commit is announced a little before it can be seen, and a burst of writes as one. Returns when the system has no
    watch left to give or the file goes away: ``poll`` has to do then. Raises ``OSError`` when it cannot begin.
    """
    from inotify_simple import INotify, flags, parse_events  # the package is there on Linux only

    gone = int(flags.IGNORED | flags.DELETE_SELF | flags.MOVE_SELF)  # a number: flags take longer than all the rest
    with closing(INotify(nonblocking=True)) as inotify:
        wal = inotify.add_watch(f"{database}-wal", flags.MODIFY | flags.DELETE_SELF | flags.MOVE_SELF)
        inotify.add_watch(str(database), flags.MOVE_SELF | flags.ATTRIB)  # ATTRIB: it has a name less
        while True:
            await trio.lowlevel.wait_readable(inotify.fileno())
            # Its own ``read`` first asks how much there is, and every event waits for that.
            for event in parse_events(os.read(inotify.fileno(), _READ_SIZE)):
                if event.wd == wal and event.mask & gone:
                    stir()
                    return
            stir()


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
