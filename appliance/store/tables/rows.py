"""The rows of a table, read and written for one request. Works: plain functions on an open connection.

A page is read by its key: what comes after the last row of the page before is one comparison, which an index answers,
where an OFFSET would read every row again that it skips.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from appliance.errors import Conflict, TooLarge, Unavailable
from appliance.model import Image, SQLiteValue, ascii_fold, quote_identifier
from appliance.protocol.collations import COLLATIONS
from appliance.store.file.texts import placeholder, text
from appliance.store.tables.refusals import refusals
from appliance.store.tables.resources import Resource

#: An SQL expression and the values that are bound in it.
Clause: TypeAlias = tuple[str, tuple[SQLiteValue, ...]]

#: A page ends early when its values are longer than this, bytes; there is always one row.
PAGE_BYTES: Final = 8 << 20
#: So many values are bound in one statement at most.
BATCH: Final = 500
#: After so many steps of SQLite's machine (about 0.1 ms) the time is looked at.
STEPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Term:
    """One term of an order. ``position`` is that of its column in the shape; ``None`` is the rowid.

    ``through``: for it SQLite reads the table from end to end and sorts, and takes no index.
    """

    column: str
    position: int | None
    descending: bool = False
    nullable: bool = True
    through: bool = False

    @property
    def sql(self) -> str:
        """Give how it is written; a unary plus says that no index is to be taken.

        https://sqlite.org/optoverview.html#disqualifying_where_clause_terms_using_unary_
        """
        return f"+{self.column}" if self.through else self.column


@dataclass(frozen=True, slots=True)
class Found:
    """One row: ``place`` says where it is, in the terms of ``Resource.place``."""

    place: tuple[SQLiteValue, ...]
    image: Image


@contextmanager
def reading(db: sqlite3.Connection, *, budget_s: float) -> Iterator[None]:
    """Read in one transaction, for ``budget_s`` seconds at most. Text that is not UTF-8 is read as ``text`` does.

    Raises ``Unavailable`` when the time is over.
    """
    deadline = time.monotonic() + budget_s
    db.execute("BEGIN")
    db.text_factory = text
    db.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_INTERRUPT:
            raise
        raise Unavailable(
            f"this needs to look at more rows than {budget_s:g} s allow; filter and sort by columns that have an index"
        ) from None
    finally:
        db.set_progress_handler(None, 0)
        db.execute("COMMIT")
        db.text_factory = str


def key_terms(resource: Resource, *, descending: bool = False) -> list[Term]:
    """Give the order of a table's key, in which no two rows are equal."""
    shape = resource.shape
    foreign = any(shape.columns[position].collation.upper() not in COLLATIONS for position in shape.key)
    if not shape.key or (foreign and resource.table.rowid is not None):
        return [Term(resource.place[0], None, descending, nullable=False)]
    terms = [column_term(resource, position, descending=descending) for position in shape.key]
    if any(term.nullable for term in terms) and resource.table.rowid is not None:
        terms.append(Term(resource.table.rowid, None, descending, nullable=False))  # NULLs in a key are not unique
    return terms


def column_term(resource: Resource, position: int, *, descending: bool = False) -> Term:
    """Give an order by one column."""
    name = resource.shape.columns[position].name
    nullable = ascii_fold(name) not in resource.not_null and name != resource.table.integer_key
    return Term(_comparable(resource, position), position, descending, nullable)


def through(terms: Sequence[Term]) -> list[Term]:
    """Give the same order so that the table is read from end to end for it."""
    return [replace(term, through=True) for term in terms]


def _comparable(resource: Resource, position: int) -> str:
    """Give a column as it is compared here: bytewise where its collation is an application's, which is not there."""
    column = resource.shape.columns[position]
    return quote_identifier(column.name) + " COLLATE BINARY" * (column.collation.upper() not in COLLATIONS)


def at(found: Found, terms: Sequence[Term]) -> tuple[SQLiteValue, ...]:
    """Give the values of a row by which an order puts it in its place."""
    return tuple(found.place[0] if term.position is None else found.image.values[term.position] for term in terms)


