"""What of a session outlives it, and what of a subscription that its client has given up."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.errors import CloseCode, StoreUnusable
from appliance.live.matching.access import Access, Reader
from appliance.live.session import session
from appliance.live.wire.frames import text_frame
from appliance.model import Principal, Topic
from appliance.store.file import schema
from appliance.store.outbox import topics
from appliance.store.tables.making import NewColumn, create
from appliance.store.tables.standard import USERS, join_table
from tests.e2e.hostile import CLOSE, PONG, TEXT, frame, head
from tests.live.session.admitted import Admitted, admitted

T = TypeVar("T")
ROOM = Topic("room", durable=True, permission=0, owner="root")
#: Rows that are more than the socket of who reads nothing takes.
MANY = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO note(text, permission) SELECT printf('%.*c', 50000, 'x'), 2 FROM n"""
JOINS = f"INSERT INTO {join_table('user_account')}(user_account_id, usergroup_id) VALUES('ann', '{USERS}')"


def notes(db: sqlite3.Connection) -> None:
    create(db, "note", [NewColumn("text", "text")])
    db.execute("UPDATE world SET permission = 3 WHERE table_name = 'note'")
    db.execute("INSERT INTO user_account(reference_id, email) VALUES('ann', 'ann@example.com')")


@pytest.mark.parametrize("others", [False, True])
async def test_rights_that_change_while_a_connection_closes_bring_none_of_its_subscriptions_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    monkeypatch.setattr(session, "CLOSE_S", 600)
    async with (
        admitted(tmp_path / "a.db", notes, accounts=True) as live,
        live.connected("ann", admin=False) as ann,
        live.connected() as root,
    ):
        await ann.ask("subscribe", topic="note", filters={"text": {"startswith": "x"}})
        if others:
            await root.ask("subscribe", topic="note", filters={"text": "y"})
        await live.store.commit(lambda db: db.execute(MANY).fetchall())
        while not ann.session.way.unsent:
            await trio.lowlevel.checkpoint()
        ann.session.end(
            CloseCode.TOKEN_EXPIRED, "as it does by itself"
        )  # her Close waits behind what she does not read
        await live.store.commit(lambda db: db.execute(JOINS).fetchall())
        await live.hub.reached(await live.store.read(schema.highest))
        assert ann.session in live.backend.sessions.all()
        assert ann.session.reader.groups == {USERS}
        assert len(live.hub.subscribers.of("note")) == others


async def test_who_subscribes_anew_while_something_is_read_for_the_subscription_before_has_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        admitted(tmp_path / "a.db", lambda db: topics.create(db, ROOM)) as live,
        live.connected() as client,
    ):
        await live.hub.reached(await live.store.commit(lambda db: topics.publish(db, "room", "root", b'"first"')))
        live.hub.recent.forget(live.hub.position.id)
        free = held(live, monkeypatch)
        await client.ask("subscribe", topic="room", since=0, epoch=live.store.epoch)
        await wait_all_tasks_blocked()  # what came after 0 is being read
        live.hub.end_topic("room", *await live.store.commit(lambda db: topics.destroy(db, "room")))
        live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, ROOM)))
        await client.ask("unsubscribe", topic="room")
        await client.ask("subscribe", topic="room")
        free.set()
        while live.hub.shared._readings:
            await trio.lowlevel.checkpoint()
        await live.store.commit(lambda db: topics.publish(db, "room", "root", b'"second"'))
        told = await client.receive()
        assert (told["EventType"], told["EventData"]) == ("new-message", "second")
        assert (await client.ask("subscribe", topic="room"))["EventData"]["code"] == "already-subscribed"
        assert (await client.ask("unsubscribe", topic="room"))["EventType"] == "response"
        assert not live.hub.subscribers.of("room")


