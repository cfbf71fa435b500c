"""The turns of the tail, for those who wait until what was committed before they asked has been taken up."""

from __future__ import annotations

from typing import Final

import trio

#: How long somebody waits at most, seconds: nobody is kept from working by a file that is slow to read.
PATIENCE_S: Final = 1.0


class Turns:
    """A turn begins with a look at the store and is over when all that was there then has been taken up."""

    def __init__(self) -> None:
        self._next = trio.Event()
        self._now: trio.Event | None = None

    @property
    def idle(self) -> bool:
        """Whether no turn has begun and is not over."""
        return self._now is None

    def begin(self) -> None:
        """Note that a look is about to be taken; one that has not found everything is followed by others."""
        if self._now is None:
            self._now, self._next = self._next, trio.Event()

    def end(self) -> None:
        """Note that everything that was found has been taken up, or cannot be just now."""
        if self._now is not None:
            self._now.set()
            self._now = None

    async def next(self) -> None:
        """Wait for the end of the next turn, for ``PATIENCE_S`` at most."""
        over = self._next
        with trio.move_on_after(PATIENCE_S):
            await over.wait()
        # Whose session was ended at the very same moment is not to go on: by what, it has no right to any more.
        await trio.lowlevel.checkpoint_if_cancelled()
