from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
from trio_websocket import WebSocketConnection
from wsproto import ConnectionType, WSConnection

from appliance.errors import CloseCode
from appliance.live.wire.frames import close_frame, text_frame
from appliance.live.wire.outgoing import Outgoing
from appliance.live.wire.sending import OUTGOING_LIMIT
from appliance.web.sealed import Tls
from appliance.web.tcp import Tcp
from appliance.web.tls import context
from tests.e2e.certificates import write_certificate
from tests.e2e.hostile import BINARY, CLOSE, PING, frame

ANSWER = b"HTTP/1.1 101 \r\n\r\n"
#: The server's side of TLS and the client's.
Contexts: TypeAlias = tuple[ssl.SSLContext, ssl.SSLContext]
Client: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"
FRAMES = [text_frame(b"%04d" % number * 1000) for number in range(1000)]


class Pair:
    """An ``Outgoing`` over a loopback connection, the client's end, and how many tasks it has started."""

    def __init__(self, carrier: Tcp, client: Client, nursery: trio.Nursery, **options: Any) -> None:
        self.client = client
        self.nursery = nursery
        self.started = 0
        self.outgoing = Outgoing(carrier, tasks=self, head=b"GET", **options)

    def start_soon(self, task: object) -> None:
        self.started += 1
        self.nursery.start_soon(task)  # type: ignore[arg-type]

    async def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := await self.client.receive_some(size - len(data))):
            data += more
        return data

    async def read_all(self) -> bytes:
        return b"".join([data async for data in self.client])

    def fill(self, limit: int = len(FRAMES)) -> bytes:
        """Offer frames until one is refused; give what was taken."""
        taken = []
        for data in FRAMES[:limit]:
            if not self.outgoing.offer(data):
                break
            taken.append(data)
        return b"".join(taken)


@pytest.fixture(params=["plain", "tls"])
def contexts(request: pytest.FixtureRequest, tmp_path: Path) -> Contexts | None:
    """Give what TLS takes, or ``None``: each test that takes it runs with both."""
    if request.param == "plain":
        return None
    chain, key = write_certificate(tmp_path, "localhost")
    return context(chain, key), ssl.create_default_context(cafile=str(chain))


@asynccontextmanager
async def opened(contexts: Contexts | None = None, **options: Any) -> AsyncIterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        end = trio.SocketStream(trio.socket.from_stdlib_socket(socket.create_connection(server.getsockname())))
        raw, _ = server.accept()
    carrier, client = Tcp(raw), end
    if contexts is not None:
        carrier = Tls(raw, contexts[0])
        client = trio.SSLStream(end, contexts[1], server_hostname="localhost", https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carrier.handshake)
            nursery.start_soon(client.do_handshake)
    async with trio.open_nursery() as nursery:
        pair = Pair(carrier, client, nursery, **options)
        async with pair.client, carrier:
            assert await pair.outgoing.receive_some() == b"GET"
            await pair.outgoing.send_all(ANSWER)
            assert await pair.read(len(ANSWER)) == ANSWER
            pair.outgoing.open(WebSocketConnection(pair.outgoing, WSConnection(ConnectionType.SERVER)))
            yield pair
            pair.outgoing.hang_up()
            nursery.cancel_scope.cancel()


async def test_an_idle_socket_is_written_at_once_and_without_a_task(contexts: Contexts | None) -> None:
    async with opened(contexts) as pair:
        assert pair.outgoing.offer(FRAMES[0])
        assert pair.outgoing.unsent == 0
        assert pair.started == 0
        assert await pair.read(len(FRAMES[0])) == FRAMES[0]


async def test_what_is_taken_arrives_whole_and_in_order(contexts: Contexts | None) -> None:
    async with opened(contexts) as pair:
        taken = pair.fill()
        assert 0 < pair.outgoing.unsent <= OUTGOING_LIMIT
        assert not pair.outgoing.offer(FRAMES[0])
        received = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.outgoing.send_all, b"\x8a\x00")
            received = await pair.read(len(taken) + 2)
        assert received == taken + b"\x8a\x00"
        assert pair.outgoing.unsent == 0
        assert pair.outgoing.offer(FRAMES[1])
        assert await pair.read(len(FRAMES[1])) == FRAMES[1]


async def test_one_frame_over_the_limit_is_taken_when_nothing_waits(contexts: Contexts | None) -> None:
    async with opened(contexts, limit=1000) as pair:
        big = text_frame(bytes(8 << 20))
        assert pair.outgoing.offer(big)
        assert not pair.outgoing.offer(FRAMES[0])
        assert await pair.read(len(big)) == big


