"""Who is to be told of an event, found without asking everybody.

Subscriptions that must always get the same – of one topic, with the same filter, options and rights – are one
*audience*: an event is put to each audience once, however many listen. Audiences are indexed by what an event must
have to concern them: a value that their filter names, or the owner or a group that makes a row theirs to read. So an
event costs what it matches, not what is connected.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from appliance.errors import BadFilter
from appliance.live.access import Access, Reader, Sight
from appliance.live.telling import CREATE, DELETE, UPDATE, UPDATE_ALONE, UPDATE_WITH_OLD, Facts, Told
from appliance.model import JSON, Change, Image, Op, Shape
from appliance.protocol.filters import MessageFilter, RowFilter, compile_message, compile_table
from appliance.protocol.frames import Form
from appliance.protocol.json import identity
from appliance.protocol.operators import equality_key

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a subscriber asked for. ``filters`` are as they were sent: a new shape compiles them anew."""

    filters: dict[str, JSON] = field(default_factory=dict)
    live_set: bool = False
    old: bool = False


class Audience(Generic[M]):
    """Those who always get the same of one topic.

    ``reader`` is whose rights decide row by row; any one of them where all may see the same. ``members`` are those
    whom the hub feeds.
    """

    __slots__ = ("_filters", "filter", "members", "place", "reader", "sight", "waiting", "wish")

    def __init__(
        self, wish: Wish, wanted: RowFilter | MessageFilter | None, shape: Shape | None, reader: Reader, sight: Sight
    ) -> None:
        self.wish = wish
        self.filter = wanted
        self.reader = reader
        self.sight = sight
        self.members: dict[M, None] = {}
        #: Those who are not fed yet, or not just now.
        self.waiting: set[M] = set()
        #: Where the index has it.
        self.place: tuple[Hashable, frozenset[Hashable]] | None = None
        self._filters: dict[int, RowFilter | None] = {}
        if shape is not None and (wanted is None or isinstance(wanted, RowFilter)):
            self._filters[shape.id] = wanted

    def row_filter(self, shape: Shape) -> RowFilter | None:
        """Give the filter as it is for one of the shapes that the table has had.

        Raises ``BadFilter`` where that shape has no such column: what happened to such rows is covered by the resync
        that came with the change of shape.
        """
        try:
            return self._filters[shape.id]
        except KeyError:
            found = self._filters[shape.id] = compile_for_table(self.wish.filters, shape)
            return found

    def form(self, change: Change, access: Access, facts: Facts) -> Form | None:
        """Say in which form this audience is told of a change; ``None``: not at all."""
        try:
            wanted = self.row_filter(change.shape)
        except BadFilter:
            return None
        if self.wish.live_set:
            return self._of_live_set(change, wanted, access, facts)
        image = change.old if change.op is Op.DELETE else change.new
        if image is None or (wanted is not None and not wanted.matches(change.op, image)):
            return None
        if not self._may_read(change, image, access, facts):
            return None
        if change.op is Op.UPDATE:
            if not self._may_read(change, change.old, access, facts):
                return UPDATE_ALONE
            return UPDATE_WITH_OLD if self.wish.old else UPDATE
        return CREATE if change.op is Op.CREATE else DELETE

    def _of_live_set(self, change: Change, wanted: RowFilter | None, access: Access, facts: Facts) -> Form | None:
        was = self._holds(change, change.old, wanted, access, facts)
        if not self._holds(change, change.new, wanted, access, facts):
            return DELETE if was else None
        if was:
            return UPDATE_WITH_OLD if self.wish.old else UPDATE
        return CREATE

    def _holds(
        self, change: Change, image: Image | None, wanted: RowFilter | None, access: Access, facts: Facts
    ) -> bool:
        return (
            image is not None
            and (wanted is None or wanted.admits(image))
            and self._may_read(change, image, access, facts)
        )

    def _may_read(self, change: Change, image: Image | None, access: Access, facts: Facts) -> bool:
        if self.sight is Sight.ALL:
            return True
        return self.sight is Sight.BY_ROW and image is not None and access.reads(self.reader, change, image, facts)

    def admits(self, told: Told) -> bool:
        """Whether this audience is told of a message."""
        if self.sight is Sight.NONE:
            return False
        return not isinstance(self.filter, MessageFilter) or self.filter.matches(told.value())


