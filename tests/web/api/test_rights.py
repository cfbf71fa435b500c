"""Who may read and write which rows by the API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from appliance.model import Topic
from appliance.protocol.permissions import GROUP_SHIFT, MOST, OWNER_SHIFT, Verb
from appliance.store.outbox import topics
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import ADMINISTRATORS, USERS, join_table
from tests.web.api.application import Served, code, ids, served

TODO = {"todo": (NewColumn("title", "text"),)}
JOIN = join_table("todo")
MEMBERSHIP = join_table("user_account")
TRIED = "CREATE TRIGGER tries AFTER INSERT ON plain BEGIN INSERT INTO tried VALUES(new.k); END"
PLAIN = "CREATE TABLE plain(k INTEGER PRIMARY KEY, owner TEXT, v)"


async def todo(live: Served, subject: str | None = "ann", **attributes: object) -> str:
    answer = await live.create("todo", subject, title="t", **attributes)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["id"])


async def test_a_row_is_its_owners_and_a_peek_for_all_others(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = await todo(live)

        assert ids(await live.ask("GET", "/api/todo", "ann")) == [row]
        assert ids(await live.ask("GET", "/api/todo", "bob")) == []
        assert ids(await live.ask("GET", "/api/todo")) == [row]
        assert code(await live.ask("GET", f"/api/todo/{row}", "bob")) == (403, "forbidden")
        assert code(await live.change("todo", row, "bob", title="x")) == (403, "forbidden")
        assert code(await live.ask("DELETE", f"/api/todo/{row}", "bob")) == (403, "forbidden")
        assert live.sql("SELECT title, version FROM todo") == [("t", 1)]


async def test_a_row_that_may_not_be_peeked_is_not_there(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = await todo(live, permission=0x7F << OWNER_SHIFT)

        answers = [
            await live.ask("GET", f"/api/todo/{row}", "bob"),
            await live.change("todo", row, "bob", title="x"),
            await live.ask("DELETE", f"/api/todo/{row}", "bob"),
        ]
        missing = await live.ask("GET", "/api/todo/nothing", "bob")
        assert {answer.text for answer in answers} == {missing.text}
        assert code(missing) == (404, "not-found")


@pytest.mark.parametrize(("verb", "method"), [(Verb.READ, "GET"), (Verb.UPDATE, "PATCH"), (Verb.DELETE, "DELETE")])
@pytest.mark.parametrize("kind", ["guest", "owner", "group"])
async def test_each_bit_gives_what_it_says_and_nothing_else(tmp_path: Path, verb: Verb, method: str, kind: str) -> None:
    bit = int(verb) << {"guest": 0, "owner": OWNER_SHIFT, "group": GROUP_SHIFT}[kind]
    owner = "bob" if kind == "owner" else "ann"
    async with served(tmp_path / "live.db", tables=TODO) as live:
        live.sql("INSERT INTO todo(reference_id, permission, user_account_id) VALUES('r', 1, ?)", owner)
        if kind == "group":
            live.sql(f'INSERT INTO "{JOIN}"(todo_id, usergroup_id, permission) VALUES(?, ?, ?)', "r", USERS, bit)
        else:
            live.sql("UPDATE todo SET permission = ?", bit | 1)
        done = {}
        for each in ("GET", "PATCH", "DELETE"):
            if each == "PATCH":
                answer = await live.change("todo", "r", "bob", title="x")
            else:
                answer = await live.ask(each, "/api/todo/r", "bob")
            done[each] = answer.status_code

        success = {"GET": 200, "PATCH": 204, "DELETE": 204}
        assert done == {each: success[each] if each == method else 403 for each in done}


async def test_what_is_not_granted_on_a_table_is_refused_or_not_known(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", PLAIN, tables=TODO) as live:
        assert code(await live.ask("GET", "/api/plain", "ann")) == (404, "unknown-topic")
        assert code(await live.create("plain", "ann", v=1)) == (404, "unknown-topic")
        live.sql("UPDATE world SET permission = 1 WHERE table_name IN ('plain', 'todo')")
        assert ids(await live.ask("GET", "/api/plain", "ann")) == []
        refused = await live.create("plain", "ann", v=1)
        assert code(refused) == (403, "forbidden")
        assert refused.json()["errors"][0]["detail"].endswith(
            "live-appliance table grant plain --to users --can create"
        )
        assert code(await live.create("todo", "ann", title="t")) == (403, "forbidden")


async def test_the_rows_of_a_plain_table_are_as_the_table(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", PLAIN, "INSERT INTO plain VALUES(1, 'ann', 1)") as live:
        live.sql("UPDATE world SET permission = 1 | 2 | 8 WHERE table_name = 'plain'")

        assert ids(await live.ask("GET", "/api/plain", "bob")) == ["1"]
        assert (await live.change("plain", "1", "bob", v=2)).status_code == 200
        assert code(await live.ask("DELETE", "/api/plain/1", "bob")) == (403, "forbidden")


async def test_an_owner_column_gives_each_their_own(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", PLAIN) as live:
        owner = (0x7F << OWNER_SHIFT) | 1 | 4
        live.sql("UPDATE world SET permission = ?, owner_column = 'owner' WHERE table_name = 'plain'", owner)
        mine = await live.create("plain", "ann", v=1)
        others = await live.create("plain", "ann", v=1, owner="bob")

        assert mine.json()["data"]["attributes"]["owner"] == "ann"
        assert code(others) == (403, "forbidden")
        assert ids(await live.ask("GET", "/api/plain", "bob")) == []
        assert code(await live.change("plain", "1", "bob", v=2)) == (403, "forbidden")
        assert (await live.change("plain", "1", "ann", owner="bob")).status_code == 204
        assert ids(await live.ask("GET", "/api/plain", "bob")) == ["1"]


@pytest.mark.parametrize(
    ("column", "owner", "other"),
    [
        ("TEXT", "administrator", "ann"),
        ("TEXT NOT NULL", "administrator", "ann"),
        ("TEXT DEFAULT 'bob'", "administrator", "ann"),
        # Where the column does not take it, it is as if it had not been put in.
        ("TEXT CHECK (owner IN ('ann', 'bob'))", None, "ann"),
        ("TEXT DEFAULT 'bob' REFERENCES user_account(reference_id)", "bob", "ann"),
        ("TEXT REFERENCES user_account(reference_id) DEFERRABLE INITIALLY DEFERRED", None, "ann"),
        ("INTEGER REFERENCES user_account", None, 1),
    ],
)
async def test_an_administrator_is_the_owner_of_a_row_that_names_none(
    tmp_path: Path, column: str, owner: str | None, other: object
) -> None:
    plain = f"CREATE TABLE plain(k INTEGER PRIMARY KEY, owner {column}, v)"
    async with served(tmp_path / "live.db", plain, "CREATE TABLE tried(k)", TRIED) as live:
        live.sql("UPDATE world SET owner_column = 'owner' WHERE table_name = 'plain'")
        made = [await live.create("plain", v=1), await live.create("plain", owner=other)]
        assert [each.json()["data"]["attributes"]["owner"] for each in made] == [owner, other]
        if "NOT NULL" not in column:
            assert (await live.create("plain", owner=None)).json()["data"]["attributes"]["owner"] is None
        assert live.sql("SELECT k FROM tried") == live.sql("SELECT k FROM plain")  # nothing is left of what was tried


async def test_a_new_row_that_the_table_does_not_take_in_any_case_is_refused_with_the_reason(tmp_path: Path) -> None:
    strict = "CREATE TABLE plain(k INTEGER PRIMARY KEY, owner INTEGER NOT NULL, v INTEGER) STRICT"
    async with served(tmp_path / "live.db", strict) as live:
        live.sql("UPDATE world SET owner_column = 'owner' WHERE table_name = 'plain'")
        refused = await live.create("plain", v=1)
        assert code(refused) == (422, "invalid")
        assert "INTEGER column" in refused.json()["errors"][0]["detail"]
        assert (await live.create("plain", v=1, owner=5)).status_code == 201


@pytest.mark.parametrize("resolution", ["REPLACE", "IGNORE", "FAIL", "ROLLBACK"])
@pytest.mark.parametrize(
    "columns",
    [
        "k TEXT PRIMARY KEY ON CONFLICT {}, owner TEXT, v",
        "k TEXT NOT NULL, owner TEXT, v, n INTEGER PRIMARY KEY, UNIQUE(k) ON CONFLICT {}",
        "k TEXT, owner TEXT, v, PRIMARY KEY(k) on  /* so */ conflict {}",
    ],
)
async def test_nobody_takes_anothers_row_away_by_what_the_table_says_of_conflicts(
    tmp_path: Path, columns: str, resolution: str
) -> None:
    plain = f"CREATE TABLE plain({columns.format(resolution)})"
    rows = "INSERT INTO plain(k, owner, v) VALUES('a', 'ann', 1), ('b', 'bob', 2)"
    async with served(tmp_path / "live.db", plain, rows) as live:
        owner = (0x7F << OWNER_SHIFT) | 1 | 4
        live.sql("UPDATE world SET permission = ?, owner_column = 'owner' WHERE table_name = 'plain'", owner)
        (theirs,) = ids(await live.ask("GET", "/api/plain", "bob"))
        for answer in (
            await live.create("plain", "bob", k="a", v=3),
            await live.change("plain", theirs, "bob", k="a"),
            await live.create("plain", k="a", v=3),  # nor does an administrator who makes a new row
        ):
            assert code(answer) == (409, "conflict")
            assert answer.json()["errors"][0]["source"] == {"pointer": "/data/attributes/k"}
        assert live.sql("SELECT k, owner, v FROM plain ORDER BY k") == [("a", "ann", 1), ("b", "bob", 2)]
        assert (await live.create("plain", "bob", k="c")).status_code == 201


async def test_nobody_is_put_into_a_column_that_is_computed(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE plain(k INTEGER PRIMARY KEY, v, owner AS (v))") as live:
        live.sql("UPDATE world SET owner_column = 'owner' WHERE table_name = 'plain'")
        live.sql("UPDATE world SET permission = permission | 1 | 4 WHERE table_name = 'plain'")
        assert code(await live.create("plain", "ann", v="ann")) == (403, "forbidden")  # or whatever else it computes
        assert (await live.create("plain", v="ann")).status_code == 201
        assert live.sql("SELECT owner FROM plain") == [("ann",)]


async def test_only_its_owner_gives_a_row_away_by_what_its_owner_is_computed_from(tmp_path: Path) -> None:
    plain = "CREATE TABLE plain(k INTEGER PRIMARY KEY, v, w, owner AS (lower(v)) STORED)"
    async with served(tmp_path / "live.db", plain, "INSERT INTO plain VALUES(1, 'ann', 0)") as live:
        everybody = (0x7F << OWNER_SHIFT) | 1 | 2 | 8
        live.sql("UPDATE world SET permission = ?, owner_column = 'owner' WHERE table_name = 'plain'", everybody)
        for given in ("bob", None):
            assert code(await live.change("plain", "1", "bob", v=given)) == (403, "forbidden")
        assert (await live.change("plain", "1", "bob", v="ANN", w=1)).status_code == 200
        assert live.sql("SELECT v, w FROM plain") == [("ANN", 1)]
        assert (await live.change("plain", "1", "ann", v="bob")).status_code == 200
        assert (await live.change("plain", "1", v="ann")).status_code == 200  # an administrator


@pytest.mark.parametrize("subject", ["05", "5.0", "+5", " 5", "5e0", "99999999999999999999"])
@pytest.mark.parametrize("declared", ["INTEGER", "NUMERIC"])
async def test_nobody_creates_rows_whose_owner_would_be_somebody_else(
    tmp_path: Path, declared: str, subject: str
) -> None:
    async with served(tmp_path / "live.db", f"CREATE TABLE plain(k INTEGER PRIMARY KEY, owner {declared}, v)") as live:
        owner = (0x7F << OWNER_SHIFT) | 1 | 4
        live.sql("UPDATE world SET permission = ?, owner_column = 'owner' WHERE table_name = 'plain'", owner)
        for named in ({}, {"owner": subject}):
            assert code(await live.create("plain", subject, v=1, **named)) == (403, "forbidden")
        for each in ("5", "-5", "ann", "0x5"):
            assert (await live.create("plain", each, v=1)).json()["data"]["attributes"]["v"] == 1


async def test_only_the_owner_gives_a_row_away_or_opens_it(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = await todo(live, permission=2097057 | 2 | 8)  # everybody may read and update

        assert (await live.change("todo", row, "bob", title="x")).status_code == 200
        for column, value in (("permission", 0), ("user_account_id", "bob")):
            assert code(await live.change("todo", row, "bob", **{column: value})) == (403, "forbidden")
        assert (await live.change("todo", row, "ann", user_account_id="bob")).status_code == 200
        assert code(await live.change("todo", row, "ann", permission=0)) == (403, "forbidden")
        assert code(await live.create("todo", "ann", user_account_id="bob")) == (403, "forbidden")
        assert (await live.create("todo", None, user_account_id="bob")).status_code == 201


@pytest.mark.parametrize("column", ["reference_id", "created_at", "updated_at", "id"])
async def test_some_columns_are_nobodys_to_write(tmp_path: Path, column: str) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = await todo(live)

        assert (await live.change("todo", row, **{column: "x"})).status_code in (400, 403)
        assert (await live.create("todo", **{column: "x"})).status_code in (400, 403)
        assert live.sql("SELECT count(*) FROM todo WHERE reference_id = ? AND version = 1", row) == [(1,)]


async def test_a_join_row_is_for_the_owner_of_what_it_joins(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = await todo(live)
        join = {"todo_id": row, "usergroup_id": USERS, "permission": int(Verb.READ) << GROUP_SHIFT}

        assert code(await live.create(JOIN, "bob", **join)) == (403, "forbidden")
        made = await live.create(JOIN, "ann", **join)
        assert made.status_code == 201
        join_id = made.json()["data"]["id"]
        assert ids(await live.ask("GET", "/api/todo", "bob")) == [row]
        assert code(await live.change(JOIN, join_id, "bob", permission=2097151)) == (403, "forbidden")
        other = await todo(live, "bob")
        assert code(await live.change(JOIN, join_id, "ann", todo_id=other)) == (403, "forbidden")
        assert code(await live.create(JOIN, "ann", **(join | {"todo_id": other}))) == (403, "forbidden")
        assert code(await live.create(JOIN, "ann", **(join | {"todo_id": "nothing"}))) == (403, "forbidden")
        assert (await live.ask("DELETE", f"/api/{JOIN}/{join_id}", "ann")).status_code == 204
        assert ids(await live.ask("GET", "/api/todo", "bob")) == [other]


async def test_a_row_is_joined_to_a_group_that_one_may_know_of(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = await todo(live)
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('open', 'open'), ('hidden', 'hidden')")
        live.sql("UPDATE usergroup SET permission = 0 WHERE reference_id IN ('hidden', ?)", USERS)

        async def joined(group: str, subject: str = "ann") -> httpx.Response:
            return await live.create(JOIN, subject, todo_id=row, usergroup_id=group)

        async def related(group: str) -> httpx.Response:
            ends = {"todo": ("todo", row), "usergroup": ("usergroup", group)}
            links = {name: {"data": {"type": kind, "id": each}} for name, (kind, each) in ends.items()}
            return await live.write("POST", f"/api/{JOIN}", {"type": JOIN, "relationships": links}, "ann")

        for ask in (joined, related):
            theirs, nothing = await ask("hidden"), await ask("nothing")
            assert code(theirs) == code(nothing) == (404, "not-found")
            assert theirs.text.replace("hidden", "nothing") == nothing.text
        made = await joined("open")
        assert [made.status_code, (await joined(USERS)).status_code] == [201, 201]  # ann is in users
        join_id = made.json()["data"]["id"]
        moved = [await live.change(JOIN, join_id, "ann", usergroup_id=each) for each in ("hidden", "nothing")]
        assert [code(each) for each in moved] == [(403, "forbidden")] * 2
        assert moved[0].text == moved[1].text
        live.sql("DELETE FROM " + JOIN)
        live.sql("UPDATE world SET permission = 0 WHERE table_name = 'usergroup'")
        assert code(await joined("open")) == (404, "not-found")
        assert (await joined(USERS)).status_code == 201
        assert (await live.create(JOIN, todo_id=row, usergroup_id="hidden")).status_code == 201  # an administrator


async def test_memberships_and_grants_are_for_administrators(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", PLAIN, tables=TODO) as live:
        answers = [
            await live.create(MEMBERSHIP, "ann", user_account_id="ann", usergroup_id=ADMINISTRATORS),
            await live.change("user_account", "ann", "ann", confirmed=True),
            await live.change("user_account", "bob", "ann", name="x"),
        ]
        worlds = live.sql("SELECT reference_id FROM world")
        answers += [await live.change("world", world, "ann", permission=2097151) for (world,) in worlds]
        joins = await live.create(join_table("world"), "ann", world_id=worlds[0][0], usergroup_id=USERS)

        assert {answer.status_code for answer in answers} <= {403, 404}
        assert joins.status_code in (403, 404)
        assert live.sql("SELECT count(*) FROM user_account WHERE confirmed OR name <> ''") == [(0,)]


async def test_an_address_that_its_person_changes_is_not_confirmed_any_more(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        live.sql("UPDATE user_account SET email = 'Ann@example.com', confirmed = 1 WHERE reference_id = 'ann'")
        for caller, change, confirmed in (
            ("ann", {"email": " ANN@example.com"}, 1),
            ("ann", {"name": "Ann"}, 1),
            (None, {"email": "anne@example.com"}, 1),  # an administrator says which are
            ("ann", {"email": "x"}, 1),
            ("ann", {"email": "president@example.com"}, 0),
        ):
            await live.change("user_account", "ann", *([caller] if caller else []), **change)
            assert live.sql("SELECT confirmed FROM user_account WHERE reference_id = 'ann'") == [(confirmed,)], change
        assert live.sql("SELECT email FROM user_account WHERE reference_id = 'ann'") == [("president@example.com",)]


async def test_an_address_that_is_never_sent_is_not_confirmed_any_more_when_its_person_writes_it(
    tmp_path: Path,
) -> None:
    async with served(tmp_path / "live.db", secret=("user_account.email",)) as live:
        live.sql("UPDATE user_account SET confirmed = 1 WHERE reference_id = 'ann'")
        assert (await live.change("user_account", "ann", "ann", name="Ann")).status_code == 200
        assert live.sql("SELECT confirmed FROM user_account WHERE reference_id = 'ann'") == [(1,)]
        changed = await live.change("user_account", "ann", "ann", email="anne@example.com")
        assert changed.status_code == 200
        assert "email" not in changed.json()["data"]["attributes"]
        (row,) = live.sql("SELECT email, confirmed FROM user_account WHERE reference_id = 'ann'")
        assert row == ("anne@example.com", 0)


@pytest.mark.parametrize("secret", ["permission", "user_account_id", "version", "*_id", "world.table_name"])
async def test_a_secret_column_that_rights_stand_on_is_no_fault_and_gives_nobody_more(
    tmp_path: Path, secret: str
) -> None:
    async with served(tmp_path / "live.db", tables=TODO, secret=(secret,)) as live:
        made = await todo(live)
        for answer in (
            await live.create("usergroup", name="editors"),
            await live.create("user_account", email="cat@example.com"),
            await live.create(JOIN, "ann", todo_id=made, usergroup_id=USERS),
            await live.change("user_account", "ann", "ann", name="Ann"),
            await live.change("todo", made, "ann", title="u"),
            await live.change("todo", made, "ann", permission=0x7F << OWNER_SHIFT),
            await live.create("world", table_name="other"),
        ):
            assert answer.status_code in (200, 201, 403)
        assert (await live.change("todo", made, "bob", permission=MOST)).status_code in (403, 404)
        assert (await live.ask("DELETE", f"/api/todo/{made}", "ann")).status_code == 204


@pytest.mark.parametrize(("default", "permission"), [(-1, MOST), (1 << 21, 0), (1 << 21 | 3, 3), ("none", 0)])
async def test_a_new_row_permits_what_of_its_tables_default_are_permission_bits(
    tmp_path: Path, default: object, permission: int
) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        live.sql("UPDATE world SET default_permission = ? WHERE table_name = 'todo'", default)
        await todo(live)
        assert live.sql("SELECT permission FROM todo") == [(permission,)]


async def test_a_reference_to_what_may_not_be_referred_to_is_as_one_to_nothing(tmp_path: Path) -> None:
    tables = {"room": (NewColumn("name", "text"),), "note": (NewColumn("room_id", "room"),)}
    async with served(tmp_path / "live.db", tables=tables) as live:
        room = (await live.create("room", "ann", name="a")).json()["data"]["id"]
        theirs = await live.create("note", "bob", room_id=room)
        nothing = await live.create("note", "bob", room_id="nothing")

        assert code(theirs) == code(nothing) == (404, "not-found")
        assert theirs.text.replace(room, "nothing") == nothing.text
        assert (await live.create("note", "ann", room_id=room)).status_code == 201


async def test_a_reference_by_a_column_that_is_never_sent_is_judged_alike(tmp_path: Path) -> None:
    tables = {"room": (NewColumn("name", "text"),), "note": (NewColumn("room_key", "room"),)}
    async with served(tmp_path / "live.db", tables=tables) as live:
        room = (await live.create("room", "ann", name="a")).json()["data"]["id"]
        theirs, nothing = [await live.create("note", "bob", room_key=each) for each in (room, "nothing")]
        assert code(theirs) == code(nothing) == (404, "not-found")
        assert theirs.text.replace(room, "nothing") == nothing.text
        assert (await live.create("note", "ann", room_key=room)).status_code == 201


async def test_a_reference_that_a_row_has_may_be_sent_back_by_who_sees_it(tmp_path: Path) -> None:
    tables = {"room": (NewColumn("name", "text"),), "note": (NewColumn("text", "text"), NewColumn("room_id", "room"))}
    async with served(tmp_path / "live.db", tables=tables) as live:
        room = (await live.create("room", "ann", name="a")).json()["data"]["id"]
        note = (await live.create("note", "ann", room_id=room)).json()["data"]["id"]
        live.sql("UPDATE note SET user_account_id = 'bob'")

        assert (await live.change("note", note, "bob", text="x", room_id=room)).status_code == 200
        live.sql("UPDATE note SET permission = ?", (Verb.PEEK | Verb.UPDATE) << OWNER_SHIFT)
        theirs = await live.change("note", note, "bob", room_id=room)
        nothing = await live.change("note", note, "bob", room_id="nothing")
        assert code(theirs) == code(nothing) == (404, "not-found")
        assert theirs.text.replace(room, "nothing") == nothing.text


async def test_a_filter_says_nothing_about_rows_that_may_not_be_read(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = await todo(live)

        for query in ("filter[title]=t", "filter[title][startswith]=t", f"filter[reference_id]={row}", "sort=title"):
            assert ids(await live.ask("GET", f"/api/todo?{query}", "bob")) == []


async def test_a_user_who_is_an_administrator_may_everything_and_one_who_was_no_more(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = await todo(live)
        live.sql(f'INSERT INTO "{MEMBERSHIP}"(user_account_id, usergroup_id) VALUES(?, ?)', "bob", ADMINISTRATORS)
        assert ids(await live.ask("GET", "/api/todo", "bob")) == [row]
        live.sql(f'DELETE FROM "{MEMBERSHIP}" WHERE usergroup_id = ?', ADMINISTRATORS)
        assert ids(await live.ask("GET", "/api/todo", "bob")) == []


async def test_a_token_of_before_the_last_change_of_the_account_is_dead(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        live.sql("INSERT INTO _appliance_account(subject, not_before) VALUES('bob', 1)")

        assert code(await live.ask("GET", "/api/todo", "bob")) == (401, "unauthorized")
        assert ids(await live.ask("GET", "/api/todo", "ann")) == []


async def test_a_guest_may_what_everybody_may_and_owns_nothing(tmp_path: Path) -> None:
    everything = 0x7F
    async with served(tmp_path / "live.db", PLAIN, tables=TODO, guests=True) as live:
        await todo(live)
        assert live.client.headers.get("Authorization") is None
        assert ids(await live.client.get("/api/todo")) == []
        assert (await live.client.get("/api/plain")).status_code == 404
        document = {"data": {"type": "todo", "attributes": {"title": "g", "permission": everything}}}
        made = await live.client.post("/api/todo", json=document)
        assert made.json()["data"]["attributes"]["user_account_id"] is None
        assert ids(await live.client.get("/api/todo")) == [made.json()["data"]["id"]]
        others = {"data": {"type": "todo", "attributes": {"user_account_id": "ann"}}}
        assert code(await live.client.post("/api/todo", json=others)) == (403, "forbidden")
        assert "/api/todo" in (await live.client.get("/openapi.json")).json()["paths"]
        assert code(await live.client.get("/api/todo?token=bad")) == (401, "unauthorized")


@pytest.mark.parametrize("owner", [5.0, 5, "5", "ann", {"$blob": "YW5u"}])
async def test_a_guest_makes_no_rows_for_others(tmp_path: Path, owner: object) -> None:
    plain = "CREATE TABLE plain(k INTEGER PRIMARY KEY, owner INTEGER, v)"
    async with served(tmp_path / "live.db", plain, guests=True) as live:
        permission = 1 | 4 | (0x7F << OWNER_SHIFT)
        live.sql("UPDATE world SET owner_column = 'owner', permission = ? WHERE table_name = 'plain'", permission)
        document = {"data": {"type": "plain", "attributes": {"owner": owner}}}
        assert code(await live.client.post("/api/plain", json=document)) == (403, "forbidden")
        document["data"]["attributes"] = {"owner": None, "v": 1}
        assert (await live.client.post("/api/plain", json=document)).status_code == 201
        assert live.sql("SELECT owner FROM plain") == [(None,)]


async def test_a_guest_makes_no_rows_where_the_key_says_whose_they_are(tmp_path: Path) -> None:
    plain = "CREATE TABLE plain(owner INTEGER PRIMARY KEY, v)", "INSERT INTO plain VALUES(6, 0)"
    async with served(tmp_path / "live.db", *plain, guests=True) as live:
        permission = 1 | 4 | (0x7F << OWNER_SHIFT)
        live.sql("UPDATE world SET owner_column = 'owner', permission = ? WHERE table_name = 'plain'", permission)
        for attributes in ({"v": 1}, {"owner": None}):
            document = {"data": {"type": "plain", "attributes": attributes}}
            assert code(await live.client.post("/api/plain", json=document)) == (403, "forbidden")
        assert ids(await live.ask("GET", "/api/plain", "7")) == []
        assert (await live.create("plain", "7", v=1)).json()["data"]["id"] == "7"


async def test_who_may_change_rows_of_a_table_may_not_grant_on_it(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", PLAIN) as live:
        ((world,),) = live.sql("SELECT reference_id FROM world WHERE table_name = 'plain'")
        rights = (Verb.PEEK | Verb.READ | Verb.UPDATE) << GROUP_SHIFT
        live.sql(
            f'INSERT INTO "{join_table("world")}"(world_id, usergroup_id, permission) VALUES(?, ?, ?)',
            world, USERS, rights,
        )  # fmt: skip
        live.sql("INSERT INTO plain VALUES(1, 'bob', 'v')")

        assert (await live.change("plain", "1", "ann", v="w")).status_code == 200
        for attributes in ({"owner_column": "owner"}, {"default_permission": 2097151}, {"permission": 2097151}):
            assert code(await live.change("world", world, "ann", **attributes)) == (403, "forbidden")
        assert (await live.change("world", world, owner_column="owner")).status_code == 200


async def test_no_answer_tells_what_is_in_a_row_that_may_be_changed_but_not_read(tmp_path: Path) -> None:
    tables = {"todo": (NewColumn("title", "text"),)}
    statements = (
        PLAIN,
        "INSERT INTO todo(reference_id, title, user_account_id, permission) VALUES('r', 'right', 'bob', 1 + 8)",
        "INSERT INTO plain VALUES(1, 'bob', 'right')",
    )
    async with served(tmp_path / "live.db", *statements, tables=tables) as live:
        live.sql("UPDATE world SET permission = 1 + 8 WHERE table_name = 'plain'")

        async def answers(table: str, row: str, *tries: dict[str, object]) -> set[tuple[int, str]]:
            found = [await live.change(table, row, "ann", **each) for each in tries]
            return {(answer.status_code, answer.text) for answer in found}

        for column, right in (("user_account_id", "bob"), ("version", 1), ("reference_id", "r"), ("permission", 9)):
            wrong = "carol" if isinstance(right, str) else 7
            assert len(await answers("todo", "r", {column: right}, {column: wrong})) == 1, column
        assert await answers("todo", "r", {"title": "right"}, {"title": "wrong"}) == {(204, "")}
        assert await answers("plain", "1", {"v": "right"}, {"v": "wrong"}) == {(204, "")}
        live.sql("UPDATE world SET owner_column = 'owner' WHERE table_name = 'plain'")
        assert len(await answers("plain", "1", {"owner": "bob"}, {"owner": "carol"})) == 1

        tag = (await live.ask("GET", "/api/todo/r")).headers["ETag"]
        for given in (tag, '"1"'):
            assert code(await live.change("todo", "r", "ann", if_match=given, title="x")) == (412, "stale")
        assert (await live.change("todo", "r", "ann", if_match="*", title="x")).status_code == 204


async def test_a_join_table_is_unknown_with_what_it_joins(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = await todo(live)
        users = {"todo_id": row, "usergroup_id": USERS}
        assert (await live.create(JOIN, "ann", **users, permission=Verb.READ << GROUP_SHIFT)).status_code == 201
        assert len(ids(await live.ask("GET", f"/api/{JOIN}", "bob"))) == 1
        live.sql("UPDATE world SET permission = ? WHERE table_name = 'todo'", Verb.PEEK << OWNER_SHIFT)
        for table in ("todo", JOIN):
            assert code(await live.ask("GET", f"/api/{table}", "bob")) == (404, "unknown-topic")
            assert f"/api/{table}" not in (await live.ask("GET", "/openapi.json", "bob")).json()["paths"]
        assert code(await live.create(JOIN, "ann", **users)) == (404, "unknown-topic")
        live.sql("UPDATE world SET user_account_id = 'ann' WHERE table_name = 'todo'")
        assert len(ids(await live.ask("GET", f"/api/{JOIN}", "ann"))) == 1


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        ("POST", "/api/notes", {"type": "notes", "attributes": {"k": 2}}),
        ("PATCH", "/api/notes/1", {"type": "notes", "id": "1", "attributes": {"text": "new"}}),
        ("POST", "/live/topics/news/messages", {}),
    ],
)
async def test_who_would_not_be_let_in_any_more_when_the_body_has_come_writes_nothing(
    tmp_path: Path, method: str, path: str, data: object
) -> None:
    table = "CREATE TABLE notes(k INTEGER PRIMARY KEY, text); INSERT INTO notes VALUES(1, 'old')"
    async with served(tmp_path / "live.db", *table.split("; ")) as live:
        topic = Topic("news", True, 589696, None)
        live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, topic)))
        before = live.sql("SELECT max(id) FROM _appliance_outbox")

        async def slowly() -> AsyncIterator[bytes]:
            yield b'{"data":'
            live.hub.access.configure(external=(), lifetime_s=1, guests=False)
            await live.hub.access.read_keys()
            yield json.dumps(data).encode() + b"}"

        refused = await live.ask(method, path, content=slowly(), headers={"Content-Type": "application/json"})
        assert refused.status_code == 401
        assert live.sql("SELECT max(id) FROM _appliance_outbox") == before


PARENTS = {
    "one": ("email REFERENCES user_account(email)", ("bob@example.com",), ("eve@example.com",), ("Ann@example.com",)),
    "two": (
        "email, name, FOREIGN KEY(email, name) REFERENCES user_account(email, name)",
        ("bob@example.com", "Bob"), ("bob@example.com", "Eve"), ("ann@example.com", "Ann"),
    ),
    "key": ("u INTEGER REFERENCES user_account", (2,), (9,), (1,)),
    "later": (
        "email REFERENCES user_account(email) DEFERRABLE INITIALLY DEFERRED",
        ("bob@example.com",), ("eve@example.com",), ("ann@example.com",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("table", PARENTS)
async def test_no_foreign_key_says_whether_there_is_a_row_that_may_not_be_referred_to(
    tmp_path: Path, table: str
) -> None:
    columns, hidden, absent, own = PARENTS[table]
    names = ("email", "name", "u")[2 * (table == "key") :][: len(own)]
    statements = (
        "UPDATE user_account SET name = upper(substr(reference_id, 1, 1)) || substr(reference_id, 2)",
        "CREATE UNIQUE INDEX known ON user_account(email, name)",
        f"CREATE TABLE t(k INTEGER PRIMARY KEY, {columns})",
    )
    async with served(tmp_path / "live.db", *statements) as live:
        live.sql("UPDATE world SET permission = ? WHERE table_name = 't'", 0x7F)

        async def tried(values: tuple[object, ...]) -> list[tuple[int, str]]:
            attributes = dict(zip(names, values, strict=True))
            answers = [await live.create("t", "ann", **attributes), await live.change("t", "1", "ann", **attributes)]
            return [(each.status_code, each.text) for each in answers]

        assert (await live.create("t", "ann", **dict(zip(names, own, strict=True)))).status_code == 201
        there, not_there = await tried(hidden), await tried(absent)
        assert there == not_there
        assert {status for status, _ in there} == {409}
        assert [status for status, _ in await tried(own)] == [201, 200]
        assert (await live.create("t", **dict(zip(names, hidden, strict=True)))).status_code == 201  # an administrator
        assert (await live.create("t", "ann", **dict.fromkeys(names))).status_code == 201


async def test_no_answer_is_kept_for_somebody_else_or_without_asking_again(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO, guests=True) as live:
        row = await todo(live)
        tag = (await live.ask("GET", f"/api/todo/{row}", "ann")).headers["ETag"]
        for answer in (
            await live.client.get("/api/todo"),
            await live.ask("GET", f"/api/todo/{row}", "ann", headers={"If-None-Match": tag}),
            await live.ask("GET", f"/api/todo/{row}", "bob"),
            await live.client.get("/api/nothing"),
            await live.ask("GET", "/openapi.json"),
            await live.client.get("/readyz"),
        ):
            assert answer.headers["Cache-Control"] == "private, no-cache"
        assert (await live.client.get("/setup")).headers["Cache-Control"] == "no-store"