async def test_discard_leaves_the_peer_whole_frames_and_room_for_a_close(contexts: Contexts | None) -> None:
    async with opened(contexts) as pair:
        taken = pair.fill()
        await trio.testing.wait_all_tasks_blocked()
        before = pair.outgoing.unsent
        pair.outgoing.discard()
        assert pair.outgoing.unsent < before
        goodbye = close_frame(CloseCode.TOO_SLOW)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.outgoing.aclose)
            nursery.start_soon(pair.outgoing.send_all, goodbye)
            received = b""
            while not received.endswith(goodbye):
                received += await pair.client.receive_some()
            await pair.client.aclose()
    events = received.removesuffix(goodbye)
    assert taken.startswith(events)
    assert len(events) % len(FRAMES[0]) == 0


async def test_a_cancelled_send_leaves_no_torn_frame(contexts: Contexts | None) -> None:
    async with opened(contexts) as pair:
        taken = pair.fill()
        with trio.move_on_after(0) as scope:
            await pair.outgoing.send_all(FRAMES[7])
        assert scope.cancelled_caught
        assert await pair.read(len(taken + FRAMES[7])) == taken + FRAMES[7]


async def test_a_peer_that_takes_nothing_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(write_s=30) as pair:
        pair.fill()
        assert await pair.outgoing.receive_some() == b""
        assert pair.outgoing.ended is CloseCode.TOO_SLOW
        assert pair.outgoing.closing
        with pytest.raises(trio.ClosedResourceError):
            await pair.outgoing.send_all(b"\x8a\x00")


async def test_a_broken_socket_raises_nothing_at_the_one_who_offers() -> None:
    async with opened() as pair:
        assert isinstance(pair.client, trio.SocketStream)
        pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await pair.client.aclose()
        while pair.outgoing.offer(FRAMES[0]):
            await trio.lowlevel.checkpoint()
        assert await pair.outgoing.receive_some() == b""
        assert not pair.outgoing.offer(FRAMES[0])


async def test_nothing_follows_a_close(contexts: Contexts | None) -> None:
    async with opened(contexts) as pair:
        await pair.outgoing.send_all(close_frame(1000))
        assert not pair.outgoing.offer(FRAMES[0])
        await pair.outgoing.send_all(FRAMES[0])
        pair.outgoing.hang_up(CloseCode.RESTART)
        assert await pair.read_all() == close_frame(1000)


async def test_hanging_up_says_why_when_the_socket_takes_it(contexts: Contexts | None) -> None:
    async with opened(contexts) as pair:
        pair.outgoing.hang_up(CloseCode.RESTART)
        assert await pair.read_all() == close_frame(1012)


async def test_a_violation_is_told_although_the_peer_goes_on_sending(contexts: Contexts | None) -> None:
    async with opened(contexts) as pair:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.outgoing.receive_some)
            await pair.client.send_all(frame(BINARY, bytes(4 << 20)))
            received = await pair.read_all()
            await pair.client.aclose()
        assert received[:4] == b"\x88" + received[1:2] + (1009).to_bytes(2, "big")
        assert pair.outgoing.ended is CloseCode.TOO_BIG


async def test_a_peer_that_never_hangs_up_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as pair:
        await pair.client.send_all(frame(3))
        assert await pair.outgoing.receive_some() == b""
        assert pair.outgoing.closing


async def test_what_was_sent_behind_the_request_comes_after_the_answer(contexts: Contexts | None) -> None:
    early = frame(PING, b"early")
    async with opened(contexts, early=early) as pair:
        assert await pair.outgoing.receive_some() == early
        await pair.client.send_all(frame(CLOSE, b"\x03\xe8"))
        assert await pair.outgoing.receive_some() == frame(CLOSE, b"\x03\xe8")


async def test_closing_twice_at_once_is_closing_once() -> None:
    async with opened() as pair:
        await pair.outgoing.send_all(close_frame(1000))
        await pair.client.send_all(frame(CLOSE, b"\x03\xe8"))
        await pair.outgoing.receive_some()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.outgoing.aclose)
            nursery.start_soon(pair.outgoing.aclose)
        assert await pair.read_all() == close_frame(1000)


async def test_there_is_nothing_to_discard_of_a_peer_that_is_gone(contexts: Contexts | None) -> None:
    async with opened(contexts) as pair:
        pair.fill()
        pair.outgoing.hang_up()
        pair.outgoing.discard()
        assert pair.outgoing.unsent == 0


async def test_hanging_up_sends_what_waits_first_when_the_socket_takes_it(contexts: Contexts | None) -> None:
    async with opened(contexts) as pair:
        pair.start_soon = lambda task: None  # type: ignore[method-assign] # who would write it has ended
        taken = b""
        while not pair.outgoing.unsent:
            taken += pair.fill(1)
        received = await pair.read(len(taken) - pair.outgoing.unsent)
        pair.outgoing.hang_up(CloseCode.RESTART)
        assert received + await pair.read_all() == taken + close_frame(1012)
