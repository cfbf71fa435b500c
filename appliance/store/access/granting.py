"""Granting and revoking rights on tables, and saying in words who has which.

Works: plain functions on an open connection, in a transaction of the caller's, with the system tables in place.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from appliance.errors import BadRequest, CommandError
from appliance.model import ascii_fold
from appliance.protocol import wording
from appliance.protocol.permissions import ALL, GROUP_SHIFT, OWNER_SHIFT, TABLE_DEFAULT, Verb
from appliance.protocol.values import legible
from appliance.store.access import accounts, grants
from appliance.store.access.grants import TableGrant, TableKind
from appliance.store.file import connections, schema
from appliance.store.file.texts import placeholder
from appliance.store.tables import catalog, making, standard
from appliance.store.tables.standard import GUESTS, USERS, WORLD, join_table

OWNER: Final = "owner"

VERBS: Final = {verb.name.lower(): int(verb) for verb in Verb} | {"all": ALL}
#: What can be said of a table as a whole where its rows say the rest.
_OF_A_TABLE = Verb.PEEK | Verb.CREATE | Verb.EXECUTE | Verb.REFER

_JOINS = join_table(WORLD)
_CHANGED = "version = version + 1, updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"


def verbs(names: Iterable[str]) -> int:
    """Give the bits of verbs. Raises ``BadRequest``."""
    bits = 0
    for name in names:
        if ascii_fold(name) not in VERBS:
            raise BadRequest(wording.unknown(name, "something that can be granted", VERBS))
        bits |= VERBS[ascii_fold(name)]
    return bits


def grant(db: sqlite3.Connection, table: str, to: str, bits: int, *, owner_column: str | None = None) -> None:
    """Let guests (and with them everybody), a group, or the owner of a row do what ``bits`` say.

    ``owner_column`` is declared for the table before. Whoever may do anything may know of the table: peek is granted
    along. Raises ``BadRequest`` and ``CommandError``.
    """
    found = _table(db, table)
    if owner_column is not None:
        found = _declare_owner(db, found, owner_column)
    if found.kind is not TableKind.PLAIN and (bits & ~_OF_A_TABLE or to == OWNER):
        raise BadRequest(
            f"{found.table} is a standard table: its rows say who may read, update and delete them, by their "
            f"permission, owner and join rows ({join_table(found.table)}); on the table grant peek and create"
        )
    if to == OWNER:
        if found.owner_column is None:
            raise BadRequest(f"whose a row of {found.table} is, is not known yet: name the column with --owner-column")
        _set_bits(db, found, bits << OWNER_SHIFT, 0)
        # Owners are users, who must be able to subscribe; and whoever creates a row is not its owner yet.
        _join(db, found, USERS, Verb.PEEK | (bits & Verb.CREATE), 0)
    elif ascii_fold(to) == standard.BUILT_IN[GUESTS]:
        _set_bits(db, found, bits | Verb.PEEK, 0)
    else:
        _join(db, found, accounts.group_named(db, to), bits | Verb.PEEK, 0)
    schema.bump(db)


def revoke(db: sqlite3.Connection, table: str, of: str, bits: int) -> None:
    """Take back what ``bits`` say; of all of an owner's rights, the owner column, too. Raises ``CommandError``."""
    found = _table(db, table)
    if of == OWNER:
        _set_bits(db, found, 0, bits << OWNER_SHIFT)
        _join(db, found, USERS, 0, _had_along(found, bits))
        if bits == ALL:
            db.execute(f"UPDATE world SET owner_column = NULL, {_CHANGED} WHERE table_name = ?", (found.table,))
    elif ascii_fold(of) == standard.BUILT_IN[GUESTS]:
        _set_bits(db, found, 0, bits)
    else:
        _join(db, found, accounts.group_named(db, of), 0, bits)
    schema.bump(db)


def _had_along(found: TableGrant, bits: int) -> int:
    """Say what ``users`` were granted with these rights of an owner's, and need no more (``grant``)."""
    if found.owner_column is None:
        return 0
    had = dict(found.guarded.joins).get(USERS, 0) >> GROUP_SHIFT & ALL
    created = had & bits & Verb.CREATE
    return had if bits == ALL and had == Verb.PEEK | created else created


def _table(db: sqlite3.Connection, table: str) -> TableGrant:
    """Find a table, and see to it that it has its row in ``world``."""
    found = grants.read(db).get(ascii_fold(table))
    if found is None:
        raise CommandError(f'there is no table "{table}"; `live-appliance table list` names those there are')
    standard.into_world(db, found.table, TABLE_DEFAULT)
    return found


