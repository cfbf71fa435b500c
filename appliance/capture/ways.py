"""The ways in which another row of a table can stand in the way of the row that is being written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from appliance.capture.expressions import collated, equal, vector
from appliance.capture.shape import Table, UniqueIndex
from appliance.capture.sql import tokens
from appliance.model import ascii_fold, quote_identifier

#: What any rowid can be called by, unless a column takes the name.
_ROWIDS: Final = ("rowid", "oid", "_rowid_")


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which a row can stand in the way of NEW.

    ``conflict`` says so of a row of the table, ``moved`` that an update may bring it about (``""``: any may), and
    ``columns`` are those whose update can (none: any can). ``search`` says that there is such a row; ``""``: only
    ``conflict`` can.
    """

    conflict: str
    moved: str
    columns: tuple[str, ...]
    search: str = ""


def ways(table: Table) -> list[Way]:
    """Give the ways in which another row of the table can stand in the way of NEW."""
    found = []
    if not table.without_rowid:
        rowid = str(table.rowid)
        conflict, moved = f"{rowid}=NEW.{rowid}", f"OLD.{rowid}<>NEW.{rowid}"
        found.append(Way(conflict, moved, _names_of_rowid(table), _search(table, rowid, f"NEW.{rowid}")))
    return found + [_way(table, unique) for unique in table.uniques if not unique.expression]


def _search(table: Table, name: str, value: str) -> str:
    """Say that a row of the table has this value: SQLite takes less for it than for a subquery with a condition."""
    return f"{value} IN (SELECT {name} FROM {quote_identifier(table.name)})"


def _names_of_rowid(table: Table) -> tuple[str, ...]:
    """Give all that an update can call the rowid by, as SQL."""
    names = [] if table.integer_key is None else [quote_identifier(table.integer_key)]
    return (*_ROWIDS, *names)


def _way(table: Table, unique: UniqueIndex) -> Way:
    table_columns = {each.name: each for each in table.columns}
    columns = [(quote_identifier(name), name, collation) for name, collation in unique.columns]
    compared = []
    for name, bare, collation in columns:
        column = table_columns[bare]
        # The comparison has the column's own collation, unless the index has another.
        other = "" if collation == column.collation else collation
        if column.instead is None:
            compared.append((name, f"NEW.{name}", other))
        else:  # which a REPLACE puts in the place of NULL after BEFORE triggers
            compared.append((collated(name, other, plain=""), f"ifnull(NEW.{name},{column.instead})", ""))
    conflict = equal(compared, plain="")
    moved = (
        f"{vector([f'OLD.{name} COLLATE BINARY' for name, _, _ in columns])} IS NOT "
        f"{vector([f'NEW.{name}' for name, _, _ in columns])}"
    )
    search = ""
    # IN does not search an index with a WHERE, nor one of 63 columns, as a WITHOUT ROWID table's key may be.
    if len(compared) == 1 and not (unique.where or table.without_rowid):
        ((name, value, other),) = compared
        if value == f"NEW.{name}":
            search = _search(table, name, collated(value, other, plain=""))
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
        return Way(conflict, moved, (), search)  # it changes with the columns that it is computed from
    names = [quote_identifier(name) for name in sorted(named)]
    return Way(conflict, moved, (*names, *(name for name in by_rowid if name not in names)), search)
