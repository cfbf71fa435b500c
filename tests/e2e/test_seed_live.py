"""The seed, end to end: the real program, tables made by the ``sqlite3`` shell, a stock client."""

from __future__ import annotations

import base64
import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.hostile import TEXT, frame
from tests.e2e.live import Live, serving, sql, token, until

pytestmark = pytest.mark.e2e

SHOP = """
CREATE TABLE user_account(
    reference_id TEXT PRIMARY KEY, name TEXT, email TEXT COLLATE NOCASE, password TEXT, confirmed BOOLEAN DEFAULT 0,
    version INTEGER DEFAULT 1, settings JSON, balance REAL, avatar BLOB);
CREATE TABLE world(table_name TEXT, permission INT);
CREATE TABLE test(id INTEGER PRIMARY KEY, room_id INT, text);
"""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    sql(tmp_path / "shop.db", SHOP)
    with serving(tmp_path / "shop.db", "--no-accounts") as server:
        yield server


def test_list_topic_names_tables_and_user_topics(live: Live) -> None:
    with live.client() as client:
        client.done("create-topic", name="chat")
        reply = client.ask("list-topic")
        assert reply["ObjectType"] == "topic-list"
        assert reply["EventData"] == {"topics": ["test", "user_account", "world", "chat"]}


def test_a_create_an_update_and_a_delete_arrive_as_in_the_seed(live: Live) -> None:
    with live.client() as client:
        client.done("subscribe", topic="user_account")
        sql(
            live.db,
            "INSERT INTO user_account(reference_id, name, email, password, settings, balance, avatar) "
            "VALUES('r1', 'asdf', 'asdf@asfd.cm', '$2a$11$x', '{\"a\":[1,2.50]}', 0.1+0.2, x'00ff')",
        )
        created = client.event()
        assert list(created)[:4] == ["MessageSource", "EventType", "ObjectType", "EventData"]
        assert (created["MessageSource"], created["EventType"], created["ObjectType"]) == (
            "database", "create", "user_account",
        )  # fmt: skip
        assert created["EventData"] == {
            "__type": "user_account", "reference_id": "r1", "name": "asdf", "email": "asdf@asfd.cm",
            "confirmed": False, "version": 1, "settings": {"a": [1, 2.5]}, "balance": 0.30000000000000004,
            "avatar": {"$blob": base64.b64encode(b"\x00\xff").decode()},
        }  # fmt: skip
        assert created["Key"] == ["r1"]
        sql(live.db, "UPDATE user_account SET confirmed=1, version=2")
        updated = client.event()
        assert updated["EventType"] == "update"
        assert updated["EventData"]["confirmed"] is True
        assert updated["EventData"]["version"] == 2
        assert updated["EventId"] > created["EventId"]
        sql(live.db, "UPDATE user_account SET reference_id='r2'")
        moved = client.event()
        assert (moved["Key"], moved["OldKey"]) == (["r2"], ["r1"])
        sql(live.db, "DELETE FROM user_account")
        deleted = client.event()
        assert deleted["EventType"] == "delete"
        assert deleted["EventData"]["reference_id"] == "r2"
        assert client.all_until_now() == []


def test_a_change_made_through_another_library_and_a_rollback(live: Live) -> None:
    with live.client() as client, closing(sqlite3.connect(live.db)) as other:
        client.done("subscribe", topic="TEST")
        other.execute("INSERT INTO test(text) VALUES('no')")
        other.rollback()
        other.executemany("INSERT INTO test(text) VALUES(?)", [(f"row {number}",) for number in range(100)])
        other.commit()
        found = client.events(100)
        assert [event["EventData"]["text"] for event in found] == [f"row {number}" for number in range(100)]
        assert {event["ObjectType"] for event in found} == {"test"}
        assert client.all_until_now() == []


