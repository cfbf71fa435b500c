"""What the changes of a transaction say of each other: which are of the same row, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise

from appliance.live.matching.facts import (
    Closed,
    End,
    Joining,
    Joins,
    Name,
    Sharing,
    common,
    given_to,
    guard_of,
    name_of,
    row_of,
    undone,
    value_of,
)
from appliance.live.matching.telling import Told
from appliance.model import Change, Image, ascii_fold
from appliance.protocol.permissions import Guarded, Verb, both, permitted
from appliance.store.access.grants import TableGrant, TableKind


class _Row:
    """The changes of one row in a transaction: by their ids, from what guarded it to the last.

    ``first`` guarded it before the transaction or, where it was not there (``made``), as it came. ``renamed`` is its
    first name, and the event that has given it another.
    """

    __slots__ = ("first", "grant", "ids", "last", "made", "renamed")

    def __init__(self, grant: TableGrant, first: Guarded, *, made: bool) -> None:
        self.grant = grant
        self.first = first
        self.made = made
        self.ids: list[int] = []
        self.last: Change | None = None
        self.renamed: tuple[Name, int] | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it is deleted in the end."""
        return self.last is not None and self.last.new is None

    def end(self) -> Guarded:
        """Say what guards it in the end: as it is, or where it is deleted, both as it was at first and as it went."""
        change = self.last
        assert change is not None  # noqa: S101 – asked of rows with more than one
        if change.new is not None:
            return guard_of(self.grant, change, change.new)
        assert change.old is not None  # noqa: S101 – no change is without both
        return both(self.first, guard_of(self.grant, change, change.old), Verb.READ)


