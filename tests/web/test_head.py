from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.web.head import read_head
from tests.e2e.hostile import head
from tests.web.doors import open_door

LIMIT = 16 << 10


def of_h11(data: bytes) -> h11.Request | None:
    """Give what h11 makes of it: a request without a body, or nothing."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    connection.receive_data(data)
    try:
        request = connection.next_event()
        ended = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return request if isinstance(request, h11.Request) and isinstance(ended, h11.EndOfMessage) else None


def agrees(data: bytes) -> bool:
    """Say whether a head was read here; fail where h11 has not read the same."""
    found = read_head(data, LIMIT)
    if found is None:
        return False
    request, end = found
    expected = of_h11(data[:end])
    assert expected is not None
    assert (request.method, request.target, request.http_version) == (
        expected.method, expected.target, expected.http_version,
    )  # fmt: skip
    assert list(request.headers) == [(bytes(name), bytes(value)) for name, value in expected.headers]
    return True


def test_what_clients_write_is_read() -> None:
    request = head("/live?token=a.b.c", Origin=b"http://x", Cookie=b"a=b; c=d", Empty=b"")

    assert agrees(request + b"early")
    assert read_head(request + b"early", LIMIT)[1] == len(request)  # type: ignore[index]


@pytest.mark.parametrize(
    "data",
    [
        head()[:-2],
        head(Host=None),
        head().replace(b"\r\n\r\n", b"\r\nHost: y\r\n\r\n"),
        head(Upgrade=None),
        head(Content_Length=b"3"),
        head(Transfer_Encoding=b"chunked"),
        head(Expect=b"100-continue"),
        head(Origin=b"http://\xe9"),
        head(Folded=b"a\r\n b"),
        head(Null=b"a\0b"),
        head().replace(b"GET", b"POST"),
        head().replace(b"1.1", b"1.0", 1),
        head().replace(b"\r\n", b"\n"),
        head("http://x/live"),
        head(Long=b"x" * LIMIT),
        b"",
    ],
)  # fmt: skip
def test_what_is_not_beyond_doubt_is_left_to_h11(data: bytes) -> None:
    assert read_head(data, LIMIT) is None


PIECES = [
    b"GET ", b"GET /live", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"\n", b"Host: x", b"Host:", b"Upgrade: websocket", b":",
    b" ", b"\t", b"Connection: Upgrade", b"a", b"\0", b"\xff", b"Content-Length: 0", b"X-Y: z ", b"?q=1", b"#", b"\x7f",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
def test_h11_reads_the_same(data: bytes) -> None:
    agrees(data)
    agrees(b"GET /live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n" + data + b"\r\n\r\n")


async def test_a_request_to_upgrade_what_is_no_websocket_is_answered_as_any_other() -> None:
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            for path in ("/a", "/b"):
                await client.send(head(path))
                assert (await client.answer())[::2] == (200, b"hello " + path.encode())
            await client.send(head("/c") + head("/d"))
            assert [(await client.answer())[2] for _ in range(2)] == [b"hello /c", b"hello /d"]


async def test_requests_behind_one_another_are_answered_each() -> None:
    async with open_door() as opened:
        client = await opened.connect()
        async with client.stream:
            await client.send(head("/a") + head("/b") + b"GET /c HTTP/1.1\r\nHost: x\r\n\r\n")
            assert [(await client.answer())[2] for _ in range(3)] == [b"hello /a", b"hello /b", b"hello /c"]
