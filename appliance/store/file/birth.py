"""When a file was made: what its inode's number does not tell, as the next file that is made may have it again.

Python's own ``os.stat`` does not give it on Linux, where ``statx`` of the C library does (https://man7.org, statx(2)).
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final

_AT_EMPTY_PATH: Final = 0x1000
_STATX_BTIME: Final = 0x800
#: ``struct statx``: its mask comes first, what is wanted here so far behind it.
_SIZE: Final = 256
_MASK: Final = struct.Struct("=I")
_BTIME: Final = struct.Struct("=qI")
_BTIME_OFFSET: Final = 80


def birth(descriptor: int) -> int | None:
    """Give when an open file was made, in ns since the Unix epoch; ``None`` where C library or file system do not say.

    Writing, ``chown`` and ``chmod`` do not change it, nor does who copies another file over this one.
    """
    found = ctypes.create_string_buffer(_SIZE)
    try:
        failed = ctypes.CDLL(None).statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_BTIME, found)
    except (AttributeError, OSError):
        return None
    (mask,) = _MASK.unpack_from(found)
    if failed or not mask & _STATX_BTIME:
        return None
    seconds, nanoseconds = _BTIME.unpack_from(found, _BTIME_OFFSET)
    return int(seconds * 1_000_000_000 + nanoseconds)
