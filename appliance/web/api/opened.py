"""A table as one transaction of one principal sees it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from appliance.errors import NotFound
from appliance.model import Principal, SQLiteValue, ascii_fold
from appliance.protocol.permissions import Verb
from appliance.protocol.wording import quote
from appliance.store.access.grants import TableGrant
from appliance.store.access.rights import Rights, may_refer, no_row, rights_of
from appliance.store.tables import catalog, rows
from appliance.store.tables.resources import Resource
from appliance.store.tables.rows import Found
from appliance.web.api import documents
from appliance.web.api.documents import Relationship


@dataclass(frozen=True, slots=True)
class Opened:
    """A table, what may be done with it, and all tables there are (``every``, by folded name)."""

    db: sqlite3.Connection
    rights: Rights
    resource: Resource
    grant: TableGrant
    every: Mapping[str, Resource]

    @property
    def references(self) -> list[Relationship]:
        """All relationships of the table, also those that are not shown."""
        return documents.relationships(self.resource, self.every, hidden=True)

    def related(self, resource: Resource | None = None) -> list[Relationship]:
        """Give the relationships of this table, or of another, to tables that the principal may know of."""
        return visible(documents.relationships(resource or self.resource, self.every), self.rights)

    def find(self, text: str) -> Found:
        """Give the row that an ``id`` names. Raises ``NotFound``."""
        key = documents.key_of(self.resource, text)
        found = None if key is None else rows.find(self.db, self.resource, key)
        if found is None:
            raise no_row(self.resource)
        return found

    def standing(self, values: Sequence[SQLiteValue]) -> Found | None:
        """Give the row that has these values in the order of the key, if it may be read."""
        found = rows.standing(self.db, self.resource, values)
        return found if found is not None and self.may(Verb.READ, found) else None

    def demand(self, verb: Verb, found: Found) -> None:
        """Raise ``Forbidden``, or ``NotFound``, unless it may be done to a row."""
        self.rights.demand(self.db, self.resource, self.grant, found, verb)

    def may(self, verb: Verb, found: Found) -> bool:
        """Decide on a row."""
        return self.rights.on_row(self.db, self.resource, self.grant, found, verb)

    def may_refer(self, target: Resource, reference_id: str) -> bool:
        """Decide whether a row of this table may refer to one of a standard table; never if that is not there."""
        return may_refer(self.db, self.rights, self.grant, target.name, reference_id)


def opened(db: sqlite3.Connection, principal: Principal, every: Mapping[str, Resource], table: str) -> Opened:
    """Open a table for a principal. Raises ``Unauthorized``, ``UnknownTopic``, ``NotFound``."""
    rights = rights_of(db, principal)
    resource, grant = rights.table(every, table)
    if not resource.shape.key and not resource.shape.rowid:
        raise NotFound(f"the rows of {quote(resource.name)} have no key that can be sent")
    missing = catalog.missing_collation(resource.table)
    if missing is not None:
        raise NotFound(
            f"the rows of {quote(resource.name)} cannot be read here: their key has the collation {quote(missing)} of "
            "an application"
        )
    return Opened(db, rights, resource, grant, every)


def visible(related: list[Relationship], rights: Rights) -> list[Relationship]:
    """Give the relationships to tables that may be known of."""
    return [
        each
        for each in related
        if (grant := rights.granted.get(ascii_fold(each.target.name))) and grant.known(rights.may)
    ]
