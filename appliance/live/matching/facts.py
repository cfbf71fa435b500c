"""What decisions on rows need beside the rows: read once for a batch of events, before any of it is delivered."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import NamedTuple, TypeAlias

from appliance.model import Change, Image, Shape, SQLiteValue, ascii_fold
from appliance.protocol.permissions import Guarded, Verb, bits, both, owner_of
from appliance.store.access import grants
from appliance.store.access.grants import TableGrant, TableKind
from appliance.store.file import schema
from appliance.store.tables import snapshot, standard

#: Groups, each with the join row's permission.
Joins: TypeAlias = tuple[tuple[str, int], ...]
#: A row of a standard table: the table (folded) and its ``reference_id``.
Name: TypeAlias = tuple[str, str]


class End(NamedTuple):
    """That a row was deleted, by the event ``id``: its name may be another row's by now, by the event ``taken``.

    ``guard`` is what guarded it then, without what only the same transaction had given; ``joins`` all its groups;
    ``image`` what it was, of this ``shape``. ``taken`` is 0 where nobody has taken its name by the events that are
    known.
    """

    id: int
    guard: Guarded
    joins: Joins
    image: Image
    shape: Shape
    taken: int = 0


class Closed(NamedTuple):
    """That a transaction has taken a row from some who could read it ``before``, and deleted it by the event ``id``.

    Who is told of its deletion may read it by what guards it then: ``gone``.
    """

    id: int
    before: Guarded
    gone: Guarded


class Groups(NamedTuple):
    """The groups of a row before the transaction that has changed them, and before and after one change in it."""

    first: Joins
    before: Joins
    after: Joins


class Sharing(NamedTuple):
    """By which groups that its transaction joins a row to nobody could read an image of it.

    ``changes`` are, by group, what has changed the row's join rows, by event id, in order, each with what they gave
    before it. ``over`` is the event that ended the image; ``None`` if the row was that before the transaction.
    """

    changes: Mapping[str, Sequence[tuple[int, int]]]
    over: int | None

    def narrowed(self, joins: Joins) -> Joins:
        """Leave of what these groups are given what they were given while the row was so, or had before."""
        return tuple([(group, held & self._given(group, held)) for group, held in joins])

    def _given(self, group: str, held: int) -> int:
        changes = self.changes.get(group)
        if changes is None:
            return held
        given = changes[0][1]
        if self.over is None:
            return given
        place = bisect_right(changes, self.over, key=itemgetter(0))
        return given | (changes[place][1] if place < len(changes) else held)


class Joining(NamedTuple):
    """A change of a join table, as one of a row that its ``column`` names, in one of several transactions."""

    transaction: int
    change: Change
    column: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows of standard tables as they are now, by table (folded) and ``reference_id``.

    ``guards``: what guards a row, with the groups that it is joined to; ``None`` where it is not there any more.
    ``rows``: its values, where they are needed. Whether it is the row that an event is of says ``end``.
    """

    guards: Mapping[Name, Guarded | None] = field(default_factory=dict)
    rows: Mapping[Name, Image] = field(default_factory=dict)
    #: When a row that is there was made, as its table says: it tells it from others that have had its name, but for
    #: those of the same millisecond.
    made: Mapping[Name, SQLiteValue] = field(default_factory=dict)
    #: The groups that join rows are for whose row is not there: one that was renamed by a writer without foreign keys.
    left: Mapping[Name, Joins] = field(default_factory=dict)
    #: The rows that were deleted by one of these events, in order.
    ended: Mapping[Name, Sequence[End]] = field(default_factory=dict)
    #: By event id, of deletions whose row was joined to some of its groups by one of these events, the other groups.
    narrowed: Mapping[int, Joins] = field(default_factory=dict)
    #: By event id, of updates of rows whose groups their transaction has changed, and whether of the row as it is: it
    #: was so before the transaction, or only in its midst.
    fresh: Mapping[tuple[int, bool], Sharing] = field(default_factory=dict)
    #: By event id, what guards the row after the last of these events that is of it, where that is another one.
    last: Mapping[int, Guarded] = field(default_factory=dict)
    #: The events that found their row as another of these had left it.
    between: Collection[int] = ()
    #: By the event that was the first of a row in the transaction that deletes it, if that closes it otherwise, too.
    closed: Mapping[int, Closed] = field(default_factory=dict)
    #: By table (folded), up to which of these events nothing is shown of what its rows were but their keys: what their
    #: transaction did to them before is not known.
    veiled: Mapping[str, int] = field(default_factory=dict)
    #: The rows (of these names) that have another name since, by the last of these events that gave a row such.
    renamed: Mapping[Name, int] = field(default_factory=dict)
    #: The events of rows that were there before their transaction, up to the first that has given such another name.
    renaming: Collection[int] = ()
    #: By event id, whose a row of a plain table is by now that is another's than the event says.
    owners: Mapping[int, str | None] = field(default_factory=dict)
    #: What joins rows to groups or parts them from these, in order, where it is needed. By event id and
    #: ``reference_id``: the groups of a row that one of them joined or parted.
    joining: Mapping[Name, Sequence[Joining]] = field(default_factory=dict)
    joined: Mapping[tuple[int, str], Groups] = field(default_factory=dict)
    #: The newest position when this was read, and whether that is after these events.
    newest: int = 0
    newer: bool = False
    #: The tables of whose rows it cannot be decided for sure: too little is known of what counts as one transaction, or
    #: it cannot be said of some event which row it is of, as one was renamed and another has its name.
    doubtful: frozenset[str] = frozenset()
    #: What guards the rows of these events, as far as it was asked: by event id, and whether as it was or as it is.
    guarded: dict[tuple[int, bool], Guarded | None] = field(default_factory=dict, init=False, compare=False)

    def end(self, name: Name, event: int) -> End | None:
        """Give how the row ended that had this name when a join row did this; ``None``: it has not, as far as is known.

        Behind its end it is the same row, too, until another has its name: its join rows may outlive it.
        """
        ends = self.ended.get(name, ())
        return next((each for each in ends if event <= each.id or not each.taken or event < each.taken), None)

    def veils(self, change: Change) -> bool:
        """Whether nothing is shown of what the row of a change was."""
        return bool(self.veiled) and change.id <= self.veiled.get(ascii_fold(change.shape.table), 0)

    def now(self, name: Name, event: int) -> Guarded | None:
        """Give what guards the row now that had this name when this happened; ``None``: that has not this name now."""
        return self.guards.get(name) if event > self.renamed.get(name, 0) else None

    def own_end(self, name: Name, event: int) -> End | None:
        """Give how the row ended to which this happened; behind its end nothing happens to a row itself."""
        return next((each for each in self.ended.get(name, ()) if event <= each.id), None)

    def has(self, change: Change) -> bool:
        """Whether it was read what guards the row of a change, and it goes on, as far as is known.

        Of one that was renamed, under its new name: the former may have been another's since.
        """
        image = change.new or change.old
        if image is None or (name := name_of(change, image)) not in self.guards:
            return False
        return self.own_end(name, change.id) is None

    def is_another(self, change: Change) -> bool:
        """Whether the row that is there under the name of this one seems to be another."""
        image = change.new or change.old
        if image is None or (there := self.made.get(name_of(change, image))) is None:
            return False
        return value_of(change, image, "created_at") not in (there, None)


