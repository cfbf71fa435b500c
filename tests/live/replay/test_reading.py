"""Readings, on a real store: what a reader is sent while it is slow, has gone, or its ground moves."""

from __future__ import annotations

import gc
import json
import math
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.capture.contents import BLOCK, one_of
from appliance.capture.outbox import WIDTH
from appliance.errors import CloseCode, Unavailable
from appliance.live.fanout import notices
from appliance.live.fanout.hub import Hub
from appliance.live.fanout.sessions import Sessions
from appliance.live.fanout.subscribers import Subscription, Way
from appliance.live.matching.access import Access, Reader
from appliance.live.matching.audience import Wish
from appliance.live.matching.course import Course
from appliance.live.matching.telling import Told
from appliance.live.replay import beside, commits, reading
from appliance.live.replay.commits import Commits
from appliance.live.replay.reading import Reading
from appliance.live.tail import waking
from appliance.live.tail.rights import Rights
from appliance.live.tail.tail import Tail
from appliance.live.tail.waking import Waking
from appliance.live.upkeep.survey import survey
from appliance.live.wire.sending import Straight
from appliance.model import Principal, Shape, Topic
from appliance.protocol.permissions import OWNER_SHIFT, Guarded, Verb
from appliance.protocol.values import ValueOptions
from appliance.store.access.grants import TableGrant, TableKind
from appliance.store.file.bridge import open_bridge
from appliance.store.file.readers import READERS
from appliance.store.outbox import look, retention
from appliance.store.outbox.replay import Page
from appliance.store.store import Store, StoreSettings, open_store
from appliance.store.tables import snapshot
from appliance.store.tables.catalog import Catalog
from appliance.store.tables.secrecy import Secrecy
from appliance.store.tables.snapshot import RowsPage
from tests.capture.support import Captured

ADMINISTRATOR = Principal("server", "root", admin=True, expires_at=float("inf"))


class Waiting:
    """A way where nothing goes at once."""

    straight: Straight | None = None
    sent = delivered = 0

    def went(self, data: bytes, sent: int) -> None:
        raise AssertionError(data[:sent])


@dataclass(eq=False)
class Peer:
    """A receiver and the feed of its readings. ``takes`` is how many bytes may still be sent to it."""

    reader: Reader
    takes: float = float("inf")
    sent: list[dict[str, Any]] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    #: Both, in their order.
    came: list[dict[str, Any]] = field(default_factory=list)
    ended: CloseCode | None = None
    refusing: bool = False
    behind: int = 0
    way: Way = field(default_factory=Waiting)
    #: Set while a reading waits for this peer.
    awaited: trio.Event = field(default_factory=trio.Event)
    _taken: trio.Event = field(default_factory=trio.Event)

    @property
    def over(self) -> bool:
        return self.ended is not None

    @property
    def busy(self) -> bool:
        return self.takes <= 0

    async def room(self) -> None:
        while self.busy and not self.over:
            self.awaited.set()
            await self._taken.wait()
        await trio.lowlevel.checkpoint()

    drained = room

    def take(self, size: float) -> None:
        """Have the peer take so many bytes more."""
        self.takes += size
        self.awaited = trio.Event()
        self._taken.set()
        self._taken = trio.Event()

    def deliver(self, frames: bytes) -> bool:
        if self.refusing:  # as when something else was sent since there was room
            self.refusing, self.takes = False, 0
        if self.busy:
            return False
        self.takes -= len(frames)
        self.sent += decoded(frames)
        self.came += decoded(frames)
        return True

    def tell(self, frame: bytes) -> None:
        self.told += decoded(frame)
        self.came += decoded(frame)

    def end(self, code: CloseCode, reason: str) -> None:
        self.ended = code

    def fall_behind(self) -> None:
        self.behind += 1

    def missed(self, topic: str, count: int) -> None:
        raise AssertionError((topic, count))

    def forget(self, topic: str) -> None:
        pass


def decoded(frames: bytes) -> list[dict[str, Any]]:
    """Read the text frames that a server sends, without masks (RFC 6455, section 5.2)."""
    found = []
    while frames:
        length, head = frames[1], 2
        if length >= 126:
            head = 4 if length == 126 else 10
            length = int.from_bytes(frames[2:head], "big")
        found.append(json.loads(frames[head : head + length]))
        frames = frames[head + length :]
    return found


