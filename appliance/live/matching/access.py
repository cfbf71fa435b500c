"""Who may see what just now: the rights that the store holds, in memory, and what decisions are made on.

Every decision is ``permissions.permits``; here stands only *on what* – which bits, owner and groups a topic or a row
has – and who is in which group. What is held is renewed by the tail before it delivers what was committed together with
a change of rights or after it, so a right that is lost ends delivery before the next event.
"""

from __future__ import annotations

import enum
import functools
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import trio

from appliance.errors import Unauthorized
from appliance.live.matching.course import Course
from appliance.live.matching.facts import (
    NOTHING,
    Facts,
    guard_of,
    judged,
    names_in,
    read_facts,
    undone,
    value_of,
)
from appliance.live.matching.stale import RIGHTS
from appliance.live.matching.telling import Told
from appliance.live.tries import network_of
from appliance.model import Change, Image, Principal, Shape, Topic, ascii_fold
from appliance.protocol.filters import RowFilter
from appliance.protocol.permissions import Guarded, Verb, both, permits
from appliance.protocol.tokens import Key, Keyring, Unverified
from appliance.store.access import callers, grants
from appliance.store.access.callers import Caller, Granted
from appliance.store.access.grants import CLOSED, TableGrant, TableKind
from appliance.store.access.readable import readable
from appliance.store.store import Store
from appliance.store.tables import standard
from appliance.store.tables.snapshot import Condition


class Sight(enum.Enum):
    """What of a topic somebody may read: all, nothing, or what its rows say."""

    ALL = "all"
    BY_ROW = "by row"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Reader:
    """A principal, and the groups that it is in just now: ``read_at`` (``trio.current_time()``) that was known."""

    principal: Principal
    groups: frozenset[str]
    read_at: float = field(default=-math.inf, compare=False)

    def may(self, verb: Verb, on: Guarded) -> bool:
        """Decide whether this reader may do ``verb`` to what ``on`` guards."""
        return permits(self.principal, self.groups, verb, on)


@dataclass(eq=False, slots=True)
class _Question:
    """Who a principal is now, until it is answered."""

    principal: Principal
    caller: Caller | None = None


