"""Who of many may read a row, found by the owner and the groups that the row names.

That is as the decision (``permissions.permits``) has it for each one alone, without asking each one: whoever is in a
group that a row gives the right to read has it, and so one look finds all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from appliance.live.matching.access import Reader
from appliance.protocol.permissions import Guarded, Verb, permitted


class Member(Protocol):
    """Who can be in an audience."""

    @property
    def reader(self) -> Reader:
        """Whose rights count."""


M = TypeVar("M", bound=Member)
M_contra = TypeVar("M_contra", bound=Member, contravariant=True)


class Index(Protocol[M_contra]):
    """What knows together, or in another way, whom the hub feeds."""

    def feed(self, member: M_contra) -> None:
        """Take a member up."""

    def leave(self, member: M_contra) -> None:
        """Forget a member."""


class Members(dict[M, None]):
    """Those whom the hub feeds that have something in common, for as long as there are any."""

    __slots__ = ("beside",)

    def __init__(self) -> None:
        super().__init__()
        #: Who wants to know of whoever comes and goes.
        self.beside: Index[M] | None = None

    def feed(self, member: M) -> None:
        """Take a member up."""
        self[member] = None
        if self.beside is not None:
            self.beside.feed(member)

    def leave(self, member: M) -> None:
        """Forget a member."""
        del self[member]
        if self.beside is not None:
            self.beside.leave(member)


class Readers(NamedTuple, Generic[M]):
    """Some of those there are. Those of equal ``who`` are the same ones."""

    who: Hashable
    members: Mapping[M, None]


NOBODY: Final[Readers[Any]] = Readers(None, {})

#: What a row can name a member by: whether as its owner, else as a member of a group, and the subject or the group.
Name: TypeAlias = tuple[bool, str]


class Readership(Generic[M]):
    """Members by what a row can name them by: their subject, which is that of no guest, and their groups."""

    __slots__ = ("_by_name",)

    def __init__(self) -> None:
        self._by_name: dict[Name, Members[M]] = {}

    def add(self, member: M) -> None:
        """Take a member up, with the rights that it has now."""
        for name in _names(member.reader):
            if name not in self._by_name:
                self._by_name[name] = Members()
            self._by_name[name].feed(member)

    def remove(self, member: M) -> None:
        """Forget a member. Its reader is the one that it came with."""
        for name in _names(member.reader):
            named = self._by_name[name]
            named.leave(member)
            if not named:
                del self._by_name[name]

    def named(self, guard: Guarded) -> Readers[M]:
        """Give the members whom ``guard`` lets read by name: as its owner, or in one of its groups."""
        owner, groups = permitted(Verb.READ, guard)
        names = [(False, group) for group in groups] + ([] if owner is None else [(True, owner)])
        found = [Readers((self, name), self._by_name[name]) for name in names if name in self._by_name]
        if len(found) < 2:
            return found[0] if found else NOBODY
        most = max(found, key=_size)
        if all(each in most.members for some in found if some is not most for each in some.members):
            return most
        return _these(each for some in found for each in some.members)


def _names(reader: Reader) -> list[Name]:
    groups = [(False, group) for group in reader.groups]
    return groups if reader.principal.guest else [(True, reader.principal.subject), *groups]


def both(one: Readers[M], other: Readers[M]) -> Readers[M]:
    """Give who is in both."""
    few, many = sorted((one, other), key=_size)
    if one.who == other.who or all(each in many.members for each in few.members):
        return few
    return _these(each for each in few.members if each in many.members)


def but(one: Readers[M], other: Readers[M]) -> Readers[M]:
    """Give who is in one and not in the other."""
    if one.who == other.who:
        return NOBODY
    if not other.members:
        return one
    return _these(each for each in one.members if each not in other.members)


def _these(members: Iterable[M]) -> Readers[M]:
    found = dict.fromkeys(members)
    return Readers(frozenset(found), found)


def _size(readers: Readers[M]) -> int:
    return len(readers.members)
