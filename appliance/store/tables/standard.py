"""Standard tables: those that we make, with a reference_id, a permission and an owner (PROTOCOL, section 7).

Works: plain functions on an open connection. Which tables are standard is registered in ``_appliance_standard``, never
guessed from a name. All defaults are expressions that any SQLite since 3.31 has, under any of a writer's settings, so
that a raw INSERT gets a whole row.
"""

from __future__ import annotations

import enum
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.capture.shape import GROUP_JOIN
from appliance.errors import BadRequest, StoreUnusable, TopicExists
from appliance.model import KEPT_PREFIXES, ascii_fold, quote_identifier
from appliance.protocol import permissions, wording
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

#: What a column of a standard table may be declared as.
TYPES: Final = {
    "text": "TEXT", "integer": "INTEGER", "int": "INTEGER", "real": "REAL", "number": "NUMERIC", "numeric": "NUMERIC",
    "boolean": "BOOLEAN", "bool": "BOOLEAN", "json": "JSON", "blob": "BLOB", "date": "DATE", "datetime": "DATETIME",
    "timestamp": "DATETIME", "time": "TIME",
}  # fmt: skip
#: Columns that every standard table has; a join table has no owner.
COLUMNS: Final = ("id", "reference_id", "version", "created_at", "updated_at", "permission", "user_account_id")

#: What a standard table itself has: everybody may know of it, its owner and groups may do what the bits say.
TABLE_PERMISSION: Final = permissions.ROW_DEFAULT

NAME_LIMIT: Final = 64
COLUMNS_LIMIT: Final = 64
_NAME = re.compile(r"[^\W\d]\w*")


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


@dataclass(frozen=True, slots=True)
class NewColumn:
    """One column to make. ``type`` is one of ``TYPES`` or a standard table, whose rows the column then refers to."""

    name: str
    type: str
    required: bool = False
    unique: bool = False


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
    names = [each for plan in _plans(name, Kind.STANDARD, (), permission) for each in (plan.made.table, plan.index)]
    taken = db.execute(
        f"SELECT type, name FROM main.sqlite_schema WHERE name COLLATE NOCASE IN ({','.join('?' * len(names))}) "
        "UNION ALL SELECT 'topic', name FROM _appliance_topic WHERE name = ?",
        (*names, name),
    ).fetchone()
    if taken is not None:
        raise TopicExists('there is a {} "{}" already; choose another name'.format(*taken), attribute="table_name")
    for plan in _plans(name, Kind.STANDARD, _definitions(db, name, columns, known), permission):
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


@dataclass(frozen=True, slots=True)
class _Plan:
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


def _plans(name: str, kind: Kind, definitions: Sequence[str], permission: int) -> list[_Plan]:
    """Plan a table and, but for ``usergroup``, its join table.

    The owner is no foreign key: it may be another issuer's subject, who has no account here.
    """
    own = (*_standard_columns(permission), "user_account_id TEXT", *definitions)
    plans = [_Plan(Registered(name, kind), own, "user_account_id")]
    if name == USERGROUP:
        return plans
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
    return [*plans, _Plan(Registered(join_table(name), joining, name, column), joins, "usergroup_id")]


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
    *_plans(USERGROUP, Kind.STANDARD, ("name TEXT NOT NULL UNIQUE COLLATE NOCASE",), permissions.ROW_DEFAULT),
    *_plans(
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
    *_plans(
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


def _is_there(db: sqlite3.Connection, plan: _Plan) -> bool:
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
