"""Who may see what just now: on which bits, owner and groups the one decision, ``permissions.permits``, is made.

Rows have no owners yet: tables are for administrators only, user topics for everybody with a token.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from appliance.live.telling import Facts, Told
from appliance.model import Change, Image, Principal, Shape, Topic
from appliance.protocol import tokens
from appliance.protocol.filters import RowFilter
from appliance.protocol.permissions import TOPIC_DEFAULT, Guarded, Verb, permits
from appliance.store.snapshot import Condition
from appliance.store.store import Store

#: The group of every registered user.
USERS: Final = "users"


class Sight(enum.Enum):
    """What of a topic somebody may read: all, nothing, or what its rows say."""

    ALL = "all"
    BY_ROW = "by row"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Reader:
    """A principal, and the groups that it is in just now."""

    principal: Principal
    groups: frozenset[str]

    @property
    def identity(self) -> tuple[object, ...]:
        """What two readers have in common that may read the same."""
        return self.principal.issuer, self.principal.subject, self.principal.guest, self.groups

    def may(self, verb: Verb, on: Guarded) -> bool:
        """Decide whether this reader may do ``verb`` to what ``on`` guards."""
        return permits(self.principal, self.groups, verb, on)


class Authority:
    """Knows the store's secret and says whom a token stands for."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def principal(self, token: str) -> Principal:
        """Say whom ``token`` stands for now. Raises ``Unauthorized``."""
        return tokens.verify(self._secret, token, now=time.time())


class Access:
    """What there is to be decided on."""

    def reader(self, principal: Principal) -> Reader:
        """Give a principal with the groups that it is in."""
        return Reader(principal, frozenset((USERS,)))

    def may_on_table(self, reader: Reader, verb: Verb, shape: Shape) -> bool:
        """Decide on a table itself. To whom may not peek, it does not exist."""
        return reader.may(verb, Guarded(0))

    def may_on_topic(self, reader: Reader, verb: Verb, topic: Topic) -> bool:
        """Decide on a user topic. It counts as joined to ``users`` with its own permission."""
        return reader.may(verb, Guarded(topic.permission, topic.owner, ((USERS, topic.permission),)))

    def sight(self, reader: Reader, shape: Shape) -> Sight:
        """Say what of a table's rows a reader may read."""
        return Sight.ALL if reader.principal.admin else Sight.NONE

    def topic_sight(self, reader: Reader, topic: Topic) -> Sight:
        """Say what of a user topic a reader may read."""
        return Sight.ALL if self.may_on_topic(reader, Verb.READ, topic) else Sight.NONE

    async def facts(self, store: Store, events: Iterable[Told], by_row: Collection[str]) -> Facts:
        """Read what decisions on these events need, of the topics (folded) of which rows say who may read them."""
        return {}

    def rows(self, reader: Reader, shape: Shape, wanted: RowFilter | None) -> Condition:
        """Say which rows of a table pass a filter and may be read."""
        sql, parameters = wanted.sql if wanted is not None else ("1", ())
        return Condition(sql, parameters)

    def guard(self, change: Change, image: Image, facts: Facts) -> Guarded | None:
        """Give what guards a row as it was or is; ``None``: nobody but administrators may read it."""
        return None

    def reads(self, reader: Reader, change: Change, image: Image, facts: Facts) -> bool:
        """Decide whether a reader may read a row as it was or is."""
        guard = self.guard(change, image, facts)
        return reader.principal.admin or (guard is not None and reader.may(Verb.READ, guard))

    def named(self, change: Change, image: Image, facts: Facts) -> set[str] | None:
        """Name the owner and the groups of whom one may be allowed to read a row; ``None``: anybody may."""
        guard = self.guard(change, image, facts)
        if guard is None:
            return set()
        if guard.permission & Verb.READ:
            return None
        return {*(group for group, _ in guard.joins), *([] if guard.owner is None else [guard.owner])}


#: What a user topic's permission is unless whoever makes it says otherwise.
TOPIC_PERMISSION: Final = TOPIC_DEFAULT


def same_person(one: Principal, other: Principal) -> bool:
    """Whether two tokens stand for the same principal: the same issuer's same subject."""
    return (one.issuer, one.subject) == (other.issuer, other.subject)
