"""Random histories of random tables: keys, defaults, collations, conflict clauses, UNIQUE indexes in any combination.

After each statement what the outbox says of it makes of the rows before the rows after.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from contextlib import closing
from typing import Any

import pytest

from appliance.model import Shape
from appliance.model import quote_identifier as quote
from appliance.store.file import schema
from appliance.store.file.texts import text
from appliance.store.tables import watch
from tests.capture.histories import changes, play_all
from tests.capture.support import everything, exactly, nothing_secret

#: Tables, and statements for each. CI plays always the same ones; SEED=1 plays others.
SCHEMAS, STATEMENTS = 5 * int(os.environ.get("HISTORIES", "12")), 40
SEED = os.environ.get("SEED", "0")

NAMES = ("a", "B", "c d", "e", '"q')
TYPES = ("", "INTEGER", "INT", "TEXT", "REAL", "NUMERIC", "BLOB", "VARCHAR(3)")
DEFAULTS = ("0", "1", "'a'", "'A '", "x'61'", "(1 + 1)", "('x' || 'y')", "abc", "-1", "2.0", "TRUE", "(abs(-3))")
VALUES = ("NULL", "NULL", "0", "1", "2", "3", "1.0", "2.5", "'a'", "'A'", "'a '", "'1'", "''", "x'61'", "x''", "-1")
CONFLICTS = ("", "", "", " ON CONFLICT REPLACE", " ON CONFLICT IGNORE", " ON CONFLICT FAIL")
ORDERS = ("", "", " COLLATE NOCASE", " COLLATE RTRIM", " DESC")
INSERTS = ("INSERT", "INSERT", "REPLACE", "REPLACE", "REPLACE", "INSERT OR IGNORE", "INSERT OR FAIL")
UPDATES = ("UPDATE", "UPDATE OR REPLACE", "UPDATE OR REPLACE", "UPDATE OR IGNORE", "UPDATE OR FAIL")


class Schema:
    """One table ``t`` with what belongs to it, and the statements that are written to it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._columns = [quote(name) for name in NAMES[: chance.randint(2, 5)]]
        self._rowid = chance.random() > 0.3
        parts = [self._column(name) for name in self._columns]
        if self._rowid and chance.random() < 0.4:
            parts[0] = f"{self._columns[0]} INTEGER PRIMARY KEY"
        elif not self._rowid or chance.random() < 0.6:
            parts.append(f"PRIMARY KEY({self._some()}){chance.choice(CONFLICTS)}")
        parts += [f"UNIQUE({self._some()})" for _ in range(chance.choice((0, 0, 1)))]
        self.ddl = f"CREATE TABLE t({', '.join(parts)}){'' if self._rowid else ' WITHOUT ROWID'}"
        for number in range(chance.choice((0, 1, 1, 2))):
            self.ddl += f"; CREATE UNIQUE INDEX i{number} ON t({self._some()}){self._condition()}"

    def _column(self, name: str) -> str:
        chance, made = self._chance, f"{name} {self._chance.choice(TYPES)}"
        if chance.random() < 0.3:
            made += chance.choice((" COLLATE NOCASE", " COLLATE RTRIM"))
        if chance.random() < 0.4:
            made += f" NOT NULL{chance.choice(CONFLICTS)}"
        if chance.random() < 0.4:
            made += f" DEFAULT {chance.choice(DEFAULTS)}"
        return made + (f" UNIQUE{chance.choice(CONFLICTS)}" if chance.random() < 0.2 else "")

    def _some(self) -> str:
        chosen = self._chance.sample(self._columns, self._chance.randint(1, min(3, len(self._columns))))
        return ", ".join(name + self._chance.choice(ORDERS) for name in chosen)

    def _condition(self) -> str:
        name = self._chance.choice(self._columns)
        conditions = ("", f"{name} IS NOT NULL", f"{name} > 1", f"{name} = 'a' OR {self._columns[0]} IN (1, 2)")
        chosen = self._chance.choice((*conditions, *("oid > 2",) * self._rowid))
        return f" WHERE {chosen}" if chosen else ""

    def statement(self) -> str:
        """Make a statement that writes to the table."""
        chance, name, value = self._chance, self._chance.choice(self._columns), self._chance.choice(VALUES)
        where = chance.choice(
            (f"{name} = {value}", f"{name} IS {value}", f"{name} > {value}", f"{name} IS NOT {value}")
        )
        row = ", ".join(chance.choice(VALUES) for _ in self._columns)
        into = f"INTO t({', '.join(self._columns)}) VALUES({row})"
        other = chance.choice((*self._columns, *("_rowid_",) * self._rowid))
        kind = chance.random()
        if kind < 0.45:
            return f"{chance.choice(INSERTS)} {into}"
        if kind < 0.5:
            return f"{chance.choice(INSERTS)} INTO t({name}) VALUES({value})"
        if kind < 0.6:
            return f"INSERT {into} ON CONFLICT DO {chance.choice(('NOTHING', f'UPDATE SET {name} = {value}'))}"
        if kind < 0.9:
            return f"{chance.choice(UPDATES)} t SET {name} = {value}, {other} = {chance.choice(VALUES)} WHERE {where}"
        return f"DELETE FROM t WHERE {where}"


class History:
    """Plays statements, and after each asks the outbox what came of it."""

    def __init__(self, db: sqlite3.Connection, shape: Shape) -> None:
        self._db = db
        self._shape = shape
        self._rows = self._read()

    def play(self, sql: str) -> None:
        for event in changes(self._db, {self._shape.id: self._shape}, sql) or []:
            if event.old is not None:
                assert self._rows[exactly(event.old.values)] > 0, event
                self._rows[exactly(event.old.values)] -= 1
            if event.new is not None:
                self._rows[exactly(event.new.values)] += 1
        assert +self._rows == self._read()

    def _read(self) -> Counter[tuple[Any, ...]]:
        return Counter(exactly(row) for row in self._db.execute("SELECT * FROM t"))


@pytest.mark.heavy
@pytest.mark.parametrize("recursive", ["OFF", "ON"])
def test_whatever_a_table_is_like_its_history_is_told(recursive: str) -> None:
    for number in range(SCHEMAS):
        chance = random.Random(f"{SEED}.{number}")
        made = Schema(chance)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            db.text_factory = text
            try:
                db.executescript(made.ddl)
            except sqlite3.OperationalError:  # two indexes are one, and their conflict clauses are not
                continue
            db.execute(f"PRAGMA recursive_triggers={recursive}")
            schema.prepare(db)
            synced = watch.synchronise(db, secret=nothing_secret, watched=everything)
            assert (dict(synced.skipped), dict(synced.warnings)) == ({}, {}), made.ddl
            statements = [made.statement() for _ in range(STATEMENTS)]
            try:
                play_all(History(db, synced.shapes["t"]).play, statements)
            except AssertionError as error:
                error.add_note(made.ddl)
                raise
