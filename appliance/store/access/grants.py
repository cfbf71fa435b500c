"""Who may what, as the store says it: what tables and rows are guarded by, and who is in which group.

Works: plain functions on an open connection. ``permits`` decides; here is what it decides on.
"""

from __future__ import annotations

import enum
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from appliance.model import KEPT_PREFIXES, SQLiteValue, ascii_fold, quote_identifier
from appliance.protocol.permissions import TABLE_DEFAULT, Guarded, Verb, bits, owner_of
from appliance.store.file import connections, schema
from appliance.store.file.texts import is_utf_8, placeholder
from appliance.store.tables import standard
from appliance.store.tables.standard import (
    ADMINISTRATORS,
    USER_ACCOUNT,
    USERGROUP,
    USERS,
    WORLD,
    Registered,
    join_table,
)

#: So many values are bound in one statement, far below the 32,766 that SQLite takes.
BATCH: Final = 500


class TableKind(enum.Enum):
    """What decides about a table's rows.

    ``STANDARD``: the row. ``ACCOUNT``: the row, which is owned by itself. ``JOIN`` and ``MEMBERSHIP``: the row that it
    joins to a group. ``PLAIN``: the table, and the row's owner column where it has one.
    """

    STANDARD = "standard"
    JOIN = "join"
    MEMBERSHIP = "membership"
    ACCOUNT = "account"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class TableGrant:
    """What is granted on a table and its rows.

    ``guarded`` is the table's row in ``world``: what may be done with the table. ``default_permission`` is what a new
    row of a standard table gets. ``owner_column`` names the owner of a plain table's rows. A join table's
    ``object_table`` is the one whose rows it joins, ``object_column`` its column that names them. ``join_table`` and
    ``join_column`` are the same from the other side: where the groups of this table's rows are.
    """

    table: str
    kind: TableKind
    guarded: Guarded
    default_permission: int = TABLE_DEFAULT
    owner_column: str | None = None
    object_table: str | None = None
    object_column: str | None = None
    join_table: str | None = None
    join_column: str | None = None
    #: What guards the object table, whose name and rows a join table tells of.
    object_guarded: Guarded | None = None

    @property
    def system(self) -> str | None:
        """Which system table, or join table of one, it is; ``None`` also for a user's own that only has such a name."""
        folded = ascii_fold(self.table)
        return folded if self.kind is not TableKind.PLAIN and standard.is_system(folded) else None

    def known(self, may: Callable[[Verb, Guarded], bool]) -> bool:
        """Decide whether somebody may know of the table; ``may`` decides on one object."""
        own = may(Verb.PEEK, self.guarded)
        return own and (self.object_guarded is None or may(Verb.PEEK, self.object_guarded))


@dataclass(frozen=True, slots=True)
class Standing:
    """How somebody stands in the store just now.

    ``exists``: has an account. ``groups`` are the reference_ids of groups; ``admin``: is in that of the administrators.
    Tokens that were issued before ``not_before`` (seconds since the Unix epoch) are dead.
    """

    exists: bool
    admin: bool
    groups: frozenset[str]
    not_before: float


#: Nobody may do anything but administrators.
CLOSED: Final = Guarded(0)


def read(db: sqlite3.Connection) -> dict[str, TableGrant]:
    """Give what is granted on every table that can be a topic, by folded name."""
    there = standard.registered(db)
    worlds = _worlds(db, there) if WORLD in there else {}
    worlds = defaultdict(lambda: _World(Guarded(TABLE_DEFAULT), TABLE_DEFAULT, None), worlds)
    grants = {}
    for table in _tables(db):
        made, world = there.get(folded := ascii_fold(table)), worlds[folded]
        grants[folded] = _plain(db, table, world) if made is None else _standard(table, worlds, made, there)
    # A table that was standard and has lost what its rights stand on is for administrators.
    for (name,) in db.execute('SELECT "table" FROM _appliance_standard').fetchall() if schema.exists(db) else ():
        folded = ascii_fold(name)
        if folded in grants and folded not in there:
            grants[folded] = TableGrant(grants[folded].table, TableKind.PLAIN, CLOSED)
    return grants


