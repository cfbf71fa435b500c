"""What it means for a live set that a row was joined to a group, or parted from one: the row enters or leaves.

That is an event of the row, although only a row of its join table has changed. Who held it before and who may read it
now follows from the groups that it is joined to now, and from the change itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from appliance.live.access import Reader, Sight
from appliance.live.audience import Audience, M
from appliance.live.facts import Facts, Places
from appliance.live.frames import text_frame
from appliance.model import Change, Image, Op, Shape, ascii_fold
from appliance.protocol import frames
from appliance.protocol.permissions import Guarded, Verb, bits
from appliance.protocol.values import ValueOptions
from appliance.store.grants import CLOSED, TableGrant


@dataclass(frozen=True, slots=True)
class Joined:
    """A row, and what guards it now and before its groups changed.

    ``image`` is ``None`` for a row that is not there any more: ``now`` is then what guarded it when it was deleted. Who
    could still read it then is told of that by the event of its deletion.
    """

    image: Image | None
    now: Guarded
    before: Guarded
    entering: bytes
    leaving: bytes

    def frame(self, audience: Audience[M], shape: Shape, reader: Reader) -> bytes | None:
        """Give the frame by which one holder of rows is told."""
        if not self._holds(audience, shape):
            return None
        was, now = reader.may(Verb.READ, self.before), reader.may(Verb.READ, self.now)
        return (self.entering or None) if now and not was else self.leaving if was and not now else None

    def tellings(self, audience: Audience[M], shape: Shape) -> Iterator[tuple[Hashable, list[M], bytes]]:
        """Say who of those that the hub feeds is told, and by which frame."""
        if not self._holds(audience, shape) or self.now.permission & Verb.READ:
            return
        was, now = audience.readers_of(self.before), audience.readers_of(self.now)
        for members, frame in (
            ([each for each in now if each not in was], self.entering),
            ([each for each in was if each not in now], self.leaving),
        ):
            if members and frame:
                yield (audience, frozenset(members)), members, frame

    def _holds(self, audience: Audience[M], shape: Shape) -> bool:
        if not audience.wish.live_set or audience.sight is not Sight.BY_ROW:
            return False
        wanted = audience.row_filter(shape)
        return wanted is None or self.image is None or wanted.admits(self.image)


def rows_of(change: Change, grant: TableGrant, shape: Shape, facts: Facts, options: ValueOptions) -> Iterator[Joined]:
    """Give the rows, of the table of this ``shape``, whose groups a change of their join table concerns."""
    if grant.object_table is None or grant.object_column is None:
        return
    table = ascii_fold(grant.object_table)
    value = Places.of(change.shape).value
    objects = {str(value(image, grant.object_column)) for image in (change.old, change.new) if image is not None}
    for reference in sorted(objects):
        image = facts.rows.get((table, reference))
        now = facts.guards.get((table, reference)) or facts.ended.get((table, reference)) or CLOSED
        entering = b""
        if image is not None:
            entering = text_frame(frames.change(Change(change.id, Op.CREATE, shape, image, None), options))
        yield Joined(
            image,
            now,
            replace(now, joins=_undone(change, grant.object_column, reference, now)),
            entering,
            text_frame(frames.gone(shape.table, [reference], change.id)),
        )


def _undone(change: Change, column: str, reference: str, now: Guarded) -> tuple[tuple[str, int], ...]:
    """Give the groups as they were before one change of them."""
    value = Places.of(change.shape).value
    joins = list(now.joins)
    if change.new is not None and str(value(change.new, column)) == reference:
        group = str(value(change.new, "usergroup_id"))
        joins = [each for each in joins if each[0] != group]
    if change.old is not None and str(value(change.old, column)) == reference:
        joins.append((str(value(change.old, "usergroup_id")), bits(value(change.old, "permission"))))
    return tuple(joins)
