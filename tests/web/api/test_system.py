"""Accounts, groups and tables, made and ended by the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.live.session.accounts import CLIENT_TRIES
from appliance.model import Op
from appliance.store.access import passwords
from appliance.store.tables.standard import ADMINISTRATORS, GUESTS, USERS, join_table
from tests.web.api.application import Served, code, ids, served

PASSWORD = "correct horse"
PLAIN = "CREATE TABLE plain(k INTEGER PRIMARY KEY, owner TEXT)"


async def sign_in(live: Served, email: str, password: str) -> httpx.Response:
    attributes = {"email": email, "password": password}
    return await live.client.post("/action/user_account/signin", json={"attributes": attributes})


async def test_an_administrator_makes_an_account_that_is_whole(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        made = await live.create("user_account", email="Eve@Example.com", password=PASSWORD, confirmed=True)
        row = made.json()["data"]

        assert made.status_code == 201
        assert (row["attributes"]["email"], row["attributes"]["confirmed"]) == ("eve@example.com", True)
        assert "password" not in row["attributes"]
        assert PASSWORD not in made.text
        assert (await sign_in(live, "eve@example.com", PASSWORD)).status_code == 200
        groups = live.sql(f"SELECT usergroup_id FROM {join_table('user_account')} WHERE user_account_id = ?", row["id"])
        assert groups == [(USERS,)]
        assert (await live.create("user_account", email="EVE@example.com", password=PASSWORD)).status_code == 409
        for attributes in (
            {"email": "x"}, {"email": 1}, {"password": "short"}, {"confirmed": None}, {"name": None},
        ):  # fmt: skip
            refused = await live.create("user_account", **{"email": "f@example.com", **attributes})
            assert refused.status_code in (400, 422), refused.text
            assert "short" not in refused.text


@pytest.mark.parametrize("password", [12345678, {"$blob": "JDJiJA=="}, True, "x" * 73])
async def test_what_is_no_password_is_not_stored_as_one(tmp_path: Path, password: Any) -> None:
    async with served(tmp_path / "live.db") as live:
        answers = [
            await live.create("user_account", email="eve@example.com", password=password),
            await live.change("user_account", "ann", "ann", password=password),
        ]

        assert {answer.status_code for answer in answers} <= {400, 422}
        assert live.sql("SELECT count(password) FROM user_account") == [(0,)]


async def test_who_has_passwords_hashed_for_nothing_has_as_many_tries_as_to_sign_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Or all others could not sign in meanwhile: of what is to be hashed, so much waits and no more.
    monkeypatch.setattr(passwords, "hash_password", lambda password: "$2b$11$")
    async with served(tmp_path / "live.db") as live:
        answers = [await live.change("user_account", "bob", "ann", password=PASSWORD) for _ in range(CLIENT_TRIES)]

        assert {code(answer) for answer in answers} == {(403, "forbidden")}
        assert code(await live.change("user_account", "bob", "ann", password=PASSWORD)) == (429, "rate-limited")
        assert (await live.change("user_account", "bob", "ann", name="x")).status_code == 403
        assert (await live.change("user_account", "bob", password=PASSWORD)).status_code == 200  # an administrator


async def test_for_who_is_nobody_any_more_nothing_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path / "live.db") as live:
        live.sql("INSERT INTO _appliance_account(subject, not_before) VALUES('ann', 1)")
        monkeypatch.setattr(passwords, "hash_password", None)

        assert code(await live.change("user_account", "ann", "ann", password=PASSWORD)) == (401, "unauthorized")


async def test_a_new_password_ends_the_tokens_of_before(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        changed = await live.change("user_account", "ann", "ann", password=PASSWORD, name="Ann")

        assert changed.json()["data"]["attributes"]["name"] == "Ann"
        ((stored,),) = live.sql("SELECT password FROM user_account WHERE reference_id = 'ann'")
        assert stored.startswith("$2b$11$")
        assert code(await live.ask("GET", "/api/user_account/ann", "ann")) == (401, "unauthorized")
        assert (await sign_in(live, "ann@example.com", PASSWORD)).status_code == 200
        assert code(await live.change("user_account", "ann", email="nothing")) == (400, "bad-request")


async def test_an_account_that_is_deleted_leaves_no_token(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        assert (await live.ask("DELETE", "/api/user_account/bob")).status_code == 204
        assert code(await live.ask("GET", "/api/usergroup", "bob")) == (401, "unauthorized")
        assert live.sql(f"SELECT count(*) FROM {join_table('user_account')}") == [(1,)]


async def test_the_last_administrator_stays_one(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        table = join_table("user_account")
        made = {
            who: (await live.create(table, user_account_id=who, usergroup_id=ADMINISTRATORS)).json()["data"]["id"]
            for who in ("ann", "bob")
        }
        assert (await live.ask("DELETE", f"/api/{table}/{made['bob']}", "ann")).status_code == 204

        for refused in (
            await live.ask("DELETE", "/api/user_account/ann", "ann"),
            await live.ask("DELETE", f"/api/{table}/{made['ann']}"),
            await live.change(table, made["ann"], usergroup_id=GUESTS),
        ):
            assert code(refused) == (409, "conflict")
        assert (await live.ask("GET", "/api/user_account/bob", "ann")).status_code == 200
        assert (await live.change(table, made["ann"], user_account_id="bob")).status_code == 200
        assert (await live.ask("DELETE", "/api/user_account/ann", "bob")).status_code == 204


async def test_groups_are_made_and_ended_but_not_those_that_are_built_in(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        made = await live.create("usergroup", name="editors")
        group = made.json()["data"]["id"]
        member = await live.create(join_table("user_account"), user_account_id="ann", usergroup_id=group)

        assert (made.status_code, member.status_code) == (201, 201)
        assert member.json()["data"]["attributes"]["permission"] == 16289
        assert code(await live.create("usergroup", name="owner")) == (400, "bad-request")
        assert code(await live.create("usergroup", name="Editors")) == (409, "conflict")
        assert code(await live.change("usergroup", group, name="owner")) == (422, "invalid")
        assert code(await live.ask("DELETE", f"/api/usergroup/{ADMINISTRATORS}")) == (409, "conflict")
        assert (await live.change("usergroup", USERS, name="everyone")).status_code == 200
        assert code(await live.change("usergroup", group, name="users")) == (422, "invalid")
        assert code(await live.change("usergroup", USERS, name="guests")) == (422, "invalid")
        assert (await live.change("usergroup", USERS, name="users")).status_code == 200
        assert (await live.ask("DELETE", f"/api/usergroup/{group}")).status_code == 204
        assert live.sql("SELECT count(*) FROM usergroup WHERE name = 'editors'") == [(0,)]


async def test_a_group_that_is_made_is_one_event(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        before = (await live.store.position()).id
        made = await live.create("usergroup", name="editors", permission=16256)

        assert made.json()["data"]["attributes"]["user_account_id"] is not None
        assert live.sql("SELECT op FROM _appliance_outbox WHERE id > ? AND op IN (1, 2, 3)", before) == [(Op.CREATE,)]


async def test_a_row_of_world_makes_a_table(tmp_path: Path) -> None:
    columns = [{"name": "title", "type": "text", "required": True}, {"name": "writer", "type": "user_account"}]
    async with served(tmp_path / "live.db") as live:
        made = await live.create("world", table_name="book", columns=columns, permission=float(2097024 | 1 | 4))
        created = await live.create("book", "ann", title="t")

        assert made.status_code == 201
        assert made.json()["data"]["attributes"]["table_name"] == "book"
        assert made.headers["Location"] == f"/api/world/{made.json()['data']['id']}"
        assert created.json()["data"]["attributes"]["user_account_id"] == "ann"
        assert created.json()["data"]["relationships"] == {"writer_row": {"data": None}}
        assert code(await live.create("world", table_name="book")) == (409, "topic-exists")
        assert code(await live.create("book", "ann")) == (422, "invalid")


@pytest.mark.parametrize("table", ["world", "usergroup", "USER_account", join_table("world")])
async def test_without_accounts_a_table_of_that_name_is_the_users_own(tmp_path: Path, table: str) -> None:
    schema = f'CREATE TABLE "{table}"(k INTEGER PRIMARY KEY, name TEXT, password, permission, default_permission)'
    given = {"name": "owner", "password": 1, "permission": -1, "default_permission": "x"}
    async with served(tmp_path / "live.db", schema, accounts=False) as live:
        made = await live.create(table, **given)
        changed = await live.change(table, "1", name="users", password="short")
        gone = await live.ask("DELETE", f"/api/{table}/1")

        assert (made.status_code, changed.status_code, gone.status_code) == (201, 200, 204), made.text
        assert changed.json()["data"]["attributes"]["name"] == "users"
        assert live.sql(f'SELECT * FROM "{table}"') == []


@pytest.mark.parametrize(
    ("attributes", "pointer"),
    [
        ({}, ""),
        ({"table_name": 1}, "/table_name"),
        ({"table_name": "a b"}, "/table_name"),
        ({"table_name": "_appliance_x"}, "/table_name"),
        ({"table_name": "x", "columns": {}}, "/columns"),
        ({"table_name": "x", "columns": [{"name": "a", "type": "text"}, 1]}, "/columns/1"),
        ({"table_name": "x", "columns": [{"name": "a"}]}, "/columns/0"),
        ({"table_name": "x", "columns": [{"name": "a", "type": "nothing"}]}, "/columns/0/type"),
        ({"table_name": "x", "columns": [{"name": "id", "type": "text"}]}, "/columns/0/name"),
        ({"table_name": "x", "columns": [{"name": "a b", "type": "text"}]}, "/columns/0/name"),
        ({"table_name": "x", "columns": [{"name": "a", "type": "text", "de/fault": 1}]}, "/columns/0/de~1fault"),
        ({"table_name": "x", "permission": "all"}, "/permission"),
        ({"table_name": "x", "permission": -1}, "/permission"),
        ({"table_name": "x", "default_permission": 1 << 21}, "/default_permission"),
        ({"table_name": "x", "reference_id": "r"}, "/reference_id"),
        ({"table_name": "world"}, "/table_name"),
    ],
)
async def test_what_is_no_table_is_not_made_and_the_answer_says_why(
    tmp_path: Path, attributes: dict[str, Any], pointer: str
) -> None:
    async with served(tmp_path / "live.db") as live:
        before = live.sql("SELECT count(*) FROM sqlite_schema WHERE type = 'table'")
        answer = await live.create("world", **attributes)

        assert answer.status_code in (400, 409, 422), answer.text
        assert answer.json()["errors"][0]["source"] == {"pointer": f"/data/attributes{pointer}"}
        assert live.sql("SELECT count(*) FROM sqlite_schema WHERE type = 'table'") == before


async def test_the_server_gives_a_new_tables_row_its_id(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        document = {"type": "world", "id": "mine", "attributes": {"table_name": "book"}}
        assert code(await live.write("POST", "/api/world", document)) == (403, "forbidden")
        assert code(await live.ask("GET", "/api/book")) == (404, "unknown-topic")


@pytest.mark.parametrize("name", ["a\nb", "x" * 129])
async def test_nobody_is_called_in_a_way_that_nobody_could_be_made(tmp_path: Path, name: str) -> None:
    async with served(tmp_path / "live.db") as live:
        refused = await live.change("user_account", "ann", "ann", name=name)
        made = await live.create("user_account", email="x@example.com", name=name)
        assert code(refused) == code(made) == (400, "bad-request")
        assert refused.json()["errors"][0]["source"] == {"pointer": "/data/attributes/name"}


@pytest.mark.parametrize(
    ("table", "attributes", "at_fault"),
    [
        ("user_account", {"email": "x@example.com", "password": "short"}, "password"),
        ("user_account", {"email": "x@example.com", "Password": "short"}, "Password"),
        ("user_account", {"email": "taken@example.com"}, "email"),
        ("usergroup", {"name": ""}, "name"),
        ("usergroup", {"name": "users"}, "name"),
    ],
)
async def test_what_no_account_or_group_can_have_is_pointed_to(
    tmp_path: Path, table: str, attributes: dict[str, str], at_fault: str
) -> None:
    async with served(tmp_path / "live.db") as live:
        await live.create("user_account", email="taken@example.com")
        refused = await live.create(table, **attributes)

        assert refused.status_code in (400, 409)
        assert refused.json()["errors"][0]["source"] == {"pointer": f"/data/attributes/{at_fault}"}


async def test_a_table_is_made_only_by_who_may_create_rows_of_world(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        assert (await live.create("world", "ann", table_name="book")).status_code in (403, 404)
        live.sql("UPDATE world SET permission = permission | 1 | 4 WHERE table_name = 'world'")
        made = await live.create("world", "ann", table_name="book")
        assert made.status_code == 201
        assert live.sql("SELECT user_account_id FROM world WHERE table_name = 'book'") == [("ann",)]
        assert code(await live.create("world", "ann", table_name="c", user_account_id="bob")) == (403, "forbidden")
        assert ids(await live.ask("GET", "/api/book", "ann")) == []


async def test_a_new_table_refers_only_to_tables_that_may_be_known_of(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables={"merger": (), "room": ()}) as live:
        live.sql("UPDATE world SET permission = permission | 1 | 4 WHERE table_name = 'world'")
        live.sql("UPDATE world SET permission = 0 WHERE table_name = 'merger'")
        answers = [
            await live.create("world", "ann", table_name="book", columns=[{"name": "of_id", "type": each}])
            for each in ("merger", "MERGER", "murger")
        ]
        assert {code(answer) for answer in answers} == {(400, "bad-request")}
        assert "merger" not in answers[2].text
        for each in ("room", "book", "text"):
            columns = [{"name": "of_id", "type": each}]
            made = await live.create("world", "ann", table_name=f"b_{each}", columns=columns)
            assert made.status_code == (400 if each == "book" else 201), made.text
        columns = [{"name": "of_id", "type": "merger"}]
        assert (await live.create("world", table_name="book", columns=columns)).status_code == 201


async def test_a_secret_column_says_of_no_row_whose_it_is(tmp_path: Path) -> None:
    made = "CREATE TABLE plain(k INTEGER PRIMARY KEY, api_token TEXT, v)", "INSERT INTO plain VALUES(1, 'ann', 2)"
    async with served(tmp_path / "live.db", *made) as live:
        ((row,),) = live.sql("SELECT reference_id FROM world WHERE table_name = 'plain'")
        assert code(await live.change("world", row, owner_column="api_token")) == (409, "conflict")
        assert code(await live.change("world", row, owner_column=1)) == (404, "not-found")

        live.sql("UPDATE world SET owner_column = 'api_token', permission = ? WHERE table_name = 'plain'", 127 << 7 | 1)
        assert code(await live.change("plain", "1", "ann", api_token="bob")) == (403, "forbidden")
        assert (await live.change("plain", "1", api_token="bob")).status_code == 200
        assert live.sql("SELECT * FROM plain") == [(1, "bob", 2)]


async def test_a_virtual_column_says_of_no_row_whose_it_is(tmp_path: Path) -> None:
    plain = "CREATE TABLE plain(k INTEGER PRIMARY KEY, v, owner AS (v), kept AS (v) STORED)"
    async with served(tmp_path / "live.db", plain) as live:
        ((row,),) = live.sql("SELECT reference_id FROM world WHERE table_name = 'plain'")
        assert code(await live.change("world", row, owner_column="owner")) == (409, "conflict")
        assert (await live.change("world", row, owner_column="kept")).status_code == 200


async def test_a_grant_is_changed_but_not_what_it_is_of(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", PLAIN) as live:
        ((row,),) = live.sql("SELECT reference_id FROM world WHERE table_name = 'plain'")

        assert (await live.change("world", row, permission=2097151)).status_code == 200
        assert ids(await live.ask("GET", "/api/plain", "bob")) == []
        assert (await live.change("world", row, owner_column="owner")).status_code == 200
        assert code(await live.change("world", row, owner_column="nothing")) == (404, "not-found")
        assert code(await live.change("world", row, table_name="other")) == (403, "forbidden")
        assert code(await live.change("world", row, permission=1 << 21)) == (422, "invalid")
        assert code(await live.ask("DELETE", f"/api/world/{row}")) == (409, "conflict")
