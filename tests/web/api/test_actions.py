"""Signing up, signing in, and the first administrator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from appliance.errors import TooLarge
from appliance.model import Op
from appliance.store.access.accounts import setup_code
from appliance.store.tables.making import NewColumn
from appliance.web.api.actions import BODY_LIMIT
from tests.web.api.application import Served, ids, served

PASSWORD = "correct horse"


async def act(live: Served, action: str, **attributes: Any) -> httpx.Response:
    return await live.client.post(f"/action/user_account/{action}", json={"attributes": attributes})


def token_of(answer: httpx.Response) -> str:
    """Give the token as a client of Daptin would find it."""
    assert answer.status_code == 200, answer.text
    (value,) = (
        each["Attributes"]["value"]
        for each in answer.json()
        if each["ResponseType"] == "client.store.set" and each["Attributes"]["key"] == "token"
    )
    return str(value)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_without_accounts_neither_signing_up_nor_in_says_that_the_password_is_wrong(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", accounts=False) as live:
        for action in ("signup", "signin"):
            answer = await act(live, action, email="eve@example.com", password=PASSWORD)
            assert code(answer) == (403, "forbidden")
            assert "keeps no accounts" in answer.json()["error"]["message"]


async def test_who_signs_up_signs_in_and_owns_what_they_make(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables={"todo": (NewColumn("title", "text"),)}) as live:
        made = await act(
            live, "signup", email="Eve@Example.com", password=PASSWORD, name="Eve", passwordConfirm=PASSWORD
        )
        signed_in = await act(live, "signin", email="eve@example.COM", password=PASSWORD)
        bearer = {"Authorization": f"Bearer {token_of(signed_in)}"}
        document = {"data": {"type": "todo", "attributes": {"title": "t"}}}
        created = await live.client.post("/api/todo", json=document, headers=bearer)

        assert made.status_code == 200
        assert made.headers["Cache-Control"] == signed_in.headers["Cache-Control"] == "no-store"
        ((reference, stored),) = live.sql("SELECT reference_id, password FROM user_account WHERE name = 'Eve'")
        assert created.json()["data"]["attributes"]["user_account_id"] == reference
        assert stored.startswith("$2b$11$")
        assert live.sql("SELECT count(*) FROM _appliance_outbox WHERE op = ?", Op.UPDATE) == [(0,)]  # its own at once
        assert ids(await live.ask("GET", "/api/todo", reference)) == [created.json()["data"]["id"]]


async def test_a_wrong_password_and_an_unknown_address_are_answered_alike(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        await act(live, "signup", email="eve@example.com", password=PASSWORD)
        wrong = await act(live, "signin", email="eve@example.com", password="something else")
        unknown = await act(live, "signin", email="nobody@example.com", password="something else")

        assert wrong.text == unknown.text
        assert code(wrong) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"email": "eve", "password": PASSWORD}, (400, "bad-request")),
        ({"email": "eve@example.com", "password": "short"}, (400, "bad-request")),
        ({"email": "eve@example.com", "password": "x" * 73}, (400, "bad-request")),
        ({"email": "eve@example.com", "password": PASSWORD, "passwordConfirm": "other"}, (400, "bad-request")),
        ({"email": "eve@example.com"}, (400, "bad-request")),
        ({"email": 1, "password": PASSWORD}, (400, "bad-request")),
        ({"email": "eve@example.com", "password": PASSWORD, "admin": "yes"}, (400, "bad-request")),
        ({"email": "ANN@example.com", "password": PASSWORD}, (409, "conflict")),
    ],
)
async def test_what_is_no_account_is_refused_without_its_password(
    tmp_path: Path, attributes: dict[str, Any], expected: tuple[int, str]
) -> None:
    async with served(tmp_path / "live.db") as live:
        answer = await act(live, "signup", **attributes)

        assert code(answer) == expected
        assert str(attributes.get("password")) not in answer.text
        assert live.sql("SELECT count(*) FROM user_account") == [(2,)]


async def test_signing_up_can_be_off(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", signup=False) as live:
        assert code(await act(live, "signup", email="eve@example.com", password=PASSWORD)) == (403, "forbidden")


async def test_who_tries_too_often_is_told_how_long_to_wait(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", signup=False) as live:
        answers = [await act(live, "signin", email="eve", password="x" * 100) for _ in range(11)]

        assert {answer.status_code for answer in answers[:10]} == {401}
        assert code(answers[10]) == (429, "rate-limited")
        assert int(answers[10].headers["Retry-After"]) > 0


async def test_only_json_is_taken(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        path = "/action/user_account/signin"
        form = await live.client.post(path, data={"email": "a", "password": "b"})
        listed = await live.client.post(path, json=[])
        other = await live.client.post("/action/user_account/become", json={})

        assert (code(form), code(listed), code(other)) == (
            (415, "unsupported-media-type"), (400, "bad-request"), (404, "not-found"),
        )  # fmt: skip


async def test_no_more_is_read_of_what_anybody_may_send_than_a_few_fields_need(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        for path in ("/action/user_account/signup", "/action/user_account/signin", "/setup"):
            (route,) = (each for each in live.client._transport.app.routes if each.path == path)  # type: ignore[attr-defined]
            for media_type in (b"application/json", b"application/x-www-form-urlencoded")[: 1 + (path == "/setup")]:
                pieces = [b" " * BODY_LIMIT] * 3

                async def receive(pieces: list[bytes] = pieces) -> dict[str, Any]:
                    return {"type": "http.request", "body": pieces.pop(), "more_body": True}

                scope = {"type": "http", "method": "POST", "headers": [(b"content-type", media_type)]}
                with pytest.raises(TooLarge):
                    await route.endpoint(Request(scope, receive))
                assert len(pieces) == 1


async def test_the_link_makes_the_first_administrator_once(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)") as live:
        link = await live.store.commit(setup_code)
        page = await live.client.get(f"/setup?code={link}")
        fields = {"code": link, "email": "root@example.com", "password": PASSWORD, "name": "Root"}
        weak = await live.client.post("/setup", data=fields | {"password": "short"})
        made = await live.client.post("/setup", data=fields)
        again = await live.client.post("/setup", data=fields | {"email": "other@example.com"})

        assert (page.status_code, weak.status_code, made.status_code, again.status_code) == (200, 400, 200, 401)
        assert f'value="{link}"' in page.text
        assert f'value="{link}"' in weak.text
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        key = token_of(await act(live, "signin", email="root@example.com", password=PASSWORD))
        assert (await live.client.get("/api/t", headers={"Authorization": f"Bearer {key}"})).status_code == 200


async def test_the_link_works_without_its_page_and_what_it_holds_is_escaped(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        link = await live.store.commit(setup_code)
        given = {"code": link, "attributes": {"email": "root@example.com", "password": PASSWORD}}
        wrong = await live.client.post("/setup", json=given | {"code": "guessed"})
        missing = await live.client.post("/setup", json={"attributes": given["attributes"]})
        page = await live.client.get('/setup?code="><script>')

        assert (code(wrong), code(missing)) == ((401, "unauthorized"), (400, "bad-request"))
        assert token_of(await live.client.post("/setup", json=given))
        assert "<script>" not in page.text
