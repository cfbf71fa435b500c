"""Nothing is lost: positions, replay, snapshots and live sets, with the real program and real writers."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.live import Client, Live, serving, sql, until

pytestmark = pytest.mark.e2e

TABLE = "CREATE TABLE item(id INTEGER PRIMARY KEY, room INTEGER, name TEXT, n INTEGER)"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    db = tmp_path_factory.mktemp("replay") / "shop.db"
    with serving(db) as served:
        yield served


@pytest.fixture
def table(live: Live) -> str:
    """A table of its own for each test."""
    name = f"t{len(sql(live.db, 'SELECT name FROM sqlite_schema').split())}"
    sql(live.db, TABLE.replace("item", name))
    with live.client() as client:
        until(lambda: client.ask("subscribe", topic=name)["EventType"] == "response", "the table is a topic")
    return name


def delivered(live: Live, statements: str) -> None:
    """Run SQL, and wait until the server has delivered all of it: what comes after ``live`` is not missed then."""
    sql(live.db, statements)
    with live.client() as client:
        client.all_until_now()


def to_live(client: Client) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Give what comes before the next ``live`` notice, and the notice's data."""
    before = []
    while (event := client.event())["EventType"] != "live":
        before.append(event)
    return before, event["EventData"]


def test_everything_after_a_position_comes_first_and_then_what_happens(live: Live, table: str) -> None:
    with live.client() as client:
        begun = client.done("subscribe", topic=table)
    delivered(live, f"INSERT INTO {table} VALUES(1, 1, 'a', 0); UPDATE {table} SET n = 1; DELETE FROM {table}")
    with live.client() as client:
        reply = client.done("subscribe", topic=table, since=begun["EventId"], epoch=begun["epoch"])
        assert (reply["recovered"], reply["EventId"]) == (True, begun["EventId"])
        missed, place = to_live(client)
        assert [event["EventType"] for event in missed] == ["create", "update", "delete"]
        assert place["count"] == 3
        assert place["EventId"] >= missed[-1]["EventId"]
        sql(live.db, f"INSERT INTO {table} VALUES(2, 1, 'b', 0)")
        assert client.event()["EventData"]["id"] == 2


def test_a_position_that_cannot_be_served_is_a_gap_that_says_what_is_kept(live: Live, table: str) -> None:
    with live.client() as client:
        begun = client.done("ping")
        for since, epoch in ((begun["EventId"], "another"), (begun["EventId"] + 1000, begun["epoch"])):
            reply = client.ask("subscribe", topic=table, since=since, epoch=epoch)
            assert reply["EventData"]["code"] == "gap"
            assert reply["EventData"]["epoch"] == begun["epoch"]
            assert 0 <= reply["EventData"]["oldest"] <= reply["EventData"]["newest"]
        assert client.refused("unsubscribe", topic=table) == "not-subscribed"


def test_messages_of_a_durable_topic_are_replayed_through_their_filter(live: Live) -> None:
    with live.client() as client:
        client.done("create-topic", name="kept")
        begun = client.done("ping")
        for number in range(5):
            client.done("new-message", topic="kept", message={"number": number})
    with live.client() as client:
        client.done("subscribe", topic="kept", filters={"number": {"gte": 3}}, since=begun["EventId"],
                    epoch=begun["epoch"])  # fmt: skip
        missed, _ = to_live(client)
        assert [event["EventData"]["number"] for event in missed] == [3, 4]
        client.done("create-topic", name="fleeting", durable=False)
        assert client.refused("subscribe", topic="fleeting", since=0, epoch=begun["epoch"]) == "bad-request"


def test_old_values_come_where_they_were_asked_for(live: Live, table: str) -> None:
    sql(live.db, f"INSERT INTO {table} VALUES(1, 1, 'a', 5)")
    with live.client() as plain, live.client() as asking:
        plain.done("subscribe", topic=table)
        asking.done("subscribe", topic=table, old=True)
        sql(live.db, f"UPDATE {table} SET n = 6, name = NULL")
        assert "OldData" not in plain.event()
        assert asking.event()["OldData"] == {"name": "a", "n": 5}


