from __future__ import annotations

import socket
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from appliance.errors import CloseCode
from appliance.live.fanout import handing
from appliance.live.fanout.handing import hand_out
from appliance.live.fanout.hub import STRETCH
from appliance.live.fanout.subscribers import Subscription
from appliance.live.matching.access import Reader
from appliance.live.matching.audience import Wish
from appliance.live.matching.readership import Members
from appliance.live.wire.frames import close_frame, text_frame
from appliance.live.wire.sending import OUTGOING_LIMIT
from tests.live.replay.test_reading import ADMINISTRATOR, Peer, served
from tests.live.wire.test_outgoing import Contexts, Pair, contexts, opened

__all__ = ["contexts"]
SMALL = [text_frame(b"event %d" % number) for number in range(4)]
BIG = text_frame(bytes(100_000))


@pytest.fixture(params=["each", "lane"], autouse=True)
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all members have a lane, or none."""
    monkeypatch.setattr(handing, "MANY", 1 if request.param == "lane" else 1000)


def these(*subscriptions: Subscription) -> Members[Subscription]:
    members = Members[Subscription]()
    for each in subscriptions:
        members.feed(each)
    return members


class Client:
    """A receiver with a connection of its own, as a session is one."""

    reader = Reader(ADMINISTRATOR, frozenset())

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.way = pair.outgoing
        self.behind = 0
        self.left: Counter[str] = Counter()

    def deliver(self, frames: bytes) -> bool:
        return self.way.offer(frames)

    def fall_behind(self) -> None:
        self.behind += 1

    def missed(self, topic: str, count: int) -> None:
        self.left[topic] += count

    def tell(self, frame: bytes) -> None:
        raise AssertionError(frame)

    def forget(self, topic: str) -> None:
        raise AssertionError(topic)

    def follow(self, topic: str) -> Subscription:
        return Subscription(self, topic, Wish(), None)

    async def got(self, frames: bytes) -> bool:
        return await self.pair.read(len(frames)) == frames


async def several(stack: AsyncExitStack, contexts: Contexts | None, count: int = 3) -> list[Client]:
    return [Client(await stack.enter_async_context(opened(contexts))) for _ in range(count)]


async def test_idle_sockets_are_written_at_once(contexts: Contexts | None) -> None:
    async with AsyncExitStack() as stack:
        clients = await several(stack, contexts)
        everybody = these(*[each.follow("notes") for each in clients])
        before = [each.way.sent for each in clients]
        hand_out([("all", everybody, SMALL[0]), ("all", everybody, SMALL[1])])
        for each, sent in zip(clients, before, strict=True):
            assert (each.way.sent - sent, each.way.delivered, each.pair.started) == (len(SMALL[0] + SMALL[1]), 1, 0)
            assert await each.got(SMALL[0] + SMALL[1])


async def test_each_gets_all_of_its_own_in_order_at_one_stroke(contexts: Contexts | None) -> None:
    async with AsyncExitStack() as stack:
        one, both, other = await several(stack, contexts)
        notes = these(one.follow("notes"), both.follow("notes"))
        rooms = these(both.follow("rooms"), other.follow("rooms"))
        hand_out([("n", notes, SMALL[0]), ("r", rooms, SMALL[1]), ("n", notes, SMALL[2]), ("r", rooms, SMALL[3])])
        for client, frames in ((one, SMALL[0] + SMALL[2]), (both, b"".join(SMALL)), (other, SMALL[1] + SMALL[3])):
            assert client.way.delivered == 1
            assert await client.got(frames)


@pytest.mark.parametrize("passing", [False, True])
async def test_who_takes_no_more_goes_on_alone_and_nobody_else_waits(
    contexts: Contexts | None, *, passing: bool
) -> None:
    async with AsyncExitStack() as stack:
        quick, stopped, last = clients = await several(stack, contexts)
        topics = [each.follow(topic) for each in clients for topic in ("notes", "rooms")]
        notes, rooms = these(*topics[::2]), these(*topics[1::2])
        taken = 0
        while not (stopped.behind or stopped.left):
            hand_out([("n", notes, BIG), ("r", rooms, SMALL[0])], passing=passing)
            assert await quick.got(BIG + SMALL[0])
            assert await last.got(BIG + SMALL[0])
            taken += not (stopped.behind or stopped.left)
        assert (stopped.behind, dict(stopped.left)) == ((0, {"notes": 1, "rooms": 1}) if passing else (1, {}))
        assert 0 < stopped.way.unsent <= OUTGOING_LIMIT
        assert stopped.pair.started == 1
        # What was taken, the socket in part, is whole and in order, and what is said to it next comes behind.
        assert stopped.way.offer(SMALL[3], beyond=True)
        assert await stopped.got((BIG + SMALL[0]) * taken + SMALL[3])
        assert (quick.behind, last.behind, quick.left, last.left) == (0, 0, {}, {})
        # And it is written to at once again.
        await stopped.way.room(0)
        hand_out([("n", notes, SMALL[1])])
        assert stopped.way.unsent == 0
        assert await stopped.got(SMALL[1])


async def test_a_broken_connection_is_hung_up_on_and_nobody_else_notices(contexts: Contexts | None) -> None:
    async with AsyncExitStack() as stack:
        one, broken, other = clients = await several(stack, contexts)
        everybody = these(*[each.follow("notes") for each in clients])
        broken.pair.outgoing._carrier.raw.shutdown(socket.SHUT_WR)
        hand_out([("all", everybody, SMALL[0])])
        assert broken.way.closing
        assert await one.got(SMALL[0])
        assert await other.got(SMALL[0])


async def test_nothing_follows_a_close_frame(contexts: Contexts | None) -> None:
    async with AsyncExitStack() as stack:
        (client,) = await several(stack, contexts, 1)
        everybody = these(client.follow("notes"))
        await client.way.send_all(close_frame(CloseCode.NORMAL))
        hand_out([("all", everybody, SMALL[0])])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.way.aclose)
            assert await client.pair.read_all() == close_frame(CloseCode.NORMAL)


async def test_who_ends_while_his_socket_is_full_gets_whole_frames_and_the_close(contexts: Contexts | None) -> None:
    class Ended(Client):
        def deliver(self, frames: bytes) -> bool:
            self.behind += 1
            return True

    async with AsyncExitStack() as stack:
        client = Ended(await stack.enter_async_context(opened(contexts)))
        everybody = these(client.follow("notes"))
        while not (client.behind or client.way.begun or client.way.unsent):
            hand_out([("all", everybody, SMALL[0] * 100)])
        goodbye = close_frame(CloseCode.TOKEN_EXPIRED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.way.send_all, goodbye)
            nursery.start_soon(client.way.aclose)
            got = await client.pair.read_all()
        assert got.endswith(goodbye)
        assert got.removesuffix(goodbye) == SMALL[0] * (len(got) // len(SMALL[0]))


async def test_who_follows_many_topics_is_handed_no_more_at_a_stroke_than_who_follows_one(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        strokes: list[int] = []

        class Taking(Peer):
            def deliver(self, frames: bytes) -> bool:
                strokes.append(len(frames))
                return super().deliver(frames)

        peer = Taking(Reader(ADMINISTRATOR, frozenset()))
        for topic in ("t", "u"):
            live.hub.attach(live.hub.subscribe(peer, topic, Wish()))
        rows = [f"({number}, printf('%.*c', 20000, 'x'))" for number in range(20)]
        inserts = [f"INSERT INTO {table} VALUES{row}" for row in rows for table in ("t", "u")]
        await live.write("BEGIN", *inserts, "COMMIT")  # 400 kB of each table at one look
        assert [event["EventId"] for event in peer.sent] == list(range(1, 41))
        assert max(strokes) < STRETCH + 21_000
