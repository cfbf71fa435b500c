"""Whether the server is up, and whether it is ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from appliance.live.tail.state import TailState

#: A tail that has not looked for so long is stuck, seconds. It looks at least every second.
STUCK_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes are answered from. Made once all of the server runs.

    ``file`` says what is wrong with the store's file. The tail may be ``lag_s`` seconds and ``lag_rows`` rows behind.
    """

    tail: TailState
    file: Callable[[], list[str]] = list
    lag_s: float = 10.0
    lag_rows: int = 100_000

    def problems(self) -> list[str]:
        """Say why the server is not ready, one line each; nothing when it is."""
        found = []
        tail, now = self.tail, trio.current_time()
        if tail.failing is not None:
            found.append(f"the store cannot be read or kept under capture: {tail.failing}")
        elif now - tail.last_look > STUCK_S:
            found.append("the tail of the outbox does not move")
        elif now - tail.last_whole > self.lag_s or tail.behind_rows > self.lag_rows:
            found.append(f"{tail.behind_rows} rows of events wait to be delivered, for {now - tail.last_whole:.0f} s")
        found += self.file()
        found += [f"table {table} is not captured: {reason}" for table, reason in tail.skipped.items()]
        return found
