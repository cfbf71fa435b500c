"""The memory of a process that has just started and will now run for long."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Final

#: When garbage is looked for (``gc.set_threshold``): in objects that know each other and are known to nobody else.
#: Neither an event nor a connection leaves any; by Python's own numbers, looking for it took a fifth of what an event
#: takes, and while clients come it went through everything time and again, for a second where there are 20,000.
#: The second number is small, so that what is looked at in one go takes some milliseconds.
COLLECTED_AFTER: Final = (2000, 5, 100)


def settle() -> None:
    """Give back what only the start needed, and have the collector leave alone what is there to stay.

    About 2 MiB; and each full collection, in which nobody is served, then takes a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)
    with contextlib.suppress(AttributeError):  # other C libraries than glibc have no such function
        ctypes.CDLL(None).malloc_trim(0)