def after(terms: Sequence[Term], values: Sequence[SQLiteValue]) -> Clause:
    """Say that a row comes after the one that has these values, in this order.

    NULL is the least of all. The bound on the first term is implied by the rest: it is what an index can answer.
    """
    sql = ""
    parameters: tuple[SQLiteValue, ...] = ()
    for term, value in zip(reversed(terms), reversed(values), strict=True):
        bound, one = placeholder(value)
        beyond, beyond_parameters = _beyond(term, value)
        if not sql:
            sql, parameters = beyond, beyond_parameters
        else:
            sql = f"{beyond} OR ({term.sql} IS {bound} AND ({sql}))"
            parameters = (*beyond_parameters, one, *parameters)
    first, value = terms[0], values[0]
    if len(terms) > 1 and value is not None and not (first.descending and first.nullable):
        bound, one = placeholder(value)
        sql, parameters = f"{first.sql} {'<=' if first.descending else '>='} {bound} AND ({sql})", (one, *parameters)
    return sql, parameters


def _beyond(term: Term, value: SQLiteValue) -> Clause:
    if value is None:
        return ("0", ()) if term.descending else (f"{term.sql} IS NOT NULL", ())
    bound, one = placeholder(value)
    if not term.descending:
        return f"{term.sql} > {bound}", (one,)
    beyond = f"{term.sql} < {bound}"
    return (f"({beyond} OR {term.sql} IS NULL)" if term.nullable else beyond), (one,)


def page_sql(resource: Resource, where: Sequence[Clause], order: Sequence[Term], limit: int, offset: int = 0) -> Clause:
    """Give the SELECT of one page."""
    conditions = " AND ".join(f"({sql})" for sql, _ in where)
    ordered = ", ".join(term.sql + " DESC" * term.descending for term in order)
    sql = f"SELECT {_selected(resource)} FROM main.{quote_identifier(resource.name)}"
    sql += f" WHERE {conditions}" * bool(conditions) + f" ORDER BY {ordered} LIMIT ?" + " OFFSET ?" * bool(offset)
    bound = tuple(value for _, parameters in where for value in parameters)
    return sql, (*bound, limit, *((offset,) if offset else ()))


def page(
    db: sqlite3.Connection,
    resource: Resource,
    where: Sequence[Clause],
    order: Sequence[Term],
    limit: int,
    offset: int = 0,
) -> tuple[list[Found], bool]:
    """Read at most ``limit`` rows, and say whether there are more. Raises ``sqlite3.Error``."""
    cursor = db.execute(*page_sql(resource, where, order, limit + 1, offset))
    found: list[Found] = []
    size = 0
    for row in cursor:
        if len(found) == limit or (found and size > PAGE_BYTES):
            cursor.close()
            return found, True
        found.append(_found(resource, row))
        size += _size(row)
    return found, False


def count(db: sqlite3.Connection, resource: Resource, where: Sequence[Clause], most: int) -> int:
    """Count rows, but no further than ``most``."""
    conditions = " AND ".join(f"({sql})" for sql, _ in where)
    sql = f"SELECT count(*) FROM (SELECT 1 FROM main.{quote_identifier(resource.name)} WHERE {conditions} LIMIT ?)"
    bound = [value for _, parameters in where for value in parameters]
    (found,) = db.execute(sql, (*bound, most)).fetchone()
    return int(found)


def referred(db: sqlite3.Connection, resource: Resource, references: Sequence[str], may: Clause) -> list[Found]:
    """Read the rows of a standard table that have these ``reference_id``s, where a condition on them holds.

    Raises ``TooLarge`` when they are longer than a page.
    """
    found: list[Found] = []
    size = 0
    for begin in range(0, len(references), BATCH):
        batch = tuple(references[begin : begin + BATCH])
        named = (f"reference_id IN ({','.join('?' * len(batch))})", batch)
        sql, bound = page_sql(resource, [named, may], [Term("reference_id", None)], len(batch))
        for row in db.execute(sql, bound):
            size += _size(row)
            if size > PAGE_BYTES:
                raise TooLarge(
                    f"the rows to be included are longer than {PAGE_BYTES} bytes; ask for fewer of them (page[size])",
                    parameter="include",
                )
            found.append(_found(resource, row))
    return found


def _size(row: Sequence[SQLiteValue]) -> int:
    return sum([len(value) for value in row if isinstance(value, (str, bytes))])


def find(db: sqlite3.Connection, resource: Resource, key: Sequence[SQLiteValue]) -> Found | None:
    """Read the row that has this key; ``None`` when there is none, or, for a key with NULL, when it is not one row."""
    names = [_comparable(resource, position) for position in resource.shape.key]
    return _one(db, resource, names or [resource.place[0]], key)


def standing(db: sqlite3.Connection, resource: Resource, values: Sequence[SQLiteValue]) -> Found | None:
    """Read the row that has these values in the order of the key (``key_terms``); ``None`` when there is none."""
    return _one(db, resource, [term.column for term in key_terms(resource)], values)


