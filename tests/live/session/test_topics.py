"""The end of a user topic."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.live.matching.access import Reader
from appliance.live.matching.audience import Wish
from appliance.live.session import durable
from appliance.model import Message, Topic
from appliance.protocol.permissions import Verb
from appliance.store.file import schema
from appliance.store.outbox import replay, topics
from tests.e2e.hostile import TEXT, frame
from tests.live.replay.test_reading import ADMINISTRATOR, Served, served
from tests.live.session.admitted import admitted

TOPIC = Topic("news", durable=True, permission=0, owner="ann")


async def test_a_topic_ends_behind_all_of_its_messages(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, TOPIC)))
        await wait_all_tasks_blocked()
        peer = live.peer()
        live.hub.attach(live.hub.subscribe(peer, "news", Wish()))
        # Nobody wakes the tail: both are committed before the message is delivered.
        await live.store.sent(live.store.send(durable.message("news", ADMINISTRATOR, b'"last"')))
        generation, position = await live.store.commit(lambda db: topics.destroy(db, "news"))
        live.hub.end_topic("news", generation, position)
        await live.caught_up()
        assert [each["EventType"] for each in peer.came] == ["new-message", "topic-destroyed"]
        assert live.hub.topic("news") is None


async def test_so_it_does_when_the_tail_reads_of_its_end_before_it_has_seen_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "a.db") as live:
        live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, TOPIC)))
        peer = live.peer()
        live.hub.attach(live.hub.subscribe(peer, "news", Wish()))
        read, ended = live.store.read_settings, trio.Event()

        async def read_late() -> Any:
            if not ended.is_set():
                await live.store.sent(live.store.send(durable.message("news", ADMINISTRATOR, b'"last"')))
                await live.store.commit(lambda db: topics.destroy(db, "news"))
                ended.set()
            return await read()

        monkeypatch.setattr(live.store, "read_settings", read_late)
        await live.store.commit(lambda db: topics.create(db, replace(TOPIC, name="other")))  # by another program
        live.tail.waking.wake()
        await ended.wait()
        await live.caught_up()
        assert [each["EventType"] for each in peer.came] == ["new-message", "topic-destroyed"]


async def test_a_topic_that_has_nothing_to_deliver_ends_at_once(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, TOPIC)))
        peer = live.peer()
        live.hub.attach(live.hub.subscribe(peer, "news", Wish()))
        live.hub.end_topic("news", *await live.store.commit(lambda db: topics.destroy(db, "news")))
        assert [each["EventType"] for each in peer.came] == ["topic-destroyed"]


@pytest.mark.parametrize("there", [True, False])
async def test_what_a_request_has_done_undoes_nothing_that_another_program_has_done_behind_it(
    tmp_path: Path, there: bool
) -> None:
    async with served(tmp_path / "a.db") as live:
        hub = live.hub
        made = await live.store.commit(lambda db: topics.create(db, TOPIC))
        if there:
            hub.add_topic(*made)
        ended = await live.store.commit(lambda db: topics.destroy(db, "news"))
        if there:
            await live.store.commit(lambda db: topics.create(db, TOPIC))
        live.tail.waking.wake()
        while hub.generation != ended[0] + there:
            await trio.lowlevel.checkpoint()
        if there:
            hub.end_topic("news", *ended)  # only now has its task had its turn
        else:
            hub.add_topic(*made)
        assert (hub.topic("news") is not None) == there


async def test_messages_that_are_not_kept_go_to_who_is_there_when_they_are_handed_out(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        hub, topic = live.hub, replace(TOPIC, durable=False)
        hub.add_topic(*await live.store.commit(lambda db: topics.create(db, topic)))
        peers = [live.peer() for _ in range(4)]
        wishes = [{}, {"room": ["1", "2"]}, {"room": ["1", "3"]}, {"room": ["1", "4"]}]
        subscriptions = [hub.subscribe(peer, "news", Wish(wish)) for peer, wish in zip(peers, wishes, strict=True)]
        for subscription in subscriptions:
            hub.attach(subscription)
        for body in (b'{"room":"1"}', b'{"room":"3"}'):
            hub.broadcast(Message(None, "news", "ann", body))
        hub.unsubscribe(subscriptions[3])
        hub.end_topic("news", *await live.store.commit(lambda db: topics.destroy(db, "news")))
        came = [[each["EventData"].get("room") for each in peer.came[:-1]] for peer in peers[:3]]
        assert came == [["1", "3"], ["1"], ["1", "3"]]
        assert [peer.came[-1]["EventType"] for peer in peers[:3]] == ["topic-destroyed"] * 3
        assert peers[3].came == []


async def say(live: Served, text: str) -> int:
    """Send a durable message, and wait until the hub has it."""
    body = f'"{text}"'.encode()
    sent = await live.store.sent(live.store.send(durable.message("news", ADMINISTRATOR, body)))
    await live.caught_up()
    return sent.event_id


async def test_a_topic_that_is_made_anew_has_none_of_the_messages_of_the_one_before(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        hub = live.hub
        hub.add_topic(*await live.store.commit(lambda db: topics.create(db, TOPIC)))
        first = await say(live, "secret")
        hub.end_topic("news", *await live.store.commit(lambda db: topics.destroy(db, "news")))
        hub.add_topic(*await live.store.commit(lambda db: topics.create(db, replace(TOPIC, name="NEWS"))))
        topic = hub.topic("news")
        assert topic is not None
        assert topic.begun == first
        settings, _ = await live.store.read_settings()
        assert settings.topics == {"news": topic}
        assert await live.store.read(lambda db: replay.last_message(db, "news", 0, topic.begun)) == first
        assert await live.store.read(lambda db: replay.last_message(db, "news", first, topic.begun)) == 0
        last = await say(live, "mine")
        for kept in (True, False):  # from memory and from the outbox
            if not kept:
                hub.recent.forget(last)
            peer = live.peer()
            subscription = hub.subscribe(peer, "news", Wish())
            await live.reading(peer, subscription, 0).run()
            assert [each["EventData"] for each in peer.came if each["EventType"] == "new-message"] == ["mine"]


async def test_a_topic_that_another_process_has_made_anew_ends_for_those_of_before(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        hub = live.hub
        hub.add_topic(*await live.store.commit(lambda db: topics.create(db, TOPIC)))
        await say(live, "first")
        peer = live.peer()
        hub.attach(hub.subscribe(peer, "news", Wish()))

        def anew(db: sqlite3.Connection) -> None:
            topics.destroy(db, "news")
            topics.create(db, TOPIC)

        await live.store.commit(anew)
        await live.tail.caught_up()
        await say(live, "another's")
        assert [each["EventType"] for each in peer.came] == ["topic-destroyed"]


async def test_a_topic_whose_permission_is_lowered_ends_for_those_who_may_not_follow_it_any_more(
    tmp_path: Path,
) -> None:
    async with served(tmp_path / "a.db") as live:
        hub = live.hub
        topic = replace(TOPIC, permission=Verb.PEEK | Verb.READ)
        hub.add_topic(*await live.store.commit(lambda db: topics.create(db, topic)))
        root, bob = live.peer(), live.peer()
        bob.reader = Reader(replace(ADMINISTRATOR, subject="bob", admin=False), frozenset())
        for peer in (root, bob):
            hub.attach(hub.subscribe(peer, "news", Wish()))

        def lower(db: sqlite3.Connection) -> None:
            db.execute("UPDATE _appliance_topic SET permission = 0")
            schema.bump(db)

        await live.store.commit(lower)
        await live.tail.caught_up()
        await say(live, "secret")
        assert [each["EventType"] for each in bob.came] == ["topic-destroyed"]
        assert [each["EventData"] for each in root.came] == ["secret"]


async def test_who_missed_messages_of_a_topic_is_told_how_many_before_its_end(tmp_path: Path) -> None:
    passing = replace(TOPIC, durable=False)
    async with (
        admitted(tmp_path / "a.db", lambda db: topics.create(db, passing)) as live,
        live.connected(receives=4096) as client,
    ):
        assert (await client.ask("subscribe", topic="news"))["EventType"] == "response"
        sent = 0
        while not live.hub.counters.dropped_messages:
            live.hub.broadcast(Message(None, "news", "ann", b'"%s"' % (b"x" * 100_000)))
            live.hub.flush()
            sent += 1
        generation, position = await live.store.commit(lambda db: topics.destroy(db, "news"))
        live.hub.end_topic("news", generation, position)
        told = [await client.receive() for _ in range(sent + 1)]
        assert [each["EventType"] for each in told] == ["new-message"] * (sent - 1) + ["dropped", "topic-destroyed"]
        assert told[-2]["EventData"] == {"count": 1}
        assert (await client.ask("ping"))["EventType"] == "response"  # and nothing is behind it


@pytest.mark.parametrize("whose", ["sender", "follower"])
async def test_whose_token_ends_while_a_message_waits_neither_sends_it_nor_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    async with (
        admitted(tmp_path / "a.db", lambda db: topics.create(db, replace(TOPIC, durable=False))) as live,
        live.connected() as sender,
        live.connected() as follower,
    ):
        assert (await follower.ask("subscribe", topic="news"))["EventType"] == "response"
        session, ends = (sender if whose == "sender" else follower).session, time.time() + 1000
        session.become(replace(session.reader, principal=replace(session.principal, expires_at=ends)))
        caught_up = live.tail.caught_up

        async def after_the_end(**options: bool) -> None:
            monkeypatch.setattr(time, "time", lambda: ends)
            await caught_up(**options)

        monkeypatch.setattr(live.tail, "caught_up", after_the_end)
        # Not of ASCII, so that it is not answered where it is received.
        asked = '{"method": "new-message", "attributes": {"topic": "news", "message": "é"}}'
        await sender.client.send(frame(TEXT, asked.encode()))
        if whose == "follower":
            assert (await sender.receive())["EventType"] == "response"
        assert (await (sender if whose == "sender" else follower).client.exactly(4))[2:] == (4401).to_bytes(2, "big")
        assert live.hub.counters.delivered == {}


async def test_a_message_that_is_not_kept_does_not_wait_for_the_commit_of_one_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(db: sqlite3.Connection) -> None:
        topics.create(db, replace(TOPIC, durable=False))
        topics.create(db, replace(TOPIC, name="kept"))

    async with (
        admitted(tmp_path / "a.db", make) as live,
        live.connected() as sender,
        live.connected() as follower,
    ):
        assert (await follower.ask("subscribe", topic="news"))["EventType"] == "response"
        sent, delivered = live.store.sent, []

        async def waiting(message: Any) -> Any:
            delivered.append(live.hub.counters.delivered["new-message"])
            return await sent(message)

        monkeypatch.setattr(live.store, "sent", waiting)
        asked = '{"method":"new-message","attributes":{"topic":"%s","message":%s}}'
        first, second = asked % ("kept", 1), asked % ("news", 2)
        third = asked % ("kept", 3)
        await sender.client.send(b"".join(frame(TEXT, each.encode()) for each in (first, second, third)))
        for _ in range(3):
            assert (await sender.receive())["EventType"] == "response"
        assert delivered[0] == 1
