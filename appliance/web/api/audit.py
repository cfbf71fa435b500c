"""What is logged of writes to the rows that rights stand on: accounts, groups, memberships, grants."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import structlog

from appliance.model import ascii_fold
from appliance.protocol.permissions import bits
from appliance.store.tables.rows import Found
from appliance.web.api import documents, rules
from appliance.web.api.opened import Opened

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Deed:
    """One write to a row that rights stand on, without a value but those that say who may what."""

    deed: str
    table: str
    row: str | None
    columns: tuple[str, ...]
    bits: int
    joined: str | None
    group: str | None
    by: str

    def log(self) -> None:
        """Log it; it is committed."""
        log.info(
            "rights_changed", deed=self.deed, table=self.table, row=self.row, columns=self.columns, bits=self.bits,
            joined=self.joined, group=self.group, by=self.by,
        )  # fmt: skip


def deed(what: str, opened: Opened, found: Found, written: Collection[str] = ()) -> Deed | None:
    """Say what is done to a row; ``None`` where no rights stand on it."""
    resource, grant = opened.resource, opened.grant
    if grant.system is None:
        return None
    joins = grant.object_column is not None
    return Deed(
        what,
        resource.name,
        documents.identifier(resource, found),
        tuple(sorted(name for name in written if ascii_fold(name) not in rules.KEPT)),
        bits(documents.value_of(resource, found, "permission")),
        str(documents.value_of(resource, found, ascii_fold(str(grant.object_column)))) if joins else None,
        str(documents.value_of(resource, found, "usergroup_id")) if joins else None,
        opened.rights.principal.subject,
    )