def test_a_snapshot_is_followed_as_a_live_set(live: Live, table: str) -> None:
    sql(live.db, f"INSERT INTO {table} VALUES(1, 1, 'a', 0), (2, 2, 'b', 0), (3, 1, 'c', 0)")
    with live.client() as client:
        assert client.refused("subscribe", topic=table, snapshot=True, filters={"EventType": "update"}) == "bad-filter"
        client.done("subscribe", topic=table, snapshot=True, filters={"room": 1})
        rows, place = to_live(client)
        assert [(row["EventType"], row["Key"]) for row in rows] == [("snapshot", [1]), ("snapshot", [3])]
        assert place["count"] == 2
        sql(live.db, f"UPDATE {table} SET room = 1 WHERE id = 2; UPDATE {table} SET room = 2 WHERE id = 1; "
                     f"UPDATE {table} SET n = 9 WHERE id = 3")  # fmt: skip
        entering, leaving, changed = client.events(3)
        assert (entering["EventType"], entering["Key"]) == ("create", [2])
        assert (leaving["EventType"], leaving["Key"], leaving["EventData"]["room"]) == ("delete", [1], 1)
        assert (changed["EventType"], changed["EventData"]["n"]) == ("update", 9)


def test_a_live_set_goes_on_from_its_position_or_begins_anew(live: Live, table: str) -> None:
    sql(live.db, f"INSERT INTO {table} VALUES(1, 1, 'a', 0), (2, 1, 'b', 0)")
    with live.client() as client:
        client.done("subscribe", topic=table, snapshot=True)
        _, place = to_live(client)
    delivered(live, f"DELETE FROM {table} WHERE id = 1")
    with live.client() as client:
        reply = client.done("subscribe", topic=table, snapshot=True, since=place["EventId"], epoch=place["epoch"])
        assert reply["recovered"] is True
        changes, _ = to_live(client)
        assert [(event["EventType"], event["Key"]) for event in changes] == [("delete", [1])]
        client.done("unsubscribe", topic=table)
        assert client.done("subscribe", topic=table, snapshot=True, since=1, epoch="gone")["recovered"] is False
        rows, _ = to_live(client)
        assert [row["Key"] for row in rows] == [[2]]


def test_a_table_that_cannot_be_read_page_by_page_gives_no_snapshot_and_its_events_all_the_same(live: Live) -> None:
    sql(
        live.db,
        "CREATE TABLE unread(rowid, oid, _rowid_, v); CREATE TABLE read(rowid INTEGER PRIMARY KEY, oid, _rowid_)",
    )
    with live.client() as client:
        until(lambda: {"unread", "read"} <= set(client.topics()), "the tables are topics")
        assert client.refused("subscribe", topic="unread", snapshot=True) == "bad-request"
        client.done("subscribe", topic="read", snapshot=True)
        assert to_live(client)[0] == []
        client.done("subscribe", topic="unread")
        sql(live.db, "INSERT INTO unread VALUES(1, 2, 3, 4)")
        assert client.event()["EventData"]["v"] == 4


@pytest.mark.parametrize(
    "columns", ["k TEXT COLLATE theirs PRIMARY KEY, v", "k TEXT, v, PRIMARY KEY(k COLLATE theirs)"]
)
def test_what_only_its_application_can_read_gives_no_snapshot_and_its_events_all_the_same(
    tmp_path: Path, columns: str
) -> None:
    db = tmp_path / "theirs.db"
    with closing(sqlite3.connect(db, isolation_level=None)) as theirs:
        theirs.create_collation("theirs", lambda one, other: (one > other) - (one < other))
        theirs.execute(f"CREATE TABLE unread({columns}) WITHOUT ROWID")
        theirs.execute(f"CREATE TABLE read({columns})")
        theirs.execute("INSERT INTO read VALUES('a', 1)")
        with serving(db) as live, live.client() as client:
            refusal = client.ask("subscribe", topic="unread", snapshot=True)["EventData"]
            assert (refusal["code"], '"theirs"' in refusal["message"]) == ("bad-request", True), refusal
            client.done("subscribe", topic="read", snapshot=True)
            assert [row["EventData"]["k"] for row in to_live(client)[0]] == ["a"]
            client.done("subscribe", topic="unread")
            theirs.execute("INSERT INTO unread VALUES('b', 2)")
            assert client.event()["EventData"]["k"] == "b"


