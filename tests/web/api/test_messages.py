from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.live.matching.audience import Wish
from appliance.model import Topic
from appliance.store.outbox import topics
from tests.live.replay.test_reading import Peer
from tests.web.api.application import Served, served

BODY = {"content": b'{"hello": "w\\u00f6rld"}', "headers": {"Content-Type": "application/json"}}
PATH = "/live/topics/news/messages"


async def make(live: Served, name: str = "news", durable: bool = True) -> None:
    topic = Topic(name, durable, 589696, None)
    live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, topic)))


async def test_a_message_is_committed_before_it_is_answered(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        await make(live)
        answer = await live.ask("POST", PATH, "ann", **BODY)

        assert (answer.status_code, answer.json()) == (201, {"topic": "news", "EventId": 1})
        assert live.sql("SELECT id, v0, v1, v2 FROM _appliance_outbox WHERE op = 4") == [
            (1, "news", "ann", '{"hello":"wörld"}'.encode())
        ]


async def test_a_key_makes_a_message_one_however_often_it_is_sent(tmp_path: Path) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    async with served(tmp_path / "live.db") as live:
        await make(live)
        first = await live.ask("POST", PATH, "ann", content=b"1", headers=headers)
        again = await live.ask("POST", PATH, "ann", content=b"1", headers=headers | {"Idempotency-Key": '"k"'})
        other = await live.ask("POST", PATH, "ann", content=b"2", headers=headers)

        assert [first.json()["EventId"], again.json()["EventId"]] == [1, 1]
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (other.status_code, other.json()["error"]["code"]) == (409, "conflict")


async def test_a_topic_that_is_not_durable_takes_messages_and_no_key(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        await make(live, durable=False)
        sent = await live.ask("POST", PATH, **BODY)
        keyed = await live.ask("POST", PATH, content=b"1", headers=BODY["headers"] | {"Idempotency-Key": "k"})  # type: ignore[operator]

        assert (sent.status_code, sent.json()["EventId"]) == (201, None)
        assert (keyed.status_code, keyed.json()["error"]["code"]) == (400, "bad-request")


async def test_a_topics_name_may_hold_a_slash(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        await make(live, "a/b c")

        assert (await live.ask("POST", "/live/topics/a%2Fb%20c/messages", **BODY)).json()["topic"] == "a/b c"


@pytest.mark.parametrize(
    "path",
    [
        "/live/topics/t/u/messages", "/live/topics/t%2Fmessages", "/live%2Ftopics/t/messages", "/live/topics//messages",
        "/live/topics/t/messages/",
    ],
)  # fmt: skip
async def test_a_path_that_only_looks_like_a_topics_sends_nothing(tmp_path: Path, path: str) -> None:
    async with served(tmp_path / "live.db") as live:
        for name in ("t", "t/u", "t/messages", "messages", "live"):
            await make(live, name)
        answer = await live.ask("POST", path, **BODY)

        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not-found")
        assert live.sql("SELECT count(*) FROM _appliance_outbox WHERE op = 4") == [(0,)]


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("/live/topics/nothing/messages", {}, (404, "unknown-topic")),
        ("/live/topics/t/messages", {}, (404, "unknown-topic")),  # a table, which ann may not know of
        (PATH, {"content": b"{"}, (400, "bad-json")),
        (PATH, {"content": b'{"a":1,"a":2}'}, (400, "bad-json")),
        (PATH, {"headers": BODY["headers"] | {"Idempotency-Key": "k" * 256}}, (400, "bad-request")),  # type: ignore[operator]
        (PATH, {"headers": BODY["headers"] | {"Idempotency-Key": '""'}}, (400, "bad-request")),  # type: ignore[operator]
        (PATH, {"headers": {"Content-Type": "text/plain"}}, (415, "unsupported-media-type")),
    ],
)
async def test_what_cannot_be_sent_says_why(
    tmp_path: Path, path: str, options: dict[str, Any], expected: tuple[int, str]
) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(a)") as live:
        await make(live)
        answer = await live.ask("POST", path, "ann", **(BODY | options))

        assert (answer.status_code, answer.json()["error"]["code"]) == expected
        assert live.sql("SELECT count(*) FROM _appliance_outbox WHERE op = 4") == [(0,)]


@pytest.mark.parametrize("durable", [True, False])
async def test_a_message_is_as_long_as_on_the_websocket_at_most(tmp_path: Path, durable: bool) -> None:
    async with served(tmp_path / "live.db", message_bytes=1000) as live:
        await make(live, durable=durable)
        growing = b"[%b]" % b",".join([b"1e15"] * 100)  # each is sent on as 1000000000000000.0
        contents = (b'"%b"' % (b"x" * 998), b'"%b"' % (b"x" * 999), growing)
        answers = [await live.ask("POST", PATH, "ann", **(BODY | {"content": content})) for content in contents]

        assert [answer.status_code for answer in answers] == [201, 413, 413]
        assert answers[1].json()["error"] == {
            "code": "too-large", "message": "a message may have 1000 bytes (message_bytes), also as it is sent on",
        }  # fmt: skip


async def test_a_table_takes_no_messages(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(a)") as live:
        answer = await live.ask("POST", "/live/topics/t/messages", **BODY)

        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "system-topic")


async def test_without_a_token_nothing_is_sent(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        await make(live)
        none = await live.client.post(PATH, **BODY)  # type: ignore[arg-type]
        bad = await live.client.post(PATH + "?token=bad", **BODY)  # type: ignore[arg-type]
        basic = await live.client.post(PATH, content=b"1", headers={"Authorization": "Basic YTpi"})

        assert {answer.status_code for answer in (none, bad, basic)} == {401}
        assert none.headers["WWW-Authenticate"] == "Bearer"


async def test_who_is_no_user_any_more_sends_nothing(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db") as live:
        await make(live)
        live.sql("INSERT INTO _appliance_account(subject, not_before) VALUES('ann', 1)")
        answer = await live.ask("POST", PATH, "ann", **BODY)

        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert live.sql("SELECT count(*) FROM _appliance_outbox WHERE op = 4") == [(0,)]


@pytest.mark.parametrize("durable", [True, False])
async def test_a_guests_message_does_not_say_where_the_guest_is(tmp_path: Path, durable: bool) -> None:
    async with served(tmp_path / "live.db", guests=True) as live:
        topic = Topic("news", durable, 1 | 2 | 32, None)
        live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, topic)))
        peer = Peer(live.hub.access.guest("192.0.2.7"))  # type: ignore[arg-type]
        live.hub.attach(live.hub.subscribe(peer, "news", Wish()))
        for headers in ({}, {"Idempotency-Key": "k"}) if durable else ({},):
            answer = await live.client.post(PATH, content=b"1", headers={"Content-Type": "application/json", **headers})
            assert answer.status_code == 201, answer.text
        if durable:
            assert live.sql("SELECT DISTINCT v1 FROM _appliance_outbox WHERE op = 4") == [("guest",)]
        else:
            assert [event["MessageSource"] for event in peer.sent] == ["guest"]
