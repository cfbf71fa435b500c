"""Sockets that listen: ``serve`` opens them, and ``check`` tries whether it could."""

from __future__ import annotations

import os
import socket
from typing import Any, Final

#: Connections that the kernel keeps for us while we are busy; it cuts this to ``net.core.somaxconn``.
BACKLOG: Final = 4096


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """Give the family of an address to listen on, and the address. Raises ``OSError``, ``gaierror`` if it is none."""
    name = host.encode() if host.isascii() else host  # text would have Python read its tables for other names: 2 ms
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except UnicodeError:  # what is no name to Python
        raise socket.gaierror(socket.EAI_NONAME, "it is no name of a host") from None
    return family, address


def listen(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    """Listen on an address, without blocking. Raises ``OSError``.

    A port that another program listens on with ``SO_REUSEADDR`` can be bound, but not listened on.
    """
    listener = socket.socket(family, socket.SOCK_STREAM)
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
