"""Listening sockets, opened before anything else may fail for want of a port."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Final

from appliance.errors import CommandError

#: Connections that the kernel keeps for us while we are busy; it cuts this to ``net.core.somaxconn``.
BACKLOG: Final = 4096
LOOPBACK: Final = ("127.0.0.1", "::1")
_ABSENT = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
#: How often a free port is looked for that is free on every address.
_TRIES = 16


def open_listeners(hosts: Sequence[str] = LOOPBACK, port: int = 0) -> tuple[list[socket.socket], list[str]]:
    """Listen on every address, on one port.

    ``port`` 0 takes a port that is free on all of them. ``::1`` is skipped on a machine without IPv6 when another
    address is there; a note says so. Gives the sockets (non-blocking) and the notes. Raises ``CommandError``.
    """
    for _ in range(_TRIES if port == 0 and len(hosts) > 1 else 1):
        try:
            return _open(hosts, port)
        except _PortTaken as taken:
            refusal = taken
    raise CommandError(str(refusal))


class _PortTaken(Exception):
    """Another port may be free."""


def _open(hosts: Sequence[str], port: int) -> tuple[list[socket.socket], list[str]]:
    listeners: list[socket.socket] = []
    notes: list[str] = []
    try:
        for host in hosts:
            try:
                listeners.append(_listen(host, port))
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
        raise CommandError(f"none of {', '.join(hosts) or 'no addresses'} can be listened on")
    return listeners, notes


def _listen(host: str, port: int) -> socket.socket:
    (family, kind, proto, _, address), *_ = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listener = socket.socket(family, kind, proto)
    try:
        if os.name == "posix":  # elsewhere it would share the port with a stranger
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _refusal(error: OSError, host: str, port: int) -> Exception:
    if isinstance(error, socket.gaierror):
        return CommandError(f"cannot listen on {host}: there is no such address; give an address of this machine")
    if error.errno == errno.EADDRINUSE:
        return _PortTaken(f"port {port} on {host} is in use by another program; stop it or choose another --port")
    if error.errno == errno.EACCES:
        return CommandError(f"port {port} on {host} is not allowed to this user; choose a port above 1023")
    if error.errno == errno.EADDRNOTAVAIL:
        return CommandError(f"cannot listen on {host}: it is not an address of this machine")
    return CommandError(f"cannot listen on {host}, port {port}: {error.strerror}")
