"""Durable messages, each written in a transaction in which its sender may send it.

Who may send is decided from memory, which is as new as the tail's last look. A message stands in one order with what
another process has committed since, and that may have taken the right away. So its own transaction looks whether there
is anything of the kind behind what was known, a few rows, and only then asks the store who the sender is.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from appliance.errors import Forbidden, Unauthorized
from appliance.live.matching.access import Access, Reader
from appliance.live.replay.lapse import Known, may_differ
from appliance.model import Principal, Topic
from appliance.protocol.permissions import Verb
from appliance.protocol.wording import quote
from appliance.store.access import callers
from appliance.store.outbox import idempotency, topics
from appliance.store.outbox.idempotency import Sent


def demand(reader: Reader, topic: Topic, verb: Verb = Verb.EXECUTE) -> None:
    """Raise ``Forbidden`` unless a reader may send to a topic, or destroy it; ``UnknownTopic`` if it may not peek."""
    if not Access.may_on_topic(reader, Verb.PEEK, topic):
        raise topics.unknown(topic.name)
    if not Access.may_on_topic(reader, verb, topic):
        what = "destroy" if verb is Verb.DELETE else "send to"
        raise Forbidden(f"you may not {what} {quote(topic.name)}", topic=topic.name)


def sender(db: sqlite3.Connection, principal: Principal) -> Reader:
    """Say what a principal is in this very transaction. Raises ``Unauthorized`` when its token counts no more."""
    (caller,) = callers.identify(db, [principal])
    if caller.refused:
        raise Unauthorized(caller.refused)
    return Reader(caller.principal, caller.groups)


def message(
    topic: str, principal: Principal, body: bytes, key: str | None = None, decided: Known | None = None
) -> Callable[[sqlite3.Connection], Sent]:
    """Give the work that writes a message, at most once for its ``key``.

    That ``principal`` may send it was ``decided`` by what was known then; without, it is decided by the work. That
    raises ``Unauthorized`` and ``Forbidden`` when it may not, ``UnknownTopic`` when the topic is
    gone, and what ``idempotency.publish`` raises.
    """

    def work(db: sqlite3.Connection) -> Sent:
        if decided is None or may_differ(db, decided):
            demand(sender(db, principal), topics.topic(db, topic))
        if key is None:
            return Sent(topics.publish(db, topic, principal.sender, body), replayed=False)
        return idempotency.publish(db, topic, principal, body, key, now=time.time())

    return work
