"""What one principal may do, as one transaction sees it. Works: plain functions on an open connection.

Who is in which group and what is granted are read in the transaction that then reads or writes the rows, so that no
change comes between the decision and the deed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from appliance.errors import Forbidden, NotFound, Unauthorized, UnknownTopic
from appliance.model import Principal, ascii_fold
from appliance.protocol.permissions import Guarded, Verb, permits
from appliance.protocol.wording import quote
from appliance.store.access import callers, grants
from appliance.store.access.grants import TableGrant, TableKind
from appliance.store.access.readable import readable
from appliance.store.tables import rows, standard
from appliance.store.tables.resources import Resource
from appliance.store.tables.rows import Clause, Found
from appliance.store.tables.standard import USERGROUP


@dataclass(frozen=True, slots=True)
class Rights:
    """A principal with the groups that it is in, and what is granted on each table, by folded name."""

    principal: Principal
    groups: frozenset[str]
    granted: Mapping[str, TableGrant]

    def may(self, verb: Verb, on: Guarded) -> bool:
        """Decide."""
        return permits(self.principal, self.groups, verb, on)

    def table(self, every: Mapping[str, Resource], name: str) -> tuple[Resource, TableGrant]:
        """Give a table that this principal may know of. Raises ``UnknownTopic``, for all others alike."""
        folded = ascii_fold(name)
        resource, grant = every.get(folded), self.granted.get(folded)
        if resource is None or grant is None or not grant.known(self.may):
            raise UnknownTopic(f"there is no table {quote(name)} that you may know of")
        return resource, grant

    def on_rows(self, verb: Verb, grant: TableGrant) -> Clause:
        """Say as SQL on which of a table's rows it may be done."""
        return readable(grant, self.principal, self.groups, verb)

    def on_row(self, db: sqlite3.Connection, resource: Resource, grant: TableGrant, found: Found, verb: Verb) -> bool:
        """Decide on one row as it is now."""
        return rows.satisfies(db, resource, found.place, self.on_rows(verb, grant))

    def demand(self, db: sqlite3.Connection, resource: Resource, grant: TableGrant, found: Found, verb: Verb) -> None:
        """Raise ``Forbidden`` unless it may be done to a row; ``NotFound`` when the row may not even be known of."""
        if self.on_row(db, resource, grant, found, verb):
            return
        if self.on_row(db, resource, grant, found, Verb.PEEK):
            raise Forbidden(f"you may not {verb.name.lower()} this row of {quote(resource.name)}")
        raise no_row(resource)


def no_row(resource: Resource) -> NotFound:
    """Give the refusal of a row that is not there, or that may not be known of."""
    return NotFound(f"there is no such row of {quote(resource.name)} that you may know of")


def rights_of(db: sqlite3.Connection, principal: Principal) -> Rights:
    """Say what a principal may do now. Raises ``Unauthorized`` when its token counts no more."""
    (caller,) = callers.identify(db, [principal])
    if caller.refused:
        raise Unauthorized(caller.refused)
    return Rights(caller.principal, caller.groups, grants.read(db))


def may_refer(db: sqlite3.Connection, rights: Rights, grant: TableGrant, target: str, reference_id: str) -> bool:
    """Decide whether a row of ``grant``'s table may refer to one of a standard table; never if that is not there."""
    guard = grants.guards(db, target, [reference_id]).get(reference_id)
    if guard is None:
        return False
    table = rights.granted.get(ascii_fold(target))
    known = table is not None and table.known(rights.may)
    if grant.kind in (TableKind.JOIN, TableKind.MEMBERSHIP):
        if ascii_fold(target) != USERGROUP:
            return True  # who may write a join row has been decided by what it joins
        # Sharing with a group takes nothing from it; who is in one knows of it.
        return reference_id in rights.groups or (known and rights.may(Verb.PEEK, guard))
    return known and rights.may(Verb.REFER, guard)


def has_system(db: sqlite3.Connection, table: str) -> bool:
    """Whether a system table is there, and not only a user's own that has its name."""
    return table in standard.registered(db)
