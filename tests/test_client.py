"""``tail`` and a server that is there and says nothing: it connects again and goes on where it was."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from appliance import client
from appliance.errors import CommandError, StoreLocked
from appliance.reach import Lost
from tests.e2e.certificates import write_certificate

EPOCH = "b7c0ffee12345678"


class Silent:
    """A server that goes silent on its first connections, each time a little earlier in the course of things."""

    def __init__(self) -> None:
        self.connections = 0
        self.asked: list[dict[str, Any]] = []
        self.silent_on: tuple[int, ...] = (2, 3)

    async def connection(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        if self.connections == 2 and self.silent_on:  # like a process that is stopped: not even a Close is answered
            head = await stream.receive_some()
            key = bytes(head).partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r")[0]
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            await stream.send_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
        if self.connections in self.silent_on:
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            async with await request.accept() as connection:
                with contextlib.suppress(ConnectionClosed):
                    await self._serve(connection)
            nursery.cancel_scope.cancel()

    async def _serve(self, connection: WebSocketConnection) -> None:
        await self._answer(connection)
        while True:
            await connection.get_message()  # and answer nothing

    async def _answer(self, connection: WebSocketConnection) -> None:
        asked = json.loads(await connection.get_message())
        self.asked.append(asked["attributes"])
        since = asked["attributes"].get("since", 6)
        reply = {"topic": "t", "EventId": since, "epoch": EPOCH}
        await connection.send_message(json.dumps({"EventType": "response", "EventData": reply, "id": 1}))
        event = {"MessageSource": "database", "EventType": "create", "EventData": {}, "EventId": since + 1}
        await connection.send_message(json.dumps(event))


async def followed(
    server: Silent,
    wish: client.Wish,
    *,
    token: Callable[[], str] = lambda: "token",
    note: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Have ``tail`` follow a server's topic for two events; give what it has shown."""
    shown: list[str] = []
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.connection, [listener])
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/live"
        await client.Tail(url, token, wish, shown.append, note).run(count=2, wait=False)
        nursery.cancel_scope.cancel()
    return [json.loads(text) for text in shown]


async def test_a_server_that_goes_silent_is_left_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PING_AFTER_S", "PONG_WITHIN_S", "CLOSE_S"):
        monkeypatch.setattr(client, name, 0.2)
    monkeypatch.setattr(client, "BACKOFF_S", (0.01, 0.01))
    server, noted = Silent(), list[str]()
    shown = await followed(server, client.Wish("t"), note=noted.append)
    assert [each["EventId"] for each in shown] == [7, 8]
    assert [each.get("since") for each in server.asked] == [None, 7]
    assert server.connections == 4
    assert sum("does not answer" in note for note in noted) == 3


class Unwell(Silent):
    """A server that restarts behind each event, and on its second connection cannot read its store."""

    async def _serve(self, connection: WebSocketConnection) -> None:
        if self.connections == 2:
            await connection.get_message()
            refusal = {"code": "unavailable", "message": "the database cannot be read just now"}
            await connection.send_message(json.dumps({"EventType": "error", "EventData": refusal, "id": 1}))
        else:
            await self._answer(connection)
        await connection.aclose(1012)


async def test_a_server_or_a_store_that_is_not_well_for_a_moment_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "BACKOFF_S", (0.01, 0.01))
    server, noted, tokens = Unwell(), list[str](), list[str]()
    server.silent_on = ()

    def token() -> str:
        tokens.append("token")
        if len(tokens) == 2:  # it is made with the secret of the store
            raise StoreLocked("a.db is locked by another program")
        return tokens[-1]

    shown = await followed(server, client.Wish("t"), token=token, note=noted.append)
    assert [each["EventId"] for each in shown] == [7, 8]
    assert [each.get("since") for each in server.asked] == [None, 7]
    assert sum("locked" in note or "cannot be read" in note for note in noted) == 2


