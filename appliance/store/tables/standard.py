"""Standard tables: those that we make, with a reference_id, a permission and an owner (PROTOCOL, section 7).

Works: plain functions on an open connection. Which tables are standard is registered in ``_appliance_standard``, never
guessed from a name. All defaults are expressions that any SQLite since 3.31 has, under any of a writer's settings, so
that a raw INSERT gets a whole row.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.capture.shape import GROUP_JOIN
from appliance.errors import StoreUnusable
from appliance.model import ascii_fold, quote_identifier
from appliance.protocol import permissions
from appliance.store.file import schema

USER_ACCOUNT: Final = "user_account"
USERGROUP: Final = "usergroup"
WORLD: Final = "world"

#: The built-in groups, known by these reference_ids whatever they are called.
GUESTS: Final = "00000000-0000-4000-8000-000000000001"
USERS: Final = "00000000-0000-4000-8000-000000000002"
ADMINISTRATORS: Final = "00000000-0000-4000-8000-000000000003"
BUILT_IN: Final = {GUESTS: "guests", USERS: "users", ADMINISTRATORS: "administrators"}

#: A version 4 UUID. One function call, because SQLite limits the depth of an expression, not of a format.
_UUID = (
    "printf('%08x-%04x-4%03x-%04x-%012x', random() & 4294967295, random() & 65535, random() & 4095, "
    "32768 | (random() & 16383), random() & 281474976710655)"
)
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"

#: Columns that every standard table has; a join table has no owner.
COLUMNS: Final = ("id", "reference_id", "version", "created_at", "updated_at", "permission", "user_account_id")

#: What a standard table itself has: everybody may know of it, its owner and groups may do what the bits say.
TABLE_PERMISSION: Final = permissions.ROW_DEFAULT


class Kind(enum.Enum):
    """What a standard table is for. ``JOIN``: rows to groups; ``MEMBERSHIP``: users to groups."""

    STANDARD = "standard"
    ACCOUNT = "account"
    JOIN = "join"
    MEMBERSHIP = "membership"


@dataclass(frozen=True, slots=True)
class Registered:
    """One standard table. ``object_table`` and ``object_column``: what a join table joins, and its column for it."""

    table: str
    kind: Kind
    object_table: str | None = None
    object_column: str | None = None


#: Each table with how many of the columns that its rights stand on it has. One statement, because every request asks.
_REGISTERED = """
SELECT "table", kind, object_table, object_column, (
    SELECT count(*) FROM pragma_table_xinfo(made."table")
    WHERE name IN ('id', 'reference_id', 'permission')
    OR name IN (coalesce(made.object_column, 'user_account_id'), iif(made.object_table IS NULL, NULL, 'usergroup_id'))
    OR (made.kind = 'account' AND name IN ('email', 'password'))
) FROM _appliance_standard AS made"""

#: How many those are.
_NEEDED: Final = {Kind.STANDARD: 4, Kind.ACCOUNT: 6, Kind.JOIN: 5, Kind.MEMBERSHIP: 5}


def registered(db: sqlite3.Connection) -> dict[str, Registered]:
    """Give the standard tables that are in the file as they were made, by folded name.

    One that somebody has rebuilt without what rights are read from is a plain table.
    """
    if db.execute("SELECT 1 FROM main.sqlite_schema WHERE name='_appliance_standard'").fetchone() is None:
        return {}
    return {
        ascii_fold(name): Registered(name, Kind(kind), object_table, object_column)
        for name, kind, object_table, object_column, found in db.execute(_REGISTERED).fetchall()
        if found == _NEEDED[Kind(kind)]
    }


def join_table(table: str) -> str:
    """Name the table that joins a table's rows to groups."""
    return f"{table}_{table}_id{GROUP_JOIN}"


def prepare(db: sqlite3.Connection) -> None:
    """Make the system tables and the built-in groups if they are not there. Writes nothing when all is.

    Raises ``StoreUnusable`` when a table of another shape has the name of one of them.
    """
    if is_prepared(db):
        return
    with schema.transaction(db):
        there = registered(db)
        for plan in _SYSTEM:
            if ascii_fold(plan.made.table) not in there:
                (plan.register if _is_there(db, plan) else plan.make)(db)
        for group, called in BUILT_IN.items():
            if db.execute("SELECT 1 FROM usergroup WHERE reference_id=?", (group,)).fetchone() is None:
                # Somebody may have called a group of his own so: the built-in ones are known by their ids.
                taken = db.execute("SELECT 1 FROM usergroup WHERE name=?", (called,)).fetchone()
                name = f"{called} ({group})" if taken else called
                db.execute("INSERT INTO usergroup(reference_id, name) VALUES(?, ?)", (group, name))
        for each in registered(db).values():
            into_world(db, each.table, TABLE_PERMISSION)
        schema.bump(db)


def is_prepared(db: sqlite3.Connection) -> bool:
    """Whether the system tables and the built-in groups are there."""
    there = registered(db)
    if not all(ascii_fold(plan.made.table) in there for plan in _SYSTEM):
        return False
    (groups,) = db.execute("SELECT count(*) FROM usergroup WHERE reference_id IN (?, ?, ?)", tuple(BUILT_IN)).fetchone()
    return bool(groups == len(BUILT_IN))