@dataclass(frozen=True, slots=True)
class _World:
    guarded: Guarded
    default_permission: int
    owner_column: str | None


def _worlds(db: sqlite3.Connection, there: Mapping[str, Registered]) -> dict[str, _World]:
    rows = connections.fetch(
        db, "SELECT table_name, reference_id, permission, user_account_id, default_permission, owner_column FROM world"
    )
    joined = joins(db, WORLD, [row[1] for row in rows], there)
    return {
        ascii_fold(str(name)): _World(
            Guarded(bits(permission), owner_of(owner), joined.get(reference, ())),
            bits(default),
            column if isinstance(column, str) else None,
        )
        for name, reference, permission, owner, default, column in rows
    }


def _plain(db: sqlite3.Connection, table: str, world: _World) -> TableGrant:
    grant = TableGrant(table, TableKind.PLAIN, world.guarded, world.default_permission)
    if world.owner_column is None:
        return grant
    spelled = {ascii_fold(name): name for name in columns(db, table)}
    column = spelled.get(ascii_fold(world.owner_column))
    if column is None:  # it was dropped or renamed: who owns what is not known any more
        return replace(grant, guarded=CLOSED)
    return replace(grant, owner_column=column)


def _standard(
    table: str, worlds: Mapping[str, _World], made: Registered, there: Mapping[str, Registered]
) -> TableGrant:
    world = worlds[ascii_fold(table)]
    grant = TableGrant(table, TableKind(made.kind.value), world.guarded, world.default_permission)
    if made.object_table is not None:
        if ascii_fold(made.object_table) not in there:  # what decides about its rows is not there any more
            return TableGrant(table, TableKind.PLAIN, CLOSED)
        guarded = worlds[ascii_fold(made.object_table)].guarded
        return replace(grant, object_table=made.object_table, object_column=made.object_column, object_guarded=guarded)
    joining = there.get(ascii_fold(join_table(table)))
    if joining is None:
        return grant
    return replace(grant, join_table=joining.table, join_column=joining.object_column)


def _tables(db: sqlite3.Connection) -> list[str]:
    rows = connections.fetch(db, "SELECT name FROM main.sqlite_schema WHERE type='table'")
    return [name for (name,) in rows if is_utf_8(name) and not ascii_fold(name).startswith(KEPT_PREFIXES)]


def columns(db: sqlite3.Connection, table: str) -> list[str]:
    """Name the columns of a table."""
    return [row[1] for row in connections.fetch(db, f"PRAGMA main.table_xinfo({quote_identifier(table)})")]


def adopt(db: sqlite3.Connection, tables: Iterable[str]) -> None:
    """Give each table a row in ``world``, for administrators only; writes nothing when all have one."""
    if WORLD not in standard.registered(db):
        return
    there = {ascii_fold(str(name)) for (name,) in connections.fetch(db, "SELECT table_name FROM world")}
    missing = [table for table in tables if ascii_fold(table) not in there]
    if not missing:
        return
    with schema.transaction(db):
        made = standard.registered(db)
        for table in missing:
            ours = ascii_fold(table) in made
            standard.into_world(db, table, standard.TABLE_PERMISSION if ours else TABLE_DEFAULT)