@pytest.mark.parametrize("again", [False, True])
async def test_a_topic_that_is_another_one_once_it_is_known_what_of_it_is_kept_is_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    async with (
        admitted(tmp_path / "a.db", lambda db: db.execute("CREATE TABLE t(a)")) as live,
        live.connected() as client,
    ):
        await live.store.commit(lambda db: db.execute("INSERT INTO t VALUES(1)").fetchall())
        live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, ROOM)))
        read = live.store.read

        async def read_before(work: Callable[[sqlite3.Connection], T], *, patient: bool = False) -> T:
            found = await read(work, patient=patient)
            if again and isinstance(found, int):  # which message was the last
                monkeypatch.undo()
                sent = await live.store.commit(lambda db: topics.publish(db, "room", "root", b'"lost"'))
                await live.hub.reached(sent)
                live.hub.end_topic("room", *await live.store.commit(lambda db: topics.destroy(db, "room")))
                live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, ROOM)))
            return found

        monkeypatch.setattr(live.store, "read", read_before)
        told = await client.ask("subscribe", topic="room", since=0, epoch=live.store.epoch)
        assert told["EventData"].get("code") == ("gap" if again else None)


async def test_who_is_ended_at_the_moment_at_which_it_would_subscribe_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with admitted(tmp_path / "a.db", lambda db: topics.create(db, ROOM)) as live, live.connected() as client:
        live.hub.recent.forget(live.hub.position.id + 1)
        read, asked = live.store.read, trio.Event()

        async def read_last(work: Callable[[sqlite3.Connection], T], *, patient: bool = False) -> T:
            found = await read(work, patient=patient)
            if isinstance(found, tuple) and isinstance(found[0], int):  # what is kept
                client.session.end(CloseCode.TOKEN_EXPIRED, "as it does by itself")
                asked.set()
            return found

        monkeypatch.setattr(live.store, "read", read_last)
        await client.send(
            {"method": "subscribe", "attributes": {"topic": "room", "since": 0, "epoch": live.store.epoch}}
        )
        await asked.wait()
        assert not live.hub.subscribers.of("room")


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), StoreUnusable("no room")])
async def test_a_store_that_cannot_be_read_just_now_ends_a_request_and_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with admitted(tmp_path / "a.db", lambda db: topics.create(db, ROOM)) as live, live.connected() as client:
        live.hub.recent.forget(live.hub.position.id + 1)
        with monkeypatch.context() as failing:
            failing.setattr(live.store, "read", raising(error))
            told = await client.ask("subscribe", topic="room", since=0, epoch=live.store.epoch)
            assert (told["ObjectType"], told["EventData"]["code"]) == ("subscribe", "unavailable")
            failing.setattr(live.store, "handed_out", raising(error))
            told = await client.ask("new-message", topic="room", message=1)
            assert (told["ObjectType"], told["EventData"]["code"]) == ("new-message", "unavailable")
        assert (await client.ask("subscribe", topic="room"))["EventType"] == "response"


async def test_who_comes_when_the_store_cannot_be_read_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with admitted(tmp_path / "a.db") as live:
        monkeypatch.setattr(live.store, "read", raising(sqlite3.OperationalError("disk I/O error")))
        client = await live.opened.connect()
        async with client.stream:
            await client.send(head(f"/live?token={live.token('root', admin=True)}"))
            status, _, body = await client.answer()
            assert (status, json.loads(body)["error"]["code"]) == (503, "unavailable")


async def test_who_cannot_be_looked_at_as_he_comes_in_is_nobody_s_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Access.reader

    async def renewed(access: Access, principal: Principal) -> Reader:
        found = await reader(access, principal)
        access.renewed += 1  # as when somebody's rights change at this moment
        return found

    async with admitted(tmp_path / "a.db") as live:
        monkeypatch.setattr(Access, "reader", renewed)
        monkeypatch.setattr(live.backend.rights, "renew_of", raising(sqlite3.OperationalError("disk I/O error")))
        client = await live.opened.connect()
        async with client.stream:
            await client.send(head(f"/live?token={live.token('root', admin=True)}"))
            assert (await client.rest()).startswith(b"HTTP/1.1 101 ")
        await live.opened.wait_for(0)
        assert not live.backend.sessions.all()


async def test_a_ping_has_not_come_to_who_still_takes_what_was_sent_before_it(tmp_path: Path) -> None:
    async with (
        admitted(tmp_path / "a.db", notes, accounts=True) as live,
        live.connected(receives=4096) as client,
    ):
        way, now = client.session.way, trio.current_time()
        assert way.offer(text_frame(b"x" * 150_000))
        assert way.unsent == 0  # it is the system's
        client.session.check(now + 30, 25, 10)
        assert client.session.pinged_at == now + 30
        for later, taken in ((40, 20_000), (50, 50_000)):
            await client.client.exactly(30_000)
            while way.sent - way.under_way < taken:
                await trio.lowlevel.checkpoint()
            client.session.check(now + later, 25, 10)
            assert client.session.ending is None
        while client.session.ending is None:  # now it takes no more, once its system has no room
            later += 10
            client.session.check(now + later - 1, 25, 10)
            assert client.session.ending is None
            client.session.check(now + later, 25, 10)
        assert client.session.ending == (CloseCode.TOO_SLOW, "no answer to a ping")


