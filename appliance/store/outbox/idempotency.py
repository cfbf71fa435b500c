"""Messages that are sent once however often they are sent: which key of which sender gave which event.

A client that got no answer sends its message again with the same key, and gets the first one's event id. What is
remembered is written in the message's own transaction, so it is there exactly when the message is.
Works: plain functions on an open connection.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from typing import Final

from appliance.errors import Conflict
from appliance.model import Principal
from appliance.store.outbox import topics

#: For how long a key is remembered, seconds.
KEPT_S: Final = 24 * 3600
#: Keys that are forgotten with each that is written: more than one, so that they grow fewer; few, so that the write
#: lock is held for microseconds.
FORGOTTEN_AT_ONCE: Final = 16

_SAME = "issuer = ? AND sender = ? AND topic = ? AND key = ?"
_OLDEST = "SELECT issuer, sender, topic, key FROM _appliance_sent WHERE at < ? ORDER BY at LIMIT ?"


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that is committed. ``replayed``: it was already, by an earlier request with the same key."""

    event_id: int
    replayed: bool


def publish(db: sqlite3.Connection, topic: str, principal: Principal, body: bytes, key: str, *, now: float) -> Sent:
    """Put a message into the outbox unless this principal's ``key`` has done so on this topic within ``KEPT_S``.

    ``now`` is in seconds since the Unix epoch. Raises ``Conflict`` when the key came with another body, and
    ``UnknownTopic``.
    """
    digest = hashlib.sha256(body).digest()
    place = (principal.issuer, principal.subject, topic, key)
    found = db.execute(f"SELECT digest, event, at FROM _appliance_sent WHERE {_SAME}", place).fetchone()
    if found is not None and found[2] > now - KEPT_S:
        if found[0] != digest:
            raise Conflict("this key came with another message before; use a new key for a new message", key=key)
        return Sent(found[1], replayed=True)
    event_id = topics.publish(db, topic, principal.sender, body)
    db.execute("REPLACE INTO _appliance_sent VALUES(?, ?, ?, ?, ?, ?, ?)", (*place, digest, event_id, int(now)))
    for old in db.execute(_OLDEST, (int(now) - KEPT_S, FORGOTTEN_AT_ONCE)).fetchall():
        db.execute(f"DELETE FROM _appliance_sent WHERE {_SAME}", old)
    return Sent(event_id, replayed=False)
