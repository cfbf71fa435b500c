"""What another process has committed counts for the very next request: rights, topics and tables.

Each is tried so often that a server which takes it up a millisecond later fails.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from appliance.model import Topic
from appliance.protocol import tokens
from appliance.protocol.permissions import TOPIC_DEFAULT
from appliance.store.access import keys
from appliance.store.file import schema
from appliance.store.outbox import topics
from appliance.store.tables.standard import ADMINISTRATORS, USERS, join_table
from tests.e2e.live import Client, Live, serving
from tests.e2e.test_rights import Person

pytestmark = pytest.mark.e2e

TRIES = 30
MEMBERS = join_table("user_account")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("before") / "shop.db") as served:
        yield served


@pytest.fixture
def another(live: Live) -> Iterator[sqlite3.Connection]:
    """Another process's connection: what it commits nobody tells the server."""
    with closing(sqlite3.connect(live.db, isolation_level=None, timeout=10)) as db:
        yield db


class Member(Person):
    """A user who joins a group and leaves it."""

    def __init__(self, db: Path, another: sqlite3.Connection, group: str = USERS) -> None:
        super().__init__(db)
        self._another, self._group = another, group

    def leave(self) -> None:
        self._another.execute(
            f"DELETE FROM {MEMBERS} WHERE user_account_id = ? AND usergroup_id = ?", (self.id, self._group)
        )

    def join(self) -> None:
        self._another.execute(
            f"INSERT INTO {MEMBERS}(user_account_id, usergroup_id) VALUES(?, ?)", (self.id, self._group)
        )


def answered(client: Client, method: str, **attributes: object) -> str:
    """Give how a request ends: "ok", or the error's code."""
    return str(client.ask(method, **attributes)["EventData"].get("code", "ok"))


def make(db: sqlite3.Connection, topic: Topic) -> None:
    with schema.transaction(db):
        topics.create(db, topic)


@pytest.mark.parametrize("durable", [True, False])
def test_who_may_send_is_known_to_the_next_message(live: Live, another: sqlite3.Connection, durable: bool) -> None:
    name, ann = f"news {durable}", Member(live.db, another)
    with (
        live.client() as root,
        live.client(ann.token) as client,
        httpx.Client(
            base_url=f"http://localhost:{live.port}", headers={"Authorization": f"Bearer {ann.token}"}
        ) as http,
    ):
        root.done("create-topic", name=name, durable=durable)
        for _ in range(TRIES):
            ann.leave()
            assert answered(client, "new-message", topic=name, message=1) == "unknown-topic"
            ann.join()
            assert answered(client, "new-message", topic=name, message=1) == "ok"
            ann.leave()
            assert http.post(f"/live/topics/{name}/messages", json=1).status_code == 404
            ann.join()
            assert http.post(f"/live/topics/{name}/messages", json=1).status_code == 201


def test_a_message_that_is_not_kept_goes_to_nobody_who_has_lost_the_topic(
    live: Live, another: sqlite3.Connection
) -> None:
    name, ann = str(uuid.uuid4()), Member(live.db, another)
    with live.client() as root:
        root.done("create-topic", name=name, durable=False)
        for _ in range(TRIES):
            with live.client(ann.token) as client:
                client.done("subscribe", topic=name)
                ann.leave()
                root.done("new-message", topic=name, message="secret")
                assert client.event()["EventType"] == "topic-destroyed"
                ann.join()


def test_requests_that_come_together_are_answered_in_order(live: Live, another: sqlite3.Connection) -> None:
    ann = Member(live.db, another)
    kept, passing, own = (str(uuid.uuid4()) for _ in range(3))
    with live.client() as root, live.client(ann.token) as client:
        root.done("create-topic", name=kept)
        root.done("create-topic", name=passing, durable=False)
        client.done("create-topic", name=own, permission=16256)
        for name in (kept, passing, own):
            root.done("subscribe", topic=name)
        for number in range(TRIES):
            ann.leave()
            sent = [(f"{number} {place}", name) for place, name in enumerate((kept, own, passing, own, "nothing", own))]
            for each, name in sent:
                client.send({"method": "new-message", "attributes": {"topic": name, "message": each}, "id": each})
            replies = [client.receive() for _ in sent]
            assert [each["id"] for each in replies] == [each for each, _ in sent]
            assert [each["EventType"] == "response" for each in replies] == [name == own for _, name in sent]
            assert [each["EventData"] for each in root.events(3)] == [each for each, name in sent if name == own]
            ann.join()


