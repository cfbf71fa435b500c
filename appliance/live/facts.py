"""What decisions on rows need beside the rows: read once for a batch of events, before any of it is delivered."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

from appliance.live.telling import Told
from appliance.model import Change, Image, Op, Shape, SQLiteValue, ascii_fold
from appliance.protocol.permissions import Guarded, bits, owner_of
from appliance.store import grants, schema, snapshot, standard
from appliance.store.grants import TableGrant, TableKind

#: Groups, each with the join row's permission.
Joins: TypeAlias = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows of standard tables as they are now, by table (folded) and ``reference_id``.

    ``guards``: what guards a row, with the groups that it is joined to; ``None`` where it is not there any more.
    ``rows``: its values, where they are needed.
    """

    guards: Mapping[tuple[str, str], Guarded | None] = field(default_factory=dict)
    rows: Mapping[tuple[str, str], Image] = field(default_factory=dict)
    #: The groups that join rows are for whose row is not there: one that was renamed by a writer without foreign keys.
    left: Mapping[tuple[str, str], Joins] = field(default_factory=dict)
    #: What guarded a row when it was deleted, by one of these events.
    ended: Mapping[tuple[str, str], Guarded] = field(default_factory=dict)
    #: By event id, deletions whose row was joined to some of its groups by one of these events: without those groups.
    narrowed: Mapping[int, Change] = field(default_factory=dict)
    #: By event id, what guards the row after the last of these events that is of it, where that is another one.
    last: Mapping[int, Guarded] = field(default_factory=dict)
    #: The events that found their row as another of these had left it.
    between: Collection[int] = ()
    #: By event id and ``reference_id``: the groups of a row before and after one of these events joined or parted it.
    joined: Mapping[tuple[int, str], tuple[Joins, Joins]] = field(default_factory=dict)
    #: The newest position when this was read, and whether that is after these events.
    newest: int = 0
    newer: bool = False


NOTHING = Facts()


def read_facts(
    db: sqlite3.Connection,
    wanted: Collection[tuple[str, str]],
    rows: Collection[tuple[str, str]],
    shapes: Mapping[str, Shape],
) -> Facts:
    """Read at one moment what guards the ``wanted`` rows, and the values of these ``rows``, whose tables these are."""
    db.execute("BEGIN")
    try:
        found: dict[tuple[str, str], Guarded | None] = dict.fromkeys(wanted)
        left: dict[tuple[str, str], Joins] = {}
        for table in {table for table, _ in wanted}:
            references = [each for name, each in wanted if name == table]
            there = grants.guards(db, table, references)
            found.update({(table, reference): guard for reference, guard in there.items()})
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
    return Facts(found, images, left, newest=newest)


@dataclass(slots=True)
class Course:
    """What the changes of each transaction say of each other: see ``Facts``."""

    narrowed: dict[int, Change] = field(default_factory=dict)
    last: dict[int, Guarded] = field(default_factory=dict)
    between: set[int] = field(default_factory=set)
    #: Deletions of rows that are in question, and changes of join tables.
    deleted: list[Change] = field(default_factory=list)
    joining: list[tuple[Change, TableGrant]] = field(default_factory=list)

    def add(self, changes: Sequence[tuple[str, Change, TableGrant]], topics: Collection[str]) -> None:
        """Take up a transaction, of which the rows of these tables (folded) are in question."""
        narrow: dict[int, Change] = {}
        if any(change.joins for _, change, _ in changes):
            narrow = narrowed([(change, grant) for _, change, grant in changes])
        last, between = courses(
            (narrow.get(change.id, change), grant) for topic, change, grant in changes if topic in topics
        )
        self.narrowed.update(narrow)
        self.last.update(last)
        self.between.update(between)
        for topic, change, grant in changes:
            if grant.object_table is not None:
                self.joining.append((change, grant))
            elif topic in topics and change.op is Op.DELETE:
                self.deleted.append(change)


class Together:
    """Events by transaction, or whatever is decided upon as if it were one; their course once it was asked for.

    ``whole``: there is nothing else in these transactions that counts.
    """

    __slots__ = ("_course", "_known", "_transactions", "whole")

    def __init__(self, *transactions: Sequence[Told], whole: bool = True) -> None:
        self.whole = whole
        self._transactions = transactions
        self._known: Hashable = None
        self._course = Course()

    def course(self, topics: Collection[str], grant: Callable[[str], TableGrant], granted: int) -> Course:
        """Give the course of these tables' rows (folded); ``granted`` is another number when what is granted is."""
        known = frozenset(topics), granted
        if self._known != known:
            self._known, self._course = known, Course()
            for events in self._transactions:
                changes = [(each.topic, each.event) for each in events if isinstance(each.event, Change)]
                self._course.add([(topic, change, grant(change.shape.table)) for topic, change in changes], topics)
        return self._course


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


def value_of(change: Change, image: Image, column: str) -> SQLiteValue:
    """Give a column's value in an image of a change."""
    return Places.of(change.shape).value(image, column)


