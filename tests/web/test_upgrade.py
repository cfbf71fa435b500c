from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from appliance.errors import CloseCode
from appliance.live.wire.frames import close_frame, text_frame
from appliance.live.wire.room import SHORT, Room
from appliance.web.tls import Certificate
from appliance.web.upgrade import Upgrade
from tests.e2e.certificates import write_certificate
from tests.e2e.hostile import BINARY, CLOSE, PING, PONG, TEXT, close, frame, head
from tests.web.doors import Client, open_door


async def echo(upgrade: Upgrade) -> None:
    async with upgrade.accepted() as (connection, _):
        try:
            while True:
                await connection.send_message(await connection.get_message())
        except ConnectionClosed:
            pass


async def connected(client: Client, path: str = "/live", more: bytes = b"") -> Client:
    await client.send(head(path) + more)
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return client


async def receive(client: Client) -> tuple[int, bytes]:
    """Read one frame of less than 126 bytes."""
    first, size = await client.exactly(2)
    return first & 0x0F, await client.exactly(size)


async def test_a_connection_that_was_kept_can_still_become_a_websocket() -> None:
    async with open_door(websocket=echo) as opened:
        client = await opened.connect()
        async with client.stream:
            assert (await client.get("/a"))[2] == b"hello /a"
            await connected(client)
            await client.send(frame(TEXT, b"hi"))
            assert await receive(client) == (TEXT, b"hi")
            await client.send(close(1000))
            assert await receive(client) == (CLOSE, b"\x03\xe8")
            assert await client.rest() == b""
        assert opened.log == []


async def test_frames_behind_the_request_are_not_lost() -> None:
    async with open_door(websocket=echo) as opened:
        client = await opened.connect()
        async with client.stream:
            await connected(client, more=frame(TEXT, b"early") + frame(PING, b"p"))
            assert sorted([await receive(client), await receive(client)]) == [(TEXT, b"early"), (PONG, b"p")]


async def test_a_refused_connection_goes_on_as_http() -> None:
    async def refuse(upgrade: Upgrade) -> None:
        await upgrade.reject(401, b'{"error":{}}')

    async with open_door(websocket=refuse) as opened:
        client = await opened.connect()
        async with client.stream:
            for _ in range(2):
                await client.send(head())
                status, headers, body = await client.answer()
                assert (status, headers[b"content-type"], body) == (401, b"application/json", b'{"error":{}}')
            assert (await client.get("/a"))[2] == b"hello /a"


async def test_the_request_is_shown_as_it_was() -> None:
    seen: list[Upgrade] = []

    async def look(upgrade: Upgrade) -> None:
        seen.append(upgrade)
        await upgrade.reject(403)

    async with open_door(websocket=look) as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(head("/live?token=a%2Bb&token=c&auth", Authorization=b"Bearer x", Origin=b"http://\xe9"))
            assert (await client.answer())[0] == 403
    (upgrade,) = seen
    assert (upgrade.path, upgrade.remote, upgrade.secure) == ("/live", "127.0.0.1", False)
    assert upgrade.query == {"token": "a+b, c", "auth": ""}
    assert upgrade.headers["authorization"] == "Bearer x"
    assert upgrade.headers["origin"] == "http://é"


@pytest.mark.parametrize(
    ("request_", "status", "header"),
    [
        (head(Upgrade=None, Connection=None), 426, (b"upgrade", b"websocket")),
        (head(Connection=b"keep-alive"), 426, (b"upgrade", b"websocket")),
        (head(Sec_WebSocket_Version=b"8"), 426, (b"sec-websocket-version", b"13")),
        (head(Sec_WebSocket_Version=None), 400, (b"sec-websocket-version", b"13")),
        (head(Sec_WebSocket_Key=b"short"), 400, (b"content-type", b"application/json")),
        (head(Sec_WebSocket_Key=None), 400, (b"content-type", b"application/json")),
        (head("/other"), 200, (b"content-length", b"12")),
    ],
)
async def test_only_a_proper_request_reaches_the_websocket(
    request_: bytes, status: int, header: tuple[bytes, bytes]
) -> None:
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(request_)
            answered, headers, body = await client.answer()
            assert answered == status
            assert headers[header[0]] == header[1]
            if status != 200:
                assert json.loads(body)["error"]["code"] == "bad-request"


async def test_a_body_that_is_cancelled_can_still_close_properly() -> None:
    stop = trio.Event()

    async def stoppable(upgrade: Upgrade) -> None:
        async with upgrade.accepted() as (connection, _):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.get_message)
                await stop.wait()
                nursery.cancel_scope.cancel()
            await connection.aclose(CloseCode.TOKEN_EXPIRED)

    async with open_door(websocket=stoppable) as opened:
        client = await opened.connect()
        async with client.stream:
            await connected(client)
            stop.set()
            assert await receive(client) == (CLOSE, (4401).to_bytes(2, "big"))
            await client.send(frame(PING, b"late") + close(4401))
            assert await client.rest() == b""
        assert opened.log == []


