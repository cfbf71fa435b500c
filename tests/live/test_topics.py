"""The end of a user topic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trio.testing import wait_all_tasks_blocked

from appliance.live import durable
from appliance.live.audience import Wish
from appliance.model import Message, Topic
from appliance.store import topics
from tests.live.test_reading import ADMINISTRATOR, served

TOPIC = Topic("news", durable=True, permission=0, owner="ann")


async def test_a_topic_ends_behind_all_of_its_messages(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        live.hub.add_topic(TOPIC, await live.store.commit(lambda db: topics.create(db, TOPIC)))
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


async def test_a_topic_that_has_nothing_to_deliver_ends_at_once(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        live.hub.add_topic(TOPIC, await live.store.commit(lambda db: topics.create(db, TOPIC)))
        peer = live.peer()
        live.hub.attach(live.hub.subscribe(peer, "news", Wish()))
        live.hub.end_topic("news", *await live.store.commit(lambda db: topics.destroy(db, "news")))
        assert [each["EventType"] for each in peer.came] == ["topic-destroyed"]


async def test_messages_that_are_not_kept_go_to_who_is_there_when_they_are_handed_out(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        hub, topic = live.hub, replace(TOPIC, durable=False)
        hub.add_topic(topic, await live.store.commit(lambda db: topics.create(db, topic)))
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
