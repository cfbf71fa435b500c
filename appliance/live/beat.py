"""The beat: what looks at something every second does so together, so that an idle process is woken once, not thrice.

To be woken costs it more than what it then does: nothing of it is left in the processor's caches.
"""

from __future__ import annotations

import trio


def next_beat(every_s: float) -> float:
    """Give when the next beat is (``trio.current_time()``), after now and no later than ``every_s`` seconds from now.

    Beats are the multiples of ``every_s`` on trio's clock: the same for all who ask, whenever they began.
    """
    now = trio.current_time()
    beat = (now // every_s + 1) * every_s
    return beat if beat > now else beat + every_s  # what is rounded off must not make it now
