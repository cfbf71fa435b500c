"""What each user may SELECT, decided from the file itself in plain Python; and random changes of all that it rests on.

Nothing here is the program's but the names of its tables: the bits, who owns what and who is in which group are read
and put together anew, after every commit.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

MEMBERS = "user_account_user_account_id_has_usergroup_usergroup_id"
GRANTS = "world_world_id_has_usergroup_usergroup_id"
USERS, ADMINISTRATORS = (f"00000000-0000-4000-8000-00000000000{number}" for number in (2, 3))
PEEK, READ = 1, 2
OWNER, GROUP = 7, 14

Data = tuple[Any, ...]
Joins = dict[str, int]


@dataclass(frozen=True)
class Row:
    """A row of a table: what is sent of it, and what decides about it."""

    data: Data
    permission: Any = 0
    owner: Any = None
    joins: Joins = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table's row in ``world``, and its own rows."""

    permission: int
    owner: str | None
    owner_column: str | None
    joins: Joins
    standard: bool
    rows: dict[Any, Row]


@dataclass(frozen=True)
class State:
    """All that decides, as of one commit."""

    groups: dict[str, frozenset[str]]
    tables: dict[str, Table]

    def may(self, user: str, bit: int, permission: Any, owner: Any, joins: Joins) -> bool:
        bits = permission if isinstance(permission, int) else 0
        if ADMINISTRATORS in self.groups[user] or bits & bit:
            return True
        named = owner if isinstance(owner, str) else str(owner) if isinstance(owner, int) else None
        if named == user and bits & bit << OWNER:
            return True
        return any(isinstance(its, int) and its & bit << GROUP and group in self.groups[user]
                   for group, its in joins.items())  # fmt: skip

    def knows(self, user: str, name: str) -> bool:
        """Whether a user may know of a table."""
        table = self.tables[name]
        return self.may(user, PEEK, table.permission, table.owner, table.joins)

    def reads(self, user: str, name: str, row: Row) -> bool:
        """Whether a user may read a row, be it of this commit or of one before."""
        table = self.tables[name]
        if not self.knows(user, name):
            return False
        if table.standard:
            return self.may(user, READ, row.permission, row.owner, row.joins)
        owner = table.owner if table.owner_column is None else row.owner
        return self.may(user, READ, table.permission, owner, table.joins)

    def readable(self, user: str, name: str) -> dict[Any, Data]:
        """Give the rows of a table that a user may read."""
        return {key: row.data for key, row in self.tables[name].rows.items() if self.reads(user, name, row)}


def state(db: sqlite3.Connection, users: Sequence[str], standard: Sequence[str], plain: Sequence[str]) -> State:
    """Read the file."""
    joined: dict[tuple[str, str], Joins] = {}
    for table in (*standard, "world"):
        join = f"{table}_{table}_id_has_usergroup_usergroup_id"
        for row, group, permission in db.execute(f"SELECT {table}_id, usergroup_id, permission FROM {join}").fetchall():
            joined.setdefault((table, row), {})[group] = permission
    members: dict[str, set[str]] = {user: set() for user in users}
    for user, group in db.execute(f"SELECT user_account_id, usergroup_id FROM {MEMBERS}").fetchall():
        if user in members:
            members[user].add(group)
    tables = {}
    for name in (*standard, *plain):
        reference, permission, owner, column = db.execute(
            "SELECT reference_id, permission, user_account_id, owner_column FROM world WHERE table_name = ?", (name,)
        ).fetchone()
        rows = {}
        if name in standard:
            found = db.execute(f"SELECT reference_id, text, n, permission, user_account_id FROM {name}").fetchall()
            rows = {row[0]: Row(row[1:3], row[3], row[4], joined.get((name, row[0]), {})) for row in found}
        else:
            found = db.execute(f"SELECT k, text, n, owner FROM {name}").fetchall()
            rows = {row[0]: Row(row[1:4], 0, row[3]) for row in found}
        tables[name] = Table(permission, owner, column, joined.get(("world", reference), {}), name in standard, rows)
    return State({user: frozenset(groups) for user, groups in members.items()}, tables)


