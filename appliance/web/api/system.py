"""The system tables: accounts, groups and tables are made, changed and ended by what knows what belongs to them.

Works: plain functions on an open connection, in the transaction that has decided on the right to do it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Final

from appliance.errors import BadRequest, Conflict, Forbidden, Invalid, NotFound, RequestError
from appliance.model import JSON, SQLiteValue, ascii_fold
from appliance.protocol.permissions import ROW_DEFAULT, TABLE_DEFAULT
from appliance.protocol.wording import kind, quote, unknown
from appliance.store.access import accounts, grants
from appliance.store.access.accounts import NAME_LIMIT, address
from appliance.store.access.grants import TableGrant, TableKind
from appliance.store.access.rights import Rights
from appliance.store.tables import catalog, making, rows, secrecy
from appliance.store.tables.making import NewColumn
from appliance.store.tables.resources import Resource, refers_to_a_row
from appliance.store.tables.rows import Clause, Found
from appliance.store.tables.standard import BUILT_IN, USERGROUP, WORLD
from appliance.web.api.documents import escaped, value_of

#: What a new table is described by.
_TABLE: Final = ("table_name", "columns", "permission", "default_permission", "user_account_id")
_COLUMN: Final = ("name", "type", "required", "unique")
_PASSWORD: Final = "password"  # noqa: S105 – the column's name
_HASHED: Final = "$2b$"


def insert(
    db: sqlite3.Connection,
    resource: Resource,
    grant: TableGrant,
    values: dict[str, SQLiteValue],
    doubtful: str | None = None,
) -> Found | None:
    """Insert a row of any table; an account with all that belongs to it. Raises ``RequestError``.

    The value of ``doubtful`` is left out where the table does not take it.
    """
    if grant.kind is TableKind.ACCOUNT:
        rest = dict(values)
        email, password, name = rest.pop("email", None), rest.pop(_PASSWORD, None), rest.pop("name", "")
        # A null is left for the column to refuse.
        confirmed = rest.get("confirmed") is not None and bool(rest.pop("confirmed"))
        made = accounts.add(db, _text("email", email), _hash(password), name=_text("name", name), confirmed=confirmed)
        found = rows.find(db, resource, (made.reference_id,))
        return found if found is None or not rest else rows.update(db, resource, found.place, rest)
    if grant.system == USERGROUP:
        accounts.check_new_group(db, _text("name", values.get("name")))
    if doubtful is not None:
        return _insert_doubtful(db, resource, values, doubtful)
    return rows.insert(db, resource, values)


def _insert_doubtful(
    db: sqlite3.Connection, resource: Resource, values: Mapping[str, SQLiteValue], doubtful: str
) -> Found | None:
    db.execute("SAVEPOINT doubtful")
    try:
        if not refers_to_a_row(db, resource, doubtful, values[doubtful]):
            raise Conflict(f"{quote(doubtful)} refers to a row that is not there", column=doubtful)
        found = rows.insert(db, resource, values)
    except RequestError:
        if not db.in_transaction:  # a trigger of the user's has rolled back all of it
            raise
        db.execute("ROLLBACK TO doubtful")
        found = rows.insert(db, resource, {name: value for name, value in values.items() if name != doubtful})
    db.execute("RELEASE doubtful")
    return found


def update(
    db: sqlite3.Connection, resource: Resource, grant: TableGrant, found: Found, values: dict[str, SQLiteValue | Clause]
) -> Found | None:
    """Change a row of any table; a password's change ends the account's tokens. Raises ``RequestError``."""
    changed = dict(values)
    if grant.kind is TableKind.ACCOUNT:
        if "email" in changed:
            changed["email"] = address(_text("email", changed["email"]))
        if "name" in changed:
            accounts.check_name(_text("name", changed["name"]))
        if _PASSWORD in changed:
            _hash(changed[_PASSWORD])
    elif grant.system == USERGROUP and "name" in changed:
        _check_group_name(_text("name", changed["name"]), str(value_of(resource, found, "reference_id")))
    elif grant.system == WORLD:
        _check_world(db, resource, found, changed)
    with accounts.administered(db) if grant.kind is TableKind.MEMBERSHIP else nullcontext():
        done = rows.update(db, resource, found.place, changed)
    if grant.kind is TableKind.ACCOUNT and _PASSWORD in changed:
        accounts.end_tokens(db, str(value_of(resource, found, "reference_id")))
    return done


def delete(db: sqlite3.Connection, resource: Resource, grant: TableGrant, found: Found) -> bool:
    """Delete a row of any table, an account and a group with all that is theirs. Raises ``RequestError``."""
    if grant.kind is TableKind.ACCOUNT:
        with accounts.administered(db):
            accounts.remove_of(db, str(value_of(resource, found, "reference_id")))
        return True
    if grant.kind is TableKind.MEMBERSHIP:
        with accounts.administered(db):
            return rows.delete(db, resource, found.place)
    if grant.system == USERGROUP:
        reference = str(value_of(resource, found, "reference_id"))
        if reference in BUILT_IN:
            raise Conflict(f"{quote(BUILT_IN[reference])} is built in; take its members out instead")
        accounts.remove_group(db, reference)
        return True
    if grant.system == WORLD:
        raise Conflict("this row says who may do what with its table; it stays with the table's name")
    return rows.delete(db, resource, found.place)


def create_table(db: sqlite3.Connection, rights: Rights, attributes: Mapping[str, JSON]) -> str:
    """Make the standard table that a document for ``world`` describes; give its ``reference_id`` there.

    To be run in a transaction of its own, because it changes the schema. Raises ``RequestError``.
    """
    for name in attributes:
        if name not in _TABLE:
            raise BadRequest(unknown(name, "an attribute of a new table", _TABLE), attribute=escaped(name))
    columns = attributes.get("columns", [])
    if not isinstance(columns, list):
        raise BadRequest('"columns" is a list of {"name":…,"type":…}', attribute="columns")
    owner = attributes.get("user_account_id", None if rights.principal.guest else rights.principal.subject)
    if not (owner is None or isinstance(owner, str)):
        raise BadRequest(f'"user_account_id" is a string or null, not {kind(owner)}', attribute="user_account_id")
    if not rights.principal.admin and owner != rights.principal.subject:
        raise Forbidden("the owner of a new table is yourself; leave it out", attribute="user_account_id")
    name = _text("table_name", attributes.get("table_name"))
    making.create(
        db,
        name,
        [_column(each, f"columns/{at}") for at, each in enumerate(columns)],
        permission=_bits(attributes, "default_permission", ROW_DEFAULT),
        table_permission=_bits(attributes, "permission", TABLE_DEFAULT),
        owner=owner,
        known=lambda table: table in rights.granted and rights.granted[table].known(rights.may),
    )
    (reference,) = db.execute("SELECT reference_id FROM world WHERE table_name = ?", (name,)).fetchone()
    return str(reference)


def new_password(document: Any) -> tuple[str, str] | None:
    """Give the password that a document of an account sets, behind what it calls it."""
    found = [(name, value) for name, value in _attributes(document).items() if ascii_fold(name) == _PASSWORD]
    if len(found) != 1 or not isinstance(value := found[0][1], str):
        return None
    return found[0][0], value


def with_hash(document: Any, hashed: str) -> JSON:
    """Give a document that ``new_password`` found a password in, with a hash in its place."""
    changed = {
        name: hashed if ascii_fold(name) == _PASSWORD else value for name, value in _attributes(document).items()
    }
    return {**document, "data": {**document["data"], "attributes": changed}}


def _attributes(document: Any) -> dict[str, JSON]:
    data = document.get("data") if isinstance(document, dict) else None
    attributes = data.get("attributes") if isinstance(data, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def _hash(value: Any) -> str | None:
    """Give a hash that was put into the document; nothing else is stored as a password. Raises ``Invalid``."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.startswith(_HASHED):
        raise Invalid('"password" is text', column=_PASSWORD)
    return value


