from __future__ import annotations

import json
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from appliance.web.asgi import Receive, Scope, Send
from tests.web.doors import Client, open_door


async def length(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer how many bytes the body had, in chunks."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for digit in str(size):
        await send({"type": "http.response.body", "body": digit.encode(), "more_body": True})
    await send({"type": "http.response.body"})


async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without reading the body."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


async def test_a_connection_is_kept_for_many_requests() -> None:
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            for path in ("/a", "/b", "/c%20d"):
                status, headers, body = await client.get(path)
                assert status == 200
                assert body == b"hello " + path.replace("%20", " ").encode()
                assert b"date" in headers


async def test_requests_sent_at_once_are_answered_in_order() -> None:
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(50)))
            for number in range(50):
                assert (await client.answer())[2] == b"hello /%d" % number


async def test_head_is_get_without_the_body() -> None:
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n")
            status, headers, _ = await client.answer(head_only=True)
            assert (status, headers[b"content-length"]) == (200, b"8")
            assert (await client.get())[2] == b"hello /"


async def test_a_client_of_http_1_0_gets_its_answer_and_the_end() -> None:
    async with open_door(length) as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
            assert (await client.rest()).endswith(b"\r\n\r\n3")


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
async def test_a_body_is_read_and_an_answer_of_unknown_length_is_chunked(expect: bytes) -> None:
    async with open_door(length) as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + expect + b"Content-Length: 200000\r\n\r\n")
            if expect:
                assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
            await client.send(bytes(200_000))
            assert b"Transfer-Encoding: chunked" in await client.until(b"\r\n\r\n")
            chunks = b"".join(b"1\r\n%c\r\n" % digit for digit in b"200000") + b"0\r\n\r\n"
            assert await client.exactly(len(chunks)) == chunks
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            assert (await client.until(b"0\r\n\r\n")).endswith(b"\r\n\r\n1\r\n3\r\n0\r\n\r\n")


async def test_a_body_that_nobody_wants_is_skipped_when_it_is_small() -> None:
    async with open_door(deaf) as opened:
        client = await opened.connect()
        async with client.stream:
            for _ in range(2):
                await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
                assert (await client.answer())[0] == 404


async def test_a_body_that_nobody_wants_ends_the_connection_when_it_is_big() -> None:
    async with open_door(deaf) as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + bytes(4_000_000))
            assert (await client.answer())[0] == 404
            assert await client.rest() == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + bytes(2000), 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + bytes(2000), 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (  # two ways to tell where it ends, and what is another request by one of them
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 34\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 16_384 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000, 431),
    ],
)
async def test_what_cannot_be_served_is_refused_in_json_and_the_connection_ends(request_: bytes, status: int) -> None:
    async with open_door(length, body_bytes=1000) as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(request_)
            answered, headers, body = await client.answer()
            assert (answered, headers[b"connection"]) == (status, b"close")
            assert set(json.loads(body)["error"]) == {"code", "message"}
            assert await client.rest() == b""
        assert opened.log == []


async def test_a_head_that_does_not_come_in_time_is_408(autojump_clock: trio.testing.MockClock) -> None:
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(b"GET / HT")
            assert (await client.answer())[0] == 408


async def test_a_body_that_does_not_come_in_time_is_408(autojump_clock: trio.testing.MockClock) -> None:
    async with open_door(length) as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            assert (await client.answer())[0] == 408


async def test_an_idle_connection_is_closed_in_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            await client.get()
            before = trio.current_time()
            assert await client.rest() == b""
            assert trio.current_time() - before >= 75


class Reader:
    """Answers how many bytes the body had, once all of it is there; ``reached`` is set at so many bytes of one."""

    def __init__(self, bytes_: int) -> None:
        self.reached = trio.Event()
        self._bytes = bytes_

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
            if len(body) >= self._bytes:
                self.reached.set()
        if message["type"] == "http.disconnect":
            return
        answer = b"%d" % len(body)
        lines = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body", "body": answer})


