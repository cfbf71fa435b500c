"""What long stretches of the outbox say of their rows, for all readings that go through them.

After a while in which the server was away, all that happened meanwhile may count as one transaction, and everybody who
comes back is read for through just that, a page at a time. It is read once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import trio

from appliance.live.course import Course

#: How many stretches are remembered.
KEPT: Final = 2
#: After which id and up to which, of which tables (folded), and by which state of what is granted on them.
Stretch: TypeAlias = tuple[int, int, frozenset[str], int]


class Shared:
    """The stretches that were read last; of some of them only that they are too much. Empty when nobody reads."""

    def __init__(self) -> None:
        self._found: dict[Stretch, Course | None] = {}
        self._lock = trio.Lock()
        self._readings = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Have what is read kept until this has ended, and all others."""
        self._readings += 1
        try:
            yield
        finally:
            self._readings -= 1
            if not self._readings:
                self._found.clear()

    def __contains__(self, stretch: Stretch) -> bool:
        """Whether it is known what there is in a stretch, or that it is too much."""
        return stretch in self._found

    async def get(self, stretch: Stretch, read: Callable[[], Awaitable[Course | None]]) -> Course | None:
        """Give what there is in a stretch, which does not change; it is ``read`` once, and that may raise."""
        async with self._lock:
            if stretch not in self._found:
                found = await read()
                while len(self._found) >= KEPT:
                    del self._found[next(iter(self._found))]
                self._found[stretch] = found
            return self._found[stretch]
