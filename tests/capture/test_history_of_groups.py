"""Random histories of a standard table and its join rows: a delete says which groups its row had, exactly."""

from __future__ import annotations

import os
import random
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from appliance.model import Change, Op, Shape
from appliance.store.file import schema
from appliance.store.tables import making, standard
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import GUESTS, USERS, join_table
from tests.capture.histories import changes, copy_of, play_all
from tests.capture.support import Captured, exactly

JOINS = join_table("todo")

#: What else is in the schema.
SCHEMAS = {
    "nothing": "",
    "a log": "CREATE TRIGGER log AFTER INSERT ON todo BEGIN INSERT INTO seen VALUES(NEW.id); END;",
    "a log of join rows": f"CREATE TRIGGER log AFTER DELETE ON {JOINS} BEGIN INSERT INTO seen VALUES(OLD.id); END;",
    "a UNIQUE index with a WHERE": "CREATE UNIQUE INDEX one ON todo(title) WHERE code = 1;",
    "deletes that do not happen": "CREATE TRIGGER keep BEFORE DELETE ON todo WHEN OLD.title = 'b' "
    "BEGIN UPDATE todo SET title = 'c' WHERE id = OLD.id; SELECT RAISE(IGNORE); END;",
    "writes that do not happen": "CREATE TRIGGER i BEFORE INSERT ON todo WHEN NEW.title = 'b' "
    "BEGIN SELECT RAISE(IGNORE); END;"
    "CREATE TRIGGER u BEFORE UPDATE ON todo WHEN NEW.title = 'b' BEGIN SELECT RAISE(IGNORE); END;",
    "written before it is written": "CREATE TRIGGER i BEFORE INSERT ON todo WHEN NEW.title = 'a' "
    "BEGIN UPDATE OR IGNORE todo SET code = NEW.code WHERE reference_id = 'B'; END;"
    "CREATE TRIGGER u BEFORE UPDATE ON todo WHEN NEW.title = 'c' AND OLD.reference_id <> 'A' "
    "BEGIN UPDATE OR IGNORE todo SET code = NEW.code WHERE reference_id = 'A'; END;",
    "written after it is written": "CREATE TRIGGER i AFTER INSERT ON todo WHEN NEW.title = 'a' "
    "BEGIN UPDATE todo SET code = 3 WHERE reference_id = 'B'; END;"
    "CREATE TRIGGER d AFTER DELETE ON todo WHEN OLD.title = 'c' BEGIN DELETE FROM todo WHERE code = 2; END;",
    "written before it is deleted": "CREATE TRIGGER d BEFORE DELETE ON todo WHEN OLD.title = 'c' "
    "BEGIN DELETE FROM todo WHERE code = OLD.code + 1; UPDATE todo SET title = 'a' WHERE code = OLD.code - 1; END;",
    "rows that refer to rows": "ALTER TABLE todo ADD COLUMN up REFERENCES todo(reference_id) "
    "ON DELETE CASCADE ON UPDATE CASCADE CHECK(up IS NOT reference_id);",
}
#: Where, with recursive_triggers, an UPDATE OR REPLACE comes to change the row that is being updated, which would be
#: undefined: lang_createtrigger.html, section 5.
PLAIN = ("written before it is deleted",)

#: Histories of each schema, and statements in each. CI plays always the same ones; SEED=1 plays others.
HISTORIES, STATEMENTS = int(os.environ.get("HISTORIES", "30")), 80
SEED = os.environ.get("SEED", "0")