NOTHING = Facts()


def read_facts(
    db: sqlite3.Connection,
    wanted: Collection[Name],
    rows: Collection[Name],
    shapes: Mapping[str, Shape],
) -> Facts:
    """Read at one moment what guards the ``wanted`` rows, and the values of these ``rows``, whose tables these are."""
    db.execute("BEGIN")
    try:
        found: dict[Name, Guarded | None] = dict.fromkeys(wanted)
        made: dict[Name, SQLiteValue] = {}
        left: dict[Name, Joins] = {}
        for table in {table for table, _ in wanted}:
            references = [each for name, each in wanted if name == table]
            there = grants.guarded_rows(db, table, references)
            found.update({(table, reference): guard for reference, (_, guard) in there.items()})
            made.update({(table, reference): at for reference, (at, _) in there.items()})
            if gone := [each for each in references if each not in there]:
                joined = grants.joins(db, table, gone, standard.registered(db))
                left.update({(table, reference): groups for reference, groups in joined.items()})
        images = {
            (table, reference): image
            for table, reference in rows
            if table in shapes and (image := snapshot.row(db, shapes[table], reference)) is not None
        }
        newest = schema.highest(db)
    finally:
        db.execute("COMMIT")
    return Facts(found, images, made, left, newest=newest)


def value_of(change: Change, image: Image, column: str) -> SQLiteValue:
    """Give a column's value in an image of a change; ``None``, too, where its shape has none such, or it was cut."""
    places = change.shape.places
    place = places.get(column)
    if place is None and (place := places.get(ascii_fold(column))) is None:
        return None
    return None if place in image.cut else image.values[place]


def names_in(change: Change, column: str) -> set[str]:
    """Give what a column says before a change and after it."""
    return {str(value_of(change, image, column)) for image in (change.old, change.new) if image is not None}


def name_of(change: Change, image: Image) -> Name:
    """Name a row of a standard table."""
    return ascii_fold(change.shape.table), str(value_of(change, image, "reference_id"))