class Restarting(Silent):
    """A server that restarts in the midst of its first snapshot."""

    async def _serve(self, connection: WebSocketConnection) -> None:
        asked = json.loads(await connection.get_message())
        self.asked.append(asked["attributes"])
        reply = {"topic": "t", "EventId": 6, "epoch": EPOCH}
        await connection.send_message(json.dumps({"EventType": "response", "EventData": reply, "id": 1}))
        row = {"MessageSource": "database", "EventType": "snapshot", "EventData": {}, "Key": [self.connections]}
        await connection.send_message(json.dumps(row))
        await connection.aclose(1012)


async def test_what_is_shown_says_that_all_rows_come_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_S", (0.01, 0.01))
    server = Restarting()
    server.silent_on = ()
    first, reply, again = await followed(server, client.Wish("t", snapshot=True))
    assert (first["Key"], again["Key"]) == ([1], [2])
    assert (reply["EventType"], reply["ObjectType"]) == ("response", "subscribe")
    assert reply["EventData"] == {"topic": "t", "EventId": 6, "epoch": EPOCH, "recovered": False}
    assert [each.get("since") for each in server.asked] == [None, None]


class NoNames(trio.abc.HostnameResolver):
    """Knows no name, as where there is no /etc/hosts."""

    async def getaddrinfo(self, host: bytes | None, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def getnameinfo(self, *_: Any) -> Any:
        raise AssertionError("nobody asks")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_localhost_is_this_machine_though_nothing_says_so(address: str) -> None:
    server = Silent()
    trio.socket.set_custom_hostname_resolver(NoNames())
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=address)
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.connection, [listener])
        tail = client.Tail(
            f"ws://localhost:{port}/live", lambda: "token", client.Wish("t"), lambda _: None, lambda _: None
        )
        await tail.run(count=1, wait=False)
        away = client.Tail(
            f"ws://elsewhere:{port}/live", lambda: "token", client.Wish("t"), lambda _: None, lambda _: None
        )
        with pytest.raises(Lost, match="name resolution"):
            await away.run(count=1, wait=False)
        nursery.cancel_scope.cancel()
    assert server.connections == 1


# --- what a server is that cannot be talked to ------------------------------------------------------------------------


async def complaint(url: str, server: Callable[[trio.abc.Stream], Awaitable[None]], **options: Any) -> CommandError:
    """Have ``tail`` go to a server, whose port stands for PORT in ``url``; give what it ends with."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server, [listener])
        url = url.replace("PORT", str(listener.socket.getsockname()[1]))
        tail = client.Tail(url, lambda: "token", client.Wish("t"), lambda _: None, lambda _: None, **options)
        with pytest.raises(CommandError) as caught:
            await tail.run(count=1, wait=False)
        nursery.cancel_scope.cancel()
    return caught.value


@pytest.mark.parametrize("answer", [b"", b"\x15\x03\x03\x00\x02\x02\x46"], ids=["none", "an alert of TLS"])
async def test_a_server_that_speaks_tls_is_told_from_one_that_is_silent(answer: bytes) -> None:
    async def tls_only(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    said = str(await complaint("ws://127.0.0.1:PORT/live", tls_only))
    assert "does not answer as a WebSocket server does; with TLS its URL begins with wss://" in said


async def test_a_server_that_speaks_no_tls_is_told_from_one_that_does() -> None:
    async def plain(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.aclose()

    assert "without TLS its URL begins with ws://" in str(await complaint("wss://127.0.0.1:PORT/live", plain))


async def test_of_a_certificate_that_is_not_trusted_it_is_said_what_to_do(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "localhost")
    own, other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(chain))
    own.load_cert_chain(chain, key)

    async def signs_itself(stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await trio.SSLStream(stream, own, server_side=True).do_handshake()
        await stream.aclose()

    said = str(await complaint("wss://localhost:PORT/live", signs_itself))
    assert said.startswith("the certificate of wss://localhost:")
    assert re.search(r"is not trusted \(self.signed certificate\); name it with --cafile FILE", said)
    assert "mismatch" in str(await complaint("wss://127.0.0.1:PORT/live", signs_itself, trust=other))