class Access:
    """The rights as they were last read."""

    def __init__(self, store: Store) -> None:
        #: How often rights were read: who reads them outside of the tail's turn looks at it before and after.
        self.renewed = 0
        #: How often what is granted on tables was.
        self.regranted = 0
        self._store = store
        self._external: tuple[Key, ...] = ()
        self._lifetime_s: float | None = None
        self._guests = False
        self._granted: Mapping[str, TableGrant] = {}
        self._keyring = Keyring(())
        self._questions: list[_Question] = []
        self._asking = trio.Lock()
        self._reading_keys = trio.Lock()
        self._shapes: Mapping[int, Shape] | None = None
        self._of_rights: tuple[tuple[int, ...], int] = ((), 0)

    def configure(self, *, external: Sequence[Key], lifetime_s: float, guests: bool) -> None:
        """Take over what the configuration says: the keys of other issuers, how long a token may live, guests or not.

        It counts with the next ``read_keys``.
        """
        self._external, self._lifetime_s, self._guests = tuple(external), lifetime_s, guests

    # -- who ---------------------------------------------------------------------------------------------

    async def principal(self, token: str) -> Principal:
        """Say whom ``token`` stands for by what it says itself. Raises ``Unauthorized``."""
        known = self._keyring
        try:
            return known.verify(token, time.time())
        except Unverified:  # a command may have made its key a moment ago
            if {each.id for each in await self._store.read(self._store.secrets.keys)} <= known.ids:
                raise
        await self.read_keys()
        return self._keyring.verify(token, time.time())

    async def reader(self, principal: Principal) -> Reader:
        """Say what a principal is now. Raises ``Unauthorized`` when its token counts no more."""
        question = _Question(principal)
        self._questions.append(question)
        # The store is asked once for all that wait: of ten thousand clients that come back, each would ask by itself.
        async with self._asking:
            if question.caller is None:
                together, self._questions = self._questions, []
                try:
                    callers = await self.identify([each.principal for each in together])
                except BaseException:
                    # The others ask again when it is their turn.
                    self._questions = [each for each in together if each is not question] + self._questions
                    raise
                for each, caller in zip(together, callers, strict=True):
                    each.caller = caller
        found = question.caller
        assert found is not None  # noqa: S101 – either somebody has asked for us, or we have
        if found.refused:
            raise Unauthorized(found.refused)
        return Reader(found.principal, found.groups, trio.current_time())

    def guest(self, remote: str) -> Reader | None:
        """Give the reader that has no token, at an address; ``None`` where nobody comes in without one.

        All addresses of one IPv6 network are one guest.
        """
        if not self._guests:
            return None
        nobody = Principal(f"guest at {network_of(remote)}", "guest", admin=False, expires_at=float("inf"), guest=True)
        return Reader(nobody, frozenset((standard.GUESTS,)))

    async def identify(self, principals: Sequence[Principal]) -> list[Caller]:
        """Say what each of these principals is now; one that would not be let in any more is refused."""
        return (await self.read(principals, tables=False))[1]

    async def read(self, principals: Sequence[Principal], *, tables: bool) -> tuple[Granted | None, list[Caller]]:
        """Read at one moment what is granted on ``tables``, if that is wanted, and what these principals are."""
        granted, found = await self._store.read(lambda db: callers.with_grants(db, principals, tables=tables))
        return granted, [self._as_configured(each) for each in found]

    def _as_configured(self, caller: Caller) -> Caller:
        why = self.refusal(caller.principal)
        return replace(caller, refused=why) if why else caller

    def refusal(self, principal: Principal) -> str:
        """Say why a principal would not be let in any more, whatever the store says of it; "" when it would."""
        if principal.guest:
            return "" if self._guests else "nobody comes in without a token here any more"
        return self._keyring.refusal(principal, time.time())

    async def read_keys(self) -> None:
        """Read the keys that tokens are verified with."""
        async with self._reading_keys:  # one after the other, or the older would count in the end
            every = (*await self._store.read(self._store.secrets.keys), *self._external)
            self._keyring = Keyring(every) if self._lifetime_s is None else Keyring(every, lifetime_s=self._lifetime_s)

    async def read_grants(self) -> dict[str, bool]:
        """Read what is granted on tables, and take it up."""
        return self.take_up(await self._store.read(grants.read))

    def take_up(self, granted: Granted) -> dict[str, bool]:
        """Let this count from now on; give the tables (folded) on which it is something else than before.

        And say of each whether its rows may have other owners, or be in other groups, though none of them has changed.
        """
        before, self._granted = self._granted, granted
        self.renewed += 1
        self.regranted += 1
        both = ((name, before.get(name), self._granted.get(name)) for name in before.keys() | self._granted.keys())
        return {
            name: was is None or now is None or _judged_by(was) != _judged_by(now)
            for name, was, now in both
            if was != now
        }

    def shapes_of_rights(self, shapes: Mapping[int, Shape]) -> tuple[tuple[int, ...], int]:
        """Give the ids of the shapes whose rows are rights, and the newest id of all; found once for each mapping."""
        if self._shapes is not shapes:
            of_rights = tuple(number for number, shape in shapes.items() if ascii_fold(shape.table) in RIGHTS)
            self._shapes, self._of_rights = shapes, (of_rights, max(shapes, default=0))
        return self._of_rights

    # -- tables and topics -------------------------------------------------------------------------------

    def grant(self, table: str) -> TableGrant:
        """Give what is granted on a table; nothing where nobody has said anything."""
        return self._granted.get(ascii_fold(table)) or TableGrant(table, TableKind.PLAIN, CLOSED)

    def joining(self, table: str) -> str | None:
        """Name (folded) the table that joins a table's rows to groups; ``None`` where none does."""
        joining = self.grant(table).join_table
        return None if joining is None else ascii_fold(joining)

    def may_know(self, reader: Reader, shape: Shape) -> bool:
        """Decide whether a reader may know of a table. For who may not, it does not exist."""
        return self.grant(shape.table).known(reader.may)

    @staticmethod
    def may_on_topic(reader: Reader, verb: Verb, topic: Topic) -> bool:
        """Decide on a user topic. It counts as joined to ``users`` with its own permission."""
        return reader.may(verb, _guarded(topic.permission, topic.owner))

    @classmethod
    def may_follow(cls, reader: Reader, topic: Topic) -> bool:
        """Decide whether a reader is sent a user topic's messages; it must not be unknown to it, either."""
        return cls.may_on_topic(reader, Verb.PEEK, topic) and cls.may_on_topic(reader, Verb.READ, topic)

    def sight(self, reader: Reader, shape: Shape) -> Sight:
        """Say what of a table's rows a reader may read."""
        if reader.principal.admin:
            return Sight.ALL
        grant = self.grant(shape.table)
        if grant.kind is not TableKind.PLAIN:
            return Sight.BY_ROW
        if grant.owner_column is None:
            return Sight.ALL if reader.may(Verb.READ, grant.guarded) else Sight.NONE
        if reader.may(Verb.READ, grant.guarded._replace(owner=None)):
            return Sight.ALL
        own = grant.guarded._replace(owner=reader.principal.subject)
        return Sight.BY_ROW if reader.may(Verb.READ, own) else Sight.NONE

    # -- rows --------------------------------------------------------------------------------------------

    def rows(self, reader: Reader, shape: Shape, wanted: RowFilter | None) -> Condition:
        """Say which rows of a table pass a filter and may be read."""
        sql, parameters = wanted.sql if wanted is not None else ("1", ())
        may, values = readable(self.grant(shape.table), reader.principal, reader.groups)
        return Condition(f"({sql}) AND {may}", (*parameters, *values))

    def guard(self, change: Change, image: Image, facts: Facts) -> Guarded | None:
        """Give what guards a row as it was or is; ``None``: nobody but administrators may read it.

        What a row became is for whom it is for by what has become of it since, too: what one transaction makes readable
        and takes back again nobody could ever SELECT, and whoever has lost a row by now is not sent it, however long
        ago that was. It is found once for all who are judged by the same facts.
        """
        if facts is NOTHING:
            return self._guard(change, image, facts)
        asked = change.id, image is change.new
        if asked not in facts.guarded:
            facts.guarded[asked] = self._guard(change, image, facts)
        return facts.guarded[asked]

    def told(self, change: Change, facts: Facts) -> Guarded | None:
        """Give what guards the old row for whom it may be in a live set, where that is more than may read it.

        What came before an update may have been told by the groups that only its transaction has joined the row to.
        """
        if change.old is None or (change.id, False) not in facts.fresh:
            return None
        return self._guard(change, change.old, replace(facts, fresh={}))

    def _guard(self, change: Change, image: Image, facts: Facts) -> Guarded | None:
        grant = self.grant(change.shape.table)
        if grant.object_table is not None:
            # Of what is gone there are no join rows to be told of, but to administrators: how it was guarded at the end
            # may rest on a join row of the same transaction, which nobody could ever SELECT.
            column = str(grant.object_column)
            joined = str(value_of(change, image, column))
            name = ascii_fold(grant.object_table), joined
            object_guard, end = facts.guards.get(name), facts.end(name, change.id)
            if end is not None and (change.id < end.id or change.new is None):
                return None
            if object_guard is None or change.new is None or image is not change.old:
                return object_guard
            # What the change itself gives did not show the join row as it was.
            return object_guard._replace(joins=undone(change, column, joined, object_guard.joins))
        guard = guard_of(grant, change, image)
        if image is change.new and change.id in facts.owners:
            guard = both(guard, guard._replace(owner=facts.owners[change.id]), Verb.READ)
        if (narrowed := facts.narrowed.get(change.id)) is not None:
            guard = guard._replace(joins=narrowed)
        if grant.kind is not TableKind.PLAIN:
            guard = judged(guard, change, image, facts)
        later = facts.last.get(change.id) if image is change.new or change.id in facts.between else None
        return guard if later is None else both(guard, later, Verb.READ)

    async def facts(
        self,
        events: Sequence[Told],
        by_row: Collection[str],
        live_sets: Collection[str],
        tables: Mapping[str, Shape],
        course: Course,
    ) -> Facts:
        """Read what decisions on these events need.

        ``by_row`` are the topics (folded) whose rows say who may read them; ``live_sets`` those that somebody holds the
        rows of: when a row of theirs is joined to a group or parted from it, the row as it is now is needed, too.
        ``tables`` are the shapes of now. ``course``: of these events and what counts as one commit with them.
        """
        guards: set[tuple[str, str]] = set()
        rows: set[tuple[str, str]] = set()
        for change in (each.event for each in events if isinstance(each.event, Change)):
            topic, grant = ascii_fold(change.shape.table), self.grant(change.shape.table)
            if grant.object_table is not None:
                table = ascii_fold(grant.object_table)
                named = {(table, each) for each in names_in(change, str(grant.object_column))}
                if table in live_sets:
                    rows |= named
                if table in live_sets or topic in by_row:
                    guards |= named
            elif topic in by_row and grant.kind is not TableKind.PLAIN:
                guards |= {(topic, each) for each in names_in(change, "reference_id")}
        if not guards:
            if not course.last and not course.veiled:
                return NOTHING
            return Facts(last=course.last, between=course.between, closed=course.closed, veiled=course.veiled)
        shapes = {table: shape for table in {table for table, _ in rows} if (shape := tables.get(table)) is not None}
        facts = await self._store.read(lambda db: read_facts(db, guards, rows, shapes))
        return replace(
            facts,
            ended=course.ends(),
            narrowed=course.narrowed,
            fresh=course.fresh,
            last=course.last,
            between=course.between,
            closed=course.closed,
            veiled=course.veiled,
            renamed=course.renamed,
            renaming=course.renaming,
            joining={name: course.joining[name] for name in rows & course.joining.keys()},
            newer=facts.newest > events[-1].id,
            doubtful=course.doubtful(facts.guards),
        )


def _judged_by(grant: TableGrant) -> tuple[object, ...]:
    """Say where the owners and groups of a table's rows are."""
    return grant.kind, grant.owner_column, grant.object_table, grant.join_table


@functools.lru_cache(1024)  # asked for each message
def _guarded(permission: int, owner: str | None) -> Guarded:
    return Guarded(permission, owner, ((standard.USERS, permission),))


def same_person(one: Principal, other: Principal) -> bool:
    """Whether two tokens stand for the same principal: the same issuer's same subject."""
    return (one.issuer, one.subject) == (other.issuer, other.subject)
