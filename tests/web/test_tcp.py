"""A connected socket as a stream, against a peer that is a plain socket."""

from __future__ import annotations

import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.web.tcp import NOT_SENT, Tcp


def connected() -> tuple[Tcp, socket.socket]:
    """Give a stream and its peer, over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        raw, _ = listener.accept()
    return Tcp(raw), peer


async def test_what_the_peer_sends_is_received_and_its_end_is_empty() -> None:
    stream, peer = connected()
    with peer:
        async with stream:
            peer.sendall(b"one")
            assert await stream.receive_some() == b"one"
            peer.sendall(b"two")
            assert await stream.receive_some(1) == b"t"
            assert await stream.receive_some(10) == b"wo"
            peer.shutdown(socket.SHUT_WR)
            assert await stream.receive_some() == b""


async def test_more_than_the_kernel_takes_is_sent_whole() -> None:
    stream, peer = connected()
    sent, received = bytes(range(256)) * (64 << 10), bytearray()

    def read() -> None:
        while part := peer.recv(1 << 16):
            received.extend(part)

    with peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, read)
            async with stream:
                await stream.send_all(sent)
    assert len(sent) > NOT_SENT
    assert received == sent


async def test_closing_wakes_who_reads() -> None:
    stream, peer = connected()
    with peer:
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive_some()

            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            stream.close()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_a_reset_is_a_broken_resource() -> None:
    stream, peer = connected()
    async with stream:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
