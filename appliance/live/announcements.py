"""The system's word that somebody has written to the WAL (inotify, Linux)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import trio


def available() -> bool:
    """Whether this system announces writes to a file."""
    return sys.platform == "linux"


async def listen(database: Path, stir: Callable[[], None]) -> None:
    """Call ``stir`` whenever ``<database>-wal`` is written, for as long as that file exists.

    A commit is announced a little before it can be seen, and a burst of writes as one. Returns when the system has no
    watch left to give or the file goes away: the caller's poll has to do then. Raises ``OSError`` when it cannot begin.
    """
    from inotify_simple import INotify, flags  # the package is there on Linux only

    gone = int(flags.IGNORED | flags.DELETE_SELF | flags.MOVE_SELF)  # a number: flags take longer than all the rest
    with closing(INotify(nonblocking=True)) as inotify:
        inotify.add_watch(f"{database}-wal", flags.MODIFY | flags.DELETE_SELF | flags.MOVE_SELF)
        while True:
            await trio.lowlevel.wait_readable(inotify.fileno())
            for event in inotify.read(timeout=0):
                if event.mask & gone:
                    return
            stir()