def post(body: int) -> bytes:
    """Give the head of a POST with so many bytes, and all of them but the last."""
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % body + bytes(body - 1)


async def test_bodies_that_come_slowly_take_no_more_memory_than_there_is_for_all_of_them() -> None:
    reader = Reader(199_000)
    async with open_door(reader, held_bytes=100_000) as opened:
        slow, long, short = [await opened.connect() for _ in range(3)]
        async with slow.stream, long.stream, short.stream:
            await slow.send(post(200_000))  # one has room, however long it is
            await reader.reached.wait()

            await long.send(post(100_000))
            status, headers, body = await long.answer()
            assert (status, json.loads(body)["error"]["code"]) == (503, "unavailable")
            assert headers[b"retry-after"] == b"5"
            await short.send(post(60_000) + b".")
            assert (await short.answer())[2] == b"60000"

            await slow.send(b".")
            assert (await slow.answer())[2] == b"200000"
        again = await opened.connect()
        async with again.stream:
            await again.send(post(100_000) + b".")
            assert (await again.answer())[2] == b"100000"


async def test_what_one_client_sends_slowly_leaves_room_for_others() -> None:
    reader = Reader(149_000)
    async with open_door(reader, held_bytes=400_000) as opened:
        slow, own, others = [
            Client(await trio.open_tcp_stream("127.0.0.1", opened.port, local_address=f"127.0.0.{last}"))
            for last in (1, 1, 2)
        ]
        async with slow.stream, own.stream, others.stream:
            await slow.send(post(150_000))
            await reader.reached.wait()

            await own.send(post(100_000))
            status, _, body = await own.answer()
            assert (status, "your address" in json.loads(body)["error"]["message"]) == (503, True)
            await others.send(post(100_000) + b".")
            assert (await others.answer())[2] == b"100000"
            await slow.send(b".")
            assert (await slow.answer())[2] == b"150000"
            await slow.send(post(150_000) + b".")  # what it held it does not hold twice
            assert (await slow.answer())[2] == b"150000"
        await opened.wait_for(0)
        assert opened.door._traffic.room.taken == 0


async def pour(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with more than sockets hold; at /short with a little."""
    size = 10 if scope["path"] == "/short" else 16 << 20
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": bytes(size)})


async def test_answers_that_nobody_takes_are_no_more_than_there_is_memory_for_all_of_them() -> None:
    async with open_door(pour, held_bytes=8 << 20) as opened:
        idle, reading, writing = [await opened.connect() for _ in range(3)]
        async with idle.stream, reading.stream, writing.stream:
            await idle.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await idle.until(b"\r\n\r\n")  # it is being sent

            assert (await reading.get("/short"))[0] == 200
            status, headers, _ = await reading.get()
            assert (status, headers[b"connection"]) == (503, b"close")
            # What was written may be committed: nobody says that it is not.
            await writing.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await writing.rest() == b""

        await opened.wait_for(0)  # who has gone holds nothing
        again = await opened.connect()
        async with again.stream:
            await again.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await again.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_short_bodies_without_their_end_keep_no_long_one_out() -> None:
    reader = Reader(59_999)
    async with open_door(reader, held_bytes=100_000) as opened, AsyncExitStack() as stack:
        for _ in range(2):
            client = await opened.connect()
            await stack.enter_async_context(client.stream)
            await client.send(post(60_000))
            await reader.reached.wait()
            reader.reached = trio.Event()
        long = await opened.connect()
        async with long.stream:
            await long.send(post(100_000) + b".")
            assert (await long.answer())[2] == b"100000"


async def test_a_body_that_grows_takes_no_more_than_the_others_leave() -> None:
    reader = Reader(89_999)
    async with open_door(reader, held_bytes=400_000) as opened:
        first, second = [await opened.connect() for _ in range(2)]
        async with first.stream, second.stream:
            await first.send(post(90_000))
            await reader.reached.wait()
            await second.send(post(90_000))
            assert (await second.answer())[0] == 503
            await first.send(b".")
            assert (await first.answer())[2] == b"90000"
