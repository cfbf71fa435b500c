"""What came before a topic has ended reaches who was behind; then he is told of the end, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.live.matching.audience import Wish
from appliance.live.replay.reading import Reading
from appliance.model import Topic
from appliance.store.outbox import topics
from appliance.store.tables.making import NewColumn
from tests.live.matching.test_facts import caught_up
from tests.live.matching.test_facts import peer as user
from tests.live.replay.test_closed_since import CLOSED, COMES, GIVEN_AWAY
from tests.live.replay.test_reading import FILL, Peer, Served, served
from tests.web.api.application import served as accounts_served

LONG = "printf('%.*c', 50000, 'x')"
SENT = 40


async def room_with_messages(live: Served, peer: Peer) -> tuple[Reading, int]:
    """Have a reader of a user topic fall behind; give its reading, and the position of the last message."""
    live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, Topic("room", True, 0, "ann"))))
    subscription, begun = live.hub.subscribe(peer, "room", Wish()), live.hub.position.id
    last = 0
    for _ in range(SENT):
        last = await live.store.commit(lambda db: topics.publish(db, "room", "ann", b'"%s"' % (b"x" * 50_000)))
    await live.caught_up()
    return Reading(live.hub, live.store, peer, [subscription], begun, announce=True), last


async def destroy(live: Served) -> None:
    live.hub.end_topic("room", *await live.store.commit(lambda db: topics.destroy(db, "room")))


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("again", [None, "topic", "table"])
async def test_the_messages_of_a_topic_that_is_destroyed(tmp_path: Path, remembered: bool, again: str | None) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer(takes=1)
        reading, _ = await room_with_messages(live, peer)
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading.run)
            await peer.awaited.wait()
            await destroy(live)
            if again == "topic":  # whose messages are nobody's who has not subscribed to it
                room = Topic("room", True, 0, "bob")
                live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, room)))
                await live.store.commit(lambda db: topics.publish(db, "room", "bob", b'"another"'))
                await live.caught_up()
            elif again == "table":
                await live.write("CREATE TABLE room(a)")
                await shown(live, "room", there=True)
                await live.write("INSERT INTO room VALUES(1)")
            peer.take(float("inf"))
        assert [event["EventType"] for event in peer.came] == ["new-message"] * SENT + ["topic-destroyed"]
        assert "another" not in str(peer.sent)


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("wish", [Wish(), Wish({"v": {"startswith": "x"}}), Wish(live_set=True)])
@pytest.mark.parametrize("again", [False, True])
async def test_the_rows_of_a_table_that_is_dropped(tmp_path: Path, remembered: bool, wish: Wish, again: bool) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer(takes=1)
        reading = live.reading(peer, live.subscribe(peer, wish), live.hub.position.id)
        await live.write(FILL.format(first=1, last=SENT, value=LONG))
        await live.caught_up()
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading.run)
            await peer.awaited.wait()
            await live.write("DROP TABLE t")
            await shown(live, "t", there=False)
            if again:
                await live.write("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
                await shown(live, "t", there=True)
                await live.write("INSERT INTO t VALUES(99, 'x')")
                await live.caught_up()
            peer.take(float("inf"))
        assert [event["EventType"] for event in peer.came] == ["create"] * SENT + ["table-dropped"]


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("live_set", [False, True])
async def test_the_rows_of_a_table_whose_column_that_was_asked_for_is_dropped(
    tmp_path: Path, remembered: bool, live_set: bool
) -> None:
    async with served(tmp_path / "a.db") as live:
        peer, other = live.peer(takes=1), live.peer()
        wish = Wish({"v": {"startswith": "x"}}, live_set=live_set)
        reading = live.reading(peer, live.subscribe(peer, wish), live.hub.position.id)
        await live.write(FILL.format(first=1, last=SENT, value=LONG))
        await live.caught_up()
        fed = live.subscribe(other, wish)
        live.hub.attach(fed)
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading.run)
            await peer.awaited.wait()
            live.file.writer.executescript(
                "BEGIN; CREATE TABLE n(id INTEGER PRIMARY KEY, w); INSERT INTO n(id) SELECT id FROM t; DROP TABLE t; "
                "ALTER TABLE n RENAME TO t; COMMIT"
            )
            await live.write("INSERT INTO t VALUES(99, 'x')")
            while not fed.ended:
                await trio.lowlevel.checkpoint()
            peer.take(float("inf"))
        for each, count in ((peer, SENT), (other, 0)):
            assert [event["EventType"] for event in each.came] == ["create"] * count + ["table-dropped"]
            assert each.told[-1]["EventData"]["reason"] == "filter"


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("statement", [GIVEN_AWAY, CLOSED])
async def test_who_has_lost_a_row_is_not_told_of_it_as_its_table_is_taken_off_the_watch(
    tmp_path: Path, remembered: bool, statement: str
) -> None:
    async with accounts_served(tmp_path / "a.db", tables={"todo": (NewColumn("text", "text"),)}) as live:
        ann, begun = user("ann"), live.hub.position.id
        subscription = live.hub.subscribe(ann, "todo", Wish())
        for each in (COMES, statement):
            live.sql(each)
            await caught_up(live)
        await live.store.commit(lambda db: topics.set_watched(db, "todo", False))
        while live.hub.table("todo") is not None:
            await trio.lowlevel.checkpoint()
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        await Reading(live.hub, live.store, ann, [subscription], begun).run()
        assert [(event["EventType"], event["EventData"]) for event in ann.came] == [
            ("table-dropped", {"reason": "unwatched"})
        ]


@pytest.mark.parametrize("how", ["unsubscribes", "has other rights"])
async def test_who_leaves_or_has_other_rights_before_is_told_no_more(tmp_path: Path, how: str) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer(takes=1)
        reading, _ = await room_with_messages(live, peer)
        (subscription,) = reading._subscriptions
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading.run)
            await peer.awaited.wait()
            await destroy(live)
            assert not subscription.ended
            if how == "unsubscribes":
                live.hub.unsubscribe(subscription)
            else:
                live.hub.reassess([subscription])
            assert subscription.ended
            peer.take(float("inf"))
        told: list[Any] = [event["EventType"] for event in peer.told]
        assert told == ([] if how == "unsubscribes" else ["topic-destroyed"])
        assert len(peer.sent) < SENT


async def shown(live: Served, table: str, *, there: bool) -> None:
    """Wait until the hub has a table, or has it no more."""
    while (live.hub.table(table) is not None) != there:
        live.tail.waking.wake()
        await trio.lowlevel.checkpoint()
