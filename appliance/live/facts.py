"""What decisions on rows need beside the rows: read once for a batch of events, before any of it is delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.model import Image, Shape, SQLiteValue, ascii_fold
from appliance.protocol.permissions import Guarded


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows of standard tables as they are now, by table (folded) and ``reference_id``.

    ``guards``: what guards a row, with the groups that it is joined to; ``None`` where it is not there any more.
    ``rows``: its values, where they are needed.
    """

    guards: Mapping[tuple[str, str], Guarded | None] = field(default_factory=dict)
    rows: Mapping[tuple[str, str], Image] = field(default_factory=dict)
    #: What guarded a row when it was deleted, by one of these events.
    ended: Mapping[tuple[str, str], Guarded] = field(default_factory=dict)


NOTHING = Facts()


class Places:
    """Where the columns of a shape are, by folded name."""

    __slots__ = ("_by_name", "_shape")

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._by_name = {ascii_fold(column.name): place for place, column in enumerate(shape.columns)}

    def value(self, image: Image, column: str) -> SQLiteValue:
        """Give a column's value in a row; ``None`` also where the shape has no such column, or it was cut."""
        place = self._by_name.get(ascii_fold(column))
        return None if place is None or place in image.cut else image.values[place]

    @classmethod
    def of(cls, shape: Shape) -> Places:
        """Find them once for each shape; by identity, as hashing a shape costs more than what is looked up."""
        found = _places.get(id(shape))
        if found is None:
            if len(_places) >= _LIMIT:
                _places.clear()
            found = _places[id(shape)] = cls(shape)
        return found


# A Places holds its shape, so an id cannot be another's while its entry stands.
_places: dict[int, Places] = {}
_LIMIT = 4096  # shapes remembered
