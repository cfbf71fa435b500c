"""The groups that a row of a standard table is joined to, noted while it is being deleted.

A delete is judged on the row as it was, and so on the groups that it had; but foreign keys take the join rows before
an AFTER DELETE trigger fires. So a BEFORE trigger copies them to the scratch table, beside the copies of rows that a
REPLACE may displace, with a ``part`` of their own; they share the row's fate, and go into the outbox right before its
old image, as ``GRANTS``.

Copies that came to nothing may stay, because they are kept in step with their rows. Notes are not with the join rows:
so they are made anew whenever their row is at risk, and by a BEFORE DELETE trigger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from appliance.capture.outbox import KEYS, VALUES
from appliance.model import Op, quote_identifier

SCRATCH: Final = "_appliance_scratch"

#: The ``part`` of scratch rows that hold no part of a row but a group that it is joined to.
JOIN_PART: Final = -1

_GROUPS = "_appliance_join.usergroup_id,_appliance_join.permission"


@dataclass(frozen=True, slots=True)
class Joins:
    """Writes the statements about a table's joins.

    ``table`` is the join table and the column of it that holds a row's ``reference_id``. ``kept`` are the columns that
    a scratch row keeps of the row: its rowid, which tells it apart, and its ``reference_id``.
    """

    shape: int
    table: tuple[str, str]
    kept: tuple[str, str]

    def of(self, row: str) -> str:
        """Say that a scratch row holds a group of ``OLD`` or ``NEW``."""
        return f"shape={self.shape} AND part={JOIN_PART} AND {KEYS[0]}={row}.{self.kept[0]}"

    def note(self, row: str) -> list[str]:
        """Note the groups of ``OLD`` or ``NEW``, in place of those noted of it by a write that came to nothing."""
        rowid, reference = (f"{row}.{name}" for name in self.kept)
        source = f"FROM {self._table} AS _appliance_join WHERE _appliance_join.{self._column}={reference}"
        return [f"DELETE FROM {SCRATCH} WHERE {self.of(row)}", f"{self._into()},{rowid},{reference},{_GROUPS} {source}"]

    def note_at_risk(self, table: str, found: str, *, updated: bool = False) -> list[str]:
        """Note the groups of the rows of ``table`` that a REPLACE may displace: those with the rowids that are found.

        Always anew: a copy that came to nothing is as its row is, but what was noted with it may not be any more.
        ``updated``: but for the row that is being updated.
        """
        rowid, reference = (f"_appliance_risk.{name}" for name in self.kept)
        others = f" AND {{}}<>OLD.{self.kept[0]}" if updated else ""
        found = f"SELECT * FROM ({found})"  # a condition right in a subquery counts twice in an expression's depth
        return [
            f"DELETE FROM {SCRATCH} WHERE (shape,part)=({self.shape},{JOIN_PART}) AND {KEYS[0]} IN ({found})"
            f"{others.format(KEYS[0])}",
            f"{self._into()},{rowid},{reference},{_GROUPS} "
            f"FROM {table} AS _appliance_risk, {self._table} AS _appliance_join "
            f"WHERE {rowid} IN ({found}) AND _appliance_join.{self._column}={reference}{others.format(rowid)}",
        ]

    def forget(self, rows: int) -> list[str]:
        """Forget what was noted but for the newest ``rows`` rows: where a user's trigger keeps rows, none goes."""
        notes = f"FROM {SCRATCH} WHERE (shape,part)=({self.shape},{JOIN_PART})"
        # Of a row's notes any will do, because they stand together.
        newest = f"SELECT id {notes} GROUP BY {KEYS[0]} ORDER BY id DESC LIMIT 1 OFFSET {rows}"
        return [f"DELETE {notes} AND id<=({newest})"]

    def alone(self) -> str:
        """Say that a scratch row holds a group of a row that there is no copy of: a delete of it came to nothing."""
        copied = f"SELECT {KEYS[0]} FROM {SCRATCH} WHERE (shape,part)=({self.shape},0)"
        return f"part={JOIN_PART} AND {KEYS[0]} NOT IN ({copied})"

    def of_deleted(self) -> list[str]:
        """Write the groups of ``OLD`` into the outbox, before its image."""
        groups = ",".join(VALUES[:2])
        return [
            f"INSERT INTO _appliance_outbox(shape,op,{groups}) "
            f"SELECT {self.shape},{int(Op.GRANTS)},{groups} FROM {SCRATCH} WHERE {self.of('OLD')}"
        ]

    def _into(self) -> str:
        columns = ",".join([*KEYS[:2], *VALUES[:2]])
        return f"INSERT INTO {SCRATCH}(shape,part,{columns}) SELECT {self.shape},{JOIN_PART}"

    @property
    def _table(self) -> str:
        return quote_identifier(self.table[0])

    @property
    def _column(self) -> str:
        return quote_identifier(self.table[1])