async def test_a_connection_that_ends_leaves_its_room_to_others() -> None:
    room = Room()
    ended = trio.Event()

    async def take(upgrade: Upgrade) -> None:
        try:
            async with upgrade.accepted(None, room) as (connection, _):
                await connection.get_message()
        finally:
            ended.set()

    async with open_door(websocket=take) as opened:
        for ending in (close(1000), b"", frame(3)):
            client = await opened.connect()
            async with client.stream:
                await connected(client, more=frame(BINARY, bytes(SHORT + 1), fin=False) + frame(PING, b"p"))
                assert await receive(client) == (PONG, b"p")
                assert room.taken == SHORT + 1
                await client.send(ending)
            await ended.wait()
            ended = trio.Event()
            assert room.taken == 0


async def test_a_whole_message_has_its_room_until_it_is_answered() -> None:
    room = Room()
    taken: list[int] = []

    async def answer(upgrade: Upgrade) -> None:
        async with upgrade.accepted(None, room) as (connection, outgoing):
            for _ in range(2):
                await connection.get_message()
                taken.append(room.taken)
                outgoing.answered()
                taken.append(room.taken)
                await connection.send_message(b"next")

    async with open_door(websocket=answer) as opened:
        client = await opened.connect()
        async with client.stream:
            await connected(client)
            for _ in range(2):
                await client.send(frame(BINARY, bytes(SHORT + 1)))
                assert await receive(client) == (BINARY, b"next")
            assert (await receive(client))[0] == CLOSE
    assert taken == [SHORT + 1, 0] * 2


async def test_a_body_that_ends_closes_with_1000() -> None:
    async def brief(upgrade: Upgrade) -> None:
        async with upgrade.accepted() as (_, outgoing):
            outgoing.offer(text_frame(b"bye"))

    async with open_door(websocket=brief) as opened:
        client = await opened.connect()
        async with client.stream:
            await connected(client)
            assert await receive(client) == (TEXT, b"bye")
            assert await receive(client) == (CLOSE, b"\x03\xe8")


async def test_ready_frames_and_echoes_go_over_tls(tmp_path: Path) -> None:
    async def greet(upgrade: Upgrade) -> None:
        async with upgrade.accepted() as (connection, outgoing):
            for number in range(1000):
                assert outgoing.offer(text_frame(b"%0100d" % number))
            await connection.send_message(await connection.get_message())

    chain, key = write_certificate(tmp_path, "localhost")
    async with open_door(websocket=greet, certificate=Certificate(chain, key)) as opened:
        client = await opened.connect_tls(ssl.create_default_context(cafile=str(chain)))
        async with client.stream:
            await connected(client)
            await client.send(frame(TEXT, b"done"))
            received = [await receive(client) for _ in range(1001)]
            assert received == [(TEXT, b"%0100d" % number) for number in range(1000)] + [(TEXT, b"done")]


async def test_a_violation_over_tls_gets_its_close_frame(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "localhost")
    async with open_door(websocket=echo, certificate=Certificate(chain, key)) as opened:
        client = await opened.connect_tls(ssl.create_default_context(cafile=str(chain)))
        async with client.stream:
            await connected(client)
            await client.send(frame(TEXT, b"\xff"))
            kind, payload = await receive(client)
            assert (kind, payload[:2]) == (CLOSE, (1007).to_bytes(2, "big"))


async def occupied(upgrade: Upgrade) -> None:
    async with upgrade.accepted() as (connection, outgoing):
        for _ in range(8):  # of its tasks any can be the first to end
            outgoing.start_soon(trio.sleep_forever)
        await connection.get_message()


async def test_whoever_is_cut_off_from_outside_is_told_that_the_server_stops() -> None:
    async with open_door(websocket=occupied) as opened:
        clients = [await connected(await opened.connect()) for _ in range(20)]
        await trio.testing.wait_all_tasks_blocked()
    received = []
    for client in clients:
        async with client.stream:
            received.append(await client.rest())
    assert set(received) == {close_frame(CloseCode.RESTART)}
    assert opened.log == []


async def test_a_task_that_fails_is_a_fault_of_ours() -> None:
    async def fail() -> None:
        raise ValueError

    async def failing(upgrade: Upgrade) -> None:
        async with upgrade.accepted() as (connection, outgoing):
            outgoing.start_soon(trio.sleep_forever)
            await connection.get_message()
            outgoing.start_soon(fail)
            await connection.get_message()

    async with open_door(websocket=failing) as opened:
        client = await connected(await opened.connect())
        async with client.stream:
            await client.send(frame(TEXT, b"go"))
            assert await client.rest() == close_frame(CloseCode.INTERNAL)
        await opened.wait_for(0)
        (entry,) = opened.log
        assert "ValueError" in entry["error"]
