"""Messages of topics that are not durable, answered where they are received: many in one packet, each as if alone."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance.model import Topic
from appliance.protocol.permissions import TOPIC_DEFAULT
from appliance.store.outbox import topics
from tests.live.session.admitted import Asking, admitted

ROOM = Topic("Room", durable=False, permission=TOPIC_DEFAULT, owner="root")
HALL = replace(ROOM, name="hall")
KEPT = replace(ROOM, name="kept", durable=True)


def both(db: sqlite3.Connection) -> None:
    for each in (ROOM, HALL, KEPT):
        topics.create(db, each)


def message(topic: str, text: Any, **more: Any) -> dict[str, Any]:
    return {"method": "new-message", "attributes": {"topic": topic, "message": text}, **more}


async def heard(client: Asking, count: int) -> list[tuple[Any, ...]]:
    """Give of so many frames what they are: a message's topic and body, a reply's topic and id, an error's code."""
    found: list[tuple[Any, ...]] = []
    for _ in range(count):
        each = await client.receive()
        data = each["EventData"]
        if each["EventType"] == "new-message":
            found.append((each["ObjectType"], data))
        else:
            found.append((data.get("code") or data["topic"], each.get("id"), each["EventType"]))
    return found


async def test_messages_of_two_topics_in_one_packet_keep_their_order_and_stand_before_the_replies(
    tmp_path: Path,
) -> None:
    async with admitted(tmp_path / "a.db", both) as live, live.connected() as client, live.connected() as other:
        for each in (client, other):
            await each.ask("subscribe", topic="Room")
            await each.ask("subscribe", topic="hall")
        await client.send(
            *[message(topic, text) for text, topic in enumerate(["room", "hall", "ROOM", "Room", "hall"])]
        )
        told = [("Room", 0), ("hall", 1), ("Room", 2), ("Room", 3), ("hall", 4)]
        replies = [(topic, None, "response") for topic in ("Room", "hall", "Room", "Room", "hall")]
        assert await heard(client, 10) == told + replies
        assert await heard(other, 5) == told
        assert live.hub.counters.passing_messages == 5
        assert live.hub.counters.delivered["new-message"] == 10
        assert live.hub.counters.requests["new-message", "ok"] == 5


async def test_ids_of_all_kinds_come_back_as_they_are(tmp_path: Path) -> None:
    ids = [0, 7, -1, (1 << 63) - 1, 1.5, 1e300, "", "7", "ä", 'a"b']
    async with admitted(tmp_path / "a.db", both) as live, live.connected() as client:
        await client.send(*[message("Room", "x", id=each) for each in ids], message("Room", "x"))
        replies = [await client.receive() for _ in range(len(ids) + 1)]
        assert [json.dumps(each.get("id")) for each in replies] == [json.dumps(each) for each in [*ids, None]]


async def test_what_is_refused_in_the_midst_of_a_packet_is_refused_alone(tmp_path: Path) -> None:
    async with admitted(tmp_path / "a.db", both) as live, live.connected() as client:
        live.backend.limits = replace(live.backend.limits, message_bytes=100)
        keyed = message("Room", "x", id=3)
        keyed["attributes"]["key"] = "k"
        await client.send(
            message("Room", "x", id=0), message("nowhere", "x", id=1), message("Room", "y" * 100, id=2), keyed,
            message("kept", "x", id=4), message("Room", "x", id=5),
        )  # fmt: skip
        assert await heard(client, 6) == [
            ("Room", 0, "response"), ("unknown-topic", 1, "error"), ("too-large", 2, "error"),
            ("bad-request", 3, "error"), ("kept", 4, "response"), ("Room", 5, "response"),
        ]  # fmt: skip
        counted = live.hub.counters.requests
        assert {code: counted["new-message", code] for code in ("ok", "unknown-topic", "too-large", "bad-request")} == {
            "ok": 3, "unknown-topic": 1, "too-large": 1, "bad-request": 1,
        }  # fmt: skip


async def test_the_rate_is_looked_at_before_each_message_of_a_packet(tmp_path: Path) -> None:
    async with admitted(tmp_path / "a.db", both) as live:
        live.backend.limits = replace(live.backend.limits, requests_per_s=1e-9, request_burst=4)
        async with live.connected() as client:
            long = message("Room", "y" * 4096, id=1)  # counts as two
            await client.send(message("Room", "x", id=0), long, *[message("Room", "x", id=each) for each in (2, 3, 4)])
            assert await heard(client, 5) == [
                ("Room", 0, "response"), ("Room", 1, "response"), ("Room", 2, "response"),
                ("rate-limited", 3, "error"), ("rate-limited", 4, "error"),
            ]  # fmt: skip
            assert live.hub.counters.passing_messages == 3


async def test_a_right_that_another_has_taken_away_counts_for_the_very_next_packet(tmp_path: Path) -> None:
    async with (
        admitted(tmp_path / "a.db", lambda db: topics.create(db, replace(ROOM, permission=2097057))) as live,
        live.connected("ann", admin=False) as ann,
    ):
        await ann.send(message("Room", "x", id=0))
        assert await heard(ann, 1) == [("Room", 0, "response")]
        with sqlite3.connect(tmp_path / "a.db") as db:
            topics.destroy(db, "Room")
            topics.create(db, replace(ROOM, permission=0))
        db.close()
        await ann.send(*[message("Room", "x", id=each) for each in (1, 2)])
        assert await heard(ann, 2) == [("unknown-topic", 1, "error"), ("unknown-topic", 2, "error")]
        assert live.hub.counters.passing_messages == 1
