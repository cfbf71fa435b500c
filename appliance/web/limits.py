"""What the door allows, in numbers (PROTOCOL, section 10)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one door: settings, by their names, and three that nobody needs to set.

    Bytes end in ``_bytes``, seconds in ``_s``.

    ``head_bytes`` and ``head_s`` bound a request's head; a new connection has ``head_s`` for its first request and
    ``idle_s`` for each further one. ``body_s`` is for a whole body. ``write_s`` is how long a peer may take
    nothing of an answer. ``unsent_bytes`` may wait for the reader of a WebSocket. ``held_bytes`` is how much the long
    bodies of all requests may take, those of answers among them.
    """

    connections: int
    head_bytes: int
    head_s: float
    body_bytes: int
    write_s: float
    handshake_s: float
    message_bytes: int
    message_fragments: int
    unsent_bytes: int
    idle_s: float = 75.0
    body_s: float = 120.0
    held_bytes: int = 256 << 20