#: Of a row: nothing, guests read, the owner reads, both, all; and what is no permission at all.
BITS = (0, 2, 256, 258, 257, 2 | 16384 | 32768, 2097057, 2.5, "x")
#: Of a table: nothing, peek, peek and read for everybody, for owners.
TABLE_BITS = (0, 1, 1, 3, 1 | 256, 1 | 128 | 256, 128 | 256)


class Changes:
    """Changes at random, each one statement or what belongs together."""

    def __init__(self, db: sqlite3.Connection, seed: int, users: Sequence[str], groups: Sequence[str]) -> None:
        self.chance = random.Random(seed)
        self._db = db
        self._users = users
        self._groups = (*groups, USERS)

    def _one(self, sql: str, *values: Any) -> None:
        self._db.execute(sql, values)

    def step(self, table: str, *, standard: bool) -> str:
        """Change something that has to do with a table; say what."""
        deeds = self._of_standard if standard else self._of_plain
        found = self.chance.choice([*deeds(table), *self._of_rights(table)])
        found[1]()
        return found[0]

    def _row(self, table: str, key: str) -> Any:
        keys = [each for (each,) in self._db.execute(f"SELECT {key} FROM {table}").fetchall()]
        return self.chance.choice(keys) if keys and self.chance.random() < 0.95 else None

    def _of_standard(self, table: str) -> list[tuple[str, Callable[[], None]]]:
        pick, one = self.chance.choice, self._one
        row, join = self._row(table, "reference_id"), f"{table}_{table}_id_has_usergroup_usergroup_id"
        owner, bits, group = pick([*self._users, None]), pick(BITS), pick(self._groups)
        text, n = str(self.chance.random()), self.chance.randrange(6)
        of_row, whole = f"UPDATE {table} SET", f"{table}(reference_id, text, n, permission, user_account_id)"
        values = (text, n, bits, owner)
        new = f"row {self.chance.getrandbits(40)}"

        def again() -> None:
            one(f"DELETE FROM {table} WHERE reference_id = ?", row)
            one(f"INSERT INTO {whole} VALUES(?, ?, ?, ?, ?)", row or new, *values)

        return [
            ("insert", lambda: one(f"INSERT INTO {whole} VALUES(?, ?, ?, ?, ?)", new, *values)),
            ("insert", lambda: one(f"INSERT INTO {whole} VALUES(?, ?, ?, ?, ?)", new, *values)),
            ("text", lambda: one(f"{of_row} text = ?, n = ? WHERE reference_id = ?", text, n, row)),
            ("owner", lambda: one(f"{of_row} user_account_id = ? WHERE reference_id = ?", owner, row)),
            ("bits", lambda: one(f"{of_row} permission = ? WHERE reference_id = ?", bits, row)),
            ("all", lambda: one(f"{of_row} text = ?, n = ?, permission = ?, user_account_id = ? WHERE reference_id = ?",
                                *values, row)),
            ("key", lambda: one(f"{of_row} reference_id = ? WHERE reference_id = ? AND NOT EXISTS("
                                f"SELECT 1 FROM {join} WHERE {table}_id = ?)", new, row, row)),
            ("replace", lambda: one(f"REPLACE INTO {whole} VALUES(?, ?, ?, ?, ?)", row or new, *values)),
            ("upsert", lambda: one(f"INSERT INTO {whole} VALUES(?, ?, ?, ?, ?) ON CONFLICT(reference_id) DO UPDATE SET "
                                   "text = excluded.text", row or new, *values)),
            ("again", again),
            ("delete", lambda: one(f"DELETE FROM {table} WHERE reference_id = ?", row)),
            *[("join", lambda: row and one(f"INSERT OR REPLACE INTO {join}({table}_id, usergroup_id, permission) "
                                           "VALUES(?, ?, ?)", row, group, pick((32768, 32768, 16384, 2, "x"))))] * 3,
            ("part", lambda: one(f"DELETE FROM {join} WHERE {table}_id = ? AND usergroup_id = ?", row, group)),
            ("rejoin", lambda: one(f"UPDATE {join} SET permission = ? WHERE {table}_id = ?", pick((0, 32768)), row)),
            ("every owner", lambda: one(f"{of_row} user_account_id = ?", owner)),
        ]  # fmt: skip

    def _of_plain(self, table: str) -> list[tuple[str, Callable[[], None]]]:
        pick, one = self.chance.choice, self._one
        row, new = self._row(table, "k"), self.chance.randrange(12)
        owner = pick([*self._users, *(int(user) for user in self._users if user.isdecimal()), None, 2.5])
        values = (str(self.chance.random()), self.chance.randrange(6), owner)

        def again() -> None:
            one(f"DELETE FROM {table} WHERE k = ?", row)
            one(f"REPLACE INTO {table} VALUES(?, ?, ?, ?)", new if row is None else row, *values)

        return [
            ("insert", lambda: one(f"INSERT OR IGNORE INTO {table} VALUES(?, ?, ?, ?)", new, *values)),
            ("replace", lambda: one(f"REPLACE INTO {table} VALUES(?, ?, ?, ?)", new, *values)),
            ("owner", lambda: one(f"UPDATE {table} SET owner = ? WHERE k = ?", owner, row)),
            ("text", lambda: one(f"UPDATE {table} SET text = ?, n = ? WHERE k = ?", *values[:2], row)),
            ("key", lambda: one(f"UPDATE OR REPLACE {table} SET k = ? WHERE k = ?", new, row)),
            ("again", again),
            ("delete", lambda: one(f"DELETE FROM {table} WHERE k = ?", row)),
            ("every owner", lambda: one(f"UPDATE {table} SET owner = ?", owner)),
        ]  # fmt: skip

    def _of_rights(self, table: str) -> list[tuple[str, Callable[[], None]]]:
        pick, one = self.chance.choice, self._one
        user, group = pick(self._users), pick(self._groups)
        world = "(SELECT reference_id FROM world WHERE table_name = ?)"
        member = "user_account_id = ? AND usergroup_id = ?"
        return [
            *[("enter", lambda: one(f"INSERT OR IGNORE INTO {MEMBERS}(user_account_id, usergroup_id) VALUES(?, ?)",
                                    user, group))] * 2,
            ("leave", lambda: one(f"DELETE FROM {MEMBERS} WHERE {member}", user, group)),
            ("table bits", lambda: one("UPDATE world SET permission = ? WHERE table_name = ?", pick(TABLE_BITS),
                                       table)),
            ("grant", lambda: one(f"INSERT OR REPLACE INTO {GRANTS}(world_id, usergroup_id, permission) "
                                  f"VALUES({world}, ?, ?)", table, group, pick((16384, 16384 | 32768)))),
            ("revoke", lambda: one(f"DELETE FROM {GRANTS} WHERE world_id = {world} AND usergroup_id = ?", table,
                                   group)),
            ("table owner", lambda: one("UPDATE world SET user_account_id = ? WHERE table_name = ?",
                                        pick([*self._users, None]), table)),
            ("admin", lambda: one(f"INSERT OR IGNORE INTO {MEMBERS}(user_account_id, usergroup_id) VALUES(?, ?)",
                                  user, ADMINISTRATORS)),
            *[("no admin", lambda: one(f"DELETE FROM {MEMBERS} WHERE usergroup_id = ?", ADMINISTRATORS))] * 3,
            ("owner column", lambda: one("UPDATE world SET owner_column = ? WHERE table_name = ? AND table_name NOT IN "
                                         '(SELECT "table" FROM _appliance_standard)', pick(("owner", None)), table)),
        ]  # fmt: skip
