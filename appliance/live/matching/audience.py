"""Subscriptions that want the same – of one topic, with the same filter and options – are one *audience*.

An event is put to each audience once, however many listen.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple

from appliance.errors import BadFilter
from appliance.live.matching.access import Access, Reader, Sight
from appliance.live.matching.facts import Closed, Facts
from appliance.live.matching.readership import NOBODY, Index, M, Members, Readers, Readership, both, but
from appliance.live.matching.telling import CREATE, DELETE, GONE, PLAIN, UPDATE, UPDATE_ALONE, UPDATE_WITH_OLD, Told
from appliance.model import JSON, Change, Image, Op, Shape
from appliance.protocol.filters import MessageFilter, RowFilter, compile_table
from appliance.protocol.frames import Form
from appliance.protocol.permissions import Guarded, Verb


@dataclass(frozen=True, slots=True)
class Wish:
    """What a subscriber asked for. ``filters`` are as they were sent: a new shape compiles them anew."""

    filters: dict[str, JSON] = field(default_factory=dict)
    live_set: bool = False
    old: bool = False


class Guards(NamedTuple):
    """What guards the old and the new row of a change; ``None``: none, or nobody but administrators may read it.

    ``told`` says who may have been told of the old row before, where that is more than may read it (``Access.told``).
    ``closed`` is there where its transaction deletes the row, and takes it from others before (``Facts.closed``).
    ``veiled``: of the old row nothing is shown but its key.
    """

    old: Guarded | None = None
    new: Guarded | None = None
    told: Guarded | None = None
    closed: Closed | None = None
    veiled: bool = False


class Telling(NamedTuple, Generic[M]):
    """That these members are told of an event in this form. Those of two tellings of equal ``who`` are the same."""

    who: Hashable
    members: Collection[M]
    form: Form


class Audience(Generic[M]):
    """Those who want the same of one topic, in the same way.

    ``members`` are those whom the hub feeds; where the rows say who may read them, ``readership`` has them, too.
    """

    __slots__ = ("_filters", "filter", "index", "members", "place", "plain", "readership", "sight", "waiting", "wish")

    def __init__(self, wish: Wish, wanted: RowFilter | MessageFilter | None, shape: Shape | None, sight: Sight) -> None:
        self.wish = wish
        self.filter = wanted
        self.sight = sight
        #: Whether all its members are told of every change, as what it is.
        self.plain = wanted is None and sight is Sight.ALL and not (wish.live_set or wish.old)
        self.members: Members[M] = Members()
        #: Those who are not fed yet, or not just now.
        self.waiting: set[M] = set()
        #: Where an index of the topic has it, and that index if it knows its members.
        self.place: tuple[Hashable, frozenset[Hashable]] | None = None
        self.index: Index[M] | None = None
        self.readership = Readership[M]()
        self._filters: dict[int, RowFilter | None] = {}
        if shape is not None and (wanted is None or isinstance(wanted, RowFilter)):
            self._filters[shape.id] = wanted

    @property
    def is_new(self) -> bool:
        """Whether the first has just come, who waits: once nobody is in it any more, an audience is forgotten."""
        return not self.members and len(self.waiting) == 1

    @property
    def may_be_left(self) -> bool:
        """Whether these are live sets, of rows that say who may read them, which a row may leave by the filter."""
        return self.wish.live_set and self.sight is Sight.BY_ROW and self.filter is not None

    def feed(self, member: M) -> None:
        """Have the hub feed a member that waits."""
        self.waiting.discard(member)
        self.members.feed(member)
        if self.index is not None:
            self.index.feed(member)
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
            self.members.leave(member)
            if self.index is not None:
                self.index.leave(member)
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
        if self.sight is Sight.ALL:
            return self.form_for_all(change)
        form = self._form(reader, change, access, facts)
        return _VEILED.get(form, form) if form is not None and facts.veils(change) else form

    def _form(self, reader: Reader, change: Change, access: Access, facts: Facts) -> Form | None:
        if (closed := facts.closed.get(change.id)) is not None and self._is_bereft(change):
            before, gone = (reader.may(Verb.READ, each) for each in (closed.before, closed.gone))
            if before and not gone:
                return DELETE
        wants = self._wants(change)
        if wants is None:
            return None
        old, new = (
            image is not None and wanted and self._may_read(reader, change, image, access, facts)
            for image, wanted in zip((change.old, change.new), wants, strict=True)
        )
        form = _as_told(self.wish, change, old, new)
        if form is None and self.wish.live_set and wants[0]:
            told = access.told(change, facts)
            return GONE if told is not None and reader.may(Verb.READ, told) else None
        return form

    def form_for_all(self, change: Change) -> Form | None:
        """Say what ``form`` says of each one, where all may read all rows."""
        if self.plain:
            return PLAIN[change.op]
        wants = self._wants(change)
        return None if wants is None else _as_told(self.wish, change, wants[0], wants[1])

    def tellings(self, change: Change, guards: Guards) -> list[Telling[M]]:
        """Say who of those that the hub feeds is told of a change, and how: as ``form`` says of each.

        Where all may read all rows, ``form_for_all`` says it of all.
        """
        if self.sight is Sight.NONE:
            return []
        found: list[Telling[M]] = []
        if guards.closed is not None and self._is_bereft(change):
            found += bereft(self._readers(guards.closed.before), self._readers(guards.closed.gone))
        wants = self._wants(change)
        if wants is None:
            return veiled(found) if guards.veiled else found
        before = self._readers(guards.old) if wants[0] else NOBODY
        if wants[0] == wants[1] and guards.old == guards.new:
            after = before
        else:
            after = self._readers(guards.new) if wants[1] else NOBODY
        found += tellings(self.wish, change, before, after, self._readers(guards.told) if wants[0] else NOBODY)
        return veiled(found) if guards.veiled else found

    def is_left_by(self, change: Change) -> bool:
        """Whether a change takes a row out of these live sets by the filter (``may_be_left``)."""
        return self.may_be_left and self._wants(change) == (True, False)

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

    def _is_bereft(self, change: Change) -> bool:
        """Whether some of this audience may have to be told by a change that the row, as it was, is deleted behind it.

        Of a live set a row leaves by what takes it from its holder.
        """
        if self.wish.live_set or self.sight is Sight.NONE or change.old is None:
            return False
        try:
            wanted = self.row_filter(change.shape)
        except BadFilter:
            return False
        return wanted is None or wanted.matches(Op.DELETE, change.old)

    def _asks_old(self, change: Change) -> bool:
        return self.wish.live_set or change.op is Op.DELETE

    def _may_read(self, reader: Reader, change: Change, image: Image, access: Access, facts: Facts) -> bool:
        if self.sight is Sight.NONE:
            return False
        guard = access.guard(change, image, facts)
        return guard is not None and reader.may(Verb.READ, guard)

    def _readers(self, guard: Guarded | None) -> Readers[M]:
        """Give the members who may read a row."""
        if guard is None:
            return NOBODY
        return Readers(self, self.members) if guard.permission & Verb.READ else self.readership.named(guard)

    def admits(self, told: Told) -> bool:
        """Whether this audience is told of a message."""
        if self.sight is Sight.NONE:
            return False
        return not isinstance(self.filter, MessageFilter) or self.filter.matches(told.value())


#: Whether one may be shown the old and the new row, as it is of those who may be shown both alike, and of all.
_OF_BOTH: Final = ((True, True),)
_OF_EACH: Final = (*_OF_BOTH, (True, False), (False, True))


def tellings(
    wish: Wish, change: Change, before: Readers[M], after: Readers[M], holders: Readers[M]
) -> list[Telling[M]]:
    """Say who is told of a change, and how, where these may be shown the row as it was, and these as it is.

    ``holders`` may have been told of it as it was all the same.
    """
    found: list[Telling[M]] = []
    for old, new in _OF_BOTH if before.who == after.who else _OF_EACH:
        form = _as_told(wish, change, old, new)
        if form is not None:
            told = both(before, after) if old and new else but(before, after) if old else but(after, before)
            if told.members:
                found.append(Telling(told.who, told.members, form))
    if wish.live_set and holders.members and (told := but(but(holders, before), after)).members:
        found.append(Telling(told.who, told.members, GONE))
    return found


#: What is told instead where nothing may be shown of what a row was but its key.
_VEILED: Final = {DELETE: GONE, UPDATE_WITH_OLD: UPDATE}


def veiled(found: list[Telling[M]]) -> list[Telling[M]]:
    """Show nothing of what a row was."""
    return [each._replace(form=_VEILED.get(each.form, each.form)) for each in found]


def bereft(before: Readers[M], gone: Readers[M]) -> list[Telling[M]]:
    """Say who is told that a row is gone that these could read before its transaction, but these when it went."""
    told = but(before, gone)
    return [Telling(told.who, told.members, DELETE)] if told.members else []


def _as_told(wish: Wish, change: Change, old: bool, new: bool) -> Form | None:
    """Say how one is told to whom the old and the new row may be shown, or not."""
    if wish.live_set:
        if not new:
            return DELETE if old else None
        if not old:
            return CREATE
        return UPDATE_WITH_OLD if wish.old else UPDATE
    if change.op is Op.DELETE:
        return DELETE if old else None
    if not new:
        return None
    if change.op is Op.CREATE:
        return CREATE
    if not old:
        return UPDATE_ALONE
    return UPDATE_WITH_OLD if wish.old else UPDATE


def compile_for_table(filters: dict[str, JSON], shape: Shape) -> RowFilter | None:
    """Compile filters for a table's rows; ``None`` when everything passes. Raises ``BadFilter``."""
    return compile_table(filters, shape) if filters else None
