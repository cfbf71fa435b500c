"""Random lanes: who comes and goes, whose socket is full, whose is broken; against what each should have got."""

from __future__ import annotations

import gc
import random
import socket
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio

from appliance.errors import CloseCode
from appliance.live.fanout import handing
from appliance.live.fanout.handing import hand_out
from appliance.live.fanout.lane import Lane
from appliance.live.fanout.subscribers import Subscribers, Subscription
from appliance.live.matching.access import Reader, Sight
from appliance.live.matching.audience import Wish
from appliance.live.matching.readership import Members
from appliance.live.wire.outgoing import Outgoing
from tests.live.replay.test_reading import ADMINISTRATOR

LIMIT = 500


class Carrier:
    """A socket that takes what it has room for. What it sends is in ``got``."""

    begun = 0
    buffered = False

    def __init__(self) -> None:
        self.raw, self._end = socket.socketpair()
        self.raw.setblocking(False)
        self.room = 1 << 30
        self.broken = False
        self.got = b""

    @property
    def straight(self) -> Carrier:
        return self

    def send(self, data: bytes) -> int:
        return self.write(data)

    def write(self, data: bytes | memoryview) -> int:
        if self.broken:
            raise BrokenPipeError
        taken = min(len(data), self.room)
        self.room -= taken
        self.got += data[:taken]
        return taken

    def write_several(self, pieces: Sequence[bytes | memoryview]) -> int:
        return self.write(b"".join(pieces))

    def read(self, max_bytes: int) -> bytes:
        raise NotImplementedError(max_bytes)

    def close(self) -> None:
        self.raw.close()
        self._end.close()


class Client:
    """A receiver: what it was handed, whether or not it has come yet, is ``due``."""

    reader = Reader(ADMINISTRATOR, frozenset())

    def __init__(self, nursery: trio.Nursery) -> None:
        self.carrier = Carrier()
        self.way = Outgoing(self.carrier, tasks=nursery, head=b"", limit=LIMIT)
        self.due = b""
        self.batches = 0
        self.refused = False

    def deliver(self, frames: bytes) -> bool:
        taken = self.way.offer(frames)
        self.way.delivered_alone += taken
        return taken

    def fall_behind(self) -> None:
        self.refused = True

    def missed(self, topic: str, count: int) -> None:
        raise AssertionError(topic, count)

    def tell(self, frame: bytes) -> None:
        raise AssertionError(frame)

    def forget(self, topic: str) -> None:
        raise AssertionError(topic)


@contextmanager
def closed(clients: list[Client]) -> Iterator[None]:
    try:
        yield
    finally:
        for each in clients:
            each.carrier.close()


@pytest.mark.parametrize("many", [1, 3, 1000])
@pytest.mark.parametrize("seed", range(40))
async def test_each_gets_what_it_was_handed_whoever_comes_and_goes(
    seed: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing, "MANY", many)
    chance = random.Random(seed)
    clients: list[Client] = []
    topics = [Members[Subscription]() for _ in range(3)]
    follows: dict[tuple[int, Client], Subscription] = {}
    with closed(clients):
        async with trio.open_nursery() as nursery:
            for number in range(600):
                act = chance.random()
                topic = chance.randrange(len(topics))
                if act < 0.05 and len(clients) < 12:
                    clients.append(Client(nursery))
                elif act < 0.25 and clients:
                    client = chance.choice(clients)
                    subscription = follows.pop((topic, client), None)
                    if subscription is not None:
                        topics[topic].leave(subscription)
                    elif not client.refused:
                        follows[topic, client] = Subscription(client, str(topic), Wish(), None)
                        topics[topic].feed(follows[topic, client])
                elif act < 0.4 and clients:
                    chance.choice(clients).carrier.room = chance.choice([0, 1, 50, 200, 1 << 30])
                elif act < 0.405 and clients:
                    chance.choice(clients).carrier.broken = True
                elif act < 0.41 and clients:
                    chance.choice(clients).way.hang_up(chance.choice([None, CloseCode.TOO_SLOW]))
                elif act < 0.55 and clients:
                    # What the task that waits for the socket does once there is room.
                    way = chance.choice(clients).way
                    try:
                        way._write()
                    except OSError:
                        way.hang_up()
                else:
                    told = [chance.randrange(len(topics)) for _ in range(chance.choice([1, 1, 1, 2]))]
                    frames = [b"<%d:%d>" % (number, each) * chance.randrange(1, 12) for each in told]
                    before = {each: each.way.closing for each in clients}
                    hand_out([(each, topics[each], frame) for each, frame in zip(told, frames, strict=True)])
                    for client in clients:
                        own = b"".join(f for each, f in zip(told, frames, strict=True) if (each, client) in follows)
                        if own and not client.refused and not before[client]:
                            client.due += own
                            client.batches += 1
                    for key in [key for key in follows if key[1].refused]:
                        topics[key[0]].leave(follows.pop(key))
                for client in clients:
                    if client.refused or client.way.closing:
                        continue
                    got = client.carrier.got
                    assert client.due.startswith(got)
                    assert len(got) + client.way.unsent == len(client.due)
                    if chance.random() < 0.1:  # and mostly nobody asks
                        assert (client.way.sent, client.way.delivered) == (len(got), client.batches)
            assert all(each.due.startswith(each.carrier.got) for each in clients)
            nursery.cancel_scope.cancel()


async def test_no_way_keeps_its_place_in_the_lane_of_a_topic_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing, "MANY", 1)
    async with trio.open_nursery() as nursery:
        client, subscribers = Client(nursery), Subscribers()
        with closed([client]):
            subscription = Subscription(client, "news", Wish(), 0)
            subscribers.join(subscription, None, client.reader, Sight.ALL)
            subscribers.feed(subscription)
            hand_out([("all", subscription.audience.members, b"frame")])
            assert client.way._places
            assert subscribers.forget("news") == [subscription]
            assert not client.way._places
        assert (client.way.sent, client.way.delivered) == (len(b"frame"), 1)


async def test_who_has_gone_is_held_by_no_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing, "MANY", 1)
    async with trio.open_nursery() as nursery:
        members = Members[Subscription]()
        stays, goes = Client(nursery), Client(nursery)
        with closed([stays, goes]):
            for client in (stays, goes):
                members.feed(Subscription(client, "notes", Wish(), None))
            hand_out([("all", members, b"frame")])
            assert isinstance(members.beside, Lane)
            members.leave(list(members)[1])
        gone = weakref.ref(goes.carrier)
        gc.disable()
        try:
            del client, goes
            assert gone() is None  # and no garbage collector was needed
        finally:
            gc.enable()
        assert stays.way.sent == len(b"frame")
