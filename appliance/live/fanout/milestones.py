"""What waits until everything up to a position has been delivered."""

from __future__ import annotations

from collections.abc import Callable


class Milestones:
    """Things to be done at positions. Synchronous, as the hub is."""

    def __init__(self) -> None:
        self._ahead: list[tuple[int, Callable[[], None]]] = []

    def at(self, position: int, do: Callable[[], None]) -> None:
        """Have ``do``, which never raises and never waits, called when that position is passed."""
        self._ahead.append((position, do))

    def passed(self, position: int) -> None:
        """Do what waits for this position or one before it, in the order in which it came."""
        if self._ahead:
            due = [do for at, do in self._ahead if at <= position]
            self._ahead = [each for each in self._ahead if each[0] > position]
            for do in due:
                do()
