"""What there is in a file: its ordinary tables, read from its schema. Works: plain functions on an open connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from appliance.capture.shape import Table, TableColumn, UniqueIndex
from appliance.capture.sql import (
    column_collations,
    constant,
    fires_before_a_write,
    functions,
    index_predicate,
    resolves_conflicts,
    virtual_module,
)
from appliance.model import KEPT_PREFIXES, Shape, Topic, ascii_fold, quote_identifier
from appliance.protocol.collations import COLLATIONS
from appliance.protocol.values import legible
from appliance.store.file import connections
from appliance.store.file.texts import is_utf_8
from appliance.store.tables import standard

#: ``hidden`` of ``table_xinfo``: 1 a virtual table's hidden column, 2 a VIRTUAL generated column, 3 a STORED one.
_VIRTUAL = 2
_GENERATED = (2, 3)
#: Functions that every SQLite has, so that a trigger may call them under any writer; ``like`` and ``glob`` may be
#: replaced by an application, but are there. What else a partial index calls, its writers need only for its columns.
_EVERYWHERE = frozenset(
    ("abs", "char", "coalesce", "glob", "hex", "ifnull", "instr", "length", "like", "lower", "ltrim", "max", "min",
     "nullif", "quote", "replace", "round", "rtrim", "substr", "trim", "typeof", "unicode", "upper", "zeroblob")
)  # fmt: skip
#: What a rowid can be called by, where no column takes the name.
_ROWIDS = ("rowid", "_rowid_", "oid")


@dataclass(frozen=True, slots=True)
class Settings:
    """What commands and requests have set, as of one generation: user topics and unwatched tables, names folded."""

    generation: int
    topics: Mapping[str, Topic]
    unwatched: frozenset[str]


@dataclass(frozen=True, slots=True)
class Catalog:
    """All topics there are, and what has changed since the catalogue before it.

    ``tables`` by folded name; ``shapes`` by id, old ones included. ``changed`` and ``dropped`` name tables, ``taken``
    the user topics that ended because a table has their name. ``skipped`` and ``warnings`` say which tables are not,
    or not fully, captured and why. Events up to ``highest`` may be of the catalogue before.
    ``found_version`` and ``schema_version`` are the schema's before and after our own changes to it, ``foreign``
    is all of it that is not ours: SQL by type and name. ``found_texts`` and ``texts`` are our triggers' before and
    after (``standing.texts``).
    """

    tables: Mapping[str, Shape]
    settings: Settings
    shapes: Mapping[int, Shape]
    found_version: int
    schema_version: int
    foreign: Mapping[str, str | None]
    found_texts: Mapping[int, bytes]
    texts: Mapping[int, bytes]
    highest: int
    changed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def statements(before: Mapping[str, str | None], after: Mapping[str, str | None]) -> int:
    """Count the statements that it takes at least to make one schema of the other, each as ``Catalog.foreign``.

    A statement brings one thing into the schema, but for what SQLite makes for itself, and takes one table or view out
    of it; RENAME TO does both. What it changes or drops beside, such as a renamed column's indexes, is any number.
    """
    if before == after:
        return 0
    come = [name for name in after.keys() - before.keys() if not name.partition(" ")[2].startswith("sqlite_")]
    gone = [name for name in before.keys() - after.keys() if name.startswith(("table ", "view "))]
    return max(1, len(come), len(gone))


def tables(db: sqlite3.Connection) -> list[Table]:
    """List the tables that can be captured, by name: no views, no virtual, shadow, temporary or internal tables."""
    return tables_and_unnamed(db)[0]


def tables_and_unnamed(db: sqlite3.Connection) -> tuple[list[Table], list[str]]:
    """List those, and name others that are called, or have a column that is called, what is not UTF-8.

    By no name could they be asked for. Elsewhere in the schema, as in a comment, such text is nobody's trouble.
    """
    found = connections.tolerant(db, lambda: _tables(db))
    return list(filter(_is_named, found)), [legible(each.name) for each in found if not _is_named(each)]


def _is_named(table: Table) -> bool:
    return all(map(is_utf_8, (table.name, *(column.name for column in table.columns))))


def _tables(db: sqlite3.Connection) -> list[Table]:
    listed = db.execute("PRAGMA main.table_list").fetchall()
    unknown = _of_unknown_module(db)
    ordinary = [
        (name, bool(without_rowid), bool(strict))
        for _, name, kind, _, without_rowid, strict in listed
        if kind == "table"
        and not ascii_fold(name).startswith(KEPT_PREFIXES)
        and ascii_fold(name).rpartition("_")[0] not in unknown
    ]
    foreign = _foreign_triggers(db)
    nested, acted = _nested(db, [name for name, *_ in ordinary if is_utf_8(name)], {table for table, _ in foreign})
    disturbed = {table for table, sql in foreign if fires_before_a_write(sql)}
    ours = standard.registered(db)
    # To look for each by its name would read the whole schema, with all our triggers, once for each.
    made = dict(db.execute("SELECT name, sql FROM main.sqlite_schema WHERE type='table'").fetchall())
    joins = {ascii_fold(each.object_table): (each.table, each.object_column) for each in ours.values()
             if each.object_table is not None and each.object_column is not None}  # fmt: skip
    found = [
        replace(
            _table(db, *each, made[each[0]]),
            nested=ascii_fold(each[0]) in nested,
            disturbed=ascii_fold(each[0]) in disturbed,
            acted=ascii_fold(each[0]) in acted,
            standard=ascii_fold(each[0]) in ours,
            joins=joins.get(ascii_fold(each[0])) if ascii_fold(each[0]) in ours else None,
            accounts=ascii_fold(each[0]) in ours and ours[ascii_fold(each[0])].kind is standard.Kind.ACCOUNT,
        )
        for each in ordinary
    ]
    return sorted(found, key=lambda table: table.name)


def table(db: sqlite3.Connection, name: str) -> Table | None:
    """Read one table, for what a reader must know of it; ``None`` when there is none."""
    return connections.tolerant(db, lambda: _one(db, name))


def _one(db: sqlite3.Connection, name: str) -> Table | None:
    row = db.execute(
        "SELECT name, wr, strict FROM pragma_table_list WHERE schema='main' AND type='table' AND name=? COLLATE NOCASE",
        (name,),
    ).fetchone()
    if row is None:
        return None
    (sql,) = db.execute("SELECT sql FROM main.sqlite_schema WHERE type='table' AND name=?", row[:1]).fetchone()
    return _table(db, row[0], bool(row[1]), bool(row[2]), sql)


def is_virtual(db: sqlite3.Connection, table: str, column: str) -> bool:
    """Whether a column is computed whenever it is read, and so never captured."""
    rows = connections.fetch(db, f"PRAGMA main.table_xinfo({quote_identifier(table)})")
    return any(row[1] == column and row[6] == _VIRTUAL for row in rows)


def _of_unknown_module(db: sqlite3.Connection) -> set[str]:
    """Name (folded) the virtual tables whose module is not here: SQLite does not know their shadow tables for such."""
    made = db.execute("SELECT name, sql FROM main.sqlite_schema WHERE type='table' AND rootpage=0").fetchall()
    if not made:
        return set()
    here = {ascii_fold(name) for (name,) in db.execute("PRAGMA module_list").fetchall()}
    return {ascii_fold(name) for name, sql in made if ascii_fold(virtual_module(sql) or "") not in here}


def _table(db: sqlite3.Connection, name: str, without_rowid: bool, strict: bool, sql: str | None) -> Table:
    if not is_utf_8(name):  # it cannot be asked for
        return Table(name, ())
    collations = {ascii_fold(column): each for column, each in column_collations(sql or "").items()}
    columns = tuple(
        TableColumn(
            column,
            legible(declared),
            legible(collations.get(ascii_fold(column), "BINARY")),
            key,
            hidden == _VIRTUAL,
            hidden in _GENERATED,
            not not_null,
            _instead(default) if not_null and default is not None else None,
        )
        for _, column, declared, not_null, default, key, hidden in db.execute(
            f"PRAGMA main.table_xinfo({quote_identifier(name)})"
        ).fetchall()
    )
    uniques = _uniques(db, name, [*(column.name for column in columns), *(_ROWIDS * (not without_rowid))])
    taken = {ascii_fold(column.name) for column in columns}
    keys = [column for column in columns if column.key]
    # An INTEGER PRIMARY KEY is the rowid, and the only primary key that has no index.
    integer_key = None
    if not without_rowid and len(keys) == 1 and not any(unique.primary for unique in uniques):
        integer_key = keys[0].name
        columns = tuple(replace(each, nullable=each.nullable and not each.key) for each in columns)
    rowid = None if without_rowid else next((each for each in _ROWIDS if each not in taken), None)
    if rowid is None and integer_key is not None:
        rowid = quote_identifier(integer_key)
    return Table(
        name=name,
        columns=columns,
        uniques=uniques,
        strict=strict,
        without_rowid=without_rowid,
        rowid=rowid,
        integer_key=integer_key,
        resolves=resolves_conflicts(sql or ""),
    )


def _instead(default: str) -> str | None:
    """Give what a REPLACE puts in the place of NULL, where a trigger can say it under any writer."""
    value = constant(default)
    return value if value is not None and is_utf_8(value) and functions(value) <= _EVERYWHERE else None


def missing_collation(table: Table) -> str | None:
    """Name the collation without which SQLite cannot read a table: an application's, of the key of a WITHOUT ROWID one.

    What a table with a rowid is read by needs no key.
    """
    if not table.without_rowid:
        return None
    key = (collation for unique in table.uniques if unique.primary for _, collation in unique.columns)
    return next((each for each in key if each.upper() not in COLLATIONS), None)


def _uniques(db: sqlite3.Connection, table: str, columns: list[str]) -> tuple[UniqueIndex, ...]:
    found = []
    for _, index, unique, origin, partial in db.execute(
        f"PRAGMA main.index_list({quote_identifier(table)})"
    ).fetchall():
        if not unique:
            continue
        if not is_utf_8(index):  # it cannot be asked for
            found.append(UniqueIndex(columns=(), where=None, expression=True, primary=False))
            continue
        terms = [
            (column, collation)
            for _, position, column, _, collation, is_key in db.execute(
                f"PRAGMA main.index_xinfo({quote_identifier(index)})"
            ).fetchall()
            if is_key
        ]
        where = None
        if partial:
            (sql,) = db.execute("SELECT sql FROM main.sqlite_schema WHERE name=? AND type='index'", (index,)).fetchone()
            where = index_predicate(sql, columns)
            if where is not None and not (is_utf_8(where) and functions(where) <= _EVERYWHERE):
                where = None
        found.append(
            UniqueIndex(
                columns=tuple((column, collation) for column, collation in terms if column is not None),
                where=where,
                expression=any(column is None for column, _ in terms) or (bool(partial) and where is None),
                primary=origin == "pk",
            )
        )
    return tuple(sorted(found, key=repr))


def _nested(db: sqlite3.Connection, names: list[str], triggered: set[str]) -> tuple[set[str], set[str]]:
    """Name (folded) the tables whose rows may be written while one of them is being written; and where an action leads.

    That is where a foreign key's action, or a chain of them, comes to a table with a trigger of the user's, which may
    write anything, or back to the table.
    """
    children: dict[str, set[str]] = {}
    for name in names:
        for row in db.execute(f"PRAGMA main.foreign_key_list({quote_identifier(name)})").fetchall():
            children.setdefault(ascii_fold(row[2]), set()).add(ascii_fold(name))
    nested, acted = set(), set()
    for name in map(ascii_fold, names):
        reached: set[str] = set()
        ahead = [name]
        while ahead:
            for child in children.get(ahead.pop(), set()) - reached:
                reached.add(child)
                ahead.append(child)
        if name in reached or not triggered.isdisjoint(reached):
            acted.add(name)
        if name in acted or name in triggered:
            nested.add(name)
    return nested, acted


def _foreign_triggers(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """Give the table (folded) and the SQL of each trigger that is not ours."""
    rows = db.execute(
        "SELECT tbl_name, sql FROM main.sqlite_schema WHERE type='trigger' "
        "AND name NOT LIKE '\\_appliance\\_%' ESCAPE '\\'"
    ).fetchall()
    return [(ascii_fold(table), sql) for table, sql in rows]