def _column(given: JSON, where: str) -> NewColumn:
    if not isinstance(given, dict):
        raise BadRequest(f'a column is {{"name":…,"type":…}}, not {kind(given)}', attribute=where)
    for name in given:
        if name not in _COLUMN:
            raise BadRequest(unknown(name, "an attribute of a column", _COLUMN), attribute=f"{where}/{escaped(name)}")
    called, declared = given.get("name"), given.get("type")
    required, unique = given.get("required", False), given.get("unique", False)
    if not isinstance(called, str) or not isinstance(declared, str):
        raise BadRequest('a column has a "name" and a "type", which are strings', attribute=where)
    if not isinstance(required, bool) or not isinstance(unique, bool):
        raise BadRequest('"required" and "unique" are true or false', attribute=where)
    return NewColumn(called, declared, required, unique)


def _bits(attributes: Mapping[str, JSON], name: str, default: int) -> int:
    value = attributes.get(name, default)
    if isinstance(value, float) and value.is_integer():  # 1.0 is 1, in JSON
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest(f"{quote(name)} is bits, a whole number", attribute=name)
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{quote(name)} must be given and be text", column=name)
    return value


def _check_group_name(name: str, group: str) -> None:
    taken = {"owner", *(called for reference, called in BUILT_IN.items() if reference != group)}
    if not 1 <= len(name) <= NAME_LIMIT or not name.isprintable() or ascii_fold(name) in taken:
        raise Invalid(f"a group's name has 1 to {NAME_LIMIT} printable characters and is not taken", column="name")


def _check_world(
    db: sqlite3.Connection, resource: Resource, found: Found, changed: Mapping[str, SQLiteValue | Clause]
) -> None:
    if "table_name" in changed:
        raise Forbidden("a table is renamed in SQL, not here", column="table_name")
    if changed.get("owner_column") is not None:
        table = str(value_of(resource, found, "table_name"))
        grant = grants.read(db).get(ascii_fold(table))
        if grant is None or grant.kind is not TableKind.PLAIN:
            raise Conflict("only a plain table has an owner column", column="owner_column")
        column, rules = changed["owner_column"], secrecy.remembered(db)
        if column not in grants.columns(db, table):
            raise NotFound(f"{quote(table)} has no such column", column="owner_column")
        secret = rules is not None and rules(table, str(column))
        if secret or catalog.is_virtual(db, table, str(column)):
            message = f"a {'secret' if secret else 'VIRTUAL'} column is never captured: it cannot say who sees a row"
            raise Conflict(message, column="owner_column")