def test_filters_of_the_seed(live: Live) -> None:
    with live.client() as client, live.client() as second:
        client.done("subscribe", topic="test", filters={"EventType": "update", "room_id": "42"})
        second.done("subscribe", topic="test", filters={"text": {"startswith": "b"}})
        sql(live.db, "INSERT INTO test(room_id, text) VALUES(42, 'a'), (43, 'b')")
        sql(live.db, "UPDATE test SET text='bb'")
        assert [event["EventData"]["room_id"] for event in client.all_until_now()] == [42]
        assert [event["EventType"] for event in second.all_until_now()] == ["create", "update", "update"]
        assert client.refused("subscribe", topic="test") == "already-subscribed"
        client.done("unsubscribe", topic="test")
        client.done("subscribe", topic="test", filters={"room_id": [43, 44]})
        sql(live.db, "DELETE FROM test")
        assert [event["EventData"]["room_id"] for event in client.all_until_now()] == [43]


def test_messages_reach_all_subscribers_of_a_user_topic(live: Live) -> None:
    with live.client() as one, live.client(token(live.db, "--subject", "someone")) as two:
        assert one.done("create-topic", name="test-topic") == {"name": "test-topic", "durable": True}
        one.done("create-topic", name="quick", durable=False)
        for client in (one, two):
            client.done("subscribe", topic="test-topic")
            client.done("subscribe", topic="quick")
        sent = two.done("new-message", topic="test-topic", message={"hello": "world"})
        assert sent["EventId"] > 0
        expected = {
            "MessageSource": "someone", "EventType": "new-message", "ObjectType": "test-topic",
            "EventData": {"hello": "world"}, "EventId": sent["EventId"],
        }  # fmt: skip
        assert one.event() == expected
        assert two.event() == expected
        assert two.done("new-message", topic="quick", message=[1, None])["EventId"] is None
        del expected["EventId"]
        expected |= {"ObjectType": "quick", "EventData": [1, None]}
        assert one.event() == expected
        one.done("destroy-topic", name="test-topic")
        ended = two.all_until_now()
        assert [
            (event["EventType"], event["EventData"]["reason"]) for event in ended if event["ObjectType"] != "quick"
        ] == [("topic-destroyed", "destroyed")]
        assert two.refused("new-message", topic="test-topic", message=1) == "unknown-topic"


def test_requests_sent_at_once_are_answered_in_their_order_whatever_each_waits_for(live: Live) -> None:
    with live.client() as client:
        client.done("create-topic", name="kept")
        client.done("create-topic", name="passing", durable=False)
        client.done("subscribe", topic="kept")
        client.done("subscribe", topic="passing")
        kept, passing, topics = (
            {"method": "new-message", "attributes": {"topic": "kept", "message": 1}},
            {"method": "new-message", "attributes": {"topic": "passing", "message": 2}},
            {"method": "list-topic"},
        )
        unknown = {"method": "new-message", "attributes": {"topic": "nowhere", "message": 3}}
        asked = [passing, passing, kept, kept, passing, unknown, kept, {"method": "?"}, kept, topics, passing, kept]
        asked *= 5
        texts = [json.dumps({**each, "id": number}).encode() for number, each in enumerate(asked)]
        client.connection.socket.sendall(b"".join(frame(TEXT, text) for text in texts))
        got = [client.event() for _ in range(len(asked) + sum(each in (kept, passing) for each in asked))]
        replies = [each for each in got if "id" in each]
        assert [reply["id"] for reply in replies] == list(range(len(asked)))
        codes = [reply["EventData"].get("code") for reply in replies]
        assert codes == [
            "unknown-topic" if each is unknown else "unknown-method" if each["method"] == "?" else None
            for each in asked
        ]
        # The messages of each topic come in the order in which they were sent.
        ids = [each["EventId"] for each in got if each["EventType"] == "new-message" and "EventId" in each]
        sent = [reply["EventData"]["EventId"] for reply, each in zip(replies, asked, strict=True) if each is kept]
        assert ids == sent == sorted(sent)


