from __future__ import annotations

import json

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from appliance.web.asgi import Message, Receive, Scope, Send
from tests.web.doors import open_door


async def test_starlette_sees_the_request_as_it_is() -> None:
    async def show(request: Request) -> JSONResponse:
        body = await request.json()
        assert request.client is not None
        host = request.client.host
        return JSONResponse([request.url.path, request.query_params["q"], request.headers["x"], body, host])

    async with open_door(Starlette(routes=[Route("/a/{b}", show, methods=["PUT"])])) as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(b"PUT /a/%C3%A9?q=1 HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 2\r\n\r\n{}")
            assert json.loads((await client.answer())[2]) == ["/a/é", "1", "y", {}, "127.0.0.1"]
            assert (await client.get("http://x/a/b"))[0] == 405  # absolute form


async def test_an_application_that_fails_is_a_500_and_one_line_without_its_words() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("the row's password")

    async with open_door(fail) as opened:
        client = await opened.connect()
        async with client.stream:
            status, _, body = await client.get("/x?token=secret")
            assert (status, json.loads(body)["error"]["code"]) == (500, "internal")
            assert (await client.get())[0] == 500  # the connection goes on
        assert [entry["event"] for entry in opened.log] == ["request_failed"] * 2
        assert "ValueError at " in opened.log[0]["error"]
        assert "password" not in str(opened.log)
        assert "secret" not in str(opened.log)


async def test_under_api_every_error_is_a_document_of_json_api() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        raise ValueError

    chunked = b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + bytes(2000)
    async with open_door(fail, body_bytes=1000) as opened:
        for rest, expected in (
            (b"Host: x\r\n\r\n", (500, "internal")),
            (b"Host: x\r\nContent-Length: 2000\r\n\r\n", (413, "too-large")),
            (b"Host: x\r\n" + chunked, (413, "too-large")),
            (b"Host: x\r\nX: " + b"a" * 16_384 + b"\r\n\r\n", (431, "too-large")),
            (b"Host: x\r\nX: " + b"a" * 100_000, (431, "too-large")),
        ):
            for target in (b"/api/t?a=b", b"http://x/api/t", b"/%61pi/t"):
                client = await opened.connect()
                async with client.stream:
                    await client.send(b"POST " + target + b" HTTP/1.1\r\n" + rest)
                    status, headers, body = await client.answer()
                    assert headers[b"content-type"] == b"application/vnd.api+json"
                    (error,) = json.loads(body)["errors"]
                    assert (status, error["status"], error["code"]) == (expected[0], str(expected[0]), expected[1])


@pytest.mark.parametrize("body", [b"Content-Length: 2\r\n\r\nxx", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
async def test_a_body_that_is_coded_is_refused_and_the_connection_goes_on(body: bytes) -> None:
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            for path, source in ((b"/api/t", {"header": "Content-Encoding"}), (b"/live/topics/t/messages", None)):
                await client.send(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n" + body)
                status, headers, answer = await client.answer()
                error = (json.loads(answer).get("errors") or [json.loads(answer).get("error")])[0]
                assert (status, error["code"], error.get("source")) == (415, "unsupported-media-type", source)
                assert headers[b"accept-encoding"] == b"identity"
            assert (await client.get("/", b"Content-Encoding: gzip"))[0] == 200
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: Identity\r\n" + body)
            assert (await client.answer())[0] == 200


async def test_an_application_that_fails_within_its_answer_ends_the_connection() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError

    async with open_door(fail) as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.rest()).endswith(b"4\r\nhalf\r\n")
        assert len(opened.log) == 1


async def test_an_application_that_says_nothing_is_a_500() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async with open_door(silent) as opened:
        client = await opened.connect()
        async with client.stream:
            assert (await client.get())[0] == 500
        assert [entry["event"] for entry in opened.log] == ["request_unanswered"]


async def test_an_application_learns_that_its_client_has_left() -> None:
    seen: list[Message] = []
    done = trio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        seen.append(await receive())
        seen.append(await receive())
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        finally:
            done.set()

    async with open_door(wait) as opened:
        client = await opened.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.until(b"\r\n\r\n")
        await client.stream.aclose()
        await done.wait()
        assert [message["type"] for message in seen] == ["http.request", "http.disconnect"]
        assert opened.log == []


async def test_a_client_that_takes_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async def pour(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(16 << 20)})

    async with open_door(pour) as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.sleep(31)
            assert opened.door.connections == 0
        assert opened.log == []