def _at_place(db: sqlite3.Connection, resource: Resource, place: Sequence[SQLiteValue]) -> Found | None:
    return _one(db, resource, resource.place, place)


def _one(
    db: sqlite3.Connection, resource: Resource, names: Sequence[str], values: Sequence[SQLiteValue]
) -> Found | None:
    bound = map(placeholder, values)
    where = [(f"{name} IS {sql}", (value,)) for name, (sql, value) in zip(names, bound, strict=True)]
    sql, parameters = page_sql(resource, where, [Term(names[0], None)], 2)
    rows = db.execute(sql, parameters).fetchall()
    return _found(resource, rows[0]) if len(rows) == 1 else None


def satisfies(db: sqlite3.Connection, resource: Resource, place: Sequence[SQLiteValue], condition: Clause) -> bool:
    """Say whether a row satisfies a condition on its table."""
    sql, parameters = condition
    table = quote_identifier(resource.name)
    return (
        db.execute(f"SELECT 1 FROM main.{table} WHERE {_is(resource)} AND {sql}", (*place, *parameters)).fetchone()
        is not None
    )


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """Read on the writer's connection, inside its transaction, text that is not UTF-8, too."""
    db.text_factory = text
    try:
        yield
    finally:
        db.text_factory = str


def insert(db: sqlite3.Connection, resource: Resource, values: Mapping[str, SQLiteValue]) -> Found | None:
    """Insert a row; give it as it then stands, ``None`` when a trigger of the user's has moved or removed it.

    ``values`` go by column name. Raises ``RequestError`` for what the file's constraints refuse.
    """
    names = ", ".join(map(quote_identifier, values))
    given = f"({names}) VALUES({', '.join('?' * len(values))})" if values else "DEFAULT VALUES"
    sql = f"INSERT {_or_abort(resource)}INTO main.{quote_identifier(resource.name)} {given}"
    return _written(db, resource, sql, tuple(values.values()))


def update(
    db: sqlite3.Connection, resource: Resource, place: Sequence[SQLiteValue], values: Mapping[str, SQLiteValue | Clause]
) -> Found | None:
    """Change a row; give it as it then stands. A value may be an SQL expression. Raises as ``insert`` does."""
    expressions = [value if isinstance(value, tuple) else ("?", (value,)) for value in values.values()]
    assigned = ", ".join(
        f"{quote_identifier(name)} = {sql}" for name, (sql, _) in zip(values, expressions, strict=True)
    )
    bound = [value for _, parameters in expressions for value in parameters]
    sql = f"UPDATE {_or_abort(resource)}main.{quote_identifier(resource.name)} SET {assigned} WHERE {_is(resource)}"
    return _written(db, resource, sql, (*bound, *place))


def delete(db: sqlite3.Connection, resource: Resource, place: Sequence[SQLiteValue]) -> bool:
    """Delete a row; say whether it is gone. Raises as ``insert`` does."""
    with refusals(resource, deleting=True):
        sql = f"DELETE FROM main.{quote_identifier(resource.name)} WHERE {_is(resource)}"
        return db.execute(sql, tuple(place)).rowcount > 0


def _or_abort(resource: Resource) -> str:
    """Have a conflict refused where the table says otherwise: its ON CONFLICT REPLACE would take another's row away."""
    # Not elsewhere: said by the statement, it counts in triggers of the user's, too, whatever these say.
    return "OR ABORT " if resource.table.resolves else ""


def _is(resource: Resource) -> str:
    return " AND ".join(f"{each} IS ?" for each in resource.place)


def _written(db: sqlite3.Connection, resource: Resource, sql: str, bound: tuple[SQLiteValue, ...]) -> Found | None:
    with refusals(resource):
        rows = db.execute(f"{sql} RETURNING {', '.join(resource.place)}", bound).fetchall()
    if not rows:
        raise Conflict("a trigger of the table has ignored the write")
    return _at_place(db, resource, rows[0])


def _selected(resource: Resource) -> str:
    columns = [quote_identifier(column.name) for column in resource.shape.columns]
    return ", ".join([*resource.place, *columns])


def _found(resource: Resource, row: Sequence[SQLiteValue]) -> Found:
    width = len(resource.place)
    place, values = tuple(row[:width]), tuple(row[width:])
    rowid = place[0] if resource.shape.rowid else None
    assert rowid is None or isinstance(rowid, int)  # noqa: S101 – it is a rowid
    return Found(place, Image(values, rowid))