def test_the_seeds_generic_spelling(live: Live) -> None:
    with live.client() as client:
        client.send({"method": "subscribe", "type": "test", "payload": {}, "id": "subscribe"})
        assert client.receive()["EventData"]["topic"] == "test"
        client.send({"method": "create-topic", "type": "", "payload": {"name": "n"}, "id": 7})
        reply = client.receive()
        assert (reply["id"], reply["EventData"]["name"]) == (7, "n")


def test_errors_name_the_request_and_close_nothing(live: Live) -> None:
    with live.client() as client:
        assert client.refused("subscribe", topic="usr") == "unknown-topic"
        assert client.refused("unsubscribe", topic="test") == "not-subscribed"
        assert client.refused("destroy-topic", name="test") == "system-topic"
        assert client.refused("new-message", topic="test", message=1) == "system-topic"
        assert client.refused("create-topic", name="Test") == "topic-exists"
        assert client.refused("create-topic", name="_appliance_x") == "bad-request"
        assert client.refused("subscribe", topic="test", filters={"nope": 1}) == "bad-filter"
        assert client.refused("subscribe", topic="user_account", filters={"password": "x"}) == "bad-filter"
        assert client.refused("subscribe", topic="test", since=1) == "bad-request"
        assert client.refused("subscribe", topic="test", since=1, epoch="x") == "gap"
        assert client.refused("no-such", x=1) == "unknown-method"
        client.send("{")
        assert client.receive()["EventData"]["code"] == "bad-json"
        client.done("ping")


def test_ten_malformed_frames_in_a_row_end_the_connection(live: Live) -> None:
    with live.client() as client:
        for _ in range(9):
            client.send("nonsense")
        client.done("ping")
        for _ in range(10):
            client.send("nonsense")
        until(lambda: _closed(client), "the connection is closed")
        assert client.connection.close_code == 1008


def _closed(client: object) -> bool:
    try:
        client.receive()  # type: ignore[attr-defined]
    except Exception as error:
        return "1008" in str(error)
    return False


def test_a_table_made_while_serving_is_a_topic_and_a_dropped_one_says_so(live: Live) -> None:
    with live.client() as client:
        sql(live.db, 'CREATE TABLE "odd ""name"""(a, "b c" INT)')
        until(lambda: 'odd "name"' in client.done("list-topic")["topics"], "the new table is a topic")
        client.done("subscribe", topic='odd "name"')
        sql(live.db, 'INSERT INTO "odd ""name""" VALUES(9223372036854775807, 9e999)')
        event = client.event()
        assert event["EventData"] == {
            "__type": 'odd "name"', "a": 9223372036854775807, "b c": {"$real": "Infinity"},
        }  # fmt: skip
        assert event["Key"] == [1]
        sql(live.db, 'ALTER TABLE "odd ""name""" ADD COLUMN d')
        assert client.event()["EventType"] == "resync"
        sql(live.db, 'INSERT INTO "odd ""name""" VALUES(1, 2, 3)')
        assert client.event()["EventData"]["d"] == 3
        sql(live.db, 'DROP TABLE "odd ""name"""')
        assert client.event()["EventType"] == "table-dropped"
        assert client.refused("unsubscribe", topic='odd "name"') == "unknown-topic"


def test_a_table_that_takes_a_user_topics_name_ends_it(live: Live) -> None:
    with live.client() as client:
        client.done("create-topic", name="notes")
        client.done("subscribe", topic="notes")
        sql(live.db, "CREATE TABLE Notes(a)")
        event = client.event()
        assert (event["EventType"], event["EventData"]["reason"]) == ("topic-destroyed", "table")
        assert client.done("subscribe", topic="notes")["topic"] == "Notes"


def test_what_was_written_while_the_server_was_down_is_in_the_order(tmp_path: Path) -> None:
    db = tmp_path / "shop.db"
    sql(db, SHOP)
    with serving(db, "--no-accounts") as first, first.client() as client:
        before = client.done("subscribe", topic="test")
        client.done("create-topic", name="kept")
    sql(db, "INSERT INTO test(text) VALUES('while it was down')")
    with serving(db, "--no-accounts") as second, second.client() as client:
        after = client.done("subscribe", topic="test")
        assert after["epoch"] == before["epoch"]
        assert after["EventId"] == before["EventId"] + 1
        assert "kept" in client.done("list-topic")["topics"]


