"""User topics and their durable messages as rows of the store. Works: plain functions on an open connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from appliance.capture import outbox
from appliance.errors import TopicExists, UnknownTopic
from appliance.model import Topic, ascii_fold
from appliance.protocol.wording import quote
from appliance.store.file import schema
from appliance.store.tables import standard


def topics(db: sqlite3.Connection) -> list[Topic]:
    """List the user topics by name."""
    return [_topic(*row) for row in db.execute(f"{_TOPICS} ORDER BY name").fetchall()]


def topic(db: sqlite3.Connection, name: str) -> Topic:
    """Give a user topic. Raises ``UnknownTopic``."""
    return _topic(*_row(db, name))


_TOPICS: Final = (
    "SELECT name, durable, permission, owner, ifnull(id, 0) "
    "FROM _appliance_topic LEFT JOIN _appliance_begun ON topic = name"
)


def _row(db: sqlite3.Connection, name: str) -> tuple[str, int, int, str | None, int]:
    row: tuple[str, int, int, str | None, int] | None = db.execute(f"{_TOPICS} WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise unknown(name)
    return row


def unknown(name: str) -> UnknownTopic:
    """Give the refusal of a topic that is not there, or that may not be known of."""
    return UnknownTopic(f"there is no topic {quote(name)}", topic=name)


def _topic(name: str, durable: int, permission: int, owner: str | None, begun: int) -> Topic:
    return Topic(name, bool(durable), permission, owner, begun)


def create(db: sqlite3.Connection, topic: Topic) -> tuple[Topic, int]:
    """Store a new topic, which begins now; give it as it is there, and the generation.

    Raises ``TopicExists`` when a table, a view or a topic has its name.
    """
    taken = db.execute(
        "SELECT name FROM _appliance_topic WHERE name = ? "
        "UNION ALL SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE",
        (topic.name, topic.name),
    ).fetchone()
    if taken is not None:
        raise TopicExists(f'there is a topic or table "{taken[0]}" already; choose another name', topic=topic.name)
    db.execute(
        "INSERT INTO _appliance_topic(name, durable, permission, owner) VALUES(?, ?, ?, ?)",
        (topic.name, topic.durable, topic.permission, topic.owner),
    )
    begun = schema.highest(db)
    db.execute("REPLACE INTO _appliance_begun(topic, id) VALUES(?, ?)", (topic.name, begun))
    return replace(topic, begun=begun), schema.bump(db)


def destroy(db: sqlite3.Connection, name: str) -> tuple[int, int]:
    """Delete a topic; give the generation, and the newest id: its messages, which stay until trimmed, end there.

    Raises ``UnknownTopic``.
    """
    if db.execute("DELETE FROM _appliance_topic WHERE name = ?", (name,)).rowcount == 0:
        raise unknown(name)
    _forget(db, name)
    return schema.bump(db), schema.highest(db)


def _forget(db: sqlite3.Connection, name: str) -> None:
    """Forget when a topic began, and what idempotency keys have sent to it: another of its name has none of it."""
    db.execute("DELETE FROM _appliance_sent WHERE topic = ?", (name,))
    db.execute("DELETE FROM _appliance_begun WHERE topic = ?", (name,))


def end_taken(db: sqlite3.Connection, tables: Iterable[str]) -> list[str]:
    """Delete the topics whose names tables have taken; give their names. Writes nothing when there are none."""
    ended = [
        row[0]
        for table in tables
        for row in db.execute("SELECT name FROM _appliance_topic WHERE name = ?", (table,)).fetchall()
    ]
    if ended:
        with schema.transaction(db):
            for name in ended:
                db.execute("DELETE FROM _appliance_topic WHERE name = ?", (name,))
                _forget(db, name)
            schema.bump(db)
    return ended


def publish(db: sqlite3.Connection, topic: str, sender: str, body: bytes) -> int:
    """Put a message into the outbox and give its event id. Raises ``UnknownTopic`` when the topic is gone."""
    inserted = db.execute(outbox.INSERT_MESSAGE, (_row(db, topic)[0], sender, body, None))
    assert inserted.lastrowid is not None  # noqa: S101 – an INSERT has one
    return inserted.lastrowid


def of_rights(db: sqlite3.Connection) -> frozenset[str]:
    """Name (folded) the tables by which it is known who may see what: the system tables, and all that join to groups.

    They are watched, as a server hears of rights that are taken away by what is captured of them.
    """
    made = standard.registered(db).items()
    return frozenset(name for name, each in made if each.object_table is not None or standard.is_system(name))


def unwatched(db: sqlite3.Connection) -> frozenset[str]:
    """Name (folded) the tables that were taken off the watch.

    None of ``of_rights``, though another table of such a name was, before they were made.
    """
    off = db.execute('SELECT "table" FROM _appliance_unwatched').fetchall()
    return frozenset(ascii_fold(name) for (name,) in off) - of_rights(db)


def set_watched(db: sqlite3.Connection, table: str, watched: bool) -> None:
    """Put a table on the watch or take it off, and tell a running server."""
    if watched:
        db.execute('DELETE FROM _appliance_unwatched WHERE "table" = ?', (table,))
    else:
        db.execute('INSERT INTO _appliance_unwatched("table") VALUES(?) ON CONFLICT DO NOTHING', (table,))
    schema.bump(db)