@dataclass(frozen=True, slots=True)
class Plan:
    """One table to make: what it is, its columns and constraints, and the column that takes an index of its own."""

    made: Registered
    definitions: tuple[str, ...]
    indexed: str

    @property
    def columns(self) -> set[str]:
        """The names of the columns that are ours."""
        return {each.split(" ")[0].strip('"') for each in self.definitions if not each.startswith("UNIQUE")}

    @property
    def index(self) -> str:
        """What the index is called."""
        return f"{self.made.table}_{self.indexed}"

    def make(self, db: sqlite3.Connection) -> None:
        """Make the table and say that it is standard."""
        name = quote_identifier(self.made.table)
        db.execute(f"CREATE TABLE {name} (\n    " + ",\n    ".join(self.definitions) + "\n)")
        db.execute(f"CREATE INDEX {quote_identifier(self.index)} ON {name}({self.indexed})")
        self.register(db)

    def register(self, db: sqlite3.Connection) -> None:
        """Say that the table is standard."""
        made = self.made
        db.execute(
            'INSERT OR REPLACE INTO _appliance_standard("table", kind, object_table, object_column) VALUES(?, ?, ?, ?)',
            (made.table, made.kind.value, made.object_table, made.object_column),
        )


def plans(name: str, kind: Kind, definitions: Sequence[str], permission: int) -> list[Plan]:
    """Plan a table and, but for ``usergroup``, its join table.

    ``definitions``: its columns beyond those that every standard table has; ``permission``: what a row gets. The owner
    is no foreign key: it may be another issuer's subject, who has no account here.
    """
    own = (*_standard_columns(permission), "user_account_id TEXT", *definitions)
    planned = [Plan(Registered(name, kind), own, "user_account_id")]
    if name == USERGROUP:
        return planned
    joining, bits = Kind.JOIN, permissions.ROW_DEFAULT
    if kind == Kind.ACCOUNT:
        joining, bits = Kind.MEMBERSHIP, permissions.MEMBERSHIP
    column = f"{name}_id"
    quoted = quote_identifier(column)
    joins = (
        *_standard_columns(bits),
        f"{quoted} TEXT NOT NULL REFERENCES {quote_identifier(name)}(reference_id) ON DELETE CASCADE",
        "usergroup_id TEXT NOT NULL REFERENCES usergroup(reference_id) ON DELETE CASCADE",
        f"UNIQUE ({quoted}, usergroup_id)",
    )
    return [*planned, Plan(Registered(join_table(name), joining, name, column), joins, "usergroup_id")]


def _standard_columns(permission: int) -> tuple[str, ...]:
    return (
        "id INTEGER PRIMARY KEY",
        f"reference_id TEXT NOT NULL UNIQUE DEFAULT ({_UUID})",
        "version INTEGER NOT NULL DEFAULT 1",
        f"created_at TEXT NOT NULL DEFAULT ({_NOW})",
        "updated_at TEXT",
        f"permission INTEGER NOT NULL DEFAULT {int(permission)}",
    )


#: The system tables, in the order in which they refer to each other.
_SYSTEM: Final = (
    *plans(USERGROUP, Kind.STANDARD, ("name TEXT NOT NULL UNIQUE COLLATE NOCASE",), permissions.ROW_DEFAULT),
    *plans(
        USER_ACCOUNT,
        Kind.ACCOUNT,
        (
            "name TEXT NOT NULL DEFAULT ''",
            "email TEXT NOT NULL UNIQUE COLLATE NOCASE",
            "password TEXT",
            "confirmed BOOLEAN NOT NULL DEFAULT 0",
        ),
        permissions.ROW_DEFAULT,
    ),
    *plans(
        WORLD,
        Kind.STANDARD,
        (
            "table_name TEXT NOT NULL UNIQUE COLLATE NOCASE",
            f"default_permission INTEGER NOT NULL DEFAULT {permissions.ROW_DEFAULT}",
            "owner_column TEXT",
        ),
        permissions.TABLE_DEFAULT,
    ),
)


SYSTEM_TABLES: Final = tuple(plan.made.table for plan in _SYSTEM)


def is_system(table: str) -> bool:
    """Whether a standard table of this name is a system table or the join table of one."""
    return ascii_fold(table) in SYSTEM_TABLES


def check(db: sqlite3.Connection) -> None:
    """Raise ``StoreUnusable`` when a table of another shape has the name of a system table. Writes nothing."""
    there = registered(db)
    for plan in _SYSTEM:
        if ascii_fold(plan.made.table) not in there:
            _is_there(db, plan)


def _is_there(db: sqlite3.Connection, plan: Plan) -> bool:
    """Whether a table has a system table's name and shape. Raises ``StoreUnusable`` for another shape."""
    name = plan.made.table
    there = db.execute("SELECT type FROM main.sqlite_schema WHERE name=? COLLATE NOCASE", (name,)).fetchone()
    if there is None:
        return False
    columns = {row[1] for row in db.execute(f"PRAGMA main.table_xinfo({quote_identifier(name)})").fetchall()}
    if there[0] != "table" or not plan.columns <= columns:
        raise StoreUnusable(
            f'the name of the system table "{name}" is taken by a {there[0]} of another shape; rename that, or serve '
            "without accounts (--no-accounts)"
        )
    return True


def into_world(db: sqlite3.Connection, table: str, permission: int) -> None:
    """Give a table its row in ``world`` with this permission, unless it has one."""
    db.execute(
        "INSERT INTO world(table_name, permission, default_permission) SELECT ?, ?, ? "
        "WHERE NOT EXISTS(SELECT 1 FROM world WHERE table_name=?)",
        (table, permission, permission, table),
    )
