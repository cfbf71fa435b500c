"""What it means for a live set that a row was joined to a group, or parted from one: the row enters or leaves.

That is an event of the row, although only a row of its join table has changed. Who held it before and who may read it
now follows from the groups that it is joined to now, and from the change itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from appliance.errors import BadFilter
from appliance.live.matching.access import Access, Reader, Sight
from appliance.live.matching.audience import Audience
from appliance.live.matching.facts import End, Facts, Groups, common, given_by, value_of
from appliance.live.matching.readership import M
from appliance.live.wire.frames import text_frame
from appliance.model import Change, Image, Op, Shape, ascii_fold
from appliance.protocol import frames
from appliance.protocol.permissions import Guarded, Verb
from appliance.protocol.values import ValueOptions, legible
from appliance.store.access.grants import CLOSED, TableGrant


@dataclass(frozen=True, slots=True)
class Joined:
    """A row, and what guards it now and before its groups changed.

    ``image`` is ``None`` for a row that is not there any more: ``now`` is then what guarded it at its ``end``, as far
    as that is known. Who could still read it then is told by the event of its deletion, if he asked for such a row.
    ``given`` is what the change gives by itself, where its groups may have changed again since and so hide that it was
    this change that made it readable. ``shown`` guards the row as it is shown, which may be another by then and in
    other groups. ``first`` guarded it before the transaction: whom it was not for then holds no row that the
    transaction gives and takes back, and is told of none. ``id`` is the position that it is told with.
    """

    image: Image | None
    end: End | None
    id: int
    shown: Guarded
    now: Guarded
    first: Guarded
    before: Guarded
    given: Guarded
    entering: bytes
    leaving: bytes

    def frame(self, audience: Audience[M], shape: Shape, reader: Reader) -> bytes | None:
        """Give the frame by which one holder of rows is told."""
        if not _holds(audience):
            return None
        was, guard = reader.may(Verb.READ, self.before), self._as_asked_for(audience, shape)
        now = guard is not None and reader.may(Verb.READ, guard)
        if now and (not was or reader.may(Verb.READ, self.given)):
            return self.entering if self.entering and reader.may(Verb.READ, self.shown) else None
        held = was and not now and all(reader.may(Verb.READ, _by_name(each)) for each in (self.before, self.first))
        return self.leaving if held else None

    def tellings(self, audience: Audience[M], shape: Shape) -> Iterator[tuple[Hashable, list[M], bytes]]:
        """Say who of those that the hub feeds is told, and by which frame."""
        if not _holds(audience):
            return
        guard = self._as_asked_for(audience, shape)
        if guard is not None and guard.permission & Verb.READ:
            return
        named = audience.readership.named
        first, was, given, shown = (named(each).members for each in (self.first, self.before, self.given, self.shown))
        now = {} if guard is None else named(guard).members
        for members, frame in (
            ([each for each in now if (each not in was or each in given) and each in shown], self.entering),
            ([each for each in was if each not in now and each in first], self.leaving),
        ):
            if members and frame:
                yield (audience, frozenset(members)), members, frame

    def _as_asked_for(self, audience: Audience[M], shape: Shape) -> Guarded | None:
        """Give what guards the row now, or did when it was deleted, as far as that tells whoever holds it.

        ``None``: it does not pass the filter, though it may have when it was told. If it did not when it was deleted,
        that tells nobody; only its groups of then were told, by what made it so.
        """
        image, shape = (self.image, shape) if self.end is None else (self.end.image, self.end.shape)
        try:
            wanted = audience.row_filter(shape)
        except BadFilter:  # of rows of that shape it is told nothing
            return None
        if wanted is None or image is None or wanted.admits(image):
            return self.now
        return None if self.end is None else Guarded(0, None, self.now.joins)


def _by_name(guard: Guarded) -> Guarded:
    """Give what lets read a row by its owner or its groups: whom a change of its groups can concern."""
    return guard._replace(permission=guard.permission & ~Verb.READ)


def _holds(audience: Audience[M]) -> bool:
    return audience.wish.live_set and audience.sight is Sight.BY_ROW


def joined(
    change: Change, access: Access, tables: Mapping[str, Shape], facts: Facts, options: ValueOptions
) -> tuple[Shape | None, list[Joined]]:
    """Give the rows that a change joins to a group or parts from one, and the shape of their table, if it is such."""
    grant = access.grant(change.shape.table)
    shape = tables.get(ascii_fold(grant.object_table or ""))
    if shape is None or grant.object_table is None:
        return None, []
    return shape, list(_rows_of(change, grant, shape, facts, options))


def _rows_of(change: Change, grant: TableGrant, shape: Shape, facts: Facts, options: ValueOptions) -> Iterator[Joined]:
    """Give the rows, of the table of this ``shape``, whose groups a change of their join table concerns."""
    if grant.object_table is None or grant.object_column is None:
        return
    table = ascii_fold(grant.object_table)
    images = (change.old, change.new)
    objects = dict.fromkeys(str(value_of(change, image, grant.object_column)) for image in images if image is not None)
    # A join row that now joins another row concerns two. Each image of an update is a row of the outbox, so there is a
    # position for each: who has been told of the one and not of the other goes on between them.
    for event_id, reference in enumerate(objects, change.id + 1 - len(objects)):
        image, now = facts.rows.get((table, reference)), facts.guards.get((table, reference)) or CLOSED
        if (end := facts.end((table, reference), change.id)) is not None:
            image, now = None, end.guard._replace(joins=end.joins)
        groups = facts.joined.get((change.id, reference), Groups(now.joins, now.joins, now.joins))
        if end is not None:  # by a group that the transaction of its deletion has given nobody is told of that
            groups = groups._replace(after=common(groups.after, end.guard.joins))
        entering = b""
        if image is not None:
            entering = text_frame(frames.change(Change(event_id, Op.CREATE, shape, image, None), options))
        yield Joined(
            image,
            end,
            event_id,
            now,
            now._replace(joins=groups.after),
            now._replace(joins=groups.first),
            now._replace(joins=groups.before),
            Guarded(0, None, given_by(change) if facts.newer else ()),
            entering,
            text_frame(frames.gone(shape.table, [legible(reference)], event_id)),
        )
