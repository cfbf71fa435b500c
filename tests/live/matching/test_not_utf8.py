"""Text that is not UTF-8, where rights are read from, stops nobody's events: what it names is nobody and nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from appliance.live.matching.audience import Wish
from appliance.live.replay.reading import Reading
from appliance.protocol.permissions import GROUP_SHIFT, Verb
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import join_table
from tests.live.matching.test_facts import caught_up, peer
from tests.live.replay.test_reading import served as open_file
from tests.web.api.application import USERS, served

TODOS, MEMBERS, WORLDS = map(join_table, ("todo", "user_account", "world"))
READ = Verb.READ << GROUP_SHIFT


@pytest.mark.parametrize("live_set", [False, True])
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO todo(reference_id, permission) VALUES({}, 2)",
        "INSERT INTO todo(reference_id, permission, user_account_id) VALUES('r', 2, {})",
        "INSERT INTO todo(reference_id, permission, created_at) VALUES('r', 2, {})",
        f"INSERT INTO {TODOS}(todo_id, usergroup_id, permission) VALUES('q', {{}}, {READ})",
        f"INSERT INTO {TODOS}(todo_id, usergroup_id, permission) VALUES({{}}, 'staff', {READ})",
        f"INSERT INTO {MEMBERS}(user_account_id, usergroup_id) VALUES({{}}, 'staff')",
        f"INSERT INTO {MEMBERS}(user_account_id, usergroup_id) VALUES('ann', {{}})",
        "INSERT INTO usergroup(reference_id, name) VALUES({}, 'club')",
        "INSERT INTO usergroup(name) VALUES({})",
        "INSERT INTO user_account(reference_id, email) VALUES({}, 'a@b')",
        "INSERT INTO world(table_name) VALUES({})",
        "UPDATE world SET user_account_id = {} WHERE table_name = 'todo'",
        "UPDATE world SET owner_column = {} WHERE table_name = 'todo'",
        f"INSERT INTO {WORLDS}(world_id, usergroup_id) SELECT reference_id, {{}} FROM world",
    ],
)
async def test_what_happens_behind_it_is_told(tmp_path: Path, statement: str, live_set: bool) -> None:
    async with served(tmp_path / "a.db", tables={"todo": (NewColumn("text", "text"),)}) as live:
        hub, ann, bob, wish = live.hub, peer("ann", "staff"), peer("bob", "staff"), Wish(live_set=live_set)
        live.sql("INSERT INTO todo(reference_id, permission) VALUES('q', 0)")
        await caught_up(live)
        begun = hub.position.id
        hub.attach(hub.subscribe(ann, "todo", wish))
        with closing(sqlite3.connect(live.store.path, isolation_level=None)) as db:
            db.execute(statement.format("CAST(x'ff' AS TEXT)"))
        live.sql("INSERT INTO todo(reference_id, permission) VALUES('s', 2)")
        await caught_up(live)
        await Reading(hub, live.store, bob, [hub.subscribe(bob, "todo", wish)], begun).run()
        for who in (ann, bob):
            assert who.sent[-1]["Key"] == ["s"]


async def test_a_group_that_is_named_so_is_one_like_others(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db", tables={"todo": (NewColumn("text", "text"),)}) as live:
        with closing(sqlite3.connect(live.store.path, isolation_level=None)) as db:
            db.executescript(
                f"""INSERT INTO usergroup(reference_id, name) VALUES(CAST(x'ff' AS TEXT), 'club');
                INSERT INTO {MEMBERS}(user_account_id, usergroup_id) VALUES('{USERS[0]}', CAST(x'ff' AS TEXT));
                INSERT INTO todo(reference_id, permission) VALUES('r', 0), ('s', 0);
                INSERT INTO {TODOS}(todo_id, usergroup_id, permission) VALUES('r', CAST(x'ff' AS TEXT), {READ})"""
            )
        await caught_up(live)
        ann = peer(USERS[0])
        ann.reader = await live.hub.access.reader(await live.hub.access.principal(live.token(USERS[0])))
        subscription = live.hub.subscribe(ann, "todo", Wish(live_set=True))
        await Reading(live.hub, live.store, ann, [subscription], live.hub.position.id, scan=True).run()
        assert [each["Key"] for each in ann.sent] == [["r"]]


@pytest.mark.parametrize(
    ("statement", "skipped"),
    [
        ("CREATE TABLE x(a DEFAULT 'CAFE', /* CAFE */ b CAFE CHECK(b <> 'CAFE'), c AS (a || 'CAFE') STORED)", False),
        ("CREATE TABLE CAFE(a)", True),
        ("CREATE TABLE x(a, CAFE)", True),
        ("CREATE VIEW v AS SELECT 'CAFE'", False),
        ("CREATE TRIGGER CAFE AFTER INSERT ON t BEGIN SELECT 'CAFE'; END", False),
        ("CREATE INDEX CAFE ON t(v)", False),
        ("CREATE UNIQUE INDEX CAFE ON t(v)", False),
        ("CREATE UNIQUE INDEX i ON t(v) WHERE v <> 'CAFE'", False),
    ],
)
@pytest.mark.parametrize("before", [True, False])
async def test_in_a_schema_it_is_in_nobodys_way(tmp_path: Path, statement: str, skipped: bool, before: bool) -> None:
    name, table, sql = (f"replace({each}, 'CAFE', CAST(x'636166e9' AS TEXT))" for each in ("name", "tbl_name", "sql"))
    written = (
        statement, "PRAGMA writable_schema=ON",
        f"UPDATE sqlite_schema SET name={name}, tbl_name={table}, sql={sql} WHERE sql LIKE '%CAFE%'",
        "PRAGMA schema_version=1000", "PRAGMA writable_schema=OFF",
    )  # fmt: skip
    async with open_file(tmp_path / "a.db", *(written if before else ())) as live:
        ann = live.peer()
        live.hub.attach(live.subscribe(ann))
        await live.write(*(() if before else written), "INSERT INTO t VALUES(1, 1)")
        await live.write("CREATE TABLE later(a)", "INSERT INTO t VALUES(2, 2)")
        assert [each["Key"] for each in ann.sent] == [[1], [2]]
        catalog = await live.store.synchronise()
        assert "later" in catalog.tables
        assert bool(catalog.skipped) == skipped
