"""What a reading needs of the session that it is for."""

from __future__ import annotations

from typing import Protocol

from appliance.errors import CloseCode


class Feed(Protocol):
    """A session as a reading sees it."""

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more."""

    @property
    def busy(self) -> bool:
        """Whether ``room`` would wait."""

    async def room(self) -> None:
        """Wait until little waits for the peer, or it is over."""

    async def drained(self) -> None:
        """Wait until nothing waits for the peer, or it is over."""

    def deliver(self, frames: bytes) -> bool:
        """Send these frames; false when as much waits for the peer as may."""

    def tell(self, frame: bytes) -> None:
        """Send a notice, whatever waits."""

    def end(self, code: CloseCode, reason: str) -> None:
        """Close the session."""
