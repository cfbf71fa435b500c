"""The ways in which another row of a table can stand in the way of the row that is being written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from appliance.capture.expressions import equal, vector
from appliance.capture.shape import Table, UniqueIndex
from appliance.capture.sql import tokens
from appliance.model import ascii_fold, quote_identifier

#: What any rowid can be called by, unless a column takes the name.
_ROWIDS: Final = ("rowid", "oid", "_rowid_")
#: Of so many columns of an index every choice may be NULL; of more, one of them, or all.
_FILLED: Final = 3


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which a row can stand in the way of NEW.

    ``conflict`` says so of a row of the table, ``moved`` that an update may bring it about (``""``: any may), and
    ``columns`` are those whose update can (none: any can).
    """

    conflict: str
    moved: str
    columns: tuple[str, ...]


def ways(table: Table) -> list[Way]:
    """Give the ways in which another row of the table can stand in the way of NEW."""
    found = []
    if not table.without_rowid:
        rowid = str(table.rowid)
        found.append(Way(f"{rowid}=NEW.{rowid}", f"OLD.{rowid}<>NEW.{rowid}", _names_of_rowid(table)))
    return found + [way for unique in table.uniques if not unique.expression for way in _ways(table, unique)]


def _names_of_rowid(table: Table) -> tuple[str, ...]:
    """Give all that an update can call the rowid by, as SQL."""
    names = [] if table.integer_key is None else [quote_identifier(table.integer_key)]
    return (*_ROWIDS, *names)


def _ways(table: Table, unique: UniqueIndex) -> Iterator[Way]:
    """Give the way by an index, and one for each choice of NULLs that a REPLACE, after BEFORE triggers, would fill."""
    yield _way(table, unique, {})
    indexed = {name for name, _ in unique.columns}
    filled = {each.name: each.instead for each in table.columns if each.instead and each.name in indexed}
    for number in range(1, len(filled) + 1) if len(filled) <= _FILLED else (1, len(filled)):
        for some in combinations(filled.items(), number):
            yield _way(table, unique, dict(some))


def _way(table: Table, unique: UniqueIndex, filled: Mapping[str, str]) -> Way:
    declared = {each.name: each.collation for each in table.columns}
    columns = [(quote_identifier(name), name, collation) for name, collation in unique.columns]
    # The comparison has the column's own collation, unless the index has another.
    conflict = equal(
        [
            (name, filled.get(bare, f"NEW.{name}"), "" if collation == declared.get(bare) else collation)
            for name, bare, collation in columns
        ]
        + [("1", f"NEW.{quote_identifier(name)} IS NULL", "") for name in filled],
        plain="",
    )
    moved = (
        f"{vector([f'OLD.{name} COLLATE BINARY' for name, _, _ in columns])} IS NOT "
        f"{vector([f'NEW.{name}' for name, _, _ in columns])}"
    )
    named = {name for name, _ in unique.columns}
    by_rowid: tuple[str, ...] = ()
    if unique.where:
        # Without its own WHERE a partial index could not be searched: the whole table would be, for each insert.
        # And a row may enter it by a column of its WHERE.
        written = {ascii_fold(token.name) for token in tokens(unique.where)}
        named |= {each.name for each in table.columns if ascii_fold(each.name) in written}
        conflict, moved = f"{conflict} AND ({unique.where})", ""
        if not table.without_rowid and (table.integer_key in named or not written.isdisjoint(_ROWIDS)):
            by_rowid = _names_of_rowid(table)
    if any(each.generated and each.name in named for each in table.columns):
        return Way(conflict, moved, ())  # it changes with the columns that it is computed from
    names = [quote_identifier(name) for name in sorted(named)]
    return Way(conflict, moved, (*names, *(name for name in by_rowid if name not in names)))