def guard_of(grant: TableGrant, change: Change, image: Image) -> Guarded:
    """Give what an image itself says of who may read the row; not of a join row, which is judged by what it joins."""
    if grant.kind is TableKind.PLAIN:
        if grant.owner_column is None:
            return grant.guarded
        permission, _, joins = grant.guarded
        return Guarded(permission, owner_of(value_of(change, image, grant.owner_column)), joins)
    owner = value_of(change, image, "reference_id" if grant.kind is TableKind.ACCOUNT else "user_account_id")
    return Guarded(bits(value_of(change, image, "permission")), owner_of(owner), change.joins)


def courses(changes: Iterable[tuple[Change, TableGrant]]) -> tuple[dict[int, Guarded], frozenset[int]]:
    """Say, by event id, what guards a row in the end, where more than one of these changes is of it.

    And which changes find a row as another has left it. The end of a row that is deleted is what it was before the
    first of these changes, if it was there.
    """
    between: set[int] = set()
    over: list[list[tuple[Change, TableGrant]]] = []
    course: dict[Hashable, list[tuple[Change, TableGrant]]] = {}
    for each in changes:
        change, _ = each
        before = course.pop(_row_of(change, change.old), None) if change.old is not None else None
        if before is not None:
            between.add(change.id)
            before.append(each)
        of_row = before or [each]
        if change.new is None:
            over.append(of_row)
        else:
            row = _row_of(change, change.new)
            if row in course:
                over.append(course[row])
            course[row] = of_row
    last: dict[int, Guarded] = {}
    for of_row in chain(over, course.values()):
        if len(of_row) > 1:
            last.update(dict.fromkeys([change.id for change, _ in of_row], _end(of_row)))
    return last, frozenset(between)


def _end(course: Sequence[tuple[Change, TableGrant]]) -> Guarded:
    first, last = course[0], course[-1]
    change, image = (last[0], last[0].new) if last[0].new is not None else (first[0], first[0].old)
    if image is None:  # it came and went
        change, image = last[0], last[0].old
    assert image is not None  # noqa: S101 – no change is without both
    return guard_of(last[1], change, image)


def _row_of(change: Change, image: Image) -> Hashable:
    """Name a row; where its table has no key that is captured, its values do."""
    shape = change.shape
    if shape.rowid:
        name: Hashable = image.rowid
    elif len(shape.key) == 1:
        name = image.values[shape.key[0]]
    else:
        name = tuple([image.values[position] for position in shape.key]) or image.values
    return ascii_fold(shape.table), name


def partings(joining: Sequence[tuple[Change, TableGrant]], facts: Facts) -> dict[tuple[int, str], tuple[Joins, Joins]]:
    """Say of each change of a join table which groups the row had before and after: from the last one back."""
    found: dict[tuple[int, str], tuple[Joins, Joins]] = {}
    state: dict[tuple[str, str], Joins] = {}
    for change, grant in reversed(joining):
        table, column = ascii_fold(str(grant.object_table)), str(grant.object_column)
        for reference in {str(value_of(change, each, column)) for each in (change.old, change.new) if each is not None}:
            guard = facts.guards.get((table, reference)) or facts.ended.get((table, reference))
            after = state.get((table, reference), guard.joins if guard is not None else ())
            before = state[table, reference] = undone(change, column, reference, after)
            found[change.id, reference] = before, after
    return found


def narrowed(changes: Sequence[tuple[Change, TableGrant]]) -> dict[int, Change]:
    """Give, by event id, the deletions of rows that were joined to a group since before the first of these changes.

    The groups that a deletion names are then those of before, too: nobody could ever SELECT the row by a group that it
    was joined to by the transaction that has deleted it.
    """
    found: dict[int, Change] = {}
    state: dict[tuple[str, str], list[tuple[Change, Joins]]] = {}
    for change, grant in reversed(changes):
        if grant.object_table is None:
            if change.op is Op.DELETE and change.joins and change.old is not None:
                row = ascii_fold(change.shape.table), str(value_of(change, change.old, "reference_id"))
                state.setdefault(row, []).append((change, change.joins))
            continue
        table, column = ascii_fold(grant.object_table), str(grant.object_column)
        for image in filter(None, (change.old, change.new)):
            reference = str(value_of(change, image, column))
            deleted = state.get((table, reference), [])
            deleted[:] = [(each, undone(change, column, reference, joins)) for each, joins in deleted]
    for each, before in chain.from_iterable(state.values()):
        given = dict(before)
        joins = tuple((group, held & given[group]) for group, held in each.joins if group in given)
        if joins != each.joins:
            found[each.id] = each._replace(joins=joins)
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


def _given(change: Change, image: Image) -> tuple[str, int]:
    return str(value_of(change, image, "usergroup_id")), bits(value_of(change, image, "permission"))


def given_by(change: Change) -> Joins:
    """Give what a new or changed row of a join table gives by itself."""
    return () if change.new is None else (_given(change, change.new),)
