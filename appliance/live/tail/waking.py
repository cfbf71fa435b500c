"""When the tail looks: at our own commits, at the system's word, and by a poll where neither tells.

All of it is waited for in the tail's own task, so that between the system's word and the look there is no other task's
turn.
"""

from __future__ import annotations

from typing import Final

import trio

from appliance.live.beat import next_beat
from appliance.live.tail.announcements import Announcements

#: The slowest poll, seconds: what finds a commit that nothing has announced, and a file that was replaced.
SAFETY_POLL_S: Final = 1.0
#: The poll where the system announces nothing, for as long after something happened as follows, seconds.
BUSY_POLL_S: Final = 0.005
BUSY_FOR_S: Final = 1.0
#: A write to the WAL is announced a little before its commit can be seen: looks after an announcement, seconds.
RECHECKS_S: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


class Waking:
    """What one task, the tail's, waits for. All but ``wait`` may be called from anywhere in the trio thread."""

    def __init__(self, *, announced: bool) -> None:
        #: Whether the system announces each write, or is about to, so that a slow poll is enough.
        self.announced = announced
        self._announcements: Announcements | None = None
        self._deaf = trio.Event()
        self._due = False
        self._waiting: trio.CancelScope | None = None
        self._rechecks: tuple[float, ...] = ()
        #: When the word came that is to be followed, and that which is being followed; ``None``: a poll comes first.
        self._told_at: float | None = None
        self._following: float | None = None
        self._looked_at = trio.current_time()
        self._last_event = -BUSY_FOR_S

    # -- what wakes the tail -----------------------------------------------------------------------------

    def look(self) -> None:
        """Look now: somebody wants to know."""
        self._due = True
        if self._waiting is not None:
            self._waiting.cancel()

    def wake(self) -> None:
        """Look now: we have committed."""
        self._told_at = self._told_at or trio.current_time()
        self.look()

    def notice(self) -> None:
        """Look now, and often for a while: somebody has written to the WAL, and may be going on."""
        self._last_event = trio.current_time()
        self.look()

    async def listen(self, announcements: Announcements) -> None:
        """Look, and some more times shortly, at each word of these; until there is none to come any more."""
        self._announcements = announcements
        self.look()  # who waits already does not wait for them
        try:
            await self._deaf.wait()
        finally:
            self._announcements = None

    # -- what the tail says and asks ---------------------------------------------------------------------

    def begin(self) -> None:
        """Take note that the tail looks now: what it finds follows the word that came before."""
        self._following, self._told_at = self._following or self._told_at, None
        self._looked_at = trio.current_time()

    def found(self) -> None:
        """Take note that a look has found something."""
        self._rechecks = self._rechecks and RECHECKS_S[::2]  # another may be announced, too, and not be seen yet
        self._last_event = trio.current_time()

    def delivered(self) -> float | None:
        """Give for how long what was found has been on its way, seconds; ``None``: nobody knows."""
        begun, self._following = self._following, None
        return None if begun is None else trio.current_time() - begun

    async def wait(self, *, often: bool) -> bool:
        """Wait until it is time to look; ``often``: not for long, whatever comes.

        Gives whether something may have become of the file itself, or its place: not at the system's word of a mere
        write, for which that would be three system calls before each event, nor soon after.
        """
        now = trio.current_time()
        elsewhere = not self._rechecks
        if self._rechecks:
            until, self._rechecks = now + self._rechecks[0], self._rechecks[1:]
        else:
            self._following = None  # the word was of something that concerns nobody
            busy = often or (not self.announced and now - self._last_event < BUSY_FOR_S)
            until = now + BUSY_POLL_S if busy else next_beat(SAFETY_POLL_S)
        if self._due:
            await trio.lowlevel.checkpoint()
        else:
            with trio.CancelScope(deadline=until) as self._waiting:
                elsewhere = await self._word()
            self._waiting = None
        elsewhere, self._due = elsewhere or self._due, False
        return elsewhere

    async def _word(self) -> bool:
        """Wait for the system's word; give whether it is of anything but a write."""
        words = self._announcements
        if words is None:
            await trio.sleep_forever()
        came_at = self._looked_at if words.is_there() else None
        mere = await words.word()
        self._told_at = self._told_at or came_at or trio.current_time()
        self._rechecks = RECHECKS_S
        if words.over:
            self.announced, self._announcements = False, None
            self._deaf.set()
        return not mere
