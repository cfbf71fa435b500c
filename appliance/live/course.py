"""What the changes of a transaction say of each other: which are of the same row, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from appliance.live.facts import End, Joining, Joins, Name, common, guard_of, name_of, undone, value_of
from appliance.live.telling import Told
from appliance.model import Change, Image, Op, ascii_fold
from appliance.protocol.permissions import Guarded, Verb, both
from appliance.store.grants import TableGrant, TableKind


@dataclass(slots=True)
class Course:
    """What the changes of each transaction say of each other: see ``Facts``."""

    narrowed: dict[int, Change] = field(default_factory=dict)
    last: dict[int, Guarded] = field(default_factory=dict)
    between: set[int] = field(default_factory=set)
    #: By row, what joins it to groups or parts it from them, in order.
    joining: dict[Name, list[Joining]] = field(default_factory=dict)
    #: By which events rows of standard tables got their name; and those that have another since, by which event.
    named: dict[Name, list[int]] = field(default_factory=dict)
    renamed: dict[Name, int] = field(default_factory=dict)
    #: Deletions of rows of standard tables that are in question.
    _deleted: list[tuple[Change, TableGrant]] = field(default_factory=list)
    _ends: dict[Name, list[End]] | None = None
    _transactions: int = 0

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
        self._ends = None
        self._transactions += 1
        for topic, change, grant in changes:
            if grant.object_table is not None:
                self._join(change, ascii_fold(grant.object_table), str(grant.object_column))
            elif topic in topics and grant.kind is not TableKind.PLAIN:
                self._follow(change, grant)

    def _join(self, change: Change, table: str, column: str) -> None:
        images = [image for image in (change.old, change.new) if image is not None]
        for reference in {str(value_of(change, image, column)) for image in images}:
            self.joining.setdefault((table, reference), []).append(Joining(self._transactions, change, column))

    def _follow(self, change: Change, grant: TableGrant) -> None:
        if change.new is None:
            self._deleted.append((change, grant))
            return
        new, old = name_of(change, change.new), None if change.old is None else name_of(change, change.old)
        if new != old:
            self.named.setdefault(new, []).append(change.id)
            if old is not None:
                self.renamed[old] = change.id

    def taken(self, name: Name, after: int) -> int:
        """Give by which event a row got this name next; 0: by none."""
        return next((each for each in self.named.get(name, ()) if each > after), 0)

    def ends(self) -> dict[Name, list[End]]:
        """Give the rows that were deleted, in order."""
        if self._ends is None:
            self._ends = self._found_ends()
        return self._ends

    def _found_ends(self) -> dict[Name, list[End]]:
        found: dict[Name, list[End]] = {}
        for change, grant in self._deleted:
            if change.old is not None:
                name, least = name_of(change, change.old), self.narrowed.get(change.id, change)
                guard = guard_of(grant, least, change.old)
                if change.id in self.between:  # whom an update gave the row is not told of its deletion
                    guard = both(guard, self.last[change.id], Verb.READ)
                found.setdefault(name, []).append(End(change.id, guard, change.joins, self.taken(name, change.id)))
        return found

    def doubtful(self, guards: Mapping[Name, Guarded | None]) -> frozenset[str]:
        """Give the tables in which another row has the name of one that was renamed."""
        others = (name for name, at in self.renamed.items() if self.taken(name, at) or guards.get(name) is not None)
        return frozenset(table for table, _ in others)


class Together:
    """Events by transaction, or whatever is decided upon as if it were one; their course once it was asked for.

    ``lacking`` are the tables (folded) of which there is more in these transactions that counts, and is not here.
    """

    __slots__ = ("_course", "_known", "_transactions", "lacking")

    def __init__(self, *transactions: Sequence[Told], lacking: Collection[str] = ()) -> None:
        self.lacking = frozenset(lacking)
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


def narrowed(changes: Sequence[tuple[Change, TableGrant]]) -> dict[int, Change]:
    """Give, by event id, the deletions of rows that were joined to a group since before the first of these changes.

    The groups that a deletion names are then those of before, too: nobody could ever SELECT the row by a group that it
    was joined to by the transaction that has deleted it.
    """
    before: dict[int, tuple[Change, Joins]] = {}
    state: dict[Name, int] = {}  # whose groups the changes before are of
    for change, grant in reversed(changes):
        if grant.object_table is None:
            if change.op is Op.CREATE and change.new is not None:
                state.pop(name_of(change, change.new), None)
            elif change.op is Op.DELETE and change.old is not None:
                state[name_of(change, change.old)] = change.id
                before[change.id] = change, change.joins
            continue
        table, column = ascii_fold(grant.object_table), str(grant.object_column)
        for image in filter(None, (change.old, change.new)):
            reference = str(value_of(change, image, column))
            deletion = state.get((table, reference))
            if deletion is not None:
                each, joins = before[deletion]
                before[deletion] = each, undone(change, column, reference, joins)
    found: dict[int, Change] = {}
    for each, groups in before.values():
        joins = common(each.joins, groups)
        if joins != each.joins:
            found[each.id] = each._replace(joins=joins)
    return found
