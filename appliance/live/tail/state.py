"""How the tail is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class TailState:
    """How the tail is, for whoever must say whether the server is ready. Times are ``trio.current_time()``.

    ``last_look`` is when the store was last read, or a turn of what it held delivered; ``last_turn`` when a look was
    last begun, whether or not it could be; ``last_whole`` when all that it held had been delivered. ``behind_rows`` is
    how many rows had not been.
    """

    last_look: float = 0.0
    last_whole: float = 0.0
    behind_rows: int = 0
    last_turn: float = 0.0
    failing: str | None = None
    behind: bool = False
    skipped: dict[str, str] = field(default_factory=dict)
