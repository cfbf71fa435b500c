"""Standard tables: made whole, filled by raw SQL of any writer, and told by their reference_ids."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.capture.shape import dump, load
from appliance.errors import StoreUnusable
from appliance.model import UTF_8, Op
from appliance.store.access import grants
from appliance.store.file import schema
from appliance.store.tables import making, standard
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import ADMINISTRATORS, BUILT_IN, GUESTS, USERS, join_table
from tests.capture.support import Captured, Replica
from tests.capture.test_limits import harden

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
JOINS = join_table("todo")


def make(file: Captured, *columns: str, name: str = "todo", **options: int | str) -> None:
    with schema.transaction(file.server):
        typed = [NewColumn(*column.split(":")) for column in columns]
        making.create(file.server, name, typed, **options)  # type: ignore[arg-type]
    file.synchronise()
    file.events()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Captured]:
    opened = Captured(tmp_path / "a.db")
    standard.prepare(opened.server)
    opened.synchronise()
    make(opened, "title:text", "done:boolean")
    yield opened
    opened.close()


def said(file: Captured) -> list[tuple[str, str, tuple[tuple[str, int], ...]]]:
    return [(event.op.name, event.shape.table, event.joins) for event in file.events()]


def test_the_system_tables_are_made_once(file: Captured) -> None:
    assert set(standard.registered(file.server)) == {
        "user_account", "usergroup", "world", join_table("user_account"), join_table("world"), "todo", JOINS
    }  # fmt: skip
    groups = dict(file.writer.execute("SELECT reference_id, name FROM usergroup").fetchall())
    assert groups == BUILT_IN == {GUESTS: "guests", USERS: "users", ADMINISTRATORS: "administrators"}
    before = file.server.total_changes
    standard.prepare(file.server)
    assert file.server.total_changes == before


def test_every_standard_table_has_its_row_in_world(file: Captured) -> None:
    rows = dict(file.writer.execute("SELECT table_name, permission FROM world").fetchall())
    assert rows == dict.fromkeys([each.table for each in standard.registered(file.server).values()], 2097057)


def test_a_raw_insert_gets_every_default(file: Captured) -> None:
    db = file.connect()
    harden(db)
    for pragma in ("trusted_schema=OFF", "foreign_keys=OFF", "recursive_triggers=ON"):
        db.execute(f"PRAGMA {pragma}")
    for title in ("a", "b"):
        db.execute("INSERT INTO todo(title) VALUES(?)", (title,))
    rows = db.execute(
        "SELECT reference_id, created_at, version, updated_at, permission, user_account_id FROM todo"
    ).fetchall()
    db.close()
    assert [row[2:] for row in rows] == [(1, None, 2097057, None)] * 2
    assert all(UUID4.fullmatch(row[0]) and RFC3339.fullmatch(row[1]) for row in rows)
    assert len({row[0] for row in rows}) == 2


def test_uuids_are_of_version_4_and_all_their_variants_occur(file: Captured) -> None:
    file.writer.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) "
                        "INSERT INTO todo(title) SELECT i FROM n")  # fmt: skip
    found = [row[0] for row in file.writer.execute("SELECT reference_id FROM todo")]
    assert all(UUID4.fullmatch(each) for each in found)
    assert {each[19] for each in found} == set("89ab")
    assert len(set(found)) == 500


def test_id_is_not_captured_and_reference_id_is_the_key(file: Captured) -> None:
    file.writer.execute("INSERT INTO todo(reference_id, title, done) VALUES('one', 'milk', 0)")
    (event,) = file.events()
    shape = event.shape
    names = [column.name for column in shape.columns]
    assert names == ["reference_id", "version", "created_at", "updated_at", "permission", "user_account_id", "title",
                     "done"]  # fmt: skip
    assert (shape.key, shape.rowid, shape.standard) == ((0,), False, True)
    assert load(shape.id, shape.table, dump(shape), UTF_8) == shape


def test_a_layout_of_before_there_were_standard_tables_is_read_and_written_as_it_was() -> None:
    layout = '{"columns": [["id", "INTEGER", "INTEGER", "BINARY"]], "key": [0], "rowid": false}'
    shape = load(1, "t", layout, UTF_8)
    assert not shape.standard
    assert dump(shape) == layout


def test_a_replace_by_reference_id_is_an_update(file: Captured) -> None:
    file.writer.execute("INSERT INTO todo(reference_id, title) VALUES('one', 'milk')")
    file.events()
    file.writer.execute("REPLACE INTO todo(reference_id, title) VALUES('one', 'bread')")
    (event,) = file.events()
    assert (event.op, event.new and event.new.values[0], event.old and event.old.values[6]) == (
        Op.UPDATE,
        "one",
        "milk",
    )


@pytest.mark.parametrize("foreign_keys", ["ON", "OFF"])
@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_a_delete_says_which_groups_the_row_was_joined_to(file: Captured, foreign_keys: str, recursive: str) -> None:
    db = file.writer
    db.execute(f"PRAGMA foreign_keys={foreign_keys}")
    db.execute(f"PRAGMA recursive_triggers={recursive}")
    db.execute("INSERT INTO todo(reference_id) VALUES('one'), ('two'), ('three'), ('four')")
    joined = (("one", USERS, 7), ("one", GUESTS, 8), ("two", USERS, 9), ("four", USERS, 10))
    db.executemany(f"INSERT INTO {JOINS}(todo_id, usergroup_id, permission) VALUES(?, ?, ?)", joined)
    file.events()

    db.execute("DELETE FROM todo WHERE reference_id IN ('one', 'two', 'three')")

    deleted = {
        event.old.values[0]: dict(event.joins) for event in file.events() if event.shape.table == "todo" and event.old
    }
    assert deleted == {"one": {USERS: 7, GUESTS: 8}, "two": {USERS: 9}, "three": {}}
    assert db.execute("SELECT count(*) FROM _appliance_scratch").fetchone() == (0,)
    # A row that a REPLACE displaces under another key, too.
    db.execute("UPDATE todo SET id = 40 WHERE reference_id = 'four'")
    file.events()
    db.execute("INSERT INTO todo(id, reference_id) VALUES(41, 'five')")
    file.events()
    db.execute("UPDATE OR REPLACE todo SET id = 40 WHERE reference_id = 'five'")
    deletes = [event for event in file.events() if event.op is Op.DELETE and event.shape.table == "todo"]
    assert [(event.old.values[0], event.joins) for event in deletes if event.old] == [("four", ((USERS, 10),))]
    assert db.execute("SELECT count(*) FROM _appliance_scratch").fetchone() == (0,)


def test_groups_of_a_delete_that_came_to_nothing_are_not_those_of_the_next(file: Captured) -> None:
    db = file.writer
    db.execute("CREATE TABLE stop(a)")
    db.execute(
        "CREATE TRIGGER keep BEFORE DELETE ON todo WHEN EXISTS(SELECT 1 FROM stop) BEGIN SELECT RAISE(IGNORE); END"
    )
    file.synchronise()
    db.execute("INSERT INTO todo(reference_id) VALUES('one')")
    db.execute(f"INSERT INTO {JOINS}(todo_id, usergroup_id) VALUES('one', '{USERS}')")
    db.execute("INSERT INTO stop VALUES(1)")
    db.execute("DELETE FROM todo")
    db.execute("DELETE FROM stop")
    db.execute(f"DELETE FROM {JOINS}")
    file.events()
    db.execute("DELETE FROM todo")
    assert said(file) == [("DELETE", "todo", ())]


def test_an_upsert_or_an_ignored_insert_leaves_no_groups_behind(file: Captured) -> None:
    db = file.writer
    db.execute("INSERT INTO todo(reference_id) VALUES('one')")
    db.execute(f"INSERT INTO {JOINS}(todo_id, usergroup_id) VALUES('one', '{USERS}')")
    db.execute("INSERT OR IGNORE INTO todo(reference_id) VALUES('one')")
    db.execute("INSERT INTO todo(reference_id) VALUES('one') ON CONFLICT DO UPDATE SET title = 'x'")
    db.execute("DELETE FROM " + JOINS)
    file.events()
    db.execute("DELETE FROM todo")
    assert said(file) == [("DELETE", "todo", ())]
    db.execute("INSERT INTO todo(title) VALUES('new')")
    assert db.execute("SELECT count(*) FROM _appliance_scratch").fetchone() == (0,)


def test_a_cascade_tells_the_join_rows_and_then_the_row(file: Captured) -> None:
    db = file.writer
    db.execute("PRAGMA foreign_keys=ON")
    db.execute("INSERT INTO user_account(reference_id, email) VALUES('ann', 'ann@example.com')")
    members = join_table("user_account")
    db.execute(f"INSERT INTO {members}(user_account_id, usergroup_id) VALUES('ann', '{USERS}')")
    file.events()
    db.execute("DELETE FROM user_account")
    assert said(file) == [("DELETE", members, ()), ("DELETE", "user_account", ((USERS, 16289),))]


def test_all_writes_of_a_standard_table_replay(file: Captured) -> None:
    replica = Replica()
    replica.load(file)
    db = file.writer
    db.execute("PRAGMA foreign_keys=ON")
    for statement in (
        "INSERT INTO todo(reference_id, title) VALUES('a', 1), ('b', 2), ('c', 3)",
        f"INSERT INTO {JOINS}(todo_id, usergroup_id) SELECT reference_id, '{USERS}' FROM todo",
        "REPLACE INTO todo(reference_id, title) VALUES('a', 4)",
        "REPLACE INTO todo(id, reference_id) SELECT id, 'd' FROM todo WHERE reference_id = 'b'",
        "UPDATE OR REPLACE todo SET reference_id = 'd' WHERE reference_id = 'a'",
        "DELETE FROM todo WHERE reference_id = 'c'",
        "DELETE FROM usergroup",
        "DELETE FROM todo",
    ):
        db.execute(statement)
        replica.apply(file.events())
        for table in file.synced.shapes:
            assert replica.content(table) == file.content(table), statement


@pytest.mark.parametrize("taken", [
    "CREATE TABLE world(id INTEGER PRIMARY KEY, name TEXT)",
    "CREATE VIEW Usergroup AS SELECT 1 AS a",
])  # fmt: skip
def test_a_system_tables_name_that_is_taken_is_refused_and_nothing_is_made(tmp_path: Path, taken: str) -> None:
    file = Captured(tmp_path / "a.db", taken)
    with pytest.raises(StoreUnusable, match=r'"(world|usergroup)" is taken .*--no-accounts'):
        standard.prepare(file.server)
    assert standard.registered(file.server) == {}
    file.close()


def test_system_tables_that_are_there_are_taken_up_again(file: Captured) -> None:
    file.writer.execute("DELETE FROM _appliance_standard")
    file.writer.execute("ALTER TABLE user_account ADD COLUMN phone TEXT")
    standard.prepare(file.server)
    assert "user_account" in standard.registered(file.server)


def test_a_table_that_was_rebuilt_without_its_columns_is_for_administrators_only(file: Captured) -> None:
    file.writer.executescript(
        f"UPDATE world SET permission = 2097151; DROP TABLE {JOINS}; DROP TABLE todo; CREATE TABLE todo(title)"
    )
    grant = grants.read(file.server)["todo"]
    assert (grant.kind, grant.guarded) == (grants.TableKind.PLAIN, grants.CLOSED)
    synced = file.synchronise()
    assert synced.skipped == {}
    assert not synced.shapes["todo"].standard
    file.events()
    file.writer.execute("INSERT INTO todo VALUES(1)")
    file.writer.execute("DELETE FROM todo")
    assert said(file) == [("CREATE", "todo", ()), ("DELETE", "todo", ())]


def test_so_is_what_joins_its_rows_to_groups(file: Captured) -> None:
    file.writer.executescript(
        "PRAGMA foreign_keys=OFF; UPDATE world SET permission = 2097151; DROP TABLE todo; CREATE TABLE todo(title)"
    )
    grant = grants.read(file.server)[JOINS]
    assert (grant.kind, grant.guarded) == (grants.TableKind.PLAIN, grants.CLOSED)


def test_a_password_that_anybody_changes_ends_the_tokens_of_before(file: Captured) -> None:
    db = file.connect()
    harden(db)
    db.execute("PRAGMA trusted_schema=OFF")
    db.execute("INSERT INTO user_account(reference_id, email, password) VALUES('ann', 'a', 'x'), ('bob', 'b', 'x')")

    def ended() -> dict[str, float]:
        standing = grants.standing(file.server, ["ann", "bob"])
        return {who: each.not_before for who, each in standing.items() if each.not_before}

    generation = schema.generation(file.server)
    db.execute("UPDATE user_account SET password = password, name = 'n'")
    assert (ended(), schema.generation(file.server)) == ({}, generation)
    before = time.time()
    db.execute("UPDATE OR IGNORE user_account SET password = 'y' WHERE reference_id = 'ann'")
    first = ended()
    assert list(first) == ["ann"]
    assert before < first["ann"] <= time.time() + 1
    assert schema.generation(file.server) > generation
    db.execute("UPDATE _appliance_account SET not_before = 5000000000")
    db.execute("UPDATE user_account SET password = NULL")
    db.close()
    assert ended()["ann"] == 5000000000
    assert set(ended()) == {"ann", "bob"}
