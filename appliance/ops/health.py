"""Whether the server is up, and whether it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

from appliance.live.tail import TailState

#: A tail that has not looked for so long is stuck, seconds. It looks at least every second.
STUCK_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes are answered from. Made once all of the server runs."""

    tail: TailState

    def problems(self) -> list[str]:
        """Say why the server is not ready, one line each; nothing when it is."""
        found = []
        if self.tail.failing is not None:
            found.append(f"the store cannot be read or kept under capture: {self.tail.failing}")
        elif trio.current_time() - self.tail.last_look > STUCK_S:
            found.append("the tail of the outbox does not move")
        elif self.tail.behind:
            found.append("events that were committed before the start, or in a burst, are still being delivered")
        found += [f"table {table} is not captured: {reason}" for table, reason in self.tail.skipped.items()]
        return found