def test_a_topic_that_another_process_has_made_is_there(live: Live, another: sqlite3.Connection) -> None:
    ann = Member(live.db, another)
    with live.client(ann.token) as client:
        for durable in (True, False) * (TRIES // 2):
            name = str(uuid.uuid4())
            make(another, Topic(name, durable, TOPIC_DEFAULT, "bob"))
            assert answered(client, "new-message", topic=name, message=1) == "ok"
            assert answered(client, "unsubscribe", topic=name) == "not-subscribed"
            with schema.transaction(another):
                topics.destroy(another, name)
            assert answered(client, "new-message", topic=name, message=1) == "unknown-topic"
            name = str(uuid.uuid4())
            make(another, Topic(name, durable, TOPIC_DEFAULT, ann.id))
            assert answered(client, "destroy-topic", name=name) == "ok"
            make(another, Topic(name, durable, TOPIC_DEFAULT, "bob"))
            assert answered(client, "unsubscribe", topic=name) == "not-subscribed"
            assert answered(client, "destroy-topic", name=name) == "forbidden"
            assert answered(client, "create-topic", name=name) == "topic-exists"


def test_a_name_that_another_process_has_freed_can_be_taken(live: Live, another: sqlite3.Connection) -> None:
    ann = Member(live.db, another)
    with live.client(ann.token) as client:
        for _ in range(TRIES // 3):
            another.execute("CREATE TABLE passing(a)")
            assert answered(client, "create-topic", name="passing") == "topic-exists"
            another.execute("DROP TABLE passing")
            assert answered(client, "create-topic", name="passing") == "ok"
            assert answered(client, "destroy-topic", name="passing") == "ok"


def test_who_may_destroy_is_known_to_the_next_request(live: Live, another: sqlite3.Connection) -> None:
    ann = Member(live.db, another, ADMINISTRATORS)
    with live.client() as root, live.client(ann.token) as client:
        for _ in range(TRIES):
            name = str(uuid.uuid4())
            root.done("create-topic", name=name)
            assert answered(client, "destroy-topic", name=name) == "forbidden"
            ann.join()
            ann.leave()
            assert answered(client, "destroy-topic", name=name) == "forbidden"
            ann.join()
            assert answered(client, "destroy-topic", name=name) == "ok"
            ann.leave()


def test_behind_more_than_one_look_finds_a_right_counts_too(live: Live, another: sqlite3.Connection) -> None:
    ann = Member(live.db, another)
    another.execute("CREATE TABLE IF NOT EXISTS many(a)")
    with live.client() as root, live.client(ann.token) as client:
        name = str(uuid.uuid4())
        root.done("create-topic", name=name)
        for _ in range(5):
            ann.leave()
            with schema.transaction(another):
                another.execute(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
                    "INSERT INTO many SELECT i FROM n"
                )
            ann.join()
            assert answered(client, "new-message", topic=name, message=1) == "ok"
            assert answered(client, "subscribe", topic=name) == "ok"
            assert answered(client, "unsubscribe", topic=name) == "ok"


def test_a_token_of_a_secret_that_was_made_a_moment_ago_is_good(tmp_path: Path) -> None:
    with serving(tmp_path / "shop.db") as live, closing(sqlite3.connect(live.db, isolation_level=None)) as another:
        ann = Person(live.db)
        url = f"http://localhost:{live.port}"
        with live.client(ann.token) as client, httpx.Client(base_url=url) as http:
            for _ in range(TRIES):
                fresh = of_a_new_secret(another, ann.id)
                assert http.get("/api/world", headers={"Authorization": f"Bearer {fresh}"}).status_code == 200
                assert answered(client, "authenticate", token=fresh) == "ok"
                fresh = of_a_new_secret(another, ann.id)
                assert answered(client, "authenticate", token=fresh) == "ok"


def of_a_new_secret(another: sqlite3.Connection, subject: str) -> str:
    """Change the store's secret, and give a token that is signed with the new one."""
    with schema.transaction(another):
        keys.rotate(another, drop=False)
    secret = str(schema.get(another, "secret"))
    return tokens.issue(secret, subject=subject, now=time.time(), ttl_s=3600, token_id=str(uuid.uuid4()))