def row_of(change: Change, image: Image) -> tuple[str, Hashable]:
    """Name a row of any table; where that has no key that is captured, its values do."""
    shape = change.shape
    if shape.rowid:
        name: Hashable = image.rowid
    elif len(shape.key) == 1:
        name = image.values[shape.key[0]]
    else:
        name = tuple([image.values[position] for position in shape.key]) or image.values
    return ascii_fold(shape.table), name


def guard_of(grant: TableGrant, change: Change, image: Image) -> Guarded:
    """Give what an image itself says of who may read the row; not of a join row, which is judged by what it joins."""
    if grant.kind is TableKind.PLAIN:
        if grant.owner_column is None:
            return grant.guarded
        permission, _, joins = grant.guarded
        return Guarded(permission, owner_of(value_of(change, image, grant.owner_column)), joins)
    owner = value_of(change, image, "reference_id" if grant.kind is TableKind.ACCOUNT else "user_account_id")
    return Guarded(bits(value_of(change, image, "permission")), owner_of(owner), change.joins)


def judged(guard: Guarded, change: Change, image: Image, facts: Facts) -> Guarded:
    """Add to what an image of a standard table's row says of who may read it (``guard_of``) what is known beside it.

    That are its groups, unless its deletion names them, and for what it became, what guards it now.
    """
    if change.new is None:
        return guard
    name = name_of(change, image)
    end, now = facts.own_end(name, change.id), facts.now(name, change.id)
    joins: Joins = ()
    if end is not None:
        # Who has held it by what it had when it went may hold it since before this.
        joins = end.guard.joins if image is change.old else ()
    elif now is not None:
        joins = now.joins
    fresh = facts.fresh.get((change.id, image is change.new))
    if end is None and now is None and image is change.old and change.id in facts.renaming:
        joins = facts.left.get(name, ())
        # By what the transaction has given it under that name it is for nobody in the end, whatever it opens between.
        joins, fresh = joins if fresh is None else fresh._replace(over=None).narrowed(joins), None
    # What everybody might read is for all who may read the row now, by whatever its transaction has given.
    if fresh is not None and not guard.permission & Verb.READ:
        joins = fresh.narrowed(joins)
    guard = guard._replace(joins=(*joins, *guard.joins))
    return guard if end is not None or now is None or image is change.old else both(guard, now, Verb.READ)


def partings(facts: Facts) -> dict[tuple[int, str], Groups]:
    """Say of each change of a join table which groups the row had before and after: from the last one back.

    Nothing of one behind the end of its row: whoever held it is told of that, and whoever holds the next of its name.
    """
    found: dict[tuple[int, str], Groups] = {}
    for name, joining in facts.joining.items():
        _, reference = name
        guard, state = facts.guards.get(name), dict[int, Joins]()  # by the row's end, as others may have had its name
        for _, transaction in groupby(reversed(joining), attrgetter("transaction")):
            rows: dict[int, int] = {}
            for _, change, column in transaction:
                end = facts.end(name, change.id)
                if end is not None and end.id < change.id:
                    continue
                row = rows[change.id] = 0 if end is None else end.id
                joins = end.joins if end is not None else guard.joins if guard is not None else ()
                after = state.get(row, joins)
                before = state[row] = undone(change, column, reference, after)
                found[change.id, reference] = Groups(before, before, after)
            for each, row in rows.items():
                found[each, reference] = found[each, reference]._replace(first=state[row])
    return found


def undone(change: Change, column: str, reference: str, after: Joins) -> Joins:
    """Give the groups of a row as they were before one change of them."""
    joins = list(after)
    if change.new is not None and str(value_of(change, change.new, column)) == reference:
        group = str(value_of(change, change.new, "usergroup_id"))
        joins = [each for each in joins if each[0] != group]
    if change.old is not None and str(value_of(change, change.old, column)) == reference:
        joins.append(_given(change, change.old))
    return tuple(joins)


def given_to(change: Change, column: str, reference: str) -> Iterator[tuple[str, int]]:
    """Give the groups whose join rows for a row a change has made, changed or deleted, with what these gave before."""
    for image in (change.old, change.new):
        if image is not None and str(value_of(change, image, column)) == reference:
            group, permission = _given(change, image)
            yield group, permission if image is change.old else 0


def _given(change: Change, image: Image) -> tuple[str, int]:
    return str(value_of(change, image, "usergroup_id")), bits(value_of(change, image, "permission"))


def common(joins: Joins, others: Joins) -> Joins:
    """Give the groups that are among both, each with the permission that both give it."""
    given = dict(others)
    return tuple((group, held & given[group]) for group, held in joins if group in given)


def given_by(change: Change) -> Joins:
    """Give what a new or changed row of a join table gives by itself."""
    return () if change.new is None else (_given(change, change.new),)
