"""What the HTTP API must know of each table: all of its columns, its key, what it refers to.

Read from the schema, and again when that has changed. Works: plain functions on an open connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from appliance.capture.shape import Secret, Table, shape_of
from appliance.errors import Conflict
from appliance.model import Affinity, Column, Shape, SQLiteValue, ascii_fold, quote_identifier
from appliance.store.file import connections, schema
from appliance.store.tables import catalog


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key of one column: ``column`` holds the ``target_column`` of a row of ``table``."""

    column: str
    table: str
    target_column: str


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Any foreign key: ``columns`` hold the ``target_columns`` of a row of ``table``; where there are none, its key."""

    columns: tuple[str, ...]
    table: str
    target_columns: tuple[str, ...]


@dataclass(frozen=True)
class Resource:
    """One table as the API has it.

    ``shape`` are the columns that are sent. ``not_null`` and ``defaulted`` are folded names: columns that take no NULL,
    and those that have a value of their own when none is given. ``references`` are its foreign keys of one column,
    ``foreign`` all of them.
    """

    table: Table
    shape: Shape
    not_null: frozenset[str] = frozenset()
    defaulted: frozenset[str] = frozenset()
    references: tuple[Reference, ...] = ()
    foreign: tuple[ForeignKey, ...] = ()

    @property
    def name(self) -> str:
        """The table's name as it is spelled in the schema."""
        return self.table.name

    @cached_property
    def sent(self) -> Mapping[str, Column]:
        """The columns that are sent, by folded name."""
        return {ascii_fold(column.name): column for column in self.shape.columns}

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """All columns, those that are never sent included, by folded name."""
        every = {
            ascii_fold(each.name): Column(each.name, each.declared, Affinity.of(each.declared), each.collation)
            for each in self.table.columns
        }
        return every | dict(self.sent)

    @cached_property
    def hidden(self) -> frozenset[str]:
        """The names of the columns that are never sent."""
        return frozenset(each.name for each in self.table.columns if ascii_fold(each.name) not in self.sent)

    @cached_property
    def generated(self) -> frozenset[str]:
        """The folded names of the columns that are computed."""
        return frozenset(ascii_fold(each.name) for each in self.table.columns if each.generated or each.virtual)

    @cached_property
    def needed(self) -> frozenset[str]:
        """The folded names of the columns that must not be NULL in a row that is to be found again.

        SQLite lets NULL into a primary key, any number of times; such a row would have no address.
        """
        keys = {ascii_fold(each.name) for each in self.table.key if each.name != self.table.integer_key}
        return self.not_null | keys

    @cached_property
    def place(self) -> tuple[str, ...]:
        """The SQL expressions that say which row is which: the rowid, or the key of a table that has none."""
        if self.table.rowid is not None:
            return (self.table.rowid,)
        return tuple(quote_identifier(each.name) for each in self.table.key)

    @property
    def scattered(self) -> bool:
        """Whether the rows stand in the file in another order than that of their key, as those of a standard table."""
        keys = [self.shape.columns[position].name for position in self.shape.key]
        return bool(keys) and self.table.rowid is not None and keys != [self.table.integer_key]


class Resources:
    """The resources of a file, read once for each version of its schema."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._known: tuple[int, Mapping[str, Resource]] = (-1, {})

    def read(self, db: sqlite3.Connection) -> Mapping[str, Resource]:
        """Give them by folded name, as ``db`` sees the schema now, whichever connection that is."""
        version, known = schema.version(db), self._known
        if known[0] != version:
            # One assignment, because readers do this in threads of their own.
            known = self._known = (version, _read(db, self._secret))
        return known[1]


def refers_to_a_row(db: sqlite3.Connection, resource: Resource, column: str, value: SQLiteValue) -> bool:
    """Whether the foreign keys of a column take a value; a deferred one says so only for the whole transaction."""
    parents = [each for each in resource.references if ascii_fold(each.column) == ascii_fold(column)]
    return all(
        db.execute(
            f"SELECT 1 FROM main.{quote_identifier(each.table)} WHERE {quote_identifier(each.target_column)} = ?",
            (value,),
        ).fetchone()
        for each in parents
    )


def parent(
    db: sqlite3.Connection, resource: Resource, place: Sequence[SQLiteValue], key: ForeignKey, target: Resource
) -> str | None:
    """Give the ``reference_id`` of the row of a standard table that the row at a place refers to; "" if it does not.

    ``None``: it does, and that is not there.
    """
    named = key.target_columns or [each.name for each in target.table.key]
    pairs = [(quote_identifier(one), quote_identifier(other)) for one, other in zip(named, key.columns, strict=True)]
    refers = " AND ".join(f"child.{column} IS NOT NULL" for _, column in pairs)
    same = " AND ".join(f"parent.{one} = child.{other}" for one, other in pairs)
    there = " AND ".join(f"{each} IS ?" for each in resource.place)
    sql = (
        f"SELECT {refers}, (SELECT reference_id FROM main.{quote_identifier(target.name)} AS parent WHERE {same}) "
        f"FROM main.{quote_identifier(resource.name)} AS child WHERE {there}"
    )
    row: tuple[int, str | None] = db.execute(sql, tuple(place)).fetchone()
    return row[1] if row[0] else ""


def no_parent() -> Conflict:
    """Give the refusal of a foreign key that refers to no row."""
    return Conflict("a column refers to a row that is not there, or rows refer to the value that is to be changed")


def _read(db: sqlite3.Connection, secret: Secret) -> Mapping[str, Resource]:
    every = catalog.tables(db)
    return connections.tolerant(db, lambda: {ascii_fold(each.name): _resource(db, each, secret) for each in every})


def _resource(db: sqlite3.Connection, table: Table, secret: Secret) -> Resource:
    name = quote_identifier(table.name)
    not_null, defaulted = set(), set()
    for _, column, _, required, default, key, _ in db.execute(f"PRAGMA main.table_xinfo({name})").fetchall():
        if required or (key and table.without_rowid):
            not_null.add(ascii_fold(column))
        if default is not None or column == table.integer_key:
            defaulted.add(ascii_fold(column))
    parts: dict[int, list[tuple[str, str, str | None]]] = {}
    for number, _, target, column, target_column, *_ in db.execute(f"PRAGMA main.foreign_key_list({name})").fetchall():
        parts.setdefault(number, []).append((column, target, target_column))
    foreign = tuple(
        ForeignKey(tuple(each[0] for each in some), some[0][1], tuple(each[2] for each in some if each[2] is not None))
        for some in parts.values()
    )
    return Resource(
        table=table,
        shape=shape_of(table, 0, secret),
        not_null=frozenset(not_null),
        defaulted=frozenset(defaulted),
        references=tuple(
            Reference(each.columns[0], each.table, each.target_columns[0])
            for each in foreign
            if len(each.columns) == len(each.target_columns) == 1
        ),
        foreign=foreign,
    )
