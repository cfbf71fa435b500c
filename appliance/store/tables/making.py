"""The standard table that somebody makes: its name, its columns, and its row in ``world`` (PROTOCOL, section 7)."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.errors import BadRequest, TopicExists
from appliance.model import KEPT_PREFIXES, ascii_fold, quote_identifier
from appliance.protocol import permissions, wording
from appliance.store.file import schema
from appliance.store.tables.standard import COLUMNS, TABLE_PERMISSION, Kind, into_world, join_table, plans, registered

#: What a column of a standard table may be declared as.
TYPES: Final = {
    "text": "TEXT", "integer": "INTEGER", "int": "INTEGER", "real": "REAL", "number": "NUMERIC", "numeric": "NUMERIC",
    "boolean": "BOOLEAN", "bool": "BOOLEAN", "json": "JSON", "blob": "BLOB", "date": "DATE", "datetime": "DATETIME",
    "timestamp": "DATETIME", "time": "TIME",
}  # fmt: skip

#: Characters of a table's or a column's name, and columns of its own that a table is made with.
NAME_LIMIT: Final = 64
COLUMNS_LIMIT: Final = 64
_NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class NewColumn:
    """One column to make. ``type`` is one of ``TYPES`` or a standard table, whose rows the column then refers to."""

    name: str
    type: str
    required: bool = False
    unique: bool = False


def create(
    db: sqlite3.Connection,
    name: str,
    columns: Sequence[NewColumn],
    *,
    permission: int = permissions.ROW_DEFAULT,
    table_permission: int = TABLE_PERMISSION,
    owner: str | None = None,
    known: Callable[[str], bool] = lambda table: True,
) -> None:
    """Make a standard table, its join table and its ``world`` row, inside a transaction; the system tables are there.

    ``permission`` is what a row gets, ``table_permission`` what the table itself has, ``owner`` whose it is. Columns
    may refer to tables (folded) that are ``known``. Raises ``BadRequest`` for what is no name, type or permission,
    ``TopicExists`` when the name is taken; their ``attribute`` is that of a document for ``world``.
    """
    _check_name("table", name, "table_name")
    if f"{ascii_fold(name)}_id" in COLUMNS:  # its join table would have two columns of that name
        raise BadRequest(f'a table cannot be called "{name}"; choose another name', attribute="table_name")
    for attribute, bits in (("default_permission", permission), ("permission", table_permission)):
        if not 0 <= bits <= permissions.MOST:
            raise BadRequest(f"a permission is from 0 to {permissions.MOST}, not {bits}", attribute=attribute)
    names = [each for plan in plans(name, Kind.STANDARD, (), permission) for each in (plan.made.table, plan.index)]
    taken = db.execute(
        f"SELECT type, name FROM main.sqlite_schema WHERE name COLLATE NOCASE IN ({','.join('?' * len(names))}) "
        "UNION ALL SELECT 'topic', name FROM _appliance_topic WHERE name = ?",
        (*names, name),
    ).fetchone()
    if taken is not None:
        raise TopicExists('there is a {} "{}" already; choose another name'.format(*taken), attribute="table_name")
    for plan in plans(name, Kind.STANDARD, _definitions(db, name, columns, known), permission):
        plan.make(db)
    # Whole at once, so that it is one event; a table of that name that is gone has left its row.
    said = (table_permission, permission, owner, name)
    sql = "UPDATE world SET permission=?, default_permission=?, user_account_id=? WHERE table_name=?"
    if not db.execute(sql, said).rowcount:
        db.execute("INSERT INTO world(permission,default_permission,user_account_id,table_name) VALUES(?,?,?,?)", said)
    into_world(db, join_table(name), TABLE_PERMISSION)
    schema.bump(db)


def _definitions(
    db: sqlite3.Connection, table: str, columns: Sequence[NewColumn], known: Callable[[str], bool]
) -> list[str]:
    if len(columns) > COLUMNS_LIMIT:
        raise BadRequest(f"a table may be made with {COLUMNS_LIMIT} columns of its own at most", attribute="columns")
    made = registered(db).items()
    there = {folded: each.table for folded, each in made if each.object_table is None and known(folded)}
    targets = there | {ascii_fold(table): table}
    taken = {*COLUMNS, "rowid", "oid", "_rowid_"}
    definitions = []
    for at, column in enumerate(columns):
        where = f"columns/{at}"
        _check_name("column", column.name, f"{where}/name")
        if ascii_fold(column.name) in taken:
            raise BadRequest(f'the column "{column.name}" is there already; leave it out', attribute=f"{where}/name")
        taken.add(ascii_fold(column.name))
        definition = quote_identifier(column.name)
        if ascii_fold(column.type) in TYPES:
            definition += f" {TYPES[ascii_fold(column.type)]}"
        elif (target := targets.get(ascii_fold(column.type))) is not None:
            definition += f" TEXT REFERENCES {quote_identifier(target)}(reference_id)"
        else:
            message = wording.unknown(column.type, "a column's type or a standard table", [*TYPES, *there.values()])
            raise BadRequest(message, attribute=f"{where}/type")
        definitions.append(definition + " NOT NULL" * column.required + " UNIQUE" * column.unique)
    return definitions


def _check_name(what: str, name: str, attribute: str) -> None:
    # What goes with a table is called as it, with an underscore behind that.
    reserved = f"{ascii_fold(name)}_".startswith(KEPT_PREFIXES)
    if not _NAME.fullmatch(name) or len(name) > NAME_LIMIT or reserved:
        raise BadRequest(f"{wording.quote(name)} cannot be the name of a {what}: it takes letters, digits and _, a "
                         f"letter first, {NAME_LIMIT} at most, and must not begin with _appliance, _litestream or "
                         "sqlite", attribute=attribute)  # fmt: skip
