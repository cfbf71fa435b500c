"""Listening sockets, opened before anything else may fail for want of a port."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from appliance.errors import AddressMissing, BadConfiguration, CommandError
from appliance.ops.sockets import listen, resolve

LOOPBACK: Final = ("127.0.0.1", "::1")
#: What stands for every address of a machine, of IPv4 and of IPv6.
_EVERY: Final = ("0.0.0.0", "::")  # noqa: S104 – only compared
_ABSENT = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
#: How often a free port is looked for that is free on every address.
_TRIES = 16
#: The first descriptor of the sockets that a service manager hands over (sd_listen_fds(3)).
_FIRST_PASSED: Final = 3


def open_listeners(hosts: Sequence[str] = LOOPBACK, port: int = 0) -> tuple[list[socket.socket], list[str]]:
    """Listen on every address, on one port.

    ``port`` 0 takes a port that is free on all of them. ``::1`` is skipped on a machine without IPv6 when another
    address is there; a note says so. An address that is named twice, or by one that stands for all, is listened on
    once. Gives the sockets (non-blocking) and the notes. Raises ``CommandError``.
    """
    for _ in range(_TRIES if port == 0 and len(hosts) > 1 else 1):
        try:
            return _open(hosts, port)
        except _PortTaken as taken:
            refusal = taken
    raise CommandError(str(refusal))


def passed_listeners(environment: Mapping[str, str]) -> list[socket.socket]:
    """Give the listening sockets that a service manager has opened for us (socket activation), non-blocking.

    None where ``LISTEN_FDS`` is not set for this process. They are duplicates: closing them leaves what was handed
    over, and the clients that wait there. Raises ``CommandError`` for anything but TCP sockets that listen.
    """
    count, process = environment.get("LISTEN_FDS", ""), environment.get("LISTEN_PID", "")
    if not count.isdecimal() or process != str(os.getpid()):
        return []
    listeners: list[socket.socket] = []
    try:
        for number in range(_FIRST_PASSED, _FIRST_PASSED + int(count)):
            os.set_inheritable(number, False)
            listener = socket.socket(fileno=os.dup(number))
            listeners.append(listener)
            internet = listener.family in (socket.AF_INET, socket.AF_INET6)
            if not internet or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, "it is no TCP socket that listens")
            listener.setblocking(False)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise CommandError(
            f"a socket that the service manager has passed cannot be used: {error.strerror}; "
            "the socket unit is to have ListenStream= with a port, and Accept=no"
        ) from None
    return listeners


def read_address(text: str) -> tuple[str, int]:
    """Read ``host:port``; an IPv6 address stands in brackets. Raises ``BadConfiguration``."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not (colon and host and port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 1 << 16):
        raise BadConfiguration(
            f"--metrics-listen must be host:port, such as 127.0.0.1:9636 or [::1]:9636, not {text!r}"
        )
    return host, int(port)


class _PortTaken(Exception):
    """Another port may be free."""


def _open(hosts: Sequence[str], port: int) -> tuple[list[socket.socket], list[str]]:
    listeners: list[socket.socket] = []
    notes: list[str] = []
    try:
        for host in sorted(hosts, key=lambda host: host not in _EVERY):
            try:
                family, address = resolve(host, port)
                if any(
                    listener.family == family and listener.getsockname()[0] in (address[0], *_EVERY)
                    for listener in listeners
                ):
                    continue
                listeners.append(listen(family, address))
            except OSError as error:
                if error.errno in _ABSENT and host in LOOPBACK and len(hosts) > 1:
                    notes.append(f"{host} is left out: this machine does not have it")
                    continue
                raise _refusal(error, host, port) from None
            port = port or listeners[0].getsockname()[1]
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    if not listeners:
        raise CommandError(f"none of {', '.join(hosts)} can be listened on")
    return listeners, notes


def _refusal(error: OSError, host: str, port: int) -> Exception:
    if isinstance(error, socket.gaierror):
        kind = AddressMissing if error.errno == socket.EAI_AGAIN else BadConfiguration
        return kind(f"cannot listen on {host}: there is no such address; give an address of this machine")
    if error.errno == errno.EADDRINUSE:
        return _PortTaken(f"port {port} on {host} is in use by another program; stop it or choose another port")
    if error.errno == errno.EACCES:
        return BadConfiguration(f"port {port} on {host} is not allowed to this user; choose a port above 1023")
    if error.errno == errno.EADDRNOTAVAIL:
        return AddressMissing(f"cannot listen on {host}: it is not an address of this machine, or not yet")
    return CommandError(f"cannot listen on {host}, port {port}: {error.strerror}")
