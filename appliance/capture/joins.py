"""The groups that a row of a standard table is joined to, noted while it is being deleted.

A delete is judged on the row as it was, and so on the groups that it had; but foreign keys take the join rows before
an AFTER DELETE trigger fires. So a BEFORE trigger copies them to the scratch table, beside the copies of rows that a
REPLACE may displace, with a ``part`` of their own; they share the row's fate, and go into the outbox right before its
old image, as ``GRANTS``.
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
    a scratch row keeps of the row, its ``reference_id`` last; ``is_old`` says that a scratch row is of ``OLD``.
    """

    shape: int
    table: tuple[str, str]
    kept: tuple[str, ...]
    is_old: str

    @property
    def of_old(self) -> str:
        """Say that a scratch row holds a group of ``OLD``."""
        return f"shape={self.shape} AND part={JOIN_PART} AND {self.is_old}"

    def note(self) -> list[str]:
        """Note the groups of ``OLD``, and forget what was noted of it by a delete that came to nothing."""
        values = ",".join(f"OLD.{name}" for name in self.kept)
        source = f"FROM {self._table} AS _appliance_join WHERE _appliance_join.{self._column}=OLD.{self.kept[-1]}"
        return [f"DELETE FROM {SCRATCH} WHERE {self.of_old}", f"{self._into()},{values},{_GROUPS} {source}"]

    def note_copied(self) -> str:
        """Note the groups of the rows that were copied because a REPLACE may displace them."""
        keys = KEYS[: len(self.kept)]
        # Compared as row values, because of the limit on an expression's depth.
        noted = f"SELECT {keys[0]} FROM {SCRATCH} WHERE (shape,part)=({self.shape},{JOIN_PART})"
        joined = f"_appliance_join.{self._column},_appliance_copy.shape,_appliance_copy.part"
        return (
            f"{self._into()},{','.join(f'_appliance_copy.{key}' for key in keys)},{_GROUPS} "
            f"FROM {SCRATCH} AS _appliance_copy, {self._table} AS _appliance_join "
            f"WHERE ({joined})=(_appliance_copy.{keys[-1]},{self.shape},0) "
            f"AND _appliance_copy.{keys[0]} NOT IN ({noted})"
        )

    def of_deleted(self) -> list[str]:
        """Write the groups of ``OLD`` into the outbox, before its image."""
        groups = ",".join(VALUES[:2])
        return [
            f"INSERT INTO _appliance_outbox(shape,op,{groups}) "
            f"SELECT {self.shape},{int(Op.GRANTS)},{groups} FROM {SCRATCH} WHERE {self.of_old}"
        ]

    def _into(self) -> str:
        columns = ",".join([*KEYS[: len(self.kept)], *VALUES[:2]])
        return f"INSERT INTO {SCRATCH}(shape,part,{columns}) SELECT {self.shape},{JOIN_PART}"

    @property
    def _table(self) -> str:
        return quote_identifier(self.table[0])

    @property
    def _column(self) -> str:
        return quote_identifier(self.table[1])