class Held:
    """What a client holds that applies what it gets, as the protocol says."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.position: dict[str, Any] = {}
        self.last = 0

    def apply(self, event: dict[str, Any]) -> None:
        kind = event["EventType"]
        if kind == "live":
            self.position = event["EventData"]
            return
        assert event["MessageSource"] == "database", event
        if kind != "snapshot":
            assert event["EventId"] > self.last
            self.last = event["EventId"]
            self.position = {**self.position, "EventId": self.last}
        if "OldKey" in event:
            self.rows.pop(json.dumps(event["OldKey"]), None)
        if kind == "delete":
            self.rows.pop(json.dumps(event["Key"]), None)
        else:
            self.rows[json.dumps(event["Key"])] = event["EventData"]


def write_at_random(db: Path, table: str, seed: int, stop: threading.Event) -> None:
    """Write rows of every kind in transactions of every size, some of them rolled back."""
    chance = random.Random(seed)
    with closing(sqlite3.connect(db, timeout=30, isolation_level=None)) as writer:
        while not stop.is_set():
            writer.execute("BEGIN IMMEDIATE")
            for _ in range(chance.choice((1, 1, 3, 20))):
                key, room = chance.randrange(60), chance.randrange(3)
                statement = chance.choice((
                    f"INSERT OR REPLACE INTO {table} VALUES({key}, {room}, 'r{chance.random()}', 3)",
                    f"UPDATE {table} SET room = {room} WHERE id = {key}",
                    f"UPDATE {table} SET n = n + 1 WHERE room = {room}",
                    f"UPDATE OR REPLACE {table} SET id = {chance.randrange(60)} WHERE id = {key}",
                    f"DELETE FROM {table} WHERE id = {key}",
                ))  # fmt: skip
                writer.execute(statement)
            writer.execute("ROLLBACK" if chance.random() < 0.2 else "COMMIT")


def rows_now(db: Path, table: str, where: str) -> dict[str, dict[str, Any]]:
    with closing(sqlite3.connect(db, timeout=30)) as reader:
        found = reader.execute(f"SELECT id, room, name, n FROM {table} WHERE {where}").fetchall()
    return {
        json.dumps([key]): {"__type": table, "id": key, "room": room, "name": name, "n": n}
        for key, room, name, n in found
    }


@pytest.mark.parametrize("seed", range(3))
def test_clients_that_come_and_go_while_others_write_hold_what_the_file_holds(
    live: Live, table: str, seed: int
) -> None:
    stop = threading.Event()
    writer = threading.Thread(target=write_at_random, args=(live.db, table, seed, stop))
    chance = random.Random(seed)
    wishes = [({}, "1"), ({"room": 1}, "room IS 1"), ({"n": {"gte": 4}, "room": [0, 2]}, "n >= 4 AND room IN (0, 2)")]
    held = [Held() for _ in wishes]
    writer.start()
    try:
        for _ in range(6):
            with live.client() as client:
                for (filters, _), each in zip(wishes, held, strict=True):
                    more = {"since": each.position["EventId"], "epoch": each.position["epoch"]} if each.position else {}
                    reply = client.done("subscribe", topic=table, snapshot=True, filters=filters, **more)
                    assert reply.get("recovered") == (True if more else None)
                    while (event := client.event())["EventType"] != "live":
                        each.apply(event)
                    each.apply(event)
                    for event in client.events(chance.randrange(30)):
                        each.apply(event)
                    client.done("unsubscribe", topic=table)
                    while client.waiting:
                        each.apply(client.waiting.pop(0))
    finally:
        stop.set()
        writer.join()
    with live.client() as client:
        for (filters, where), each in zip(wishes, held, strict=True):
            client.done("subscribe", topic=table, snapshot=True, filters=filters, since=each.position["EventId"],
                        epoch=each.position["epoch"])  # fmt: skip
            for event in (*to_live(client)[0], *client.all_until_now()):
                each.apply(event)
            client.done("unsubscribe", topic=table)
            assert each.rows == rows_now(live.db, table, where)
