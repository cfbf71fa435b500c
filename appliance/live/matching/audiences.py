"""Who is to be told of an event, found without asking everybody.

The audiences of a topic are indexed by the values that their filters name, and within an audience its members by the
owner and the groups that can make a row theirs to read. So an event costs what it matches, not what is connected. Of a
thousand who each follow some rooms, all that follow one are found at one look, although each wants something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Final, Generic

from appliance.live.matching.access import Access, Sight
from appliance.live.matching.audience import (
    Audience,
    Guards,
    Telling,
    Wish,
    bereft,
    compile_for_table,
    tellings,
    veiled,
)
from appliance.live.matching.facts import Facts
from appliance.live.matching.readership import NOBODY, M, Readers, Readership, both
from appliance.live.matching.telling import Told
from appliance.model import Change, Image, Op, Shape, SQLiteValue
from appliance.protocol.collations import equality_key
from appliance.protocol.filters import MessageFilter, RowFilter, compile_message
from appliance.protocol.frames import Form
from appliance.protocol.json import identity
from appliance.protocol.permissions import Guarded, Verb

#: What no filter can name.
_UNNAMED: Final = object()


class Alike(Generic[M]):
    """Audiences that differ only in which values of one column they want.

    Their members are found by the value, and put together once for as long as they stay; where the rows say who may
    read them, by that, too.
    """

    __slots__ = ("_by_value", "_key", "_position", "_readership", "_together", "_wish")

    def __init__(self, wish: Wish, sight: Sight, position: int, key: Callable[[SQLiteValue], Hashable]) -> None:
        self._wish = wish
        self._position = position
        self._key = key
        self._readership = Readership[M]() if sight is Sight.BY_ROW else None
        self._by_value: dict[Hashable, dict[Audience[M], None]] = {}
        self._together: dict[Hashable, Readers[M]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_value)

    def put(self, audience: Audience[M], values: Iterable[Hashable]) -> None:
        """Take an audience up that has no members yet."""
        audience.index = self
        _put(self._by_value, audience, values)

    def take(self, audience: Audience[M], values: Iterable[Hashable]) -> None:
        """Forget an audience that has no members any more."""
        _take(self._by_value, audience, values)

    def feed(self, member: M) -> None:
        """Take a member up."""
        self._together.clear()
        if self._readership is not None:
            self._readership.add(member)

    def leave(self, member: M) -> None:
        """Forget a member."""
        self._together.clear()
        if self._readership is not None:
            self._readership.remove(member)

    def tellings(self, change: Change, guards: Guards) -> list[Telling[M]]:
        """Say who is told of a change, and how: as ``Audience.tellings`` says of each of them."""
        old, new = self._wanting(change.old), self._wanting(change.new)
        if change.op is Op.UPDATE and not self._wish.live_set:
            old = new  # an update is told by the new row; the old one need only be readable
        before, after, holders = map(self._reading, (old, new, old), guards[:3])
        found = tellings(self._wish, change, before, after, holders)
        if guards.closed is not None and not self._wish.live_set:
            wanting = self._wanting(change.old)
            found += bereft(*(self._reading(wanting, each) for each in (guards.closed.before, guards.closed.gone)))
        return veiled(found) if guards.veiled and self._readership is not None else found

    def is_left_by(self, change: Change) -> bool:
        """Whether one of them is: as ``Audience.is_left_by`` says of each."""
        if not self._wish.live_set or self._readership is None:
            return False
        after = self._by_value.get(self._value(change.new), {})
        return any(each not in after for each in self._by_value.get(self._value(change.old), ()))

    def _value(self, image: Image | None) -> Hashable:
        """Give by what a row is looked for; ``_UNNAMED``, where no filter names that."""
        if image is None or self._position in image.cut:  # no filter names a value as long as that
            return _UNNAMED
        return self._key(image.values[self._position])

    def _wanting(self, image: Image | None) -> Readers[M]:
        """Give the members who want a row."""
        value = self._value(image)
        found = self._together.get(value)
        if found is None:
            audiences = self._by_value.get(value)
            if audiences is None:
                return NOBODY
            if len(audiences) == 1:
                (audience,) = audiences
                return Readers(audience, audience.members)
            members = {member: None for audience in audiences for member in audience.members}
            found = self._together[value] = Readers(object(), members)
        return found

    def _reading(self, wanting: Readers[M], guard: Guarded | None) -> Readers[M]:
        """Give those of them who may read it."""
        if self._readership is None or not wanting.members:
            return wanting
        if guard is None:
            return NOBODY
        return wanting if guard.permission & Verb.READ else both(wanting, self._readership.named(guard))


class Audiences(Generic[M]):
    """The audiences of one topic."""

    __slots__ = ("_alike", "_by_key", "_by_place", "_extract", "_rest", "by_row", "live_sets", "shape")

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
        #: By what they have in common.
        self._alike: dict[Hashable, Alike[M]] = {}

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

    def tellings(self, change: Change, access: Access, facts: Facts) -> Iterator[Telling[M]]:
        """Say who of those that the hub feeds is told of a change of the table, and how."""
        # The index is of the present shape.
        current = self.shape is not None and self.shape.id == change.shape.id
        guards = _guards(change, access, facts) if self.by_row else _UNASKED
        everybody = self.by_row > 0 and not guards.veiled and _are_open(change, guards)
        whole: dict[Form, list[Audience[M]]] = {}
        for audience in self._concerned_by_change(change) if current else self:
            if not audience.members:
                continue
            if audience.sight is Sight.ALL or (audience.sight is Sight.BY_ROW and everybody):
                form = audience.form_for_all(change)
                if form is not None:
                    whole.setdefault(form, []).append(audience)
            else:
                yield from audience.tellings(change, guards)
        for form, told in whole.items():
            # Those who are told the same are one to whoever sends it, whatever else they want.
            if len(told) == 1:
                yield Telling(told[0], told[0].members, form)
            else:
                yield Telling(tuple(told), {member: None for audience in told for member in audience.members}, form)
        for alike in self._alike.values() if current else ():
            yield from alike.tellings(change, guards)

    def is_left_by(self, change: Change) -> bool:
        """Whether a change takes a row out of one of the live sets: as ``Audience.is_left_by`` says of each."""
        current = self.shape is not None and self.shape.id == change.shape.id
        if any(each.is_left_by(change) for each in (self._concerned_by_change(change) if current else self)):
            return True
        return current and any(alike.is_left_by(change) for alike in self._alike.values())

    def _concerned_by_change(self, change: Change) -> Iterable[Audience[M]]:
        """Give the audiences, of those that are alike to no others, that a change can concern; they decide."""
        if not self._by_place:
            return self._rest
        found = dict(self._rest)
        for image in (change.old, change.new):
            if image is not None:
                for place, index in self._by_place.items():
                    position = int(str(place))
                    found.update(index.get(self._extract[place](image.values[position]), ()))
        return found

    def everybody(self) -> Audience[M] | None:
        """Give the only audience, if all are told of every message; ``None`` where filters decide on each."""
        if len(self._by_key) != 1:
            return None
        (audience,) = self._by_key.values()
        return audience if audience.plain else None

    def hearers(self, told: Told) -> Readers[M]:
        """Give those whom the hub feeds that are told of a message."""
        found = [
            audience
            for audience in self._concerned_by_message(told)
            if audience.members and (audience.plain or audience.admits(told))
        ]
        if len(found) == 1:
            return Readers(found[0], found[0].members)
        return Readers(tuple(found), {member: None for audience in found for member in audience.members})

    def _concerned_by_message(self, told: Told) -> Iterable[Audience[M]]:
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
            key = self._extract[where] = equality_key(self.shape.columns[where])
            filter_, sight = audience.filter, audience.sight
            if sight is not Sight.NONE and isinstance(filter_, RowFilter) and filter_.is_equality:
                alike = self._alike.get(kind := _kind(audience))
                if alike is None:
                    alike = self._alike[kind] = Alike(audience.wish, sight, where, key)
                alike.put(audience, values)
                return
        _put(self._by_place.setdefault(where, {}), audience, values)

    def _take(self, audience: Audience[M]) -> None:
        self._count(audience, -1)
        if audience.place is None:
            del self._rest[audience]
            return
        where, values = audience.place
        if audience.index is not None:
            alike = self._alike[kind := _kind(audience)]
            alike.take(audience, values)
            if not alike:
                del self._alike[kind]
            return
        index = self._by_place[where]
        _take(index, audience, values)
        if not index:
            del self._by_place[where]

    def _count(self, audience: Audience[M], by: int) -> None:
        if audience.sight is Sight.BY_ROW:
            self.by_row += by
            self.live_sets += by * audience.wish.live_set


def _key(wish: Wish, sight: Sight) -> Hashable:
    # As they were sent: 42 and 42.0 are the same number, and other texts for a column that holds text.
    return json.dumps(wish.filters, sort_keys=True), wish.live_set, wish.old, sight


def _guards(change: Change, access: Access, facts: Facts) -> Guards:
    old, new = change.old, change.new
    return Guards(
        None if old is None else access.guard(change, old, facts),
        None if new is None else access.guard(change, new, facts),
        access.told(change, facts),
        facts.closed.get(change.id),
        facts.veils(change),
    )


_UNASKED: Final = Guards()


def _are_open(change: Change, guards: Guards) -> bool:
    """Whether everybody may read the old and the new row."""
    return _is_open(change.old, guards.old) and _is_open(change.new, guards.new)


def _is_open(image: Image | None, guard: Guarded | None) -> bool:
    return image is None or (guard is not None and bool(guard.permission & Verb.READ))


def _kind(audience: Audience[M]) -> Hashable:
    """Give what those that are alike have in common."""
    assert audience.place is not None  # noqa: S101
    return audience.place[0], audience.wish.live_set, audience.wish.old, audience.sight


def _put(index: dict[Hashable, dict[Audience[M], None]], audience: Audience[M], values: Iterable[Hashable]) -> None:
    """Have an index name an audience under these values."""
    for value in values:
        index.setdefault(value, {})[audience] = None


def _take(index: dict[Hashable, dict[Audience[M], None]], audience: Audience[M], values: Iterable[Hashable]) -> None:
    """Have an index name an audience no more."""
    for value in values:
        del index[value][audience]
        if not index[value]:
            del index[value]
