"""No connection can hurt another: hostile clients against one server, with a neighbour that must not notice."""

from __future__ import annotations

import contextlib
import resource
import ssl
from collections.abc import Iterator

import pytest

from tests.e2e.attacks import ATTACKS, LEFT_OPEN, MIB, VIOLATIONS
from tests.e2e.hostile import Client, head
from tests.e2e.server_process import ServerProcess, running

pytestmark = pytest.mark.e2e
#: What one hostile connection may leave behind: the allocator keeps some of what it was given.
MEMORY_LEFT = 16 * MIB


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running() as process:
        yield process
        for client in LEFT_OPEN:
            client.close()


@pytest.fixture(scope="module")
def neighbour(server: ServerProcess) -> Iterator[Client]:
    with contextlib.closing(Client(server.connect()).open()) as client:
        for _ in range(3):  # what is made once is made now
            assert client.echoes(b"x" * MIB)
        yield client


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_client_hurts_nobody(server: ServerProcess, neighbour: Client, name: str) -> None:
    descriptors, memory, lines = server.descriptors(), server.memory(), len(server.log())
    with contextlib.closing(server.connect()) as connection:
        ATTACKS[name](Client(connection))
        if name == "events_that_nobody_reads":
            connection.detach()
    assert neighbour.echoes()
    server.wait_for_descriptors(descriptors)
    assert server.memory() - memory < MEMORY_LEFT
    assert server.log()[lines:] == []
    assert server.alive


def test_descriptors_that_run_out_come_back(server: ServerProcess, neighbour: Client) -> None:
    descriptors, lines = server.descriptors(), len(server.log())
    before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    clients = []
    try:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (descriptors + 5, before[1]))
        clients = [Client(server.connect()) for _ in range(20)]
        for client in clients[:5]:
            assert client.open().echoes()
        clients[5].send(head())
        clients[5].sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            clients[5].read_head()  # it waits in the kernel's queue
        assert neighbour.echoes()
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
    clients[5].sock.settimeout(20)
    clients[5].read_head()
    assert clients[5].echoes()
    for client in clients:
        client.close()
    server.wait_for_descriptors(descriptors)
    (line,) = server.log()[lines:]
    assert "accept_exhausted" in line


def test_a_server_that_stops_waits_for_nobody() -> None:
    with (
        running() as other,
        Client(other.connect()).open("/flood"),
        Client(other.connect()).open() as quiet,
        Client(other.connect()) as half,
    ):
        half.send(head()[:30])
        other.process.terminate()
        assert other.process.wait(10) == 0
        assert quiet.close_code() == 1012


def test_a_client_that_says_nothing_to_tls_is_left(tls_server: ServerProcess) -> None:
    descriptors = tls_server.descriptors()
    silent, nonsense = tls_server.connect(), tls_server.connect()
    nonsense.sendall(b"GET / HTTP/1.1\r\n\r\n")
    reset = Client(tls_server.connect())
    reset.send(b"\x16\x03\x01\x02\x00\x01\x00")
    reset.reset()
    tls_server.wait_for_descriptors(descriptors)
    assert silent.recv(100) == b""
    for sock in (silent, nonsense):
        sock.close()
    assert tls_server.log() == []


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_told_over_tls(tls_server: ServerProcess, tls_client: ssl.SSLContext, name: str) -> None:
    descriptors = tls_server.descriptors()
    with tls_client.wrap_socket(tls_server.connect(), server_hostname="localhost") as connection:
        ATTACKS[name](Client(connection))
    tls_server.wait_for_descriptors(descriptors)
    assert tls_server.log() == []


@pytest.fixture(scope="module")
def tls_client(certificate_files: tuple[str, str]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate_files[0])


@pytest.fixture(scope="module")
def tls_server(certificate_files: tuple[str, str]) -> Iterator[ServerProcess]:
    chain, key = certificate_files
    with running(options=("--cert", chain, "--key", key)) as process:
        yield process
