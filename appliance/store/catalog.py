"""The ordinary tables of a file, read from its schema. Works: plain functions on an open connection."""

from __future__ import annotations

import sqlite3

from appliance.capture.shape import Table, TableColumn, UniqueIndex
from appliance.capture.sql import column_collations, index_predicate
from appliance.model import INTERNAL_PREFIX, ascii_fold, quote_identifier

#: ``hidden`` of ``table_xinfo``: 1 a virtual table's hidden column, 2 a VIRTUAL generated column, 3 a STORED one.
_VIRTUAL = 2
#: What a rowid can be called by, where no column takes the name.
_ROWIDS = ("rowid", "_rowid_", "oid")


def tables(db: sqlite3.Connection) -> list[Table]:
    """List the tables that can be captured, by name: no views, no virtual, shadow, temporary or internal tables."""
    found = []
    listed = db.execute("PRAGMA main.table_list").fetchall()
    for _, name, kind, _, without_rowid, strict in listed:
        folded = ascii_fold(name)
        if kind == "table" and not folded.startswith(("sqlite_", ascii_fold(INTERNAL_PREFIX))):
            found.append(_table(db, name, bool(without_rowid), bool(strict)))
    return sorted(found, key=lambda table: table.name)


def _table(db: sqlite3.Connection, name: str, without_rowid: bool, strict: bool) -> Table:
    (sql,) = db.execute("SELECT sql FROM main.sqlite_schema WHERE type='table' AND name=?", (name,)).fetchone()
    collations = {ascii_fold(column): each for column, each in column_collations(sql or "").items()}
    columns = tuple(
        TableColumn(column, declared, collations.get(ascii_fold(column), "BINARY"), key, hidden == _VIRTUAL)
        for _, column, declared, _, _, key, hidden in db.execute(
            f"PRAGMA main.table_xinfo({quote_identifier(name)})"
        ).fetchall()
    )
    uniques = _uniques(db, name)
    taken = {ascii_fold(column.name) for column in columns}
    keys = [column for column in columns if column.key]
    # An INTEGER PRIMARY KEY is the rowid, and the only primary key that has no index.
    integer_key = None
    if not without_rowid and len(keys) == 1 and not any(unique.primary for unique in uniques):
        integer_key = keys[0].name
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
        nested=_nested(db, name),
    )


def _uniques(db: sqlite3.Connection, table: str) -> tuple[UniqueIndex, ...]:
    found = []
    for _, index, unique, origin, partial in db.execute(
        f"PRAGMA main.index_list({quote_identifier(table)})"
    ).fetchall():
        if not unique:
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
            where = index_predicate(sql)
        found.append(
            UniqueIndex(
                columns=tuple((column, collation) for column, collation in terms if column is not None),
                where=where,
                expression=any(column is None for column, _ in terms) or (bool(partial) and where is None),
                primary=origin == "pk",
            )
        )
    return tuple(sorted(found, key=repr))


def _nested(db: sqlite3.Connection, table: str) -> bool:
    """Whether other rows of the table may be written while one of them is being written."""
    others = db.execute(
        "SELECT count(*) FROM main.sqlite_schema WHERE type='trigger' AND tbl_name=? COLLATE NOCASE "
        "AND name NOT LIKE '\\_appliance\\_%' ESCAPE '\\'",
        (table,),
    ).fetchone()[0]
    itself = any(
        ascii_fold(row[2]) == ascii_fold(table)
        for row in db.execute(f"PRAGMA main.foreign_key_list({quote_identifier(table)})").fetchall()
    )
    return others > 0 or itself
