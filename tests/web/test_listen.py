from __future__ import annotations

import socket

import pytest

from appliance.errors import CommandError
from appliance.web import listen
from appliance.web.listen import open_listeners


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


@pytest.mark.parametrize(
    ("host", "words"), [("192.0.2.1", "not an address of this machine"), ("no.such.host.invalid", "no such address")]
)
def test_an_address_asked_for_must_be_there(host: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        open_listeners(("127.0.0.1", host))
