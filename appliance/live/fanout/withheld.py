"""Events that are not told: they were captured while their table, or a column of it, was called otherwise.

When somebody renames a column or a table, SQLite writes our triggers anew, and what they capture from then on, until
the server has made them right, says what the table was called, not what it is: another column stands for the owner, a
value that is secret by now has a harmless name. Whoever follows the table is told to load it again anyway.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.model import Change, Message


class Withheld:
    """Stretches of the outbox in which events of some shapes are not told."""

    __slots__ = ("_stretches",)

    def __init__(self) -> None:
        self._stretches: dict[int, list[tuple[int, int]]] = {}

    def note(self, shapes: Iterable[int], after: int, upto: int) -> None:
        """Tell nobody of events of these shapes in (``after``, ``upto``]."""
        if after < upto:
            for each in shapes:
                self._stretches.setdefault(each, []).append((after, upto))

    def has(self, event: Change | Message) -> bool:
        """Whether nobody is told of an event."""
        if not self._stretches or not isinstance(event, Change):
            return False
        return any(after < event.id <= upto for after, upto in self._stretches.get(event.shape.id, ()))