class Served:
    """A store with its hub, whose tail the test runs."""

    def __init__(self, store: Store, hub: Hub, tail: Tail, file: Captured) -> None:
        self.store, self.hub, self.tail, self.file = store, hub, tail, file

    def peer(self, takes: float = float("inf")) -> Peer:
        return Peer(Reader(ADMINISTRATOR, frozenset()), takes)

    def subscribe(self, peer: Peer, wish: Wish | None = None) -> Subscription:
        return self.hub.subscribe(peer, "t", wish or Wish())

    def reading(self, peer: Peer, subscription: Subscription, after: int, **options: bool) -> Reading:
        subscription.position = after
        return Reading(self.hub, self.store, peer, [subscription], after, announce=True, **options)

    async def write(self, *statements: str) -> None:
        """Write as another program does, and wait until the hub has it."""
        for statement in statements:
            self.file.writer.execute(statement)
        await self.caught_up()

    async def caught_up(self) -> None:
        (highest,) = self.file.writer.execute("SELECT max(id) FROM _appliance_outbox").fetchone()
        self.tail.waking.wake()
        await self.hub.reached(highest)


@asynccontextmanager
async def served(path: Path, *before: str) -> AsyncIterator[Served]:
    """Serve a file in which these statements were run before the start. Its tail looks only when it is told to."""
    file = Captured(path, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v)")
    try:
        for statement in before:
            file.writer.execute(statement)
        settings = StoreSettings(path, Secrecy((), ()), busy_timeout_s=5)
        async with open_bridge(), open_store(settings) as store:
            catalog = await store.synchronise()
            access = Access(store)
            await access.read_grants()
            hub = Hub(catalog, await store.position(), ValueOptions(), access)
            tail = Tail(store, hub, Rights(access, hub, Sessions()), catalog, Waking(announced=True))
            async with trio.open_nursery() as nursery:
                with patch.object(waking, "SAFETY_POLL_S", math.inf):
                    nursery.start_soon(tail.run)
                    yield Served(store, hub, tail, file)
                nursery.cancel_scope.cancel()
    finally:
        file.close()


def ids(events: list[dict[str, Any]]) -> list[int]:
    return [event["EventData"]["id"] for event in events]


FILL = (
    "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) "
    "INSERT INTO t SELECT i, {value} FROM n"
)


async def test_what_takes_long_to_deliver_leaves_others_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "a.db") as live:
        hub, whole = live.hub, Hub.publish
        monkeypatch.setattr(hub, "publish", partial(whole, hub, turn_s=0))  # one event a turn
        peers = [live.peer()]
        hub.attach(live.subscribe(peers[0]))

        async def come_and_follow() -> None:
            """Subscribe each time that others have their turn."""
            while hub.position.id < 10:
                await trio.lowlevel.checkpoint()
                moved.add((live.tail.state.last_look, live.tail.state.behind_rows))
                peer = live.peer()
                subscription = live.subscribe(peer)
                assert subscription.position is not None
                behind[len(peers)] = subscription.position
                hub.attach(subscription)
                peers.append(peer)

        behind = {0: 0}
        moved: set[tuple[float, int]] = set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_and_follow)
            await live.write("BEGIN", FILL.format(first=1, last=10, value="i"), "COMMIT")
        assert len(moved) >= 5  # so that nobody takes it for stuck
        assert len({*behind.values()}) >= 5  # both are run once in each of the ten rounds, in any order
        for number, peer in enumerate(peers):
            assert [event["EventId"] for event in peer.sent] == list(range(behind[number] + 1, 11))
        assert [each.id for each in hub.recent.events_after(0)] == list(range(1, 11))


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_slow_reader_gets_every_event_once_and_then_what_happens(tmp_path: Path, remembered: bool) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer(takes=1)
        reading = live.reading(peer, live.subscribe(peer), live.hub.position.id)
        await live.write(FILL.format(first=1, last=60, value="printf('%.*c', 50000, 'x')"))
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading.run)
            while len(peer.sent) < 60:
                await peer.awaited.wait()
                assert not peer.told  # it is not live before everything has been taken
                peer.take(300_000)
            peer.take(float("inf"))
        await live.write("INSERT INTO t VALUES(61, 0)")
        assert ids(peer.sent) == list(range(1, 62))
        assert [event["EventId"] for event in peer.sent] == list(range(1, 62))
        assert [(each["EventType"], each["EventData"]["count"]) for each in peer.told] == [("live", 60)]


