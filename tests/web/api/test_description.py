from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.store.tables.standard import NewColumn
from tests.web.api.application import ORIGINS, Served, served

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
        assert list(public) == ["/live/topics/{topic}/messages"]
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
