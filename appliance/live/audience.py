"""Who is to be told of an event, found without asking everybody.

Subscriptions that want the same – of one topic, with the same filter and options – are one
*audience*: an event is put to each audience once, however many listen. Audiences are indexed by the values that their
filters name, and within an audience its members by the owner and the groups that can make a row theirs to read. So an
event costs what it matches, not what is connected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple

from appliance.errors import BadFilter
from appliance.live.access import Access, Reader, Sight
from appliance.live.facts import Facts
from appliance.live.readership import NOBODY, M, Readers, Readership, both, but
from appliance.live.telling import CREATE, DELETE, PLAIN, UPDATE, UPDATE_ALONE, UPDATE_WITH_OLD, Told
from appliance.model import JSON, Change, Image, Op, Shape
from appliance.protocol.collations import equality_key
from appliance.protocol.filters import MessageFilter, RowFilter, compile_message, compile_table
from appliance.protocol.frames import Form
from appliance.protocol.json import identity
from appliance.protocol.permissions import Verb


@dataclass(frozen=True, slots=True)
class Wish:
    """What a subscriber asked for. ``filters`` are as they were sent: a new shape compiles them anew."""

    filters: dict[str, JSON] = field(default_factory=dict)
    live_set: bool = False
    old: bool = False


class Telling(NamedTuple, Generic[M]):
    """That these members are told of an event in this form. Those of two tellings of equal ``who`` are the same."""

    who: Hashable
    members: Collection[M]
    form: Form


class Audience(Generic[M]):
    """Those who want the same of one topic, in the same way.

    ``members`` are those whom the hub feeds; where the rows say who may read them, ``readership`` has them, too.
    """

    __slots__ = ("_filters", "filter", "members", "place", "plain", "readership", "sight", "waiting", "wish")

    def __init__(self, wish: Wish, wanted: RowFilter | MessageFilter | None, shape: Shape | None, sight: Sight) -> None:
        self.wish = wish
        self.filter = wanted
        self.sight = sight
        #: Whether all its members are told of every change, as what it is.
        self.plain = wanted is None and sight is Sight.ALL and not (wish.live_set or wish.old)
        self.members: dict[M, None] = {}
        #: Those who are not fed yet, or not just now.
        self.waiting: set[M] = set()
        #: Where the index of the topic has it.
        self.place: tuple[Hashable, frozenset[Hashable]] | None = None
        self.readership = Readership[M]()
        self._filters: dict[int, RowFilter | None] = {}
        if shape is not None and (wanted is None or isinstance(wanted, RowFilter)):
            self._filters[shape.id] = wanted

    def feed(self, member: M) -> None:
        """Have the hub feed a member that waits."""
        self.waiting.discard(member)
        self.members[member] = None
        if self.sight is Sight.BY_ROW:
            self.readership.add(member)

    def wait(self, member: M) -> None:
        """Have a member wait."""
        self.leave(member)
        self.waiting.add(member)

    def leave(self, member: M) -> None:
        """Forget a member. Its reader is the one that it came with."""
        self.waiting.discard(member)
        if member in self.members:
            del self.members[member]
            if self.sight is Sight.BY_ROW:
                self.readership.remove(member)

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

    def form(self, reader: Reader, change: Change, access: Access, facts: Facts) -> Form | None:
        """Say in which form one of this audience, with these rights, is told of a change; ``None``: not at all."""
        wants = self._wants(change)
        if wants is None:
            return None
        old, new = (
            image is not None and wanted and self._may_read(reader, change, image, access, facts)
            for image, wanted in zip((change.old, change.new), wants, strict=True)
        )
        return self._as_told(change, old, new)

    def tellings(self, change: Change, access: Access, facts: Facts) -> list[Telling[M]]:
        """Say who of those that the hub feeds is told of a change, and how: as ``form`` says of each."""
        if self.plain:
            return [Telling(self, self.members, PLAIN[change.op])]
        wants = self._wants(change)
        if wants is None or self.sight is Sight.NONE:
            return []
        if self.sight is Sight.ALL:
            form = self._as_told(change, wants[0], wants[1])
            return [] if form is None else [Telling(self, self.members, form)]
        before, after = (
            self._readers(change, image, access, facts) if image is not None and wanted else NOBODY
            for image, wanted in zip((change.old, change.new), wants, strict=True)
        )
        found: list[Telling[M]] = []
        for old, new in ((True, True), (True, False), (False, True)):
            form = self._as_told(change, old, new)
            if form is not None:
                told = both(before, after) if old and new else but(before, after) if old else but(after, before)
                if told.members:
                    found.append(Telling(told.who, told.members, form))
        return found

    def _wants(self, change: Change) -> tuple[bool, bool] | None:
        """Say of the old and the new image whether this audience wants to know of it; ``None``: of neither."""
        try:
            wanted = self.row_filter(change.shape)
        except BadFilter:
            return None
        if wanted is None:
            return change.old is not None, change.new is not None
        if change.op not in wanted.events:
            return None
        old = change.old is not None and (self._asks_old(change) and wanted.admits(change.old))
        new = change.new is not None and wanted.admits(change.new)
        if not self.wish.live_set and change.op is Op.UPDATE:
            old = new  # an update is told by the new row; the old one need only be readable
        return (old, new) if old or new else None

    def _asks_old(self, change: Change) -> bool:
        return self.wish.live_set or change.op is Op.DELETE

    def _as_told(self, change: Change, old: bool, new: bool) -> Form | None:
        """Say how one is told to whom the old and the new row may be shown, or not."""
        if self.wish.live_set:
            if not new:
                return DELETE if old else None
            if not old:
                return CREATE
            return UPDATE_WITH_OLD if self.wish.old else UPDATE
        if change.op is Op.DELETE:
            return DELETE if old else None
        if not new:
            return None
        if change.op is Op.CREATE:
            return CREATE
        if not old:
            return UPDATE_ALONE
        return UPDATE_WITH_OLD if self.wish.old else UPDATE

    def _may_read(self, reader: Reader, change: Change, image: Image, access: Access, facts: Facts) -> bool:
        if self.sight is Sight.ALL:
            return True
        if self.sight is Sight.NONE:
            return False
        guard = access.guard(change, image, facts)
        return guard is not None and reader.may(Verb.READ, guard)

    def _readers(self, change: Change, image: Image, access: Access, facts: Facts) -> Readers[M]:
        """Give the members who may read a row."""
        guard = access.guard(change, image, facts)
        if guard is None:
            return NOBODY
        return Readers(self, self.members) if guard.permission & Verb.READ else self.readership.named(guard)

    def admits(self, told: Told) -> bool:
        """Whether this audience is told of a message."""
        if self.sight is Sight.NONE:
            return False
        return not isinstance(self.filter, MessageFilter) or self.filter.matches(told.value())


class Audiences(Generic[M]):
    """The audiences of one topic."""

    __slots__ = ("_by_key", "_by_place", "_extract", "_rest", "by_row", "live_sets", "shape")

    def __init__(self, shape: Shape | None) -> None:
        #: The table's shape; ``None`` for a user topic.
        self.shape = shape
        #: How many audiences may read what the rows say, and how many of them hold the rows.
        self.by_row = self.live_sets = 0
        self._by_key: dict[Hashable, Audience[M]] = {}
        self._rest: dict[Audience[M], None] = {}
        #: By what is compared – a column's position, or a message's key – and then by value.
        self._by_place: dict[Hashable, dict[Hashable, dict[Audience[M], None]]] = {}
        self._extract: dict[Hashable, Callable[[Any], Hashable]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def __iter__(self) -> Iterator[Audience[M]]:
        return iter(tuple(self._by_key.values()))

    def join(self, member: M, wish: Wish, sight: Sight) -> Audience[M]:
        """Have ``member`` wait in the audience that it belongs to. Raises ``BadFilter``."""
        key = _key(wish, sight)
        audience = self._by_key.get(key)
        if audience is None:
            wanted: RowFilter | MessageFilter | None
            if self.shape is not None:
                wanted = compile_for_table(wish.filters, self.shape)
            else:
                wanted = compile_message(wish.filters) if wish.filters else None
            audience = self._by_key[key] = Audience(wish, wanted, self.shape, sight)
            self._put(audience)
        audience.waiting.add(member)
        return audience

    def leave(self, member: M, audience: Audience[M]) -> None:
        """Take a member out of its audience."""
        audience.leave(member)
        if not audience.members and not audience.waiting:
            del self._by_key[_key(audience.wish, audience.sight)]
            self._take(audience)

    def concerned_by_change(self, change: Change) -> Iterable[Audience[M]]:
        """Give the audiences that a change of the present shape can concern, each once; they decide."""
        if not self._by_place:
            return self._rest
        found = dict(self._rest)
        for image in (change.old, change.new):
            if image is not None:
                for place, index in self._by_place.items():
                    position = int(str(place))
                    found.update(index.get(self._extract[place](image.values[position]), ()))
        return found

    def concerned_by_message(self, told: Told) -> Iterable[Audience[M]]:
        """Give the audiences that a message can concern, each once."""
        if not self._by_place:
            return self._rest
        found = dict(self._rest)
        value = told.value()
        fields = value if isinstance(value, dict) else {}
        for place, index in self._by_place.items():
            found.update(index.get(identity(fields.get(str(place))), ()))
        return found

    def _put(self, audience: Audience[M]) -> None:
        self._count(audience, 1)
        equalities = audience.filter.equalities if audience.filter is not None else ()
        if not equalities:
            self._rest[audience] = None
            return
        # The narrowest place: the fewest values that an event must have one of to concern it.
        where, values = audience.place = min(equalities, key=lambda equality: len(equality[1]))
        if isinstance(where, int) and self.shape is not None:
            self._extract[where] = equality_key(self.shape.columns[where])
        index = self._by_place.setdefault(where, {})
        for value in values:
            index.setdefault(value, {})[audience] = None

    def _take(self, audience: Audience[M]) -> None:
        self._count(audience, -1)
        if audience.place is None:
            del self._rest[audience]
            return
        where, values = audience.place
        index = self._by_place[where]
        for value in values:
            del index[value][audience]
            if not index[value]:
                del index[value]
        if not index:
            del self._by_place[where]

    def _count(self, audience: Audience[M], by: int) -> None:
        if audience.sight is Sight.BY_ROW:
            self.by_row += by
            self.live_sets += by * audience.wish.live_set


def _key(wish: Wish, sight: Sight) -> Hashable:
    return identity(wish.filters), wish.live_set, wish.old, sight


def compile_for_table(filters: dict[str, JSON], shape: Shape) -> RowFilter | None:
    """Compile filters for a table's rows; ``None`` when everything passes. Raises ``BadFilter``."""
    return compile_table(filters, shape) if filters else None
