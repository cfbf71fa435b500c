from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys

import pytest

from appliance.errors import AddressMissing, BadConfiguration, CommandError
from appliance.web import listen
from appliance.web.listen import open_listeners, passed_listeners


def close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def test_port_0_is_the_same_free_port_on_every_address() -> None:
    listeners, notes = open_listeners(("127.0.0.1", "127.0.0.2"))
    ports = {listener.getsockname()[1] for listener in listeners}
    close(listeners)
    assert len(ports) == 1
    assert notes == []
    assert not any(listener.getblocking() for listener in listeners if listener.fileno() != -1)


def test_a_port_in_use_is_said_in_one_line() -> None:
    listeners, _ = open_listeners(("127.0.0.1",))
    port = listeners[0].getsockname()[1]
    with pytest.raises(CommandError, match=f"port {port} on 127.0.0.1 is in use"):
        open_listeners(("127.0.0.1",), port)
    close(listeners)


def test_a_loopback_address_that_the_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # 192.0.2.0/24 is nobody's (RFC 5737): it stands for ::1 on a machine without IPv6.
    monkeypatch.setattr(listen, "LOOPBACK", ("127.0.0.1", "192.0.2.1"))
    listeners, notes = open_listeners(("127.0.0.1", "192.0.2.1"))
    close(listeners)
    assert len(listeners) == 1
    assert notes == ["192.0.2.1 is left out: this machine does not have it"]


def test_an_address_asked_for_must_be_there() -> None:
    with pytest.raises(AddressMissing, match="not an address of this machine, or not yet"):
        open_listeners(("127.0.0.1", "192.0.2.1"))


@pytest.mark.parametrize(("code", "status"), [(socket.EAI_NONAME, 78), (socket.EAI_AGAIN, 75)])
def test_a_name_that_is_nobodys_is_told_from_one_that_cannot_be_asked_for(
    code: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "no")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    with pytest.raises(BadConfiguration, match="there is no such address") as caught:
        open_listeners(("no.such.host.invalid",))
    assert caught.value.exit_status == status


@pytest.mark.parametrize("name", ["x..invalid", "ü..invalid"])
def test_what_can_be_no_name_is_nobodys(name: str) -> None:
    with pytest.raises(BadConfiguration, match="there is no such address"):
        open_listeners((name,))


@pytest.mark.parametrize("hosts", [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1", "localhost")])
def test_an_address_is_not_listened_on_beside_one_that_stands_for_all(hosts: tuple[str, ...]) -> None:
    listeners, notes = open_listeners(hosts)
    addresses = [listener.getsockname()[0] for listener in listeners]
    close(listeners)
    assert (addresses, notes) in ((["0.0.0.0"], []), (["0.0.0.0", "::1"], []))


@pytest.mark.parametrize("port", [0, None], ids=["a free port", "one that was named"])
def test_an_address_that_is_named_twice_is_listened_on_once(port: int | None) -> None:
    if port is None:
        (probe,), _ = open_listeners(("127.0.0.1",))
        port = probe.getsockname()[1]
        probe.close()
    listeners, notes = open_listeners(("127.0.0.1", "127.0.0.1", "localhost", "127.0.0.2"), port)
    addresses = [listener.getsockname()[0] for listener in listeners]
    close(listeners)
    assert (sorted(set(addresses) - {"::1"}), len(set(addresses)), notes) == (
        ["127.0.0.1", "127.0.0.2"],
        len(addresses),
        [],
    )


PASSED = """
import os, socket, sys
from appliance.errors import AddressMissing, BadConfiguration, CommandError
from appliance.web.listen import passed_listeners
os.environ["LISTEN_PID"] = str(os.getpid())
try:
    for _ in range(2):  # what is passed outlives what was made of it
        listeners = passed_listeners(os.environ)
        print([(each.getsockname()[1], each.getblocking(), each.get_inheritable()) for each in listeners])
        for each in listeners:
            each.close()
except CommandError as error:
    sys.exit(str(error))
"""


def passed(sockets: list[socket.socket], count: int) -> subprocess.CompletedProcess[str]:
    """Start a process that is handed ``sockets`` from descriptor 3 on, as a service manager does."""
    script = ["import os, sys"]
    script += [f"os.dup2({each.fileno()}, {number})" for number, each in enumerate(sockets, 3)]
    script += [f"os.execv(sys.executable, [sys.executable, '-c', {PASSED!r}])"]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(script)], pass_fds=[each.fileno() for each in sockets],
        env={**os.environ, "LISTEN_FDS": str(count)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def above(*sockets: socket.socket) -> list[socket.socket]:
    """Give duplicates whose numbers are out of the way of those that are passed."""
    return [socket.socket(fileno=fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 100)) for each in sockets]


def test_sockets_that_a_service_manager_passes_are_taken() -> None:
    listeners, _ = open_listeners(("127.0.0.1", "127.0.0.2"))
    duplicates = above(*listeners)
    done = passed(duplicates, 2)
    port = listeners[0].getsockname()[1]
    close([*listeners, *duplicates])

    assert done.stdout == f"[({port}, False, False), ({port}, False, False)]\n" * 2, done.stderr


def test_a_socket_that_does_not_listen_is_refused_with_what_to_do() -> None:
    with socket.socket() as idle:
        duplicates = above(idle)
        done = passed(duplicates, 1)
        close(duplicates)

    assert done.returncode == 1
    assert "ListenStream=" in done.stderr


def test_sockets_that_were_passed_to_another_process_are_left_alone() -> None:
    assert passed_listeners({"LISTEN_FDS": "1", "LISTEN_PID": "1"}) == []
    assert passed_listeners({}) == []