@pytest.mark.parametrize("remembered", [True, False])
async def test_an_event_is_put_to_those_only_who_follow_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    async with served(tmp_path / "a.db") as live:
        hub, peer, asked = live.hub, live.peer(), []
        subscriptions, frames = [hub.subscribe(peer, topic, Wish()) for topic in ("t", "u")], hub.frames

        def counted(subscription: Subscription, told: Told, *facts: Any) -> list[bytes]:
            asked.append((subscription.topic, told.topic))
            return frames(subscription, told, *facts)

        monkeypatch.setattr(hub, "frames", counted)
        begun = hub.position.id
        await live.write(FILL.format(first=1, last=5, value="1"), "INSERT INTO u VALUES(1, 2)")
        if not remembered:
            hub.recent.forget(hub.position.id)
        await Reading(hub, live.store, peer, subscriptions, begun).run()
        assert len(peer.sent) == 6
        assert asked == [("t", "t")] * 5 + [("u", "u")]  # a connection may have 128, and each costs all others time


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("source", ["memory", "outbox", "rows"])
async def test_a_reading_that_waits_for_its_peer_holds_nothing(tmp_path: Path, source: str, refused: bool) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer(takes=1)
        subscription, begun = live.subscribe(peer, Wish(live_set=source == "rows")), live.hub.position.id
        await live.write(FILL.format(first=1, last=200, value="printf('%.*c', 9000, 'x')"))
        peer.refusing = refused
        if source == "outbox":
            live.hub.recent.forget(live.hub.position.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.reading(peer, subscription, begun, scan=source == "rows").run)
            await peer.awaited.wait()
            live.hub.recent.forget(live.hub.position.id)
            all_at_once = threading.Barrier(READERS)
            async with trio.open_nursery() as others:  # a connection's thread holds what it has given last
                for _ in range(READERS):
                    others.start_soon(live.store.read, lambda db: all_at_once.wait())
            gc.collect()
            assert not [each for each in gc.get_objects() if isinstance(each, (Told, Page, RowsPage))]
            peer.take(float("inf"))
        assert sorted(event["Key"][0] for event in peer.sent) == list(range(1, 201))


@pytest.mark.parametrize("scan", [False, True])
async def test_who_unsubscribes_while_something_is_read_is_sent_nothing_of_it(tmp_path: Path, scan: bool) -> None:
    async with served(tmp_path / "a.db") as live:
        await live.write(FILL.format(first=1, last=2000, value="1"))
        live.hub.recent.forget(live.hub.position.id)
        peer = live.peer()
        subscription = live.subscribe(peer, Wish(live_set=scan))
        held = threading.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(READERS):
                nursery.start_soon(live.store.read, lambda db: held.wait())
            nursery.start_soon(live.reading(peer, subscription, 0, scan=scan).run)
            await wait_all_tasks_blocked()  # the reading stands in line for a connection
            live.hub.unsubscribe(subscription)
            held.set()
        assert (peer.sent, peer.told) == ([], [])