def test_non_administrators_know_no_tables(live: Live) -> None:
    with live.client(token(live.db, "--subject", "someone")) as client, live.client() as admin:
        assert client.done("list-topic")["topics"] == []
        assert client.refused("subscribe", topic="test") == "unknown-topic"
        assert client.refused("new-message", topic="test", message=1) == "unknown-topic"
        admin.done("create-topic", name="admins")
        assert client.refused("destroy-topic", name="admins") == "forbidden"
        client.done("create-topic", name="mine")
        client.done("destroy-topic", name="mine")


def test_values_keep_all_their_digits(live: Live) -> None:
    with live.client() as client, closing(sqlite3.connect(live.db)) as other:
        client.done("subscribe", topic="test")
        values: list[object] = [-(2**63), 2**53 + 1, 0.1 + 0.2, 5.0, 1e-320, -math.inf, "é\0ü", None, b""]
        other.executemany("INSERT INTO test(text) VALUES(?)", [(value,) for value in values])
        other.commit()
        sql(live.db, "INSERT INTO test(text) VALUES(CAST(x'61ff62' AS TEXT))")
        sent = [event["EventData"] for event in client.events(len(values) + 1)]
        assert [row["text"] for row in sent] == [
            -(2**63), 2**53 + 1, 0.30000000000000004, 5.0, 1e-320, {"$real": "-Infinity"}, "é\0ü", None, {"$blob": ""},
            "a\ufffdb",
        ]  # fmt: skip
        assert sent[-1]["__lossy"] == ["text"]


def test_secrets_stay_in_the_file(live: Live) -> None:
    with live.client() as client:
        client.done("subscribe", topic="user_account")
        sql(live.db, "INSERT INTO user_account(reference_id, password) VALUES('r', 'canary')")
        assert "password" not in client.event()["EventData"]
        sql(live.db, "UPDATE user_account SET password='canary too'")
        assert client.all_until_now() == []
        dump = sql(live.db, "SELECT * FROM _appliance_outbox; SELECT * FROM _appliance_shape")
        assert "canary" not in dump


def test_a_row_that_is_longer_than_the_tail_reads_at_once_arrives_cut_short(live: Live) -> None:
    columns = [f"c{number}" for number in range(1500)]
    with live.client() as client, closing(sqlite3.connect(live.db)) as other:
        other.execute(f"CREATE TABLE wide(id INTEGER PRIMARY KEY, {', '.join(columns)})")
        other.commit()
        until(lambda: "wide" in client.done("list-topic")["topics"], "the table is a topic")
        client.done("subscribe", topic="wide")
        other.execute(f"INSERT INTO wide VALUES(1, {', '.join('?' for _ in columns)})", [b"x" * 20_000] * 1500)
        other.execute("UPDATE wide SET c0 = 1")
        other.execute("UPDATE wide SET c1 = 2 WHERE id = 1")
        other.commit()
        events = client.events(3)
        assert [event["EventType"] for event in events] == ["create", "update", "update"]
        assert events[2]["EventData"] == {"__type": "wide", "id": 1, "__truncated": True}
        assert events[2]["Key"] == [1]
        assert client.all_until_now() == []


def test_vacuum_tells_subscribers_of_tables_without_a_key(live: Live) -> None:
    with live.client() as client:
        client.done("subscribe", topic="world")  # its key is the rowid, which VACUUM may change
        client.done("subscribe", topic="test")
        sql(live.db, "CREATE TABLE another(a)")
        until(lambda: "another" in client.done("list-topic")["topics"], "the schema has been looked at")
        assert client.all_until_now() == []
        sql(live.db, "VACUUM")
        event = client.event()
        assert (event["EventType"], event["ObjectType"]) == ("resync", "world")
        assert client.all_until_now() == []
