"""What else has happened in the transactions of some events.

Who is told of an event rests on what its transaction did beside it (``facts``): nobody could ever have read what one
transaction makes readable and takes back. The tail has whole transactions before it, but for those that are longer than
one look: what else these do to the same rows is looked for, back and ahead. A replay begins and ends its pages
anywhere, and leaves out what nobody wants. So what it decides on is had from memory, or read anew, as far back and
ahead as where transactions are known to end (``store.borders``). Where that is not known, what lies between is taken
for one.

What a live set has been told of a row must not be decided on once as a part of a transaction and once without it, or a
row would stay that nobody is told of. So a border that somebody has been told by is kept: the tail's, also through a
restart, and those between which a snapshot was read. And each event is decided on in the knowledge of all that counts
as one transaction with it, whoever decides and whenever: the hub's position may be in the midst of that, and who is
read for up to there is fed from there on. Between events that were decided on as one there comes no border. Where it
cannot be known (``Facts.doubtful``), live sets are told.

A row without anything that names it, neither a key nor a rowid, is known by the events in hand alone.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, takewhile
from typing import Final

from appliance.capture.contents import Contents
from appliance.live.course import Together
from appliance.live.facts import Facts, guard_of, name_of, partings, value_of
from appliance.live.hub import Hub
from appliance.live.telling import Told
from appliance.model import Change, Image, Shape, SQLiteValue, ascii_fold
from appliance.store import replay
from appliance.store.look import LOOK_ROWS
from appliance.store.replay import Wanted
from appliance.store.store import Store

#: So many ids behind the events of one look are a part of a transaction looked for: 10 ms of reading. And before them,
#: fewer by more than there are in a look: if what a row was counts for nothing because of an event before, that one was
#: decided on in the knowledge of this.
REACH: Final = 50_000
BACK: Final = REACH - 2 * LOOK_ROWS
#: Pages of the outbox that are read, of half a MiB at most: where more has happened to the same rows in what counts as
#: one transaction, it is decided by the events in hand alone. Then who holds such rows may be told too little.
PAGES: Final = 32
#: Values that may be bound, of the 32,766 that SQLite takes; where they would be more, all rows of the tables are read.
BOUND: Final = 30_000


class Commits:
    """Finds the transactions that events are of. Up to ``begun`` others have decided for those who are read for."""

    def __init__(self, hub: Hub, store: Store, begun: int = 0) -> None:
        self._hub = hub
        self._store = store
        self._begun = begun
        #: Where something was read in the midst of what the tail decides on as one, and the end of the last such.
        self._apart: list[int] = []
        self._undecided = 0

    def note(self, position: int) -> int:
        """Take note that it is told by what was committed up to here: what comes later is of another transaction.

        Gives how far the hub has to come before it is live, as the tail may see them as one.
        """
        if not self._store.borders.note_ahead(position):
            insort(self._apart, position)
            position = self._undecided = self._store.borders.end(position, self._store.borders.decided)
        return position

    def undecided(self, position: int) -> int:
        """Give up to where the tail decides in other knowledge than whoever is read for up to this position."""
        return max(self._undecided, self.end_beyond_reach(position))

    def end_beyond_reach(self, position: int) -> int:
        """Give the end of what counts as one transaction around a position, if the tail decides on it piece by piece.

        0: it knows the whole of it, or there is none.
        """
        borders = self._store.borders
        begun, end = borders.before(position + 1), borders.end(position, max(self._hub.position.id, borders.decided))
        return end if begun < position and end - begun > BACK else 0

    async def coming(self, events: Sequence[Told], newest: int, topics: Collection[str]) -> Together:
        """Give these, which come next for the hub, by transaction, with what else those do to these tables.

        ``newest`` is the id of the newest row there is. Transactions of which there is more before or behind these
        events are read as far as ``BACK`` and ``REACH``. Raises ``sqlite3.Error``.
        """
        position, borders = self._hub.position.id, self._store.borders
        if not topics or not events:
            return Together(events)
        begun = position if borders.is_one(position) else max(borders.before(position), position - BACK)
        last = events[-1].id
        around = ((begun, position), (last, min(borders.end(last, newest), last + REACH)))
        stretches = [(after, end) for after, end in around if after < end]
        wanted = self._wanted(events, topics) if stretches else None
        if wanted is None:
            return self._by_transaction(events, newest)
        every, whole = await self._with_others(events, stretches, wanted)
        return self._by_transaction(every, newest, lacking=() if whole else topics)

    async def of(self, events: Sequence[Told], topics: Collection[str]) -> Together:
        """Give these events, which were delivered, by transaction, with what else that did to these tables (folded).

        Raises ``sqlite3.Error``.
        """
        if not topics:
            return Together()
        borders, recent = self._store.borders, self._hub.recent
        # What the tail has decided on may go on behind the hub's position: it knew of all that it had seen.
        newest = max(self._hub.position.id, borders.decided)
        stretches = borders.stretches([each.id for each in events if isinstance(each.event, Change)], newest)
        if not stretches:
            return Together()
        after, end = stretches[0][0], stretches[-1][1]
        # Of what is longer than the tail reaches, a part was decided on in less knowledge than there is here.
        doubtful = after < self.end_beyond_reach(self._begun)
        if after >= recent.after and end <= self._hub.position.id and not doubtful:
            every = takewhile(lambda told: told.id <= end, recent.events_after(after))
            return self._by_transaction(every, newest)
        stretches = [(after, end) for after, end in stretches if end - after > 1]
        wanted = self._wanted(events, topics)
        if not stretches or wanted is None:
            return self._by_transaction(events, newest)
        all_of_it, whole = await self._with_others(events, stretches, wanted)
        whole = whole and not (doubtful and len(all_of_it) > len(events))
        return self._by_transaction(all_of_it, newest, lacking=() if whole else topics)

    async def facts(self, events: Sequence[Told], together: Together) -> Facts:
        """Read what is needed to deliver these events, which are some of ``together``, as ``Hub.facts`` does.

        And what guarded the rows that leave a filter or their owner by one of these and are deleted by now: their
        groups have gone with them, or are those of another row that has their name; and their deletion is of a row that
        the filter does not let through, or is another's. Raises ``sqlite3.Error``.
        """
        facts = await self._hub.facts(events, together)
        if facts.newest:
            self.note(facts.newest)
        leaving = [each.event for each in events if isinstance(each.event, Change) and self._may_end(each.event, facts)]
        topics = {ascii_fold(each.shape.table) for each in leaving}
        wanted = self._wanted([Told(each) for each in leaving], topics)
        if wanted is not None:
            facts = await self._with_ends(facts, (events[-1].id, facts.newest), wanted, topics)
        if facts.joining:
            facts = replace(facts, joined=partings(facts))
        return replace(facts, doubtful=facts.doubtful | together.lacking) if together.lacking else facts

    async def _with_ends(
        self, facts: Facts, stretch: tuple[int, int], wanted: Wanted, topics: Collection[str]
    ) -> Facts:
        """Add how the rows that are wanted have ended in a stretch behind the events."""
        shapes, contents, access = self._hub.shapes, self._store.contents, self._hub.access
        found = await self._store.read(lambda db: _read(db, [stretch], wanted, shapes, contents))
        if found is None:
            return replace(facts, doubtful=facts.doubtful | set(topics))
        course = Together([Told(each) for each in found]).course(topics, access.grant, access.renewed)
        ended = {**facts.ended}
        for name, ends in course.ends().items():
            # The first: another row may have had its name since.
            ended[name] = [*ended.get(name, ()), ends[0]]
        return replace(facts, ended=ended, doubtful=facts.doubtful | {topic for topic, _ in course.renamed})

    def _may_end(self, change: Change, facts: Facts) -> bool:
        """Whether this takes a row out of a live set, and it may be another by now that has its name."""
        topic, old, new = ascii_fold(change.shape.table), change.old, change.new
        if old is None or new is None or topic not in self._hub.subscribers.live_sets:
            return False
        name = name_of(change, old)
        if facts.end(name, change.id) is not None or name not in facts.guards:
            return False
        if facts.guards[name] is not None and not facts.newer:
            return False
        grant, audiences = self._hub.access.grant(topic), self._hub.subscribers.audiences(topic)
        if guard_of(grant, change, old) != guard_of(grant, change, new):
            return True
        return audiences is not None and audiences.is_left_by(change)

    async def _with_others(
        self, events: Sequence[Told], stretches: Sequence[tuple[int, int]], wanted: Wanted
    ) -> tuple[list[Told], bool]:
        """Give these events, in order, among all that are wanted in these stretches, and whether it was all."""
        shapes, contents = self._hub.shapes, self._store.contents
        found = await self._store.read(lambda db: _read(db, stretches, wanted, shapes, contents))
        every = {each.id: Told(each) for each in found or ()} | {each.id: each for each in events}
        return [told for _, told in sorted(every.items())], found is not None

    def _by_transaction(self, events: Iterable[Told], newest: int, *, lacking: Collection[str] = ()) -> Together:
        transactions: list[list[Told]] = []
        end = 0
        for told in events:
            if told.id > end:
                end = self._store.borders.end(told.id, newest)
                place = bisect_left(self._apart, told.id)
                end = min([end, *self._apart[place : place + 1]])
                transactions.append([])
            transactions[-1].append(told)
        return Together(*transactions, lacking=lacking)

    def _wanted(self, events: Sequence[Told], topics: Collection[str]) -> Wanted | None:
        """Want what has happened to the rows of these events, and to what joins them to groups; ``None``: to none."""
        rows: list[Wanted] = []
        asked: list[tuple[Shape, int]] = []
        for topic in topics:
            grant, now = self._hub.access.grant(topic), self._hub.table(topic)
            if now is None or grant.object_table is not None:  # what joins rows to groups is judged by those rows
                continue
            # Both tables name a row by the value of a column; ``None`` is the rowid.
            naming = {topic: now.columns[now.key[0]].name if now.key else None}
            if grant.join_table is not None:
                naming[ascii_fold(grant.join_table)] = grant.join_column
            named = {
                value
                for told in events
                if told.topic in naming and isinstance(told.event, Change)
                for image in (told.event.old, told.event.new)
                if image is not None and (value := _name(told.event, image, naming[told.topic])) is not None
            }
            places = [
                (shape, place)
                for shape in self._hub.shapes.values()
                if (folded := ascii_fold(shape.table)) in naming
                and (place := _place(shape, naming[folded])) is not None
            ]
            if named and places:
                rows.append(Wanted.named(places, tuple(named)))
                asked += places
        if not rows:
            return None
        wanted = Wanted.any_of(rows)
        return wanted if len(wanted.parameters) <= BOUND else Wanted.rows([(shape, None) for shape, _ in asked])


def _name(change: Change, image: Image, column: str | None) -> SQLiteValue:
    """Give what names a row; ``None`` where that is nothing that SQLite can be asked for."""
    value = image.rowid if column is None else value_of(change, image, column)
    return None if isinstance(value, str) and not _is_clean(value) else value


def _is_clean(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # it was not UTF-8
        return False
    return True


def _place(shape: Shape, column: str | None) -> int | None:
    """Say where in an image's values a column is, ``None``: the rowid; ``None`` where that shape has none."""
    if column is None:
        return 0 if shape.rowid else None
    folded = ascii_fold(column)
    return next(
        (place for place, each in enumerate(shape.columns, start=shape.rowid) if ascii_fold(each.name) == folded), None
    )


def _read(
    db: sqlite3.Connection,
    stretches: Sequence[tuple[int, int]],
    wanted: Wanted,
    shapes: Mapping[int, Shape],
    contents: Contents,
) -> list[Change] | None:
    """Read what is wanted; ``None`` where it is more than ``PAGES``."""
    found: list[Change] = []
    several = (replay.pages(db, after, end, wanted, shapes, contents) for after, end in stretches)
    for number, page in enumerate(chain.from_iterable(several)):
        if number >= PAGES + len(stretches):
            return None
        found += [each for each in page.events if isinstance(each, Change)]
    return found
