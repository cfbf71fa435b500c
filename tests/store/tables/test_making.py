"""Standard tables that somebody makes: whole, and one event; or refused, and nothing is there."""

from __future__ import annotations

import sqlite3

import pytest

from appliance.errors import BadRequest, TopicExists
from appliance.model import Op
from appliance.store.file import schema
from appliance.store.tables.making import NewColumn, create
from appliance.store.tables.standard import join_table
from tests.capture.support import Captured
from tests.store.tables.test_standard import JOINS, file

__all__ = ["file"]


@pytest.mark.parametrize("before", [False, True])
def test_a_table_that_is_made_is_one_event_of_world(file: Captured, before: bool) -> None:
    if before:  # the row of a table of that name that was dropped
        file.writer.execute("INSERT INTO world(table_name) VALUES('Notes')")
        file.events()
    with schema.transaction(file.server):
        create(file.server, "notes", [], table_permission=1, permission=2, owner="a")
    first, join = file.events()
    assert [first.op, join.op] == [Op.UPDATE if before else Op.CREATE, Op.CREATE]
    said = "SELECT permission, default_permission, user_account_id FROM world WHERE table_name = 'notes'"
    assert file.writer.execute(said).fetchall() == [(1, 2, "a")]


def test_columns_are_typed_required_unique_or_references(file: Captured) -> None:
    with schema.transaction(file.server):
        columns = [
            NewColumn("n", "Integer", required=True),
            NewColumn("code", "text", unique=True),
            NewColumn("of", "todo"),
            NewColumn("after", "step"),
        ]
        create(file.server, "step", columns, permission=3, owner="ann")
    db = file.writer
    assert [row[2:5] for row in file.server.execute("PRAGMA foreign_key_list(step)").fetchall()] == [
        ("step", "after", "reference_id"), ("todo", "of", "reference_id"),
    ]  # fmt: skip
    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
        db.execute("INSERT INTO step(code) VALUES('x')")
    db.execute("INSERT INTO step(n, code) VALUES('7', 'x')")
    assert db.execute("SELECT n, permission FROM step").fetchone() == (7, 3)
    world = "SELECT permission, default_permission, user_account_id FROM world WHERE table_name='step'"
    assert db.execute(world).fetchone() == (2097057, 3, "ann")


@pytest.mark.parametrize(
    ("name", "columns", "options", "error"),
    [
        ("todo", [], {}, TopicExists),
        ("TODO", [], {}, TopicExists),
        ("_appliance_x", [], {}, BadRequest),
        ("sqlite_x", [], {}, BadRequest),
        # What goes with them would be a table that is kept from everybody, or none that SQLite makes.
        ("_Appliance", [], {}, BadRequest),
        ("_litestream", [], {}, BadRequest),
        ("sqlite", [], {}, BadRequest),
        ("Reference", [], {}, BadRequest),
        ("taken", [], {}, TopicExists),
        ("Joined", [], {}, TopicExists),
        ("a b", [], {}, BadRequest),
        ('x"; DROP TABLE todo; --', [], {}, BadRequest),
        ("", [], {}, BadRequest),
        ("x" * 65, [], {}, BadRequest),
        ("x", [NewColumn("ID", "text")], {}, BadRequest),
        ("x", [NewColumn("a", "text"), NewColumn("A", "text")], {}, BadRequest),
        ("x", [NewColumn("a", "txt")], {}, BadRequest),
        ("x", [NewColumn("a", JOINS)], {}, BadRequest),
        ("x", [NewColumn("a)", "text")], {}, BadRequest),
        ("x", [NewColumn(f"c{number}", "text") for number in range(65)], {}, BadRequest),
        ("x", [], {"permission": 1 << 21}, BadRequest),
        ("x", [], {"table_permission": -1}, BadRequest),
    ],
)
def test_what_cannot_be_made_is_refused(
    file: Captured, name: str, columns: list[NewColumn], options: dict[str, int], error: type[Exception]
) -> None:
    file.writer.execute("CREATE INDEX TAKEN_user_account_id ON world(version)")
    file.writer.execute(f"CREATE VIEW {join_table('joined')}_usergroup_id AS SELECT 1")
    before = file.writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    with pytest.raises(error), schema.transaction(file.server):
        create(file.server, name, columns, **options)
    assert file.writer.execute("SELECT count(*) FROM sqlite_schema").fetchone() == before