class Audiences(Generic[M]):
    """The audiences of one topic."""

    __slots__ = ("_by_key", "_by_place", "_extract", "_rest", "by_row", "shape")

    def __init__(self, shape: Shape | None) -> None:
        #: The table's shape; ``None`` for a user topic.
        self.shape = shape
        #: How many of them may read what the rows say.
        self.by_row = 0
        self._by_key: dict[Hashable, Audience[M]] = {}
        self._rest: dict[Audience[M], None] = {}
        #: By what is compared – a column's position, a message's key, ``_OWNER``, ``_GROUP`` – and then by value.
        self._by_place: dict[Hashable, dict[Hashable, dict[Audience[M], None]]] = {}
        self._extract: dict[Hashable, Callable[[object], Hashable]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def __iter__(self) -> Iterator[Audience[M]]:
        return iter(tuple(self._by_key.values()))

    def join(self, member: M, wish: Wish, reader: Reader, sight: Sight) -> Audience[M]:
        """Have ``member`` wait in the audience that it belongs to. Raises ``BadFilter``."""
        key = _key(wish, reader, sight)
        audience = self._by_key.get(key)
        if audience is None:
            wanted: RowFilter | MessageFilter | None
            if self.shape is not None:
                wanted = compile_for_table(wish.filters, self.shape)
            else:
                wanted = compile_message(wish.filters) if wish.filters else None
            audience = self._by_key[key] = Audience(wish, wanted, self.shape, reader, sight)
            self._put(audience)
        audience.waiting.add(member)
        return audience

    def leave(self, member: M, audience: Audience[M]) -> None:
        """Take a member out of its audience."""
        audience.members.pop(member, None)
        audience.waiting.discard(member)
        if not audience.members and not audience.waiting:
            del self._by_key[_key(audience.wish, audience.reader, audience.sight)]
            self._take(audience)

    def concerned_by_change(self, change: Change, access: Access, facts: Facts) -> Iterable[Audience[M]]:
        """Give the audiences that a change of the present shape can concern, each once; they decide."""
        if not self._by_place:
            return self._rest
        found = dict(self._rest)
        for image in (change.old, change.new):
            if image is None:
                continue
            for place, index in self._by_place.items():
                if isinstance(place, int):
                    found.update(index.get(self._extract[place](image.values[place]), _NOBODY))
            if _OWNER in self._by_place:
                self._concerned_by_rights(image, change, access, facts, found)
        return found

    def concerned_by_message(self, told: Told) -> Iterable[Audience[M]]:
        """Give the audiences that a message can concern, each once."""
        if not self._by_place:
            return self._rest
        found = dict(self._rest)
        value = told.value()
        fields = value if isinstance(value, dict) else {}
        for place, index in self._by_place.items():
            found.update(index.get(identity(fields.get(str(place))), _NOBODY))
        return found

    def _concerned_by_rights(
        self, image: Image, change: Change, access: Access, facts: Facts, found: dict[Audience[M], None]
    ) -> None:
        owners, groups = self._by_place[_OWNER], self._by_place.get(_GROUP, {})
        names = access.named(change, image, facts)
        if names is None:  # anybody may read it
            for index in owners.values():
                found.update(index)
            return
        for name in names:
            found.update(owners.get(name, _NOBODY))
            found.update(groups.get(name, _NOBODY))

    def _put(self, audience: Audience[M]) -> None:
        self.by_row += audience.sight is Sight.BY_ROW
        audience.place = place = _place(audience)
        if place is None:
            self._rest[audience] = None
            return
        where, values = place
        if isinstance(where, int) and where not in self._extract and self.shape is not None:
            self._extract[where] = equality_key(self.shape.columns[where])  # type: ignore[assignment]
        index = self._by_place.setdefault(where, {})
        for value in values:
            index.setdefault(value, {})[audience] = None
        if where is _OWNER:
            groups = self._by_place.setdefault(_GROUP, {})
            for group in audience.reader.groups:
                groups.setdefault(group, {})[audience] = None

    def _take(self, audience: Audience[M]) -> None:
        self.by_row -= audience.sight is Sight.BY_ROW
        if audience.place is None:
            del self._rest[audience]
            return
        where, values = audience.place
        self._remove(where, values, audience)
        if where is _OWNER:
            self._remove(_GROUP, audience.reader.groups, audience)

    def _remove(self, where: Hashable, values: Iterable[Hashable], audience: Audience[M]) -> None:
        index = self._by_place[where]
        for value in values:
            del index[value][audience]
            if not index[value]:
                del index[value]
        if not index:
            del self._by_place[where]
            self._extract.pop(where, None)


_OWNER, _GROUP = ("owner",), ("group",)
_NOBODY: dict[Any, None] = {}


def _key(wish: Wish, reader: Reader, sight: Sight) -> Hashable:
    whose = reader.identity if sight is Sight.BY_ROW else None
    return identity(wish.filters), wish.live_set, wish.old, sight, whose


def _place(audience: Audience[M]) -> tuple[Hashable, frozenset[Hashable]] | None:
    """Find the narrowest place for an audience: the fewest values that an event must have one of to concern it."""
    equalities = audience.filter.equalities if audience.filter is not None else ()
    if equalities:
        return min(equalities, key=lambda equality: len(equality[1]))
    if audience.sight is Sight.BY_ROW:
        return _OWNER, frozenset((audience.reader.principal.subject,))
    return None


def compile_for_table(filters: dict[str, JSON], shape: Shape) -> RowFilter | None:
    """Compile filters for a table's rows; ``None`` when everything passes. Raises ``BadFilter``."""
    return compile_table(filters, shape) if filters else None
