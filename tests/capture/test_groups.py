"""The groups that are told with a delete: those that the row has when it goes, whatever came to nothing before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.model import Op
from appliance.store.file import schema
from appliance.store.tables import making, standard
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import GUESTS, USERS, join_table
from tests.capture.support import Captured
from tests.capture.test_limits import harden

JOINS = join_table("todo")
Made = Callable[[str], Captured]

#: Schemas in which copies of rows at risk, and so their groups, outlast the statement that they were made for.
SCHEMAS = {
    "trigger": "CREATE TRIGGER log AFTER INSERT ON todo BEGIN INSERT INTO seen VALUES(NEW.id); END",
    "trigger of the join table": f"CREATE TRIGGER log AFTER DELETE ON {JOINS} BEGIN INSERT INTO seen VALUES(1); END",
    "expression": "CREATE UNIQUE INDEX one ON todo(lower(title))",
    "expression and trigger": "CREATE UNIQUE INDEX one ON todo(lower(title));"
    "CREATE TRIGGER log AFTER INSERT ON todo BEGIN INSERT INTO seen VALUES(NEW.id); END",
}
#: Writes that put a row at risk and do nothing to it.
COME_TO_NOTHING = (
    "INSERT OR IGNORE INTO todo(reference_id) VALUES('one')",
    "INSERT INTO todo(reference_id) VALUES('one') ON CONFLICT DO UPDATE SET code = 5",
    "UPDATE OR IGNORE todo SET reference_id = 'one' WHERE reference_id = 'two'",
)
DISPLACE = (
    "UPDATE OR REPLACE todo SET reference_id = 'one' WHERE reference_id = 'two'",
    "UPDATE OR REPLACE todo SET id = 1 WHERE reference_id = 'two'",
    "UPDATE OR REPLACE todo SET title = 'A' WHERE reference_id = 'two'",
    "INSERT OR REPLACE INTO todo(id, reference_id) VALUES(1, 'three')",
    "INSERT OR REPLACE INTO todo(reference_id, title) VALUES('three', 'A')",
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Made]:
    file = Captured(tmp_path / "a.db", "CREATE TABLE seen(id)")

    def made(ddl: str) -> Captured:
        standard.prepare(file.server)
        with schema.transaction(file.server):
            making.create(file.server, "todo", [NewColumn("code", "integer"), NewColumn("title", "text")])
        file.writer.executescript(ddl)
        assert not file.synchronise().skipped
        file.writer.execute("INSERT INTO todo(id, reference_id, title) VALUES(1, 'one', 'a'), (2, 'two', 'b')")
        return file

    yield made
    file.close()


def join(file: Captured, group: str) -> None:
    file.writer.execute(f"INSERT INTO {JOINS}(todo_id, usergroup_id, permission) VALUES('one', ?, 7)", (group,))


def groups(file: Captured) -> list[list[str]]:
    """Give the groups of each row that was deleted."""
    deleted = [event for event in file.events() if event.op is Op.DELETE and event.shape.table == "todo"]
    return [[group for group, _ in event.joins] for event in deleted]


@pytest.mark.parametrize("foreign_keys", ["ON", "OFF"])
@pytest.mark.parametrize("first", COME_TO_NOTHING)
@pytest.mark.parametrize("ddl", SCHEMAS)
def test_a_displaced_row_has_the_groups_of_now_not_of_a_write_that_came_to_nothing(
    make: Made, ddl: str, first: str, foreign_keys: str
) -> None:
    file = make(SCHEMAS[ddl])
    db = file.writer
    db.execute(f"PRAGMA foreign_keys = {foreign_keys}")
    file.events()
    for last in DISPLACE:
        for left in ([], [USERS], [USERS, GUESTS], [GUESTS]):
            db.execute("BEGIN")
            join(file, USERS)
            db.execute(first)
            db.execute(f"DELETE FROM {JOINS}")
            for group in left:
                join(file, group)
            db.execute("SAVEPOINT displaces")
            before = db.execute("SELECT max(id) FROM _appliance_outbox").fetchone()[0]
            db.execute(last)
            told = db.execute("SELECT v0 FROM _appliance_outbox WHERE op = ? AND id > ?", (int(Op.GRANTS), before))
            gone = db.execute("SELECT count(*) FROM todo WHERE reference_id = 'one' AND title = 'a'").fetchone() == (0,)
            # What is displaced by an index on an expression alone may be told of, or not; who has no part in it is not.
            unseen = "'A'" in last and ddl.startswith("expression")
            assert {group for (group,) in told} in ([set(left), set()] if unseen else [set(left) if gone else set()])
            db.execute("ROLLBACK")


def test_a_row_that_a_trigger_puts_in_the_way_is_displaced_with_its_groups(make: Made) -> None:
    file = make(
        "CREATE UNIQUE INDEX one ON todo(code);"
        "CREATE TRIGGER moves BEFORE INSERT ON todo BEGIN UPDATE todo SET code = 9 WHERE reference_id = 'one'; END"
    )
    file.writer.execute("PRAGMA foreign_keys = ON")
    join(file, USERS)
    file.events()
    file.writer.execute("INSERT OR REPLACE INTO todo(code) VALUES(9)")
    assert groups(file) == [[USERS]]


def test_deletes_that_a_trigger_makes_nothing_of_leave_few_notes_behind(make: Made) -> None:
    file = make(
        "CREATE TRIGGER soft BEFORE DELETE ON todo "
        "BEGIN UPDATE todo SET title = 'deleted' WHERE id = OLD.id; SELECT RAISE(IGNORE); END"
    )
    db = file.writer
    db.executemany("INSERT INTO todo(reference_id) VALUES(?)", [(f"r{number}",) for number in range(200)])
    db.execute(f"INSERT INTO {JOINS}(todo_id, usergroup_id) SELECT reference_id, '{USERS}' FROM todo")
    db.execute("DELETE FROM todo")
    assert db.execute("SELECT count(*) FROM todo").fetchone() == (202,)
    assert db.execute("SELECT count(*) FROM _appliance_scratch").fetchone()[0] < 50
    db.execute("DROP TRIGGER soft")
    file.events()
    db.execute("DELETE FROM todo")
    assert groups(file) == [[USERS]] * 202


def test_an_update_that_has_none_but_its_own_row_in_its_way_notes_nothing(make: Made) -> None:
    file = make("CREATE UNIQUE INDEX one ON todo(title) WHERE code = 1;" + SCHEMAS["trigger"])
    db = file.writer
    db.execute("UPDATE todo SET code = 1")
    join(file, USERS)
    db.execute("UPDATE todo SET code = 1")
    assert db.execute("SELECT count(*) FROM _appliance_scratch").fetchone() == (0,)


def test_groups_noted_for_a_delete_that_came_to_nothing_are_not_told_without_one(make: Made) -> None:
    file = make(
        SCHEMAS["expression"] + ";"
        "CREATE TRIGGER keep BEFORE DELETE ON todo WHEN OLD.code IS NULL BEGIN SELECT RAISE(IGNORE); END"
    )
    db = file.writer
    db.execute("INSERT INTO todo(id, reference_id, code) VALUES(9, 'nine', 7)")
    join(file, USERS)
    db.execute("DELETE FROM todo WHERE reference_id = 'one'")
    db.execute(f"DELETE FROM {JOINS}")
    file.events()
    # It displaces two rows: of the first, by an index on an expression, nobody can know.
    db.execute("INSERT OR REPLACE INTO todo(id, reference_id, title) VALUES(9, 'three', 'A')")
    assert db.execute("SELECT reference_id FROM todo ORDER BY id").fetchall() == [("two",), ("three",)]
    assert groups(file) == [[]]


@pytest.mark.parametrize("more", ["SELECT 1", SCHEMAS["expression"]])
def test_the_groups_of_a_row_outlast_what_its_deletion_writes(make: Made, more: str) -> None:
    file = make(
        f"{more}; CREATE TRIGGER follows BEFORE DELETE ON todo "
        "BEGIN UPDATE todo SET title = 'x' WHERE code = 30; DELETE FROM todo WHERE code = OLD.code + 1; END"
    )
    db = file.writer
    db.execute("PRAGMA recursive_triggers = ON")
    db.execute("PRAGMA foreign_keys = ON")
    db.executemany(
        "INSERT INTO todo(reference_id, code) VALUES(?, ?)", [(f"r{number}", number) for number in (*range(20), 30)]
    )
    db.execute(f"INSERT INTO {JOINS}(todo_id, usergroup_id) SELECT reference_id, '{USERS}' FROM todo WHERE code < 30")
    file.events()
    db.execute("DELETE FROM todo WHERE code = 0")
    assert groups(file) == [[USERS]] * 20


@pytest.mark.parametrize("ddl", SCHEMAS)
def test_a_hardened_writer_can_displace_rows_of_a_standard_table(make: Made, ddl: str) -> None:
    file = make(SCHEMAS[ddl])
    join(file, USERS)
    file.events()
    db = file.connect()
    harden(db)
    db.execute("INSERT OR REPLACE INTO todo(id, reference_id) VALUES(1, 'three')")
    db.execute("UPDATE OR REPLACE todo SET reference_id = 'two' WHERE reference_id = 'three'")
    db.execute("DELETE FROM todo")
    db.close()
    assert groups(file) == [[USERS], [], []]
