"""What a table is to capture: which columns, which key, and which rows a REPLACE can displace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.capture.outbox import KEY_WIDTH
from appliance.model import Affinity, Column, Shape

Secret = Callable[[str, str, bool], bool]

#: The key of a standard table, and the column that stays in the file.
REFERENCE: Final = "reference_id"
LOCAL_KEY: Final = "id"
#: Columns of standard tables by which it is known who may see a row: without them open connections would not hear that
#: somebody may not any more. Of a table that joins rows to groups all are.
_RIGHTS: Final = (REFERENCE, "permission", "user_account_id", "usergroup_id")

#: How the name of each table ends that joins a standard table's rows to groups.
GROUP_JOIN: Final = "_has_usergroup_usergroup_id"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column as the schema has it. ``key`` is its place in the primary key from 1 on, 0 outside.

    ``generated``: its value is computed, when the row is written or, if ``virtual``, whenever it is read.
    ``nullable``: it may hold NULL.
    ``instead``: what a REPLACE puts in the place of a NULL that must not be (SQL); ``None``: nothing that is known.
    """

    name: str
    declared: str
    collation: str
    key: int = 0
    virtual: bool = False
    generated: bool = False
    nullable: bool = False
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """One UNIQUE index: its columns with their collations, and its WHERE. ``expression``: it has more than columns."""

    columns: tuple[tuple[str, str], ...]
    where: str | None = None
    expression: bool = False
    primary: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One ordinary table as the schema has it.

    ``rowid`` is the name its rowid can be had by, ``None`` for WITHOUT ROWID tables and where columns take all three
    names. ``integer_key`` is the column that is the rowid. ``nested``: while one of its rows is being written, others
    of it may be, by the user's triggers or foreign keys to itself.
    ``disturbed``: so may be between our BEFORE triggers and the write itself, by a BEFORE trigger of the user's.
    ``acted``: so may be between the write and our AFTER triggers, by what a foreign key's action leads to.
    ``standard``: it is one of ours. ``joins``: the table that joins its rows to groups, and the column that names them.
    ``accounts``: its rows are the users'. ``resolves``: it has a constraint with ON CONFLICT.
    """

    name: str
    columns: tuple[TableColumn, ...]
    uniques: tuple[UniqueIndex, ...] = ()
    strict: bool = False
    without_rowid: bool = False
    rowid: str | None = "rowid"
    integer_key: str | None = None
    nested: bool = False
    disturbed: bool = False
    acted: bool = False
    standard: bool = False
    joins: tuple[str, str] | None = None
    accounts: bool = False
    resolves: bool = False

    @property
    def key(self) -> tuple[TableColumn, ...]:
        """The primary key's columns, in the key's order."""
        return tuple(sorted((each for each in self.columns if each.key), key=lambda each: each.key))

    @property
    def replaceable(self) -> bool:
        """Whether a row that a REPLACE displaces can be told from the others by what a scratch row has room for."""
        width = len(self.key) + (not self.without_rowid)
        return width <= KEY_WIDTH and (self.without_rowid or self.rowid is not None)


def secrets_of(table: Table, secret: Secret) -> frozenset[str]:
    """Name the columns that are never captured, as they hold secrets.

    Patterns leave a table its key, and a standard table what rights stand on.
    """

    def is_kept(column: TableColumn) -> bool:
        if not table.standard:
            return column.key > 0
        return column.name in _RIGHTS or table.name.endswith(GROUP_JOIN)

    return frozenset(each.name for each in table.columns if secret(table.name, each.name, is_kept(each)))


def shape_of(table: Table, shape_id: int, secret: Secret) -> Shape:
    """Say what is captured of a table: all but VIRTUAL and secret columns, and the ``id`` of a standard table."""
    hidden = secrets_of(table, secret)
    kept = [each for each in table.columns if not each.virtual and each.name not in hidden]
    if table.standard:
        return _standard_shape(table, shape_id, kept)
    positions = {each.name: position for position, each in enumerate(kept)}
    key = table.key
    whole = all(each.name in positions for each in key)
    return Shape(
        id=shape_id,
        table=table.name,
        columns=tuple(Column(each.name, each.declared, _affinity(table, each), each.collation) for each in kept),
        key=tuple(positions[each.name] for each in key) if whole else (),
        rowid=not key and table.rowid is not None,
    )


def _standard_shape(table: Table, shape_id: int, kept: list[TableColumn]) -> Shape:
    kept = [each for each in kept if each.name != LOCAL_KEY]
    return Shape(
        id=shape_id,
        table=table.name,
        columns=tuple(Column(each.name, each.declared, _affinity(table, each), each.collation) for each in kept),
        key=tuple(position for position, each in enumerate(kept) if each.name == REFERENCE),
        standard=True,
    )


def _affinity(table: Table, column: TableColumn) -> Affinity:
    if table.strict and column.declared.upper() == "ANY":
        return Affinity.BLOB
    return Affinity.of(column.declared)


def covers(table: Table, shape: Shape) -> bool:
    """Whether the REPLACE recipe can tell the rows of a table apart; where not, it has the plain triggers only."""
    return table.replaceable and (not table.without_rowid or bool(shape.key))


def warnings(table: Table, shape: Shape) -> tuple[str, ...]:
    """Say what of a table is not captured as it should be, and why."""
    found = []
    if any(each.expression for each in table.uniques):
        found.append(
            "REPLACE not covered: it has a UNIQUE index on an expression; rows that INSERT OR REPLACE displaces "
            "through that index give no delete event"
        )
    if not covers(table, shape):
        found.append(
            "REPLACE not covered: rows that INSERT OR REPLACE displaces cannot be told apart, because the rowid has "
            f"no name, or the primary key a secret or more than {KEY_WIDTH} columns; they give no delete event"
        )
    return tuple(found)


def dump(shape: Shape) -> str:
    """Write down a shape, without its id and table."""
    columns = [[each.name, each.declared, each.affinity.value, each.collation] for each in shape.columns]
    layout: dict[str, object] = {"columns": columns, "key": shape.key, "rowid": shape.rowid}
    if shape.standard:
        layout["standard"] = True  # so that the layouts of other tables stay those of before there were standard ones
    return json.dumps(layout, ensure_ascii=False)


def load(shape_id: int, table: str, layout: str, encoding: str) -> Shape:
    """Read a shape that ``dump`` wrote, in a file that has this encoding for ever."""
    found = json.loads(layout)
    return Shape(
        id=shape_id,
        table=table,
        columns=tuple(
            Column(name, declared, Affinity(affinity), collation, encoding)
            for name, declared, affinity, collation in found["columns"]
        ),
        key=tuple(found["key"]),
        rowid=found["rowid"],
        standard=found.get("standard", False),
    )
