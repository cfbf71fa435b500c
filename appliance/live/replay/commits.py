"""What else has happened in the transactions of some events.

Who is told of an event rests on what its transaction did beside it (``facts``): nobody could ever have read what one
transaction makes readable and takes back. The tail has whole transactions before it, but for those that are longer than
one look: what else these do to the same rows is looked for, back and ahead. A replay begins and ends its pages
anywhere, and leaves out what nobody wants. So what it decides on is had from memory, or read anew, as far back and
ahead as where transactions are known to end (``store.outbox.borders``). Where that is not known, what lies between is
taken for one.

What a live set has been told of a row must not be decided on once as a part of a transaction and once without it, or a
row would stay that nobody is told of. So a border that somebody has been told by is kept: the tail's, also through a
restart, and those between which a snapshot was read. And each event is decided on in the knowledge of all that counts
as one transaction with it, whoever decides and whenever: the hub's position may be in the midst of that, and who is
read for up to there is fed from there on. Between events that were decided on as one there comes no border. Where it
cannot be known (``Facts.doubtful``), live sets are told.

A row without anything that names it, neither a key nor a rowid, is known by the events in hand alone.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, takewhile
from typing import Final

import trio

from appliance.live.fanout.hub import Hub
from appliance.live.fanout.shared import KEPT, Once
from appliance.live.matching.course import Course, is_renamed
from appliance.live.matching.facts import NOTHING, Facts, guard_of, name_of, partings
from appliance.live.matching.telling import Told
from appliance.live.replay import beside, owners
from appliance.live.replay.written import Written
from appliance.model import Change, ascii_fold
from appliance.store.outbox import replay
from appliance.store.outbox.look import LOOK_ROWS
from appliance.store.outbox.wanted import Wanted
from appliance.store.store import Store

#: So many ids behind the events of one look are a part of a transaction looked for: 10 ms of reading. And before them,
#: fewer by more than there are in a look: if what a row was counts for nothing because of an event before, that one was
#: decided on in the knowledge of this.
REACH: Final = 50_000
BACK: Final = REACH - 2 * LOOK_ROWS
#: What counts as one transaction, and is of more ids than this, is read at once for all readings that go through it,
#: but for who is told little of it.
MANY: Final = 500
#: Else whoever is read for has so many times as much read beside what it is told, at most.
BESIDE: Final = 4
#: Events that are taken from memory between two chances for everybody else.
STEP: Final = 1000


class Commits:
    """Finds the transactions that events are of. Up to ``begun`` others have decided for those who are read for."""

    def __init__(self, hub: Hub, store: Store, begun: int = 0) -> None:
        self._hub = hub
        self._store = store
        self._begun = begun
        #: Where something was read in the midst of what the tail decides on as one, and the end of the last such.
        self._apart: list[int] = []
        self._undecided = 0
        self._written = Written(hub.access, store.borders)

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

    async def coming(self, events: Sequence[Told], newest: int, topics: Collection[str]) -> Course:
        """Give the course of these, which come next for the hub, with what else their transactions do to these tables.

        ``newest`` is the newest row's id. What stands around is read as far as ``BACK`` and ``REACH``. May raise.
        """
        position, borders, topics = self._hub.position.id, self._store.borders, self._with_judges(topics)
        if not topics or not events:
            return self._course((), (), newest)
        veiled = self._written.veiled(events, topics, position, newest, BACK)
        begun = position if borders.is_one(position) else max(borders.before(position), position - BACK)
        last = events[-1].id
        around = ((begun, position), (last, min(borders.end(last, newest), last + REACH)))
        stretches = [(after, end) for after, end in around if after < end]
        course = await self._course_of(events, stretches, topics, newest)
        # Of what is told by the first of a row's changes the last must know, or somebody would be told twice.
        closed = {event: each for event, each in course.closed.items() if each.id - event <= BACK}
        course.veiled, course.closed = veiled, closed
        return course

    def parts(self, events: Sequence[Told]) -> list[list[Told]]:
        """Split these, which were delivered, where a long stretch begins or ends that counts as one transaction.

        Such a stretch is read for all (``_is_shared``), which what stands beside it here must not prevent.
        """
        borders, newest = self._store.borders, max(self._hub.position.id, self._store.borders.decided)
        parts: list[list[Told]] = [[]]
        end, long = 0, False
        for told in events:
            if told.id > end:
                begun, end = borders.before(told.id), borders.end(told.id, newest)
                before, long = long, end - begun > MANY
                if parts[-1] and (before or long):
                    parts.append([])
            parts[-1].append(told)
        return parts

    async def of(self, events: Sequence[Told], topics: Collection[str]) -> Course:
        """Give the course of these, which were delivered, with what else their transactions did to these tables.

        Raises ``sqlite3.Error``.
        """
        borders, recent, topics = self._store.borders, self._hub.recent, self._with_judges(topics)
        # What the tail has decided on may go on behind the hub's position: it knew of all that it had seen.
        newest = max(self._hub.position.id, borders.decided)
        changes = [each.id for each in events if isinstance(each.event, Change)]
        stretches = borders.stretches(changes, newest) if topics else []
        if not stretches:
            return self._course((), (), newest)
        after, end = stretches[0][0], stretches[-1][1]
        # Of what is longer than the tail reaches, a part was decided on in less knowledge than there is here.
        doubtful = after < self.end_beyond_reach(self._begun)
        remembered = after >= recent.after and end <= self._hub.position.id
        shared = not doubtful and self._is_shared(after, end)
        wanted = remembered or self._hub.shared.many or len(events) >= MANY
        if shared and (found := await self._shared((after, end), topics, wanted=wanted)):
            return found
        own = doubtful or self._is_parted(after, end)
        if not doubtful and remembered:
            every = takewhile(lambda told: told.id <= end, recent.events_after(after))
            make = partial(self._course, every, topics, newest)
            return make() if own else self._hub.shared.at(self.moment(), (after, end, topics), make)
        stretches = [(after, end) for after, end in stretches if end - after > 1]
        most = MANY + BESIDE * len(events) if shared else None
        read = partial(self._course_of, events, stretches, topics, newest, most=most, doubtful=doubtful)
        if own:
            course = await read()
        else:
            asked = (topics, tuple([told.id for told in events]))
            once: Once[Course] = self._hub.shared.at(self.moment(), asked, Once)
            course = await once.get(read)
        if shared and course.lacking:
            return await self._shared((after, end), topics, wanted=True) or course
        return course

    async def _course_of(
        self,
        events: Sequence[Told],
        stretches: Sequence[tuple[int, int]],
        topics: frozenset[str],
        newest: int,
        *,
        most: int | None = None,
        doubtful: bool = False,
    ) -> Course:
        """Give the course of these events with what happened to their rows in these stretches.

        If there was something more, and it is ``doubtful`` or more than ``most``, not all is known.
        """
        every = {each.id: each for each in events}
        lacking, names = False, bool(stretches)
        while names and (wanted := beside.wanted(self._hub, list(every.values()), topics)) is not None:
            read = partial(beside.read, stretches=stretches, wanted=wanted, most=most)
            read = partial(read, shapes=self._hub.shapes, contents=self._store.contents)
            found = await self._store.read(read, patient=True)
            more = {each.id: Told(each) for each in found or () if each.id not in every}
            every |= more
            lacking = found is None or (doubtful and len(every) > len(events))
            # What has happened to a row under another key is asked for by that.
            names = any(isinstance(each.event, Change) and is_renamed(each.event) for each in more.values())
        in_order = [told for _, told in sorted(every.items())]
        return self._course(in_order, topics, newest, lacking=topics if lacking else ())

    def _is_shared(self, after: int, end: int) -> bool:
        """Whether this is one long stretch of what counts as one transaction for everybody, once and for all."""
        borders = self._store.borders
        if end - after <= MANY or end > borders.decided or borders.end(after + 1, end) < end:
            return False
        return not self._is_parted(after, end)

    def _is_parted(self, after: int, end: int) -> bool:
        """Whether a stretch counts as more than one transaction for whoever is read for here, and for nobody else."""
        return any(after < each < end for each in self._apart)

    async def _shared(self, stretch: tuple[int, int], topics: frozenset[str], *, wanted: bool) -> Course | None:
        """Give the course of all that happened to these tables in a stretch, where it is known or ``wanted``.

        ``None``: it is neither, or too much.
        """
        shared, access = self._hub.shared, self._hub.access
        while True:
            granted = access.regranted
            asked = (*stretch, topics, granted)
            found = (
                await shared.get(asked, lambda: self._all_of(stretch, topics)) if wanted or asked in shared else None
            )
            if granted == access.regranted:
                return found

    async def _all_of(self, stretch: tuple[int, int], topics: frozenset[str]) -> Course | None:
        tables = topics | {each for topic in topics if (each := self._hub.access.joining(topic))}
        hub, contents, shapes = self._hub, self._store.contents, self._hub.shapes
        changed = Wanted.rows([(shape, None) for shape in shapes.values() if ascii_fold(shape.table) in tables])
        course = Course(topics, hub.access.grant)
        position, end = stretch
        while position < end and course.changes <= KEPT:
            if position >= hub.recent.after and end <= hub.position.id:
                some = list(islice(hub.recent.events_after(position), STEP))
                some = list(takewhile(lambda told: told.id <= end, some))
                position = some[-1].id if len(some) == STEP else end
                await trio.lowlevel.checkpoint()
            else:
                at = position
                page = await self._store.read(
                    lambda db: next(replay.pages(db, at, end, changed, shapes, contents), None),  # noqa: B023
                    patient=True,
                )
                some, position = ([Told(each) for each in page.events], page.end) if page is not None else ([], end)
            course.add(some)
        course.end()
        return course if course.changes <= KEPT else None

    async def known(self, events: Sequence[Told], course: Course, topics: frozenset[str], since: float) -> Facts:
        """Give ``facts`` to a reading, with whose the rows of plain tables among these topics are by now.

        They are read for the first of many that come to these events at the same moment, but not before ``since``: when
        the rights of its reader were. And not where the rows of no topic decide. Raises ``sqlite3.Error``.
        """
        if not topics:
            return NOTHING

        async def read() -> Facts:
            return await owners.known(self._hub, self._store, await self.facts(events, course), events, topics)

        asked = (course, topics, tuple([told.id for told in events]))
        once: Once[Facts] = self._hub.shared.at(self.moment(), asked, Once)
        facts = await once.get(read, since)
        if facts.newest:
            self.note(facts.newest)
        return facts

    def moment(self) -> tuple[object, ...]:
        """Say on what it rests, beside the outbox, what is found out of the same events for anybody."""
        hub, subscribers = self._hub, self._hub.subscribers
        return (
            hub.position, self._store.borders.decided, hub.access.renewed, subscribers.grown, subscribers.filtered,
            hub.shapes,
        )  # fmt: skip

    async def facts(self, events: Sequence[Told], course: Course) -> Facts:
        """Read what is needed to deliver these events, of which this is the course, as ``Hub.facts`` does.

        And what guarded the rows that leave a filter or their owner by one of these and are deleted by now: their
        groups have gone with them, or are those of another row that has their name; and their deletion is of a row that
        the filter does not let through, or is another's. And of rows whose name seems to be another's by now, if not
        much has happened since: else the groups of that one count, as for a row that was replaced. Raises
        ``sqlite3.Error``.
        """
        facts = await self._hub.facts(events, course)
        if facts.newest:
            self.note(facts.newest)
        changes = [told.event for told in events if isinstance(told.event, Change)] if facts.guards else []
        going_on = [each for each in changes if facts.has(each)]
        leaving = [each for each in going_on if self._may_leave(each, facts)]
        facts = await self._with_ends(facts, events, leaving)
        another = [each for each in going_on if facts.newest - each.id <= beside.AHEAD and facts.is_another(each)]
        facts = await self._with_ends(facts, events, another, most=MANY)
        if facts.joining:
            facts = replace(facts, joined=partings(facts))
        if course.lacking:
            facts = await owners.as_now(self._hub, self._store, facts, events, course.lacking)
            facts = replace(facts, doubtful=facts.doubtful | course.lacking)
        return facts

    async def _with_ends(
        self, facts: Facts, events: Sequence[Told], changes: Sequence[Change], *, most: int | None = None
    ) -> Facts:
        """Add how the rows of some changes have ended behind the events, unless more has happened to them.

        Behind their transactions, too: the groups that a row has in the midst of one nobody could SELECT it by.
        """
        if not changes:
            return facts
        topics = {ascii_fold(each.shape.table) for each in changes}
        after = self._end(events[-1].id, facts.newest)
        found = await beside.behind(self._hub, self._store, changes, after, facts.newest, most)
        if found == []:
            return facts
        if found is None:
            return replace(facts, doubtful=facts.doubtful | topics) if most is None else facts
        course = Course(topics, self._hub.access.grant)
        course.add(map(Told, found))
        course.end()
        ended = {**facts.ended}
        for name, end in course.first_ends().items():
            ended[name] = [*ended.get(name, ()), end]
        renamed = {table for table, _ in course.renamed}
        return replace(
            facts, ended=ended, renamed={**facts.renamed, **course.renamed}, doubtful=facts.doubtful | renamed
        )

    def _may_leave(self, change: Change, facts: Facts) -> bool:
        """Whether this takes a row out of a live set, and it may be another by now that has its name."""
        topic, old, new = ascii_fold(change.shape.table), change.old, change.new
        if old is None or new is None or topic not in self._hub.subscribers.live_sets:
            return False
        if facts.guards[name_of(change, old)] is not None and not facts.newer:
            return False
        grant, audiences = self._hub.access.grant(topic), self._hub.subscribers.audiences(topic)
        if guard_of(grant, change, old) != guard_of(grant, change, new):
            return True
        return audiences is not None and audiences.is_left_by(change)

    def _course(
        self, events: Iterable[Told], topics: Collection[str], newest: int, *, lacking: Collection[str] = ()
    ) -> Course:
        course = Course(topics, self._hub.access.grant, lacking)
        end = 0
        transaction: list[Told] = []
        for told in events:
            if told.id > end:
                course.add(transaction)
                course.end()
                transaction = []
                end = self._end(told.id, newest)
            transaction.append(told)
        course.add(transaction)
        course.end()
        return course

    def _end(self, event: int, newest: int) -> int:
        """Give where what counts as one transaction with an event ends, for whoever is read for here."""
        place = bisect_left(self._apart, event)
        return min([self._store.borders.end(event, newest), *self._apart[place : place + 1]])

    def _with_judges(self, topics: Collection[str]) -> frozenset[str]:
        """Add to these tables (folded) those whose rows are judged in place of theirs."""
        objects = (self._hub.access.grant(topic).object_table for topic in topics)
        return frozenset(topics).union(ascii_fold(each) for each in objects if each is not None)
