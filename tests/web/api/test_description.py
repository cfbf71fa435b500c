from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from appliance.protocol.operators import OPERATORS
from appliance.store.tables.making import NewColumn
from appliance.web.api.query import PARAMETERS
from tests.web.api.application import ORIGINS, Served, served
from tests.web.api.test_messages import PATH, make

TABLES = {"room": (NewColumn("name", "text", required=True),), "note": (NewColumn("room_id", "room"),)}
PLAIN = "CREATE TABLE plain(k INTEGER PRIMARY KEY, v TEXT NOT NULL, api_key, g AS (v) STORED)"


async def described(live: Served, subject: str | None = None) -> dict[str, Any]:
    answer = await live.ask("GET", "/openapi.json", subject)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    return dict(answer.json())


async def test_the_description_is_of_what_the_caller_may_do(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", PLAIN, tables=TABLES) as live:
        everything = (await described(live))["paths"]
        anns = (await described(live, "ann"))["paths"]
        public = (await live.client.get("/openapi.json")).json()["paths"]

        assert {"/api/plain", "/api/plain/{id}", "/api/world", "/api/room"} <= everything.keys()
        assert "/api/plain" not in anns
        assert set(anns["/api/room"]) == {"get", "post"}
        assert list(public) == [
            "/live/topics/{topic}/messages", "/action/user_account/signup", "/action/user_account/signin",
        ]  # fmt: skip
        assert (await live.client.get("/openapi.json?token=bad")).status_code == 401
        live.sql("UPDATE world SET permission = 1 | 2 WHERE table_name = 'plain'")
        seen = (await described(live, "ann"))["paths"]
        assert set(seen["/api/plain"]) == {"get"}
        assert set(seen["/api/plain/{id}"]) == {"parameters", "get"}


async def test_a_body_is_described_column_by_column(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", PLAIN, tables=TABLES) as live:
        paths = (await described(live))["paths"]

        def data(path: str) -> Any:
            content = paths[path]["post"]["requestBody"]["content"]
            return content["application/vnd.api+json"]["schema"]["properties"]["data"]

        attributes = data("/api/plain")["properties"]["attributes"]
        assert set(attributes["properties"]) == {"k", "v", "api_key"}
        assert attributes["required"] == ["v"]
        assert data("/api/note")["properties"]["relationships"]["properties"].keys() == {"room"}
        sent = paths["/api/plain"]["get"]["responses"]["200"]["content"]["application/vnd.api+json"]["schema"]
        shown = sent["properties"]["data"]["items"]["properties"]["attributes"]["properties"]
        assert set(shown) == {"k", "v", "g"}


async def test_all_that_a_list_takes_is_described(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", PLAIN, tables=TABLES) as live:
        document = await described(live)
        paths, components = document["paths"], document["components"]
        given = {each["name"]: each for each in paths["/api/note"]["get"]["parameters"]}

        for name in PARAMETERS:
            assert any(each == name or each.startswith(name[:-2]) for each in given), name
        assert "fields[room]" in given
        filters = given["filter"]["content"]["application/json"]["schema"]["properties"]
        assert filters["room_id"] == {"$ref": "#/components/schemas/text_condition"}
        assert given["filter[room_id]"]["style"] == "deepObject"
        assert list(components["schemas"]["operators"]["properties"]) == list(OPERATORS)
        assert {"filter", "filter[k]", "page[after]"} <= {
            each["name"] for each in paths["/api/plain"]["get"]["parameters"]
        }


KEYS = {"a", "~", "!x", "two words", 'q"', "a" * 255, "a" * 256, "\xe9", "a\x7f", '""'}


async def test_the_idempotency_keys_that_are_described_are_those_that_are_taken(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        await make(live)
        key = (await described(live))["paths"]["/live/topics/{topic}/messages"]["post"]["parameters"][1]["schema"]
        taken = set()
        for each in KEYS:
            headers: Any = {"Content-Type": "application/json", "Idempotency-Key": each.encode("latin-1")}
            answer = await live.ask("POST", PATH, content=b"1", headers=headers)
            assert answer.status_code in (201, 400)
            taken |= {each} if answer.status_code == 201 else set()

        assert taken == {each for each in KEYS if re.search(key["pattern"], each) and len(each) <= key["maxLength"]}


async def test_pages_of_other_origins_may_use_it_only_when_they_are_on_the_list(tmp_path: Path) -> None:
    preflight = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization,if-match"}
    async with served(tmp_path / "live.db", PLAIN) as live:
        ours = {"Origin": ORIGINS[0]}
        theirs = {"Origin": "https://evil.example.com"}
        asked = await live.client.options("/api/plain/1", headers=ours | preflight)
        refused = await live.client.options("/api/plain/1", headers=theirs | preflight)
        answer = await live.ask("GET", "/api/plain", headers=ours)
        error = await live.client.get("/api/plain", headers=ours)
        other = await live.ask("GET", "/api/plain", headers=theirs)

        assert asked.status_code == 200
        assert "PATCH" in asked.headers["Access-Control-Allow-Methods"]
        assert refused.status_code == 400
        assert "Access-Control-Allow-Origin" not in refused.headers
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGINS[0]
        assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
        assert (error.status_code, error.headers["Access-Control-Allow-Origin"]) == (401, ORIGINS[0])
        assert "Access-Control-Allow-Origin" not in other.headers