class Course:
    """What the changes of transactions say of each other, or whatever is decided upon as if it were one: see ``Facts``.

    It is of the rows of these tables (folded), by what is granted on them. It is given what has happened a part at a
    time (``add``), and where a transaction ends (``end``); of the changes themselves it keeps next to nothing but those
    of join tables. ``lacking`` are the tables (folded) of which there is more that counts, and was not given;
    ``veiled`` says so of what is far behind these events: up to which of them, by table (folded).
    """

    __slots__ = (
        "_begun", "_ended", "_ends", "_gone", "_grant", "_images", "_named", "_over", "_rows", "_topics",
        "_transactions", "between", "changes", "closed", "fresh", "joining", "lacking", "last", "narrowed", "renamed",
        "renaming", "veiled",
    )  # fmt: skip

    def __init__(
        self, topics: Collection[str], grant: Callable[[str], TableGrant], lacking: Collection[str] = ()
    ) -> None:
        self.lacking = frozenset(lacking)
        self.veiled: Mapping[str, int] = {}
        #: How many it is of.
        self.changes = 0
        self.narrowed: dict[int, Joins] = {}
        self.fresh: dict[tuple[int, bool], Sharing] = {}
        self.last: dict[int, Guarded] = {}
        self.between: set[int] = set()
        self.closed: dict[int, Closed] = {}
        self.renaming: set[int] = set()
        #: By row, what joins it to groups or parts it from them, in order.
        self.joining: dict[Name, list[Joining]] = {}
        self._topics = topics
        self._grant = grant
        self._ends: dict[Name, list[End]] | None = None
        self._ended: list[tuple[Name, End]] = []
        #: By which events rows of standard tables got their name; and those that have another since, by which event.
        self._named: dict[Name, list[int]] = {}
        self.renamed: dict[Name, int] = {}
        # Of the transaction that has not ended yet: its first event, its rows by what tells them from others, those
        # whose place another has taken or that are gone, the deletions, and by name what updates have found and made.
        self._begun = 0
        self._transactions = 0
        self._rows: dict[Hashable, _Row] = {}
        self._over: list[_Row] = []
        self._gone: list[tuple[Name, End, _Row]] = []
        self._images: dict[Name, list[tuple[int, bool]]] = {}

    def add(self, events: Iterable[Told]) -> None:
        """Take up what comes next of a transaction."""
        for told in events:
            change = told.event
            if isinstance(change, Change):
                grant = self._grant(change.shape.table)
                judge = told.topic if grant.object_table is None else ascii_fold(grant.object_table)
                if judge in self._topics:
                    self.changes += 1
                    self._begun = self._begun or change.id
                    if grant.object_table is None:
                        self._change(change, grant)
                    else:
                        self._join(change, judge, str(grant.object_column))

    def end(self) -> None:
        """End the transaction: what it has done to each row is known."""
        for row in (*self._over, *self._rows.values()):
            if len(row.ids) > 1:
                end = row.end()
                self.last.update(dict.fromkeys(row.ids, end))
                if row.is_gone and row.grant.kind is TableKind.PLAIN:
                    self._note_closed(row, row.first, end)
        for name, gone, row in self._gone:
            guard, before = gone.guard, self._before(name, gone)
            # Nobody could ever SELECT it by a group that it was joined to by the transaction that has deleted it.
            if before is not gone.joins and (joins := common(gone.joins, before)) != gone.joins:
                self.narrowed[gone.id] = joins
                guard = guard._replace(joins=joins)
            if gone.id in self.between:  # whom an update gave the row is not told of its deletion
                guard = both(guard, self.last[gone.id], Verb.READ)
            if row.renamed is not None:
                first, renamed = row.renamed
                before = self._undone(first, (), renamed, self._transactions)
            if before is not gone.joins or len(row.ids) > 1:
                self._note_closed(row, row.first._replace(joins=before), guard)
            self._ended.append((name, gone._replace(guard=guard)))
        for name, images in self._images.items():
            if changes := self._shared(name):
                self._note(images, changes)
        self._transactions += 1
        self._rows, self._over, self._gone, self._ends, self._begun, self._images = {}, [], [], None, 0, {}

    def ends(self) -> Mapping[Name, list[End]]:
        """Give the rows that were deleted, in order."""
        if self._ends is None:
            self._ends = {}
            for name, end in self._ended:
                self._ends.setdefault(name, []).append(end._replace(taken=self._taken(name, end.id)))
        return self._ends

    def first_ends(self) -> dict[Name, End]:
        """Give which row of each name was deleted first, with the groups that it had before all of this.

        That is when whoever holds it by what happened before was told of it last.
        """
        found: dict[Name, End] = {}
        for name, ends in self.ends().items():
            joins = self._undone(name, ends[0].joins, ends[0].id)
            found[name] = ends[0]._replace(guard=ends[0].guard._replace(joins=joins), joins=joins)
        return found

    def doubtful(self, guards: Mapping[Name, Guarded | None]) -> frozenset[str]:
        """Give the tables in which another row has the name of one that was renamed."""
        others = (name for name, at in self.renamed.items() if self._taken(name, at) or guards.get(name) is not None)
        return frozenset(table for table, _ in others)

    def _join(self, change: Change, table: str, column: str) -> None:
        images = [image for image in (change.old, change.new) if image is not None]
        for reference in {str(value_of(change, image, column)) for image in images}:
            self.joining.setdefault((table, reference), []).append(Joining(self._transactions, change, column))

    def _change(self, change: Change, grant: TableGrant) -> None:
        old, new = change.old, change.new
        row = None if old is None else self._rows.pop(_place(change, old), None)
        if row is None:
            begun = old or new
            assert begun is not None  # noqa: S101 – no change is without both
            row = _Row(grant, guard_of(grant, change, begun), made=old is None)
        else:
            self.between.add(change.id)
            row.last = change
        row.ids.append(change.id)
        if new is None:
            self._over.append(row)
        else:
            place = _place(change, new)
            if place in self._rows:
                self._over.append(self._rows[place])
            self._rows[place] = row
        if grant.kind is not TableKind.PLAIN:
            self._follow(change, grant, row)

    def _follow(self, change: Change, grant: TableGrant, row: _Row) -> None:
        old = None if change.old is None else name_of(change, change.old)
        if change.new is None:
            if old is not None and change.old is not None:
                guard = guard_of(grant, change, change.old)
                self._gone.append((old, End(change.id, guard, change.joins, change.old, change.shape), row))
            return
        new = name_of(change, change.new)
        if old is not None and not row.made:  # of a row that is made, whoever is let in is told how it came
            self._images.setdefault(old, []).append((change.id, False))
            self._images.setdefault(new, []).append((change.id, True))
        if new != old:
            self._named.setdefault(new, []).append(change.id)
            if old is not None:
                self.renamed[old] = change.id
                if row.renamed is None:
                    row.renamed = old, change.id
                    self.renaming.update([] if row.made else row.ids)

    def _shared(self, name: Name) -> dict[str, list[tuple[int, int]]]:
        """Give the groups that the transaction has joined a row to, or parted it from: ``Sharing.changes``."""
        _, reference = name
        changes: dict[str, list[tuple[int, int]]] = {}
        for transaction, change, column in self.joining.get(name, ()):
            if transaction == self._transactions:
                for group, permission in given_to(change, column, reference):
                    changes.setdefault(group, []).append((change.id, permission))
        return changes

    def _note(self, images: Sequence[tuple[int, bool]], changes: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """Note what the row of these images was before the transaction, and in its midst, while its groups changed."""
        for (event, became), (following, is_next) in pairwise(images):
            if became and not is_next:
                self.fresh[event, True] = self.fresh[following, False] = Sharing(changes, following)
        for event, became in images:
            if not became:
                self.fresh.setdefault((event, False), Sharing(changes, None))

    def _note_closed(self, row: _Row, before: Guarded, gone: Guarded) -> None:
        """Note who could read a row before the transaction that deletes it, if not all of them are told of that."""
        if row.made or before == gone or gone.permission & Verb.READ:
            return
        if before.permission & Verb.READ or permitted(Verb.READ, before) != permitted(Verb.READ, gone):
            self.closed[row.ids[0]] = Closed(row.ids[-1], before, gone)

    def _before(self, name: Name, end: End) -> Joins:
        """Give a deleted row's groups before the transaction.

        None of them is its own, if the transaction has given it the name: they are those of another that had it.
        """
        if name in self._named and any(self._begun <= each < end.id for each in self._named[name]):
            return ()
        return self._undone(name, end.joins, end.id, self._transactions)

    def _undone(self, name: Name, joins: Joins, before: int, transaction: int = 0) -> Joins:
        """Give the groups of a row before this transaction and those behind it, if it had these before an event."""
        if name not in self.joining:
            return joins
        begun = max((each for each in self._named.get(name, ()) if each < before), default=0)
        _, reference = name
        for each in reversed(self.joining[name]):
            if each.transaction < transaction or each.change.id < begun:
                break
            if each.change.id < before:
                joins = undone(each.change, each.column, reference, joins)
        return joins

    def _taken(self, name: Name, after: int) -> int:
        """Give by which event a row got this name next; 0: by none."""
        return next((each for each in self._named.get(name, ()) if each > after), 0)


def _place(change: Change, image: Image) -> Hashable:
    """Name a row as ``row_of`` does; where its key has a NULL, as SQLite lets several have, its values do."""
    table, name = place = row_of(change, image)
    if name is None or (isinstance(name, tuple) and None in name):
        return table, image.values
    return place


def is_renamed(change: Change) -> bool:
    """Whether a change gives a row another key."""
    old, new = change.old, change.new
    return old is not None and new is not None and row_of(change, old) != row_of(change, new)
