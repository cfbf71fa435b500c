"""The folder that the one-file program has unpacked itself into, and those that killed ones have left behind.

The program is two processes: the first unpacks, waits for the second, which is this one, and removes the folder. Where
the first is killed, the second ends by the signal that the first's death sends it and removes the folder itself; where
both are, or the first while it unpacks, nobody does, and the next start has to. A file in the folder says whose it is,
and the lock on it, which the first takes (packaging/bootloader.patch) and the second inherits, that it is in use.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Final

#: What the bootloader calls the folder, and the file in it that it locks.
PREFIX: Final = "_MEI"
MARK: Final = ".live-appliance"
#: A folder that is younger may have been made just now, and not be locked yet, seconds.
LEAST_AGE_S: Final = 1.0


def tidy() -> None:
    """See to it that no folder is left behind: ours when this process ends, and what killed ones have left.

    Does nothing where the program runs from source.
    """
    home = getattr(sys, "_MEIPASS", None)
    if home is None:
        return
    folder = Path(home)
    atexit.register(_remove_if_orphaned, folder, os.getppid())
    for each in leftovers(folder, time.time()):
        shutil.rmtree(each, ignore_errors=True)


def leftovers(folder: Path, now: float) -> list[Path]:
    """Find the folders beside ``folder`` that were left behind: ours, of this user, and used by nobody.

    ``now`` is seconds since the Unix epoch.
    """
    with os.scandir(folder.parent) as entries:
        others = [each for each in entries if each.name.startswith(PREFIX) and each.name != folder.name]
    return [Path(each.path) for each in others if _is_left(each, now)]


def _is_left(entry: os.DirEntry[str], now: float) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
        if status.st_uid != os.geteuid() or now - status.st_mtime < LEAST_AGE_S:
            return False
        mark = os.open(Path(entry.path, MARK), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # of somebody else, of another program, or gone meanwhile
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(mark)


def _remove_if_orphaned(folder: Path, parent: int) -> None:
    if os.getppid() != parent:
        shutil.rmtree(folder, ignore_errors=True)
