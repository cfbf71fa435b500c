from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import Conflict, UnknownTopic
from appliance.model import Principal, Topic
from appliance.store.file import connections, schema
from appliance.store.outbox import idempotency, topics
from appliance.store.outbox.idempotency import FORGOTTEN_AT_ONCE, KEPT_S, Sent


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connections.open_file(tmp_path / "live.db", busy_timeout_s=1)) as db:
        schema.prepare(db)
        for name in ("news", "talk"):
            topics.create(db, Topic(name, True, 0, None))
        yield db


def publish(db: sqlite3.Connection, **changed: Any) -> Sent:
    asked = {"topic": "news", "issuer": "i", "sender": "ann", "body": b"1", "key": "k", "now": 1e9} | changed
    principal = Principal(asked.pop("issuer"), asked.pop("sender"), admin=False, expires_at=0)
    return idempotency.publish(db, asked.pop("topic"), principal, **asked)


def messages(db: sqlite3.Connection) -> int:
    (count,) = db.execute("SELECT count(*) FROM _appliance_outbox WHERE op = 4").fetchone()
    return int(count)


def test_the_same_key_and_body_give_the_first_event_and_send_nothing(db: sqlite3.Connection) -> None:
    first = publish(db)

    assert publish(db) == publish(db, topic="NEWS") == Sent(first.event_id, replayed=True)
    assert messages(db) == 1


def test_the_same_key_with_another_body_is_refused(db: sqlite3.Connection) -> None:
    publish(db)

    with pytest.raises(Conflict):
        publish(db, body=b"2")
    assert messages(db) == 1


@pytest.mark.parametrize("changed", [{"sender": "bob"}, {"issuer": "j"}, {"topic": "talk"}, {"key": "l"}])
def test_a_key_counts_for_one_principal_and_one_topic(db: sqlite3.Connection, changed: dict[str, str]) -> None:
    publish(db)

    assert not publish(db, body=b"2", **changed).replayed
    assert messages(db) == 2


def test_a_key_ends_with_its_topic(db: sqlite3.Connection) -> None:
    publish(db)
    kept = publish(db, topic="talk")
    topics.destroy(db, "News")
    topics.create(db, Topic("news", True, 0, None))

    again = publish(db)
    assert not again.replayed
    assert publish(db) == Sent(again.event_id, replayed=True)
    assert publish(db, topic="talk") == Sent(kept.event_id, replayed=True)
    db.execute("CREATE TABLE news(id)")
    assert topics.end_taken(db, ["news"]) == ["news"]
    assert db.execute("SELECT topic FROM _appliance_sent").fetchall() == [("talk",)]


def test_a_key_is_forgotten_after_a_day_and_not_before(db: sqlite3.Connection) -> None:
    publish(db)

    assert publish(db, now=1e9 + KEPT_S - 1).replayed
    assert not publish(db, now=1e9 + KEPT_S, body=b"2").replayed
    assert publish(db, now=1e9 + KEPT_S + 1, body=b"2").replayed


def test_keys_of_days_past_are_deleted_in_small_batches(db: sqlite3.Connection) -> None:
    for number in range(2 * FORGOTTEN_AT_ONCE):
        publish(db, key=str(number))

    for left in (FORGOTTEN_AT_ONCE + 1, 2, 3):
        publish(db, key=f"new {left}", now=1e9 + 2 * KEPT_S)
        assert db.execute("SELECT count(*) FROM _appliance_sent").fetchone() == (left,)


def test_a_topic_that_is_not_there_remembers_nothing(db: sqlite3.Connection) -> None:
    with pytest.raises(UnknownTopic):
        publish(db, topic="gone")
    assert db.execute("SELECT count(*) FROM _appliance_sent").fetchone() == (0,)
