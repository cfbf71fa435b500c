"""How much of what is sent may wait for all clients together."""

from __future__ import annotations


class Unsent:
    """What waits in all connections together, and how much of it may.

    The more waits in all, the less may wait in one: so the largest are the first to be fed no more, and the small ones
    go on until hardly anything is left.
    """

    __slots__ = ("most", "total")

    def __init__(self, most: int) -> None:
        self.most = most
        self.total = 0

    def allowed(self, limit: int) -> int:
        """Give how much of ``limit`` may wait in one connection just now."""
        return max(0, limit - limit * self.total // self.most)