@pytest.mark.parametrize(("padding", "requests"), [(100_000, 1), (0, 200)])
async def test_who_is_not_listened_to_as_much_of_his_waits_to_be_answered_is_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: int, requests: int
) -> None:
    free = trio.Event()
    async with admitted(tmp_path / "a.db") as live, live.connected() as client:
        caught_up = live.tail.caught_up

        async def slow(**options: bool) -> None:
            await free.wait()
            await caught_up(**options)

        monkeypatch.setattr(live.tail, "caught_up", slow)
        # Not of ASCII, so that each is a message of the WebSocket library.
        asked = frame(TEXT, '{"method":"list-topic","id":"é"}'.encode() + b" " * padding)
        await client.client.send(asked * requests)
        await wait_all_tasks_blocked()
        now = trio.current_time()
        for later in (30, 40, 50, 90):
            client.session.check(now + later, 25, 10)
            await client.client.send(frame(PONG, b""))
            assert client.session.ending is None
        free.set()
        for _ in range(requests):
            assert (await client.receive())["ObjectType"] == "topic-list"
        while not client.session.way.listening:
            await trio.lowlevel.checkpoint()
        client.session.way.last_received = now
        for later in (30, 40):  # and now he is
            assert client.session.ending is None
            client.session.check(now + later, 25, 10)
        assert client.session.ending == (CloseCode.TOO_SLOW, "no answer to a ping")


@pytest.mark.parametrize("reads", [False, True])
async def test_who_is_not_listened_to_any_more_is_gone_once_its_session_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setattr(session, "CLOSE_S", 600 if reads else 0)
    async with admitted(tmp_path / "a.db") as live, live.connected(receives=4096) as client:
        monkeypatch.setattr(live.tail, "caught_up", trio.sleep_forever)
        way = client.session.way
        while not (reads or way.unsent):
            assert way.offer(text_frame(b"x" * 1_000_000))
        await client.client.send(frame(TEXT, b'{"method":"list-topic"}' + b" " * 100_000))
        while way.listening:
            await trio.lowlevel.checkpoint()
        client.session.end(CloseCode.TOKEN_EXPIRED, "as it does by itself")
        if reads:
            begin = await client.client.exactly(2)
            assert (await client.client.exactly(begin[1]))[:2] == int(CloseCode.TOKEN_EXPIRED).to_bytes(2, "big")
            await client.client.send(frame(CLOSE, b""))
        with trio.fail_after(60):
            await live.opened.wait_for(0)


@pytest.mark.parametrize("taken", [True, False])
async def test_connections_of_one_user_that_come_at_once_are_no_more_than_one_may_have(
    tmp_path: Path, taken: bool
) -> None:
    async with admitted(tmp_path / "a.db") as live, AsyncExitStack() as open_:
        live.backend.limits = replace(live.backend.limits, connections_per_user=3)
        clients = [await live.opened.connect() for _ in range(12)]
        for client in clients:
            await open_.enter_async_context(client.stream)
            await client.send(head(f"/live?token={live.token('ann')}"))
            if not taken:  # whoever goes again before he has come does not count
                await client.stream.aclose()
        if taken:
            answers = [(await client.until(b"\r\n\r\n"))[9:12] for client in clients]
            assert sorted(answers) == [b"101"] * 3 + [b"429"] * 9
            assert len(live.backend.sessions) == 3
        await open_.aclose()
        await live.opened.wait_for(0)
        assert live.backend.sessions.of(("live-appliance", "ann")) == 0


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*asked: Any, **options: Any) -> Any:
        raise error

    return fail


def held(live: Admitted, monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """Have what readings read wait until this is set."""
    free, read = trio.Event(), live.store.read

    async def waiting(work: Callable[[sqlite3.Connection], T], *, patient: bool = False) -> T:
        if patient:
            await free.wait()
        return await read(work, patient=patient)

    monkeypatch.setattr(live.store, "read", waiting)
    return free
