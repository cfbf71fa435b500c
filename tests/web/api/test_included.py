"""Compound documents: the rows that rows refer to, as far as the caller may read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.store.tables import rows
from appliance.store.tables.making import NewColumn
from tests.web.api.application import Served, code, served

TABLES = {
    "room": (NewColumn("name", "text"), NewColumn("part_of", "room")),
    "note": (NewColumn("room_id", "room"), NewColumn("writer", "user_account"), NewColumn("text", "text")),
}
OPEN = 2097057 | 2 | 64  # anybody may read it and refer to it


async def new(live: Served, table: str, subject: str | None = "ann", **attributes: Any) -> str:
    made = await live.create(table, subject, **attributes)
    assert made.status_code == 201, made.text
    return str(made.json()["data"]["id"])


def included(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.text
    return sorted((each["type"], each["id"]) for each in answer.json()["included"])


async def test_a_page_brings_the_rows_that_it_refers_to_each_once(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TABLES) as live:
        one, two = await new(live, "room", name="a"), await new(live, "room", name="b")
        for room in (one, one, two, None):
            await new(live, "note", room_id=room, writer="ann")
        page = await live.ask("GET", "/api/note?include=room,writer_row&fields[room]=name", "ann")
        none = await live.ask("GET", "/api/note", "ann")
        empty = await live.ask("GET", "/api/note?include=", "ann")

        assert included(page) == sorted([("room", one), ("room", two), ("user_account", "ann")])
        (room,) = [each for each in page.json()["included"] if each["id"] == one]
        assert room["attributes"] == {"name": "a"}
        assert room["links"] == {"self": f"/api/room/{one}"}
        (person,) = [each for each in page.json()["included"] if each["id"] == "ann"]
        assert person["attributes"]["email"] == "ann@example.com"
        assert "password" not in page.text
        assert "included" not in none.json()
        assert included(empty) == []


async def test_one_row_brings_what_it_refers_to_and_no_etag_that_would_not_speak_for_it(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TABLES) as live:
        room = await new(live, "room")
        note = await new(live, "note", room_id=room)
        answer = await live.ask("GET", f"/api/note/{note}?include=room", "ann", headers={"If-None-Match": '"1"'})

        assert included(answer) == [("room", room)]
        assert "ETag" not in answer.headers


async def test_what_may_not_be_read_is_not_brought_along(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TABLES) as live:
        room = await new(live, "room", "bob", permission=2097057 | 64)
        note = await new(live, "note", "ann", room_id=room, permission=OPEN)
        path = f"/api/note/{note}?include=room"

        assert [included(await live.ask("GET", path, who)) for who in ("ann", "bob")] == [[], [("room", room)]]
        live.sql("UPDATE room SET permission = 2")
        assert included(await live.ask("GET", path, "ann")) == [("room", room)]


async def test_a_relationship_to_a_table_that_may_not_be_known_of_is_none(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TABLES) as live:
        room = await new(live, "room", "ann", permission=OPEN)
        note = await new(live, "note", "ann", room_id=room, permission=OPEN)
        live.sql("UPDATE world SET permission = permission & ~127 WHERE table_name = 'room'")
        row = await live.ask("GET", f"/api/note/{note}", "bob")
        answer = await live.ask("GET", f"/api/note/{note}?include=room", "bob")
        described = await live.ask("GET", "/openapi.json", "bob")
        referring = await live.create("note", "bob", room_id=room)
        nothing = await live.create("note", "bob", room_id="nowhere")

        assert row.json()["data"]["relationships"] == {"writer_row": {"data": None}}
        assert "/api/room/" not in row.text
        assert not {"/api/room", "room"} & {*described.json()["paths"], *str(described.json()).split("'")}
        assert code(answer) == (400, "bad-request")
        assert code(referring) == code(nothing) == (404, "not-found")
        assert referring.text.replace(room, "nowhere") == nothing.text


async def test_rows_of_the_same_table_are_not_there_twice(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TABLES) as live:
        house, garden = await new(live, "room"), await new(live, "room")
        inner = await new(live, "room", part_of=house)
        await new(live, "room", part_of=inner)
        page = await live.ask("GET", "/api/room?include=part_of_row", "ann")
        one = await live.ask("GET", f"/api/room/{inner}?include=part_of_row", "ann")

        assert garden
        assert included(page) == []  # all are in the page already
        assert included(one) == [("room", house)]


@pytest.mark.parametrize("name", ["rooms", "room.part_of", "room_id", "user_account_id"])
async def test_what_is_no_relationship_is_refused(tmp_path: Path, name: str) -> None:
    async with served(tmp_path / "live.db", tables=TABLES) as live:
        answer = await live.ask("GET", f"/api/note?include={name}")

        assert code(answer) == (400, "bad-request")
        assert answer.json()["errors"][0]["source"] == {"parameter": "include"}


async def test_what_is_too_long_to_be_brought_along_is_refused_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "PAGE_BYTES", 1000)
    async with served(tmp_path / "live.db", tables=TABLES) as live:
        for _ in range(3):
            await new(live, "note", room_id=await new(live, "room", name="x" * 400))
        few = await live.ask("GET", "/api/note?include=room&page[size]=1", "ann")

        assert code(await live.ask("GET", "/api/note?include=room", "ann")) == (413, "too-large")
        assert len(included(few)) == 1


async def test_more_rows_than_one_statement_binds_are_brought_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BATCH", 2)
    async with served(tmp_path / "live.db", tables=TABLES) as live:
        rooms = [await new(live, "room") for _ in range(5)]
        for room in rooms:
            await new(live, "note", room_id=room)

        answer = await live.ask("GET", "/api/note?include=room", "ann")
        assert included(answer) == sorted(("room", room) for room in rooms)