async def test_who_is_trimmed_under_is_ended_but_a_snapshot_is_told(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        await live.write(FILL.format(first=1, last=3000, value="printf('%.*c', 500, 'x')"))
        after, scanning = live.peer(takes=1), live.peer(takes=1)
        live_set = live.subscribe(scanning, Wish(live_set=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.reading(after, live.subscribe(after), 0).run)
            nursery.start_soon(live.reading(scanning, live_set, 0, scan=True).run)
            for peer in (after, scanning):
                await peer.awaited.wait()
            await live.write("UPDATE t SET v = 2")
            highest = live.hub.position.id
            await live.store.commit(lambda db: retention.trim(db, highest, highest))
            live.hub.recent.forget(highest)
            for peer in (after, scanning):
                peer.take(float("inf"))
        assert after.ended is CloseCode.POSITION_LOST
        assert [(each["EventType"], each["EventData"].get("reason")) for each in scanning.told] == [
            ("resync", "overrun"),
            ("live", None),
        ]
        assert len({event["Key"][0] for event in scanning.sent}) == 3000


@pytest.mark.parametrize("scan", [False, True])
async def test_who_unsubscribes_while_that_is_found_out_is_not_told(tmp_path: Path, scan: bool) -> None:
    async with served(tmp_path / "a.db") as live:
        await live.write(FILL.format(first=1, last=2000, value="1"))
        highest = live.hub.position.id
        await live.store.commit(lambda db: retention.trim(db, highest, highest))
        live.hub.recent.forget(highest)
        peer = live.peer()
        subscription = live.subscribe(peer, Wish(live_set=scan))
        held = threading.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(READERS):
                nursery.start_soon(live.store.read, lambda db: held.wait())
            await wait_all_tasks_blocked()
            nursery.start_soon(live.reading(peer, subscription, 0, scan=scan)._from_outbox)
            await wait_all_tasks_blocked()  # the reading stands in line for a connection
            live.hub.unsubscribe(subscription)
            held.set()
        assert (peer.told, peer.ended) == ([], None)


async def test_who_is_trimmed_under_goes_on_from_memory_as_long_as_that_goes_back_as_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WORTH_ASKING", 5)
    async with served(tmp_path / "a.db") as live:
        begun = live.hub.position.id
        await live.write(FILL.format(first=1, last=20, value="n.i % 2"))
        highest = live.hub.position.id
        await live.store.commit(lambda db: retention.trim(db, highest, highest))
        peer = live.peer()
        await live.reading(peer, live.subscribe(peer, Wish({"v": 1})), begun).run()
        assert ids(peer.sent) == list(range(1, 21, 2))
        assert (peer.ended, [event["EventType"] for event in peer.told]) == (None, ["live"])


async def test_a_snapshot_is_not_live_before_the_hub_has_come_to_its_last_page(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        await live.write(FILL.format(first=1, last=600, value="1"))
        peer = live.peer(takes=1)
        subscription = live.subscribe(peer, Wish(live_set=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.reading(peer, subscription, 0, scan=True).run)
            await peer.awaited.wait()
            live.file.writer.execute("UPDATE t SET v = 2")  # of which nobody has told the tail
            peer.take(float("inf"))
            while len(peer.sent) < 600:
                await trio.lowlevel.checkpoint()
            await live.caught_up()
        (notice,) = peer.told
        assert notice["EventData"]["EventId"] == live.hub.position.id
        held = {event["Key"][0]: event["EventData"]["v"] for event in peer.sent}
        assert held == dict.fromkeys(range(1, 601), 2)


async def follow_own_rows(live: Served) -> tuple[Peer, Subscription]:
    """Have rows of ``t`` be of whom ``v`` names, and one follow hers; the tail then waits until it is told."""
    owners = Guarded(Verb.PEEK | Verb.READ << OWNER_SHIFT)
    live.hub.access._granted = {"t": TableGrant("t", TableKind.PLAIN, owners, owner_column="v")}
    await live.write("INSERT INTO u VALUES(1, 0)")  # 1
    await wait_all_tasks_blocked()
    peer = Peer(Reader(Principal("server", "ann", admin=False, expires_at=float("inf")), frozenset()))
    return peer, live.subscribe(peer, Wish(live_set=True))


async def test_a_row_of_a_snapshot_leaves_it_though_the_tail_sees_with_one_look_how_it_came_and_how_it_went(
    tmp_path: Path,
) -> None:
    async with served(tmp_path / "a.db") as live:
        peer, subscription = await follow_own_rows(live)
        live.file.writer.execute("INSERT INTO t VALUES(1, 'ann')")  # of which nobody has told the tail
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.reading(peer, subscription, 0, scan=True).run)
            while not peer.sent:
                await trio.lowlevel.checkpoint()
            await live.write("UPDATE t SET v = 'bob'")
        assert [(event["EventType"], event["Key"]) for event in peer.sent] == [("snapshot", [1]), ("delete", [1])]


async def test_a_page_that_was_read_in_the_midst_of_what_the_tail_decides_on_as_one_parts_that_for_its_reader_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOOK_ROWS", "GLANCE_ROWS"):
        monkeypatch.setattr(look, name, 2)
    async with served(tmp_path / "a.db") as live:
        await live.write("INSERT INTO t VALUES(1, 'ann')")  # 1
        ann, falls_behind = await follow_own_rows(live)  # 2
        falls_behind.position = 2
        live.hub.attach(falls_behind)
        bob = Peer(Reader(Principal("server", "bob", admin=False, expires_at=float("inf")), frozenset()))
        comes = live.subscribe(bob, Wish(live_set=True))
        store, see, read = live.store, live.store.look, live.store.read
        was_read, goes_on = trio.Event(), trio.Event()

        async def look_on(*asked: Any) -> Any:
            if live.hub.position.id == 4 and falls_behind.position is None:
                live.hub.detach(falls_behind)
            return await see(*asked)

        async def read_late(work: Callable[[sqlite3.Connection], Any], **how: bool) -> Any:
            found = await read(work, **how)
            if isinstance(found, tuple) and isinstance(found[0], RowsPage) and not was_read.is_set():
                was_read.set()
                await goes_on.wait()
            return found

        monkeypatch.setattr(store, "look", look_on)
        monkeypatch.setattr(store, "read", read_late)
        live.file.writer.execute("UPDATE t SET id = 2")  # 4: all that the first look brings
        live.file.writer.execute("UPDATE t SET v = 'bob'")  # 6
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.reading(bob, comes, 2, scan=True).run)
            await was_read.wait()
            await live.write("DELETE FROM t")  # 7: the tail decides on 3 to 7 as one
            goes_on.set()
        assert [(event["EventType"], event.get("EventId")) for event in bob.sent] == [("snapshot", None), ("delete", 7)]
        await live.reading(ann, falls_behind, 4).run()
        # That it is gone she was told when the first look had brought the first of all that has been done to it.
        assert [(event["EventType"], event["EventId"]) for event in ann.sent] == [("delete", 4)]


async def test_a_page_that_was_read_there_is_gone_on_from_up_to_the_end_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "a.db") as live:
        hub, publish, coming = live.hub, Hub.publish, Commits.coming
        monkeypatch.setattr(hub, "publish", partial(publish, hub, turn_s=0))  # one event a turn
        peer, subscription = await follow_own_rows(live)
        live.file.writer.execute("INSERT INTO t VALUES(1, 'ann')")  # 2
        live.file.writer.execute("INSERT INTO u VALUES(2, 0)")  # 3
        shape = next(each for each in hub.tables() if each.table == "t")
        condition = hub.rows_of(subscription, shape)
        page = await live.store.read(lambda db: snapshot.page(db, shape, condition, snapshot.Place()))
        monkeypatch.setattr(snapshot, "page", lambda *_, **__: page)
        turns = 0

        async def come(commits: Commits, events: Sequence[Told], *others: Any) -> Course:
            nonlocal turns
            turns += 1
            if turns == 2:  # what comes up to 5 is decided on, and a part of it delivered
                nursery.start_soon(live.reading(peer, subscription, 1, scan=True).run)
                await wait_all_tasks_blocked()
            return await coming(commits, events, *others)

        monkeypatch.setattr(Commits, "coming", come)
        async with trio.open_nursery() as nursery:
            await live.write("UPDATE t SET v = 'bob'")  # 5
        assert [(event["EventType"], event["Key"]) for event in peer.sent] == [("snapshot", [1]), ("delete", [1])]


async def test_who_was_read_for_up_to_there_is_live_though_nothing_is_to_be_told_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "a.db") as live:
        await live.write("INSERT INTO t VALUES(1, 1)")  # 1
        await wait_all_tasks_blocked()
        live.file.writer.execute("INSERT INTO t VALUES(2, 2)")  # 2: of which nobody has told the tail
        peer, read = live.peer(), live.store.read

        async def read_late(work: Callable[[sqlite3.Connection], Any], **how: bool) -> Any:
            found = await read(work, **how)
            if isinstance(found, tuple) and isinstance(found[0], RowsPage):
                await live.write("REPLACE INTO t VALUES(1, 1)")  # 4: the tail decides on 2 to 4, and it is no event
            return found

        monkeypatch.setattr(live.store, "read", read_late)
        subscription = live.subscribe(peer, Wish(live_set=True))
        with trio.fail_after(5):
            await live.reading(peer, subscription, 1, scan=True).run()
        assert [event["EventType"] for event in peer.came] == ["snapshot", "snapshot", "live"]


