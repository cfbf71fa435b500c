"""TLS over a socket, against a peer that is trio's."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from appliance.web.sealed import RECORD, Tls, _records
from appliance.web.tls import context
from tests.e2e.certificates import write_certificate

Peer = trio.SSLStream[trio.SocketStream]


class Opened:
    """A server's side and its client's, over loopback."""

    def __init__(self, stream: Tls, client: Peer) -> None:
        self.stream = stream
        self.client = client


@asynccontextmanager
async def opened(
    folder: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, early: bytes = b""
) -> AsyncIterator[Opened]:
    chain, key = write_certificate(folder, "localhost")
    trusting = ssl.create_default_context(cafile=str(chain))
    trusting.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plain = trio.SocketStream(trio.socket.from_stdlib_socket(socket.create_connection(listener.getsockname())))
        raw, _ = listener.accept()
    stream = Tls(raw, context(chain, key))
    client = trio.SSLStream(plain, trusting, server_hostname="localhost", https_compatible=True)

    async def begin() -> None:
        await client.do_handshake()
        if early:
            await client.send_all(early)

    async with plain, stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            nursery.start_soon(stream.handshake)
        yield Opened(stream, client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_sides_send_and_hear_the_end(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with opened(tmp_path, version, early=b"early") as pair:
        assert await pair.stream.receive_some() == b"early"
        await pair.stream.send_all(b"hello")
        assert await pair.client.receive_some() == b"hello"
        await pair.client.send_all(b"one two")
        assert await pair.stream.receive_some(3) == b"one"
        assert await pair.stream.receive_some() == b" two"
        await pair.client.aclose()
        assert await pair.stream.receive_some() == b""
        assert await pair.stream.receive_some() == b""


async def test_a_peer_that_hangs_up_without_a_word_has_ended(tmp_path: Path) -> None:
    async with opened(tmp_path) as pair:
        await pair.client.send_all(b"last")
        await pair.client.transport_stream.send_eof()
        assert await pair.stream.receive_some() == b"last"
        assert await pair.stream.receive_some() == b""


async def test_more_than_the_kernel_takes_is_sent_whole(tmp_path: Path) -> None:
    sent, received = bytes(range(256)) * (16 << 10), bytearray()
    async with opened(tmp_path) as pair:

        async def read() -> None:
            while len(received) < len(sent):
                received.extend(await pair.client.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await pair.stream.send_all(sent)
    assert received == sent


async def test_what_is_written_again_from_where_it_was_taken_arrives_once(tmp_path: Path) -> None:
    pieces = [bytes([number % 251]) * (number * 37 % 20_000) for number in range(1000)]
    left, sent, received = list[bytes | memoryview](pieces), b"".join(pieces), bytearray()
    async with opened(tmp_path) as pair:
        refused = False
        while left:
            taken = pair.stream.write_several(left)
            refused = refused or pair.stream.begun > 0
            assert pair.stream.begun <= RECORD
            while left and taken >= len(left[0]):
                taken -= len(left.pop(0))
            if taken:
                left[0] = memoryview(left[0])[taken:]
            if left:
                received += await pair.client.receive_some()
        assert refused
        while len(received) < len(sent):
            received += await pair.client.receive_some()
    assert received == sent


async def test_what_is_no_tls_is_told_so_and_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        raw, _ = listener.accept()
    stream = Tls(raw, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    with peer:
        async with stream:
            peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError):
                await stream.handshake()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"])
async def test_a_peer_that_leaves_during_the_handshake_is_gone(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        raw, _ = listener.accept()
    async with Tls(raw, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as stream:
        peer.sendall(said)
        peer.close()
        with pytest.raises(trio.BrokenResourceError):
            await stream.handshake()


async def test_bytes_that_were_tampered_with_break_the_connection(tmp_path: Path) -> None:
    async with opened(tmp_path) as pair:
        await pair.client.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(trio.BrokenResourceError):
            await pair.stream.receive_some()


@given(st.lists(st.binary(max_size=3 * RECORD), max_size=5), st.integers(0, RECORD))
def test_records_hold_all_but_what_is_skipped(pieces: list[bytes], skip: int) -> None:
    records = list(_records(pieces, skip))

    assert b"".join(records) == b"".join(pieces)[skip:]
    assert all(0 < len(record) <= RECORD for record in records)
    assert all(len(record) == RECORD for record in records[:-1])
