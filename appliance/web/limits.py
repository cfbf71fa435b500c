"""What the door allows, in numbers (PROTOCOL, section 10)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one door. Bytes end in ``_bytes``, seconds in ``_s``.

    ``head_bytes`` and ``head_s`` bound a request's head; a new connection has ``head_s`` for its first request and
    ``idle_s`` for each further one. ``body_s`` is for a whole body. ``write_s`` is how long a peer may take
    nothing of an answer. ``unsent_bytes`` may wait for the reader of a WebSocket.
    """

    connections: int = 20_000
    head_bytes: int = 16 << 10
    head_s: float = 10.0
    idle_s: float = 75.0
    body_bytes: int = 8 << 20
    body_s: float = 120.0
    write_s: float = 30.0
    handshake_s: float = 10.0
    message_bytes: int = 1 << 20
    fragments: int = 1024
    unsent_bytes: int = 1 << 20


DEFAULTS = Limits()