def reach_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nine rows in a look, and a reach of a hundred ids about it."""
    back = 100 - (commits.REACH - commits.BACK) * 9 // look.LOOK_ROWS
    for module, name, value in (
        (look, "LOOK_ROWS", 9), (look, "GLANCE_ROWS", 9), (commits, "REACH", 100), (commits, "BACK", back),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


async def test_a_row_that_a_long_transaction_gives_and_takes_away_again_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach_less(monkeypatch)
    async with served(tmp_path / "a.db") as live:
        peer, subscription = await follow_own_rows(live)
        subscription.position = live.hub.position.id
        live.hub.attach(subscription)
        # From the one to the other it is 61 to 120 ids: within reach, beyond it, and at its border.
        await live.write("BEGIN", FILL.format(first=1, last=60, value="'ann'"), "UPDATE t SET v = 'bob'", "COMMIT")
        held = {}
        for event in peer.sent:
            held[event["Key"][0]] = event["EventType"]
        assert set(held.values()) == {"delete"}


async def test_nor_does_one_that_it_gives_another_key_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach_less(monkeypatch)
    async with served(tmp_path / "a.db") as live:
        await live.write("INSERT INTO t VALUES(1, 'bob')")
        peer, subscription = await follow_own_rows(live)
        subscription.position = live.hub.position.id
        live.hub.attach(subscription)
        between = [FILL.format(first=first, last=first + 9, value="'cid'") for first in (10, 20, 30)]
        await live.write(
            "BEGIN", "UPDATE t SET v = 'ann' WHERE id = 1", between[0], "UPDATE t SET id = 2 WHERE id = 1", between[1],
            "UPDATE t SET v = 'bob' WHERE id = 2", between[2], "DELETE FROM t WHERE id = 2", "COMMIT",
        )  # fmt: skip
        held = set()
        for event in peer.sent:
            held.discard((event.get("OldKey") or event["Key"])[0])
            if event["EventType"] != "delete":
                held.add(event["Key"][0])
        assert (held, peer.told) == (set(), [])


async def test_who_falls_behind_in_the_midst_of_such_a_transaction_is_told_that_rows_may_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach_less(monkeypatch)
    async with served(tmp_path / "a.db") as live:
        peer, subscription = await follow_own_rows(live)
        subscription.position = live.hub.position.id
        live.hub.attach(subscription)
        see, left = live.store.look, 0

        async def look_on(*asked: Any) -> Any:
            nonlocal left
            if live.hub.position.id > 62 and not left:
                left = live.hub.position.id
                live.hub.detach(subscription)
            return await see(*asked)

        monkeypatch.setattr(live.store, "look", look_on)
        await live.write("BEGIN", FILL.format(first=1, last=60, value="'ann'"), "UPDATE t SET v = 'bob'", "COMMIT")
        await live.reading(peer, subscription, left).run()
        assert "create" in [event["EventType"] for event in peer.sent]
        assert [event["EventData"].get("reason") for event in peer.told] == ["overrun", None]


async def test_who_comes_to_the_hub_in_the_midst_of_such_a_transaction_is_read_for_up_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (look, "LOOK_ROWS", 9), (look, "GLANCE_ROWS", 9), (commits, "REACH", 100), (commits, "BACK", 82),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    async with served(tmp_path / "a.db") as live, trio.open_nursery() as nursery:
        peer, subscription = await follow_own_rows(live)
        begun, see, fed = live.hub.position.id, live.store.look, list[bool]()

        async def look_on(*asked: Any) -> Any:
            if live.hub.position.id > 62 and not fed:
                nursery.start_soon(live.reading(peer, subscription, begun).run)
                await wait_all_tasks_blocked()
                fed.append(subscription.position is None)
            return await see(*asked)

        monkeypatch.setattr(live.store, "look", look_on)
        await live.write("BEGIN", FILL.format(first=1, last=60, value="'ann'"), "UPDATE t SET v = 'bob'", "COMMIT")
        with trio.fail_after(5):
            while subscription.position is not None:
                await trio.lowlevel.checkpoint()
        assert (fed, peer.sent) == ([False], [])


async def test_what_is_written_while_a_look_is_delivered_is_not_taken_for_a_part_of_what_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOOK_ROWS", "GLANCE_ROWS"):
        monkeypatch.setattr(look, name, 2)
    async with served(tmp_path / "a.db") as live:
        peer, subscription = await follow_own_rows(live)
        subscription.position = live.hub.position.id
        live.hub.attach(subscription)
        hub, publish = live.hub, Hub.publish
        later = ["UPDATE t SET v = 'bob'"]  # 6

        def deliver(*look: Any) -> int:
            if later:
                live.file.writer.execute(later.pop())
            return publish(hub, *look)

        monkeypatch.setattr(hub, "publish", deliver)
        live.file.writer.execute("INSERT INTO t VALUES(1, 'ann')")  # 2
        live.file.writer.execute("INSERT INTO u VALUES(2, 0)")  # 3
        live.file.writer.execute("INSERT INTO u VALUES(3, 0)")  # 4: seen by the first look, but not brought
        await live.caught_up()
        await live.hub.reached(6)
        assert [(event["EventType"], event["EventId"]) for event in peer.sent] == [("create", 2), ("delete", 6)]


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_reading_that_comes_to_the_hub_in_the_midst_of_what_counts_as_one_decides_as_the_tail_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    for name in ("LOOK_ROWS", "GLANCE_ROWS"):
        monkeypatch.setattr(look, name, 2)
    async with served(tmp_path / "a.db") as live:
        await live.write("INSERT INTO t VALUES(1, 'bob')")  # 1
        peer, subscription = await follow_own_rows(live)  # 2
        store, seen = live.store, live.store.look

        async def look_on(*asked: Any) -> Any:
            if live.hub.position.id == 4 and subscription.position is not None:
                if not remembered:
                    live.hub.recent.forget(4)
                await live.reading(peer, subscription, 2).run()  # to the end: it is fed from 4 on
            return await seen(*asked)

        monkeypatch.setattr(store, "look", look_on)
        live.file.writer.execute("UPDATE t SET v = 'ann'")  # 4: all that the first look brings
        live.file.writer.execute("INSERT INTO t VALUES(2, 'ann')")  # 5
        live.file.writer.execute("DELETE FROM t WHERE id = 1")  # 6
        await live.caught_up()
        held = set()
        for event in peer.sent:
            (held.discard if event["EventType"] == "delete" else held.add)(event["Key"][0])
        assert held == {2}


@pytest.mark.parametrize("remembered", [True, False])
async def test_who_holds_rows_is_told_where_too_much_has_happened_to_them_for_certainty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    monkeypatch.setattr(beside, "PAGES", -9)
    async with served(tmp_path / "a.db") as live:
        peer, subscription = await follow_own_rows(live)
        begun = live.hub.position.id
        if remembered:  # by the tail, of which a look brings less than a transaction
            monkeypatch.setattr(look, "LOOK_ROWS", 10)
            monkeypatch.setattr(look, "GLANCE_ROWS", 10)
            live.hub.attach(subscription)
        await live.write("BEGIN", FILL.format(first=1, last=15, value="'ann'"), "COMMIT")
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
            await live.reading(peer, subscription, begun).run()
        assert {event["EventData"].get("reason") for event in peer.told} - {None} == {"overrun"}


async def test_who_was_away_for_seconds_is_served_without_a_question_to_sqlite(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        begun = live.hub.position.id
        await live.write(FILL.format(first=1, last=20, value="1"))
        peers = [live.peer() for _ in range(500)]
        held = threading.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(READERS):
                nursery.start_soon(live.store.read, lambda db: held.wait())  # whoever asks would wait for this
            async with trio.open_nursery() as resuming:
                for peer in peers:
                    resuming.start_soon(live.reading(peer, live.subscribe(peer), begun).run)
            held.set()
        assert all(ids(peer.sent) == list(range(1, 21)) for peer in peers)


async def test_what_the_tail_has_read_is_not_looked_through_for_another_table(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        live.file.writer.execute("CREATE TABLE quiet(id INTEGER PRIMARY KEY)")
        await live.write(FILL.format(first=1, last=BLOCK, value="1"))
        while (quiet := live.hub.table("quiet")) is None:
            await trio.lowlevel.checkpoint()
        await live.write("INSERT INTO quiet VALUES(1)", FILL.format(first=2 * BLOCK, last=6 * BLOCK, value="1"))
        live.hub.recent.forget(live.hub.position.id)
        left = live.store.contents.stretches(0, live.hub.position.id, ((quiet.id, ()),))
        assert sum(last - begun for begun, last in left) <= 2 * BLOCK  # the one with the row, and one that has no end
        peer = live.peer()
        subscription = live.hub.subscribe(peer, "quiet", Wish())
        await live.reading(peer, subscription, 0).run()
        assert (ids(peer.sent), [event["EventType"] for event in peer.told]) == ([1], ["live"])


async def test_what_a_server_has_read_is_not_looked_through_by_the_next_one_either(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        await live.write(FILL.format(first=1, last=BLOCK, value="1"), "INSERT INTO u VALUES(1, 1)")
        await live.write(FILL.format(first=2 * BLOCK, last=6 * BLOCK, value="1"))
        quiet, filled, end = live.hub.table("u"), live.hub.table("t"), live.hub.position.id
    assert quiet is not None
    assert filled is not None
    async with open_bridge(), open_store(StoreSettings(tmp_path / "a.db", Secrecy((), ()))) as store:
        left = partial(store.contents.stretches, 0, end)
        assert sum(last - begun for begun, last in left(((quiet.id, ()),))) <= 2 * BLOCK
        assert list(left(((filled.id, (one_of(1, [7]),)),))) == [(0, end)]  # of values nothing is known


async def test_what_was_written_before_the_start_is_surveyed_once_and_then_not_looked_through(tmp_path: Path) -> None:
    before = (
        FILL.format(first=1, last=3 * BLOCK, value="i"),
        "INSERT INTO u VALUES(1, 5)",
        FILL.format(first=3 * BLOCK + 1, last=5 * BLOCK, value="i"),
        "DELETE FROM _appliance_outbox WHERE id <= 700",
    )
    async with served(tmp_path / "a.db", *before) as live:
        quiet, filled = live.hub.table("u"), live.hub.table("t")
        assert quiet is not None
        assert filled is not None
        begun = live.hub.position.id
        left = partial(live.store.contents.stretches, 700, begun)
        assert list(left(((quiet.id, ()),))) == [(700, begun)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(survey, live.store, begun)
            # Beside it the tail takes note of what comes.
            await live.write(FILL.format(first=5 * BLOCK + 1, last=8 * BLOCK, value="i"))
        for sought in ((quiet.id, ()),), ((filled.id, (one_of(1, [2000]),)),):
            stretches = left(sought)
            assert sum(last - after for after, last in stretches) <= 2 * BLOCK  # the one with it, and the last
        assert not list(live.store.contents.stretches(6 * BLOCK, 7 * BLOCK, ((quiet.id, ()),)))
        peer = live.peer()
        await live.reading(peer, live.hub.subscribe(peer, "u", Wish()), 700).run()
        assert (ids(peer.sent), [event["EventType"] for event in peer.told]) == ([1], ["live"])


async def test_a_survey_waits_while_nothing_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.live.upkeep.survey.RETRY_S", 0)
    async with served(tmp_path / "a.db", FILL.format(first=1, last=2 * BLOCK, value="i")) as live:
        read, failures = live.store.read, ["disk I/O error"] * 3

        async def failing(work: Callable[[sqlite3.Connection], Any], **how: bool) -> Any:
            if failures:
                raise sqlite3.OperationalError(failures.pop())
            return await read(work, **how)

        monkeypatch.setattr(live.store, "read", failing)
        begun = live.hub.position.id
        await survey(live.store, begun)
        assert not failures
        left = live.store.contents.stretches(0, begun, ((0, ()),))
        assert sum(last - after for after, last in left) <= BLOCK


@pytest.mark.parametrize("fails", [False, True])
async def test_events_of_a_new_shape_come_after_their_resync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer()
        live.hub.attach(live.subscribe(peer))
        synchronise, failures = live.store.synchronise, ["disk I/O error"] if fails else []

        async def failing_once() -> Catalog:
            if failures:
                raise sqlite3.OperationalError(failures.pop())
            return await synchronise()

        monkeypatch.setattr(live.store, "synchronise", failing_once)
        live.file.writer.execute("INSERT INTO t VALUES(1, 'of the old shape')")
        live.file.writer.execute("ALTER TABLE t ADD COLUMN w")
        live.file.synchronise()  # as another process does that migrates, before the tail looks
        live.file.writer.execute("INSERT INTO t VALUES(2, 'of the new shape', 0)")
        await live.caught_up()
        assert [event["EventType"] for event in peer.came] == ["create", "resync", "create"]
        assert [event["EventData"].get("w", "none") for event in peer.sent] == ["none", 0]


@pytest.mark.parametrize("made_anew", [False, True])
async def test_who_is_behind_is_told_of_a_new_shape_behind_what_happened_before_it(
    tmp_path: Path, made_anew: bool
) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer(takes=1)
        reading = live.reading(peer, live.subscribe(peer), live.hub.position.id)
        await live.write(FILL.format(first=1, last=60, value="printf('%.*c', 50000, 'x')"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading.run)
            await peer.awaited.wait()
            former = live.hub.table("t")
            anew = ("DROP TABLE t", "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)")
            await live.write("BEGIN", *(anew if made_anew else ("ALTER TABLE t ADD COLUMN w",)), "COMMIT")
            while live.hub.table("t") == former:
                await trio.lowlevel.checkpoint()
            await live.write("INSERT INTO t VALUES(61, 0, 0)")
            assert len(peer.came) < 60
            peer.take(float("inf"))
        assert [event["EventType"] for event in peer.came] == [*["create"] * 60, "resync", "create", "live"]


async def test_a_notice_that_stands_before_another_that_came_first_takes_the_place_of_none(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer()
        subscription = live.subscribe(peer)
        for topic, position in (("later", 3), ("first", 2)):
            subscription.notify(notices.because(notices.RESYNC, topic, "schema"), position)
        for position in (1, 2, 3, 4):
            subscription.read_upto(position)
        assert [notice["ObjectType"] for notice in peer.told] == ["first", "later"]


async def test_what_a_trim_has_left_of_an_event_is_lost_with_it_and_told(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        live.file.writer.execute(f"CREATE TABLE wide({', '.join(f'c{number}' for number in range(2 * WIDTH))})")
        await live.write("INSERT INTO t VALUES(1, 1)")
        while live.hub.table("wide") is None:
            await trio.lowlevel.checkpoint()
        live.hub.add_topic(Topic("fleeting", durable=False, permission=0, owner=None), live.hub.generation + 1)
        peer, other = live.peer(), live.peer()
        live.hub.attach(live.hub.subscribe(peer, "wide", Wish()))
        live.hub.attach(live.hub.subscribe(other, "fleeting", Wish()))
        begun = live.hub.position.id
        live.file.writer.execute("INSERT INTO wide(c0) VALUES(1)")  # two rows of the outbox, of which one is trimmed
        live.file.writer.execute("DELETE FROM _appliance_outbox WHERE id <= ?", (begun + 1,))
        await live.write("INSERT INTO wide(c0) VALUES(2)")
        assert [event["EventType"] for event in peer.came] == ["resync", "create"]
        assert live.hub.counters.unreadable_rows == 0
        assert other.came == []  # nothing of what is not kept was lost


@pytest.mark.parametrize("locked", [False, True])
async def test_a_row_that_nobody_can_read_holds_no_reading_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    monkeypatch.setattr(reading, "RETRY_S", 0)
    async with served(tmp_path / "a.db") as live:
        await live.write("INSERT INTO t VALUES(1, 1)", "INSERT INTO _appliance_outbox(shape, op) VALUES(999, 1)",
                         "INSERT INTO t VALUES(2, 2)")  # fmt: skip
        live.hub.recent.forget(live.hub.position.id)
        read_shapes, failures = live.store.read_shapes, [Unavailable("by another program")] if locked else []

        async def locked_once() -> Mapping[int, Shape]:
            if failures:
                raise failures.pop()
            return await read_shapes()

        monkeypatch.setattr(live.store, "read_shapes", locked_once)
        peer = live.peer()
        await live.reading(peer, live.subscribe(peer), 0).run()
        assert ids(peer.sent) == [1, 2]
        assert not failures
