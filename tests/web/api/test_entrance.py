"""Who asks too often by HTTP is turned away, and told when to come back."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing

from appliance.model import Principal
from appliance.store.file.readers import READERS
from appliance.web.api import headers
from appliance.web.api.entrance import QUERIES, Entrance, Rates
from appliance.web.api.headers import AT_ONCE
from tests.web.api.application import USUAL, Served, code, served

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


async def test_a_long_body_is_read_while_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    read, body = threading.Event(), b" " * (AT_ONCE + 1)
    monkeypatch.setattr(headers, "decode", lambda given: read.wait(5) and len(given))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(headers.decoded, body)
        await trio.testing.wait_all_tasks_blocked()
        read.set()
    assert await headers.decoded(body) == len(body)


async def test_a_head_of_the_websockets_path_says_what_to_upgrade_to(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        answer = await live.client.head("/live")

        assert (answer.status_code, answer.headers["Upgrade"], answer.headers["Connection"]) == (
            426, "websocket", "upgrade",
        )  # fmt: skip


async def test_queries_take_turns_by_who_asks_and_leave_a_reader_to_all_others(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with served(tmp_path / "live.db") as live:
        entrance = Entrance(live.hub.access, USUAL)
        done: list[str] = []

        async def query(principal: Principal) -> None:
            async with entrance.turn(principal):
                await trio.sleep(1)
                done.append(principal.subject)

        ann, bob = (Principal("i", name, admin=False, expires_at=0) for name in ("ann", "bob"))
        async with trio.open_nursery() as nursery:
            for principal in (ann, ann, ann, bob):
                nursery.start_soon(query, principal)
                await trio.testing.wait_all_tasks_blocked()

        assert QUERIES < READERS
        assert done == ["ann", "bob", "ann", "ann"]
        assert not entrance._own_turns