def standing(db: sqlite3.Connection, subjects: Sequence[str]) -> dict[str, Standing]:
    """Say how each of these subjects stands just now, whether or not there is an account of that reference_id."""
    there = standard.registered(db)
    members: dict[str, set[str]] = {subject: set() for subject in subjects}
    existing: set[str] = set()
    if USER_ACCOUNT in there:
        sql = f"SELECT reference_id FROM {USER_ACCOUNT} WHERE reference_id IN "
        existing.update(row[0] for row in _in_batches(db, sql, subjects))
    if join_table(USER_ACCOUNT) in there and USERGROUP in there:  # without foreign keys, who was in a group outlives it
        sql = (
            f"SELECT user_account_id, usergroup_id FROM {join_table(USER_ACCOUNT)} "
            f"WHERE usergroup_id IN (SELECT reference_id FROM {USERGROUP}) AND user_account_id IN "
        )
        for member, group in _in_batches(db, sql, sorted(existing)):
            members[member].add(str(group))
    sql = "SELECT subject, not_before FROM _appliance_account WHERE subject IN "
    dead_before = dict(_in_batches(db, sql, subjects))
    return {
        subject: Standing(
            subject in existing, ADMINISTRATORS in groups, frozenset(groups), float(dead_before.get(subject, 0))
        )
        for subject, groups in members.items()
    }


def groups_named(db: sqlite3.Connection, names: Collection[str]) -> frozenset[str]:
    """Give the groups of somebody that another issuer vouches for: ``users``, and those that the token names.

    It names them by reference_id or name; never that of the administrators, which it says by a claim of its own.
    """
    if USERGROUP not in standard.registered(db):
        return frozenset((USERS,))
    wanted = sorted(names)
    found: set[str] = set()
    for column in ("reference_id", "name"):
        sql = f"SELECT reference_id FROM {USERGROUP} WHERE {column} COLLATE BINARY IN "
        found.update(row[0] for row in _in_batches(db, sql, wanted))
    return frozenset(found) - {ADMINISTRATORS} | {USERS}


def joins(
    db: sqlite3.Connection, table: str, reference_ids: Sequence[str], there: Mapping[str, Registered]
) -> dict[str, tuple[tuple[str, int], ...]]:
    """Give the groups that rows are joined to, whether or not they are there; ``there`` are the registered tables."""
    joining = there.get(ascii_fold(join_table(table)))
    if joining is None or joining.object_column is None:
        return {}
    column = quote_identifier(joining.object_column)
    sql = f"SELECT {column}, usergroup_id, permission FROM {quote_identifier(joining.table)} WHERE {column} IN "
    found: dict[str, list[tuple[str, int]]] = {}
    for reference, group, permission in _in_batches(db, sql, reference_ids):
        found.setdefault(reference, []).append((str(group), bits(permission)))
    return {reference: tuple(sorted(pairs)) for reference, pairs in found.items()}


def guards(db: sqlite3.Connection, table: str, reference_ids: Sequence[str]) -> dict[str, Guarded]:
    """Give what guards rows of a standard table that is no join table; a row that is not there has no entry."""
    return {reference: guard for reference, (_, guard) in guarded_rows(db, table, reference_ids).items()}


def guarded_rows(
    db: sqlite3.Connection, table: str, reference_ids: Sequence[str]
) -> dict[str, tuple[SQLiteValue, Guarded]]:
    """Give what ``guards`` does, and before it when each row was made; ``None`` where its table does not say that."""
    there = standard.registered(db)
    made = there.get(ascii_fold(table))
    if made is None or made.object_table is not None:
        return {}
    joined = joins(db, table, reference_ids, there)
    owner = "reference_id" if made.kind is standard.Kind.ACCOUNT else "user_account_id"
    made_at = "created_at" if "created_at" in map(ascii_fold, columns(db, made.table)) else "NULL"
    sql = f"SELECT reference_id, {made_at}, permission, {owner} FROM {quote_identifier(made.table)} "
    return {
        reference: (at, Guarded(bits(permission), owner_of(owned_by), joined.get(reference, ())))
        for reference, at, permission, owned_by in _in_batches(db, f"{sql} WHERE reference_id IN ", reference_ids)
    }


def _in_batches(db: sqlite3.Connection, sql: str, values: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Give the rows of these values. Text that is not UTF-8 stops nobody's rights from being read."""
    for start in range(0, len(values), BATCH):
        marks, bound = zip(*map(placeholder, values[start : start + BATCH]), strict=True)
        yield from connections.fetch(db, f"{sql}({','.join(marks)})", bound)