#: What stands for a name in the statements below.
CHOICES = {
    "reference": ("'A'", "'B'", "'C'"),
    "id": ("1", "2", "3", "4"),
    "group": (f"'{USERS}'", f"'{GUESTS}'"),
    "bits": ("1", "2"),
    "code": ("NULL", "1", "2", "3"),
    "title": ("'a'", "'b'", "'c'", "NULL"),
    "insert": ("INSERT", "INSERT OR REPLACE", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR FAIL"),
    "update": ("UPDATE", "UPDATE OR REPLACE", "UPDATE OR REPLACE", "UPDATE OR IGNORE", "UPDATE OR FAIL"),
    "do": ("NOTHING", "UPDATE SET title = 'x'", "UPDATE SET code = 3"),
    "where": ("reference_id = 'A'", "reference_id = 'B'", "id = 1", "id > 2", "code IS NULL", "title = 'a'", "true"),
    "switch": ("recursive_triggers = ON", "recursive_triggers = OFF", "foreign_keys = ON", "foreign_keys = OFF"),
    "transaction": ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT one", "ROLLBACK TO one", "RELEASE one"),
}
PATTERNS = (
    "{insert} INTO todo(reference_id, code, title) VALUES({reference}, {code}, {title})",
    "{insert} INTO todo(id, reference_id, code, title) VALUES({id}, {reference}, {code}, {title}), (NULL, 'C', 2, 'a')",
    "INSERT INTO todo(reference_id, code) VALUES({reference}, {code}) ON CONFLICT DO {do}",
    "{update} todo SET reference_id = {reference} WHERE {where}",
    "{update} todo SET id = {id} WHERE {where}",
    "{update} todo SET code = {code}, title = {title} WHERE {where}",
    *("{update} todo SET up = {reference} WHERE {where}",) * 3,
    "DELETE FROM todo WHERE {where}",
    *(f"INSERT OR IGNORE INTO {JOINS}(todo_id, usergroup_id, permission) VALUES({{reference}}, {{group}}, {{bits}})",)
    * 3,
    f"DELETE FROM {JOINS} WHERE todo_id = {{reference}}",
    f"DELETE FROM {JOINS} WHERE usergroup_id = {{group}}",
    f"{{update}} {JOINS} SET todo_id = {{reference}} WHERE usergroup_id = {{group}}",
    f"UPDATE {JOINS} SET permission = permission + 1 WHERE todo_id = {{reference}}",
    "PRAGMA {switch}",
    "{transaction}",
)


def statement(chance: random.Random) -> str:
    return chance.choice(PATTERNS).format_map({name: chance.choice(choices) for name, choices in CHOICES.items()})


class Made(NamedTuple):
    """A file with the schema, to be copied, and what its outbox is decoded by."""

    path: Path
    shapes: dict[int, Shape]
    plain: bool


@pytest.fixture(params=SCHEMAS, scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    file = Captured(tmp_path_factory.mktemp("groups") / "a.db", "CREATE TABLE seen(id);")
    standard.prepare(file.server)
    with schema.transaction(file.server):
        making.create(file.server, "todo", [NewColumn("code", "integer", unique=True), NewColumn("title", "text")])
    file.writer.executescript(SCHEMAS[request.param])
    synced = file.synchronise()
    assert not synced.skipped
    yield Made(file.path, {shape.id: shape for shape in synced.shapes.values()}, request.param in PLAIN)
    file.close()


class History:
    """Plays statements, and after each asks the outbox what came of it."""

    def __init__(self, db: sqlite3.Connection, shapes: dict[int, Shape]) -> None:
        self._db = db
        self._shapes = shapes
        self._rows = self._read_rows()

    def play(self, sql: str) -> None:
        joined = self._read_joins()
        told = changes(self._db, self._shapes, sql)
        if told is None:
            self._rows = self._read_rows()
            return
        #: Of a row that is being deleted, whose join rows went first.
        taken: dict[Any, dict[str, int]] = defaultdict(dict)
        for event in told:
            if event.shape.table == JOINS:
                self._join(event, joined, taken)
            elif event.shape.table == "todo":
                self._change(event, joined, taken)
        assert self._rows == self._read_rows()

    @staticmethod
    def _join(event: Change, joined: dict[Any, dict[str, int]], taken: dict[Any, dict[str, int]]) -> None:
        if event.old is not None:
            *_, bits, row, group = event.old.values
            assert joined[row].pop(group) == bits
            if event.op is Op.DELETE:
                taken[row][group] = bits
        if event.new is not None:
            *_, bits, row, group = event.new.values
            joined[row][group] = bits

    def _change(self, event: Change, joined: dict[Any, dict[str, int]], taken: dict[Any, dict[str, int]]) -> None:
        if event.old is not None:
            row = event.old.values[0]
            assert self._rows.pop(row) == exactly(event.old.values)
            if event.op is Op.DELETE:
                assert dict(event.joins) == joined[row] | taken[row]
                assert len(event.joins) == len(dict(event.joins))
            taken.pop(row, None)
        if event.new is not None:
            assert event.new.values[0] not in self._rows
            self._rows[event.new.values[0]] = exactly(event.new.values)

    def _read_rows(self) -> dict[Any, tuple[Any, ...]]:
        shape = next(shape for shape in self._shapes.values() if shape.table == "todo")
        names = ", ".join(column.name for column in shape.columns)
        return {row[0]: exactly(row) for row in self._db.execute(f"SELECT {names} FROM todo")}

    def _read_joins(self) -> dict[Any, dict[str, int]]:
        found: dict[Any, dict[str, int]] = defaultdict(dict)
        for row, group, bits in self._db.execute(f"SELECT todo_id, usergroup_id, permission FROM {JOINS}"):
            found[row][group] = bits
        return found


@pytest.mark.heavy
def test_a_delete_says_which_groups_its_row_had(made: Made) -> None:
    for number in range(HISTORIES):
        chance = random.Random(f"{SEED}.{number}")
        with copy_of(made.path) as db:
            played = [statement(chance) for _ in range(STATEMENTS)]
            if made.plain:
                played = [sql for sql in played if sql != "PRAGMA recursive_triggers = ON"]
            play_all(History(db, made.shapes).play, played)
