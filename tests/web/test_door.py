from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from appliance.web import door
from appliance.web.asgi import Receive, Scope, Send
from appliance.web.tls import Certificate
from appliance.web.upgrade import Upgrade
from tests.e2e.certificates import write_certificate
from tests.e2e.hostile import TEXT, close, frame, head
from tests.web.doors import hello, open_door


async def test_a_websocket_that_fails_is_logged_once_without_its_words_and_hurts_nobody() -> None:
    async def fail(upgrade: Upgrade) -> None:
        token = upgrade.query["token"]
        async with upgrade.accepted() as (connection, _), trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            message = await connection.get_message()
            raise BaseExceptionGroup("two", [ValueError(message), KeyError(token)])

    async with open_door(websocket=fail) as opened:
        neighbour, client = await opened.connect(), await opened.connect()
        async with neighbour.stream, client.stream:
            await neighbour.get()
            await client.send(head("/live?token=secret") + frame(TEXT, b"a row"))
            assert b"\x88\x02\x03\xf3" in await client.until(b"\x03\xf3")  # Close 1011
            await client.send(close(1011))
            await opened.wait_for(1)
            assert (await neighbour.get("/x"))[2] == b"hello /x"
        assert [entry["event"] for entry in opened.log] == ["connection_failed"]
        assert "ValueError" in opened.log[0]["error"]
        assert "KeyError" in opened.log[0]["error"]
        assert "secret" not in str(opened.log)
        assert "a row" not in str(opened.log)


async def test_a_websocket_that_is_not_answered_is_a_fault_of_ours() -> None:
    async def forget(upgrade: Upgrade) -> None:
        pass

    async with open_door(websocket=forget) as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(head())
            await client.rest()
        await opened.wait_for(0)
        assert [entry["event"] for entry in opened.log] == ["connection_failed"]


async def test_one_connection_too_many_is_told_so() -> None:
    async with open_door(connections=2) as opened:
        first, second, third = [await opened.connect() for _ in range(3)]
        async with first.stream, second.stream, third.stream:
            await first.get()
            await second.get()
            status, headers, _ = await third.get()
            assert (status, headers[b"retry-after"]) == (503, b"5")
            assert await third.rest() == b""
            await first.stream.aclose()
            await opened.wait_for(1)
            fourth = await opened.connect()
            async with fourth.stream:
                assert (await fourth.get())[0] == 200


async def test_a_full_server_tells_who_watches_it_that_it_is_well_and_every_other_that_it_is_full() -> None:
    async with open_door(connections=1) as opened:
        first = await opened.connect()
        async with first.stream:
            await first.get()
            for _ in range(3):
                for path in ("/healthz", "/readyz", "/metrics?x"):
                    watcher = await opened.connect()
                    async with watcher.stream:
                        status, headers, body = await watcher.get(path)
                        assert (status, headers[b"connection"]) == (200, b"close")
                        assert body == b"hello " + path.partition("?")[0].encode()
                        assert await watcher.rest() == b""
                other = await opened.connect()
                async with other.stream:
                    await other.send(head("/live?token=secret"))
                    assert (await other.answer())[0] == 503
                    assert await other.rest() == b""
            assert (await first.get())[0] == 200
            assert opened.door._counters.turned_away == 3
            await opened.wait_for(1)


async def test_of_connections_beyond_the_limit_there_are_some_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(door, "BEYOND", 1)
    async with open_door(connections=1, head_s=3600) as opened:
        first, second, third = [await opened.connect() for _ in range(3)]
        async with first.stream, second.stream, third.stream:
            await trio.testing.wait_all_tasks_blocked()
            assert await third.rest() == b""
            assert trio.current_time() < 1
            assert await second.rest() == b""
            assert trio.current_time() < 2 * door.BEYOND_S
            assert (await first.get())[0] == 200


async def test_after_stop_accepting_what_has_begun_is_finished_and_then_run_returns() -> None:
    begun, go = trio.Event(), trio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go.wait()
        await hello(scope, receive, send)

    async with open_door(slow) as opened:
        idle, busy = await opened.connect(), await opened.connect()
        async with idle.stream, busy.stream:
            async with trio.open_nursery() as nursery:
                answers = []

                async def ask() -> None:
                    answers.append(await busy.get("/x"))

                nursery.start_soon(ask)
                await begun.wait()
                opened.door.stop_accepting()
                assert await idle.rest() == b""
                go.set()
            ((status, headers, body),) = answers
            assert (status, headers[b"connection"], body) == (200, b"close", b"hello /x")
            assert await busy.rest() == b""
        await opened.wait_for(0)


async def test_a_silent_peer_does_not_hold_its_place(autojump_clock: trio.testing.MockClock) -> None:
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            assert await client.rest() == b""
            assert trio.current_time() >= 10


STOPPING = {"error": {"code": "unavailable", "message": "the server stops or restarts; try again in a moment"}}


@pytest.mark.parametrize("request_", [b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n", head()], ids=["plain", "websocket"])
@pytest.mark.parametrize("before", [0, 20, -1])
async def test_a_request_that_comes_once_the_server_stops_is_told_so_at_once(request_: bytes, before: int) -> None:
    """Of which nothing has come before, a part (it is not waited for the rest) or all but its last byte."""
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(request_[:before])
            await trio.testing.wait_all_tasks_blocked(0.01)
            if not before:
                assert isinstance(client.stream, trio.SocketStream)
                os.write(client.stream.socket.fileno(), request_)  # at the same moment
            opened.door.stop_accepting()
            status, headers, body = await client.answer()
            assert (status, headers[b"connection"], headers[b"retry-after"]) == (503, b"close", b"5")
            assert json.loads(body) == STOPPING
            await client.send(request_[before:])
            assert await client.rest() == b""
        await opened.wait_for(0)
        assert opened.log == []


async def test_connections_that_have_said_nothing_do_not_hold_up_the_end(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    certificate = Certificate(*write_certificate(tmp_path, "localhost"))
    for kind in (None, certificate):
        async with open_door(certificate=kind, connections=2) as opened:
            clients = [await opened.connect() for _ in range(3)]  # of which one is beyond the limit
            while opened.door.connections < len(clients):  # the last are taken, and have not had their turn yet
                await trio.lowlevel.checkpoint()
            opened.door.stop_accepting()
            began = trio.current_time()
            for client in clients:
                async with client.stream:
                    assert await client.rest() == b""
            await opened.wait_for(0)
            assert trio.current_time() - began < 1
