"""Who may what: the permission bits, as in Daptin, and the one function that decides.

======  =======  =======  ========  ========  ========  =========  =========
\\       peek     read     create    update    delete    execute    refer
======  =======  =======  ========  ========  ========  =========  =========
guest   1        2        4         8         16        32         64
owner   128      256      512       1024      2048      4096       8192
group   16384    32768    65536     131072    262144    524288     1048576
======  =======  =======  ========  ========  ========  =========  =========
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Final, NamedTuple

from appliance.model import Principal, SQLiteValue


class Verb(enum.IntEnum):
    """What somebody wants to do; the number is its guest bit."""

    PEEK = 1
    READ = 2
    CREATE = 4
    UPDATE = 8
    DELETE = 16
    EXECUTE = 32
    REFER = 64


#: How far the owner's and the group's bits are to the left of the guest's.
OWNER_SHIFT: Final = 7
GROUP_SHIFT: Final = 14

#: All seven bits of one kind of principal.
ALL: Final = 0x7F

#: Guest peek and execute, owner and group all: a row of a standard table, unless its table says otherwise.
ROW_DEFAULT: Final = 2097057
#: Owner and group all, nothing for guests: a plain table's own ``world`` row until something is granted.
TABLE_DEFAULT: Final = 2097024
#: Owner all; group peek, read, execute: a user topic.
TOPIC_DEFAULT: Final = 589696
#: Guest peek, execute; owner all; no group bit: that somebody is in a group gives no right on the others in it.
MEMBERSHIP: Final = 16289
#: The greatest value that has no other bits.
MOST: Final = (1 << 21) - 1


class Guarded(NamedTuple):
    """What a permission stands on: a row, a table, a topic.

    ``owner`` is the owner's ``reference_id``; ``None`` has none, and nobody matches it. ``joins`` are the groups that
    the object is joined to, each with the join row's own permission.
    """

    permission: int
    owner: str | None = None
    joins: tuple[tuple[str, int], ...] = ()


def permits(principal: Principal, groups: Collection[str], verb: Verb, on: Guarded) -> bool:
    """Decide whether ``principal``, a member of ``groups`` just now, may do ``verb`` to ``on``.

    PROTOCOL, section 6: an administrator may; else the guest bit; else the owner's bit for the owner; else the group's
    bit, in the *join row's* permission, for a member of a group that the object is joined to. A guest owns nothing and
    is a member of nothing but what ``groups`` says.
    """
    if principal.admin or on.permission & verb:
        return True
    if owns(principal, on.owner) and on.permission & (verb << OWNER_SHIFT):
        return True
    return any(permission & (verb << GROUP_SHIFT) and group in groups for group, permission in on.joins)


def permitted(verb: Verb, on: Guarded) -> tuple[str | None, Collection[str]]:
    """Name the owner, if it is one, and the groups that ``permits`` may do ``verb`` to ``on``."""
    owner = on.owner if on.permission & (verb << OWNER_SHIFT) else None
    return owner, dict.fromkeys(group for group, permission in on.joins if permission & (verb << GROUP_SHIFT))


def both(one: Guarded, other: Guarded, verb: Verb) -> Guarded:
    """Give what permits ``verb`` to exactly those to whom both permit it, where both have the groups of ``one``."""
    guest_one, guest_other = one.permission & verb, other.permission & verb
    owner_one, owner_other = one.permission & verb << OWNER_SHIFT, other.permission & verb << OWNER_SHIFT
    if guest_one:
        return Guarded(guest_other | owner_other, other.owner, one.joins)
    if guest_other or one.owner == other.owner:
        return Guarded(owner_one if guest_other else owner_one & owner_other, one.owner, one.joins)
    return Guarded(0, None, one.joins)


def permits_on_join(
    principal: Principal, groups: Collection[str], verb: Verb, joined: Guarded, *, membership: bool = False
) -> bool:
    """Decide about a row that joins ``joined`` to a group.

    PROTOCOL, section 6: it may be read by who may read what it joins, written by the owner of that and by
    administrators; ``membership``, that of a user in a group, only by administrators.
    """
    if principal.admin:
        return True
    if verb in (Verb.PEEK, Verb.READ):
        return permits(principal, groups, Verb.READ, joined)
    return not membership and owns(principal, joined.owner)


def owns(principal: Principal, owner: str | None) -> bool:
    """Whether ``owner`` is this principal. A guest owns nothing, and nobody owns what has no owner."""
    return owner is not None and not principal.guest and principal.subject == owner


def bits(value: SQLiteValue) -> int:
    """Give the permission that a column holds; what is no integer permits nothing."""
    return value if isinstance(value, int) else 0


def owner_of(value: SQLiteValue) -> str | None:
    """Give whom a column names as the owner: its text, or an integer's digits. Anything else is nobody."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else None
