"""Random histories of tables whose foreign keys refer to the same table: their actions come in between.

After each statement what the outbox says of it makes of the rows before the rows after, each event of a row that is
there then, or is not.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from appliance.model import Change, Op, Shape
from tests.capture.histories import changes, copy_of, play_all
from tests.capture.support import Captured, exactly

#: Of a row that is its own parent an action tells before the row itself does, and so once more: that is known.
INTEGER = (
    "CREATE TABLE t(k INTEGER PRIMARY KEY, u UNIQUE, up {default} REFERENCES t(k) {actions}, v, CHECK(up IS NOT k))"
)
TEXT = (
    "CREATE TABLE t(k TEXT PRIMARY KEY COLLATE NOCASE, u UNIQUE, up TEXT {default} REFERENCES t(k) {actions}, v, "
    "CHECK(up IS NOT k))"
)
#: Each has a key ``k``, a unique column ``u``, a parent ``up``, and ``v``.
KEYS = {
    "integer key": INTEGER,
    "text key": TEXT,
    "without rowid": f"{TEXT} WITHOUT ROWID",
    "parent by another key": INTEGER.replace("t(k) ", "t(u) ").replace("IS NOT k", "IS NOT u"),
    "by way of another table": INTEGER.replace("REFERENCES t", "REFERENCES s") + ";"
    "CREATE TABLE s(k INTEGER PRIMARY KEY REFERENCES t(k) ON DELETE CASCADE ON UPDATE CASCADE);"
    "CREATE TRIGGER pairs AFTER INSERT ON t BEGIN INSERT OR IGNORE INTO s VALUES(NEW.k); END",
    "children with a trigger": f"{INTEGER}; CREATE TRIGGER touched AFTER UPDATE OF up ON t "
    "BEGIN UPDATE t SET v = 9 WHERE k = NEW.k; END",
    "deletes that do not happen": f"{INTEGER}; CREATE TRIGGER kept BEFORE DELETE ON t WHEN OLD.v = 3 "
    "BEGIN UPDATE t SET v = 4 WHERE k = OLD.k; SELECT RAISE(IGNORE); END",
}
ACTIONS = {
    "cascade": "ON DELETE CASCADE ON UPDATE CASCADE",
    "set null": "ON DELETE SET NULL ON UPDATE SET NULL",
    "set default": "ON DELETE SET DEFAULT ON UPDATE SET DEFAULT",
    "restrict": "ON DELETE RESTRICT ON UPDATE RESTRICT",
    "no action, deferred": "DEFERRABLE INITIALLY DEFERRED",
    "cascade and set null": "ON DELETE CASCADE ON UPDATE SET NULL",
    "set null and cascade": "ON DELETE SET NULL ON UPDATE CASCADE",
}

#: Histories of each schema, and statements in each. CI plays always the same ones; SEED=1 plays others.
HISTORIES, STATEMENTS = int(os.environ.get("HISTORIES", "6")), 80
SEED = os.environ.get("SEED", "0")

#: What stands for a name in the statements below.
CHOICES = {
    "k": ("1", "2", "3", "4", "5", "6"),
    "u": ("1", "2", "3", "4", "5", "6", "NULL"),
    "up": ("1", "2", "3", "4", "5", "NULL", "NULL"),
    "v": ("1", "2", "3"),
    "insert": ("INSERT", "INSERT", "INSERT OR REPLACE", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR FAIL"),
    "update": ("UPDATE", "UPDATE", "UPDATE OR REPLACE", "UPDATE OR REPLACE", "UPDATE OR IGNORE", "UPDATE OR FAIL"),
    "do": ("NOTHING", "UPDATE SET v = 7", "UPDATE SET up = excluded.up", "UPDATE SET k = 6"),
    "where": ("k = {k}", "k = {k}", "u = {u}", "up = {up}", "v = {v}", "k > {k}", "up IS NULL"),
    "switch": ("recursive_triggers = ON", "recursive_triggers = OFF", "foreign_keys = ON", "foreign_keys = OFF"),
    "transaction": ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT one", "ROLLBACK TO one", "RELEASE one"),
}
PATTERNS = (
    *("{insert} INTO t VALUES({k}, {u}, {up}, {v})",) * 6,
    "{insert} INTO t VALUES({k}, {u}, {up}, {v}), ({k}, {u}, {up}, {v})",
    "INSERT INTO t VALUES({k}, {u}, {up}, {v}) ON CONFLICT DO {do}",
    *("{update} t SET k = {k} WHERE {where}",) * 4,
    *("{update} t SET u = {u} WHERE {where}",) * 2,
    *("{update} t SET up = {up} WHERE {where}",) * 2,
    "{update} t SET k = k + 1 WHERE {where}",
    "{update} t SET v = {v} WHERE {where}",
    "DELETE FROM t WHERE {where}",
    "PRAGMA {switch}",
    "{transaction}",
)


def statement(chance: random.Random) -> str:
    """Make a statement, with names in names filled in."""
    made = chance.choice(PATTERNS)
    while "{" in made:
        for name, choices in CHOICES.items():
            made = made.replace(f"{{{name}}}", chance.choice(choices), 1)
    return made


class Made(NamedTuple):
    """A file with the schema, to be copied, and what its outbox is decoded by."""

    path: Path
    shapes: dict[int, Shape]


@pytest.fixture(params=[(key, actions) for key in KEYS for actions in ACTIONS], ids=" – ".join, scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    key, actions = request.param
    ddl = KEYS[key].format(actions=ACTIONS[actions], default="DEFAULT 1" if actions == "set default" else "")
    file = Captured(tmp_path_factory.mktemp("trees") / "a.db", ddl)
    assert not file.synced.skipped
    yield Made(file.path, {shape.id: shape for shape in file.synced.shapes.values()})
    file.close()


class History:
    """Plays statements, and after each asks the outbox what came of it."""

    def __init__(self, db: sqlite3.Connection, shapes: dict[int, Shape]) -> None:
        self._db = db
        self._shapes = shapes
        self._tables = sorted(shape.table for shape in shapes.values())
        self._rows = self._read()

    def play(self, sql: str) -> None:
        told = changes(self._db, self._shapes, sql)
        if told is None:
            self._rows = self._read()
            return
        for event in told:
            self._change(event, overwritten="OR REPLACE" in sql)
        assert self._rows == self._read()

    def _change(self, event: Change, *, overwritten: bool) -> None:
        """Make the change; ``overwritten``: its old image may be what the row was before a foreign key's action."""
        table = event.shape.table
        if event.old is not None:
            was = self._rows.pop((table, *exactly(event.old.values[:1])))
            assert was == exactly(event.old.values) or (overwritten and event.op is Op.UPDATE), event
        if event.new is not None:
            key = (table, *exactly(event.new.values[:1]))
            assert key not in self._rows, event
            self._rows[key] = exactly(event.new.values)

    def _read(self) -> dict[Any, tuple[Any, ...]]:
        found = {}
        for table in self._tables:
            for row in self._db.execute(f"SELECT * FROM {table}"):
                found[(table, *exactly(row[:1]))] = exactly(row)
        return found


@pytest.mark.heavy
def test_what_is_told_of_a_statement_makes_of_the_rows_before_the_rows_after(made: Made) -> None:
    for number in range(HISTORIES):
        chance = random.Random(f"{SEED}.{number}")
        with copy_of(made.path) as db:
            db.execute("PRAGMA foreign_keys = ON")
            play_all(History(db, made.shapes).play, [statement(chance) for _ in range(STATEMENTS)])