def _declare_owner(db: sqlite3.Connection, found: TableGrant, column: str) -> TableGrant:
    if found.kind is not TableKind.PLAIN:
        raise BadRequest(f"{found.table} is a standard table: the owner of its rows is in user_account_id")
    names = {ascii_fold(name): name for name in grants.columns(db, found.table)}
    if ascii_fold(column) not in names:
        raise BadRequest(wording.unknown(column, f"a column of {found.table}", names.values()))
    if catalog.is_virtual(db, found.table, names[ascii_fold(column)]):
        raise BadRequest(f"{column} is a VIRTUAL column, which is never captured: it cannot say who sees a row")
    if found.owner_column is None:
        # Until now nobody could use the owner's bits, and all of them are there.
        _set_bits(db, found, 0, ALL << OWNER_SHIFT)
    sql = f"UPDATE world SET owner_column = ?, {_CHANGED} WHERE table_name = ?"
    db.execute(sql, (names[ascii_fold(column)], found.table))
    return _table(db, found.table)


def _set_bits(db: sqlite3.Connection, found: TableGrant, given: int, taken: int) -> None:
    sql = f"UPDATE world SET permission = (permission | ?) & ~?, {_CHANGED} WHERE table_name = ?"
    db.execute(sql, (given, taken, found.table))


def _join(db: sqlite3.Connection, found: TableGrant, group: str, given: int, taken: int) -> None:
    """Change what a group may do; a join row without a right goes."""
    (world,) = db.execute("SELECT reference_id FROM world WHERE table_name = ?", (found.table,)).fetchone()
    if given:
        db.execute(
            f"INSERT INTO {_JOINS}(world_id, usergroup_id, permission) VALUES(?, ?, ?) "
            f"ON CONFLICT DO UPDATE SET permission = permission | excluded.permission, {_CHANGED}",
            (world, group, given << GROUP_SHIFT),
        )
    else:
        db.execute(
            f"UPDATE {_JOINS} SET permission = permission & ~?, {_CHANGED} WHERE world_id = ? AND usergroup_id = ?",
            (taken << GROUP_SHIFT, world, group),
        )
        db.execute(
            f"DELETE FROM {_JOINS} WHERE world_id = ? AND usergroup_id = ? AND permission & ? = 0",
            (world, group, ALL << GROUP_SHIFT),
        )


def words(db: sqlite3.Connection, found: TableGrant) -> list[str]:
    """Say who, besides administrators, may do what with a table; one line each."""
    guarded = found.guarded
    lines = [_line("everybody", guarded.permission)]
    for group, permission in guarded.joins:
        name = _called(db, "SELECT name FROM usergroup", group)
        whose = f"group {name}" if name else f"a group that is gone ({legible(group)})"
        lines.append(_line(whose, permission >> GROUP_SHIFT))
    if found.owner_column is not None:
        lines.append(_line(f"a row's owner ({found.owner_column})", guarded.permission >> OWNER_SHIFT))
    elif guarded.owner is not None:
        who = f"its owner {_called(db, 'SELECT email FROM user_account', guarded.owner) or legible(guarded.owner)}"
        lines.append(_line(who, guarded.permission >> OWNER_SHIFT))
    said = [line for line in lines if line]
    rows = _ROWS.get(found.kind)
    return [*said, rows] if rows else said or ["administrators only"]


def _called(db: sqlite3.Connection, sql: str, reference: str) -> str | None:
    """Say what a row is called; ``None`` where there is none."""
    mark, bound = placeholder(reference)
    row = connections.tolerant(db, lambda: db.execute(f"{sql} WHERE reference_id = {mark}", (bound,)).fetchone())
    return None if row is None else legible(str(row[0]))


_ROWS: Final = {
    TableKind.STANDARD: "its rows say the rest",
    TableKind.ACCOUNT: "each user the own row; its rows say the rest",
    TableKind.JOIN: "its rows are read by who may read what they join, and written by its owner",
    TableKind.MEMBERSHIP: "each user the own rows",
}


def _line(who: str, bits: int) -> str:
    may = [verb.name.lower() for verb in Verb if bits & verb]
    if len(may) == len(Verb):
        may = ["all"]
    return f"{who}: {', '.join(may)}" if may else ""


def columns(given: Sequence[str]) -> list[making.NewColumn]:
    """Read columns written as ``name:type``, ``name:type:required``, ``name:type:unique``. Raises ``BadRequest``."""
    made = []
    for each in given:
        name, *rest = each.split(":")
        kind, marks = (rest[0], rest[1:]) if rest else ("text", [])
        unknown = set(marks) - {"required", "unique"}
        if unknown:
            raise BadRequest(wording.unknown(min(unknown), "a mark of a column", ("required", "unique")))
        made.append(making.NewColumn(name, kind, "required" in marks, "unique" in marks))
    return made
