"""Who asks too often by HTTP is turned away, and told when to come back."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from appliance.web.api.entrance import Rates
from tests.web.api.application import Served, code, served

#: So slow that nothing comes back while a test runs.
FEW = Rates(requests_per_s=0.01, request_burst=5, guest_requests_per_s=0.01, guest_request_burst=3)
TABLE = "CREATE TABLE t(k INTEGER PRIMARY KEY)"


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert int(answer.headers["Retry-After"]) > 0
    return answer.status_code, answer.json()["error"]["code"]


async def test_each_user_has_requests_of_its_own(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", TABLE, rates=FEW) as live:
        for _ in range(3):
            assert (await live.ask("GET", "/api/t")).status_code == 200
        assert (await live.ask("GET", "/openapi.json")).status_code == 200
        assert (await live.create("t")).status_code == 201
        over = await live.ask("GET", "/api/t")
        assert code(over) == (429, "rate-limited")
        assert int(over.headers["Retry-After"]) > 0
        assert refused(await live.ask("GET", "/openapi.json")) == (429, "rate-limited")
        message = await live.ask("POST", "/live/topics/x/messages", json=1)
        assert refused(message) == (429, "rate-limited")
        assert (await live.ask("GET", "/openapi.json", "ann")).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic x"}])
async def test_an_address_without_a_good_token_has_fewer(tmp_path: Path, headers: dict[str, str]) -> None:
    async with served(tmp_path / "live.db", TABLE, rates=FEW) as live:
        for _ in range(3):
            assert (await live.client.get("/api/t", headers=headers)).status_code == 401
        assert code(await live.client.get("/api/t", headers=headers)) == (429, "rate-limited")
        for path in ("/action/user_account/signin", "/action/user_account/signup", "/setup"):
            assert refused(await live.client.post(path, json={})) == (429, "rate-limited")
        assert (await live.ask("GET", "/api/t")).status_code == 200
        assert (await live.client.get("/healthz")).status_code == 200


async def test_the_guests_of_one_network_are_one(tmp_path: Path) -> None:
    async def ask(live: Served, address: str) -> int:
        transport = httpx.ASGITransport(live.client._transport.app, client=(address, 1))  # type: ignore[attr-defined]
        async with httpx.AsyncClient(transport=transport, base_url="http://live") as client:
            return (await client.get("/api/world")).status_code

    async with served(tmp_path / "live.db", guests=True, rates=FEW) as live:
        addresses = ["2001:db8::1", "2001:db8::2", "2001:db8::3:4:5:6", "2001:db8::1"]
        assert [await ask(live, each) for each in addresses] == [200, 200, 200, 429]
        assert await ask(live, "2001:db8:0:1::1") == await ask(live, "192.0.2.1") == 200


async def test_a_head_of_the_websockets_path_says_what_to_upgrade_to(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        answer = await live.client.head("/live")

        assert (answer.status_code, answer.headers["Upgrade"], answer.headers["Connection"]) == (
            426, "websocket", "upgrade",
        )  # fmt: skip
