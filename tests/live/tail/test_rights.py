"""Rights that change: whose subscriptions are looked at again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.live.fanout.hub import Hub
from appliance.live.fanout.sessions import Sessions
from appliance.live.fanout.subscribers import Subscription
from appliance.live.matching.access import Access
from appliance.live.matching.audience import Wish
from appliance.live.matching.stale import EVERYTHING, Stale
from appliance.live.tail.rights import Rights
from appliance.protocol.permissions import GROUP_SHIFT, Verb
from appliance.protocol.values import ValueOptions
from appliance.store.access import granting
from appliance.store.file.bridge import open_bridge
from appliance.store.file.readers import READERS
from appliance.store.outbox import look
from appliance.store.store import StoreSettings, open_store
from appliance.store.tables.making import NewColumn, create
from appliance.store.tables.secrecy import Secrecy
from appliance.store.tables.standard import join_table
from tests.live.matching.test_facts import caught_up, peer
from tests.live.replay.test_reading import served
from tests.live.session.test_durable import NEXT_GENERATION
from tests.web.api import application


async def test_what_is_granted_on_a_table_concerns_its_subscribers_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_bridge(),
        open_store(StoreSettings(tmp_path / "a.db", Secrecy((), ()), busy_timeout_s=5, accounts=True)) as store,
    ):
        await store.commit_alone(lambda db: create(db, "note", [NewColumn("title", "text")]))
        access = Access(store)
        await access.read_grants()
        hub = Hub(await store.synchronise(), await store.position(), ValueOptions(), access)
        rights, asked = Rights(access, hub, Sessions()), []

        def subscriptions_to(topics: Iterable[str]) -> list[Subscription]:
            asked.append(set(topics))
            return []

        monkeypatch.setattr(hub, "subscriptions_to", subscriptions_to)

        async def after(work: Any) -> set[str]:
            await store.commit_alone(work)
            await rights.renew(Stale(tables=True))
            return asked.pop()

        assert await after(lambda db: create(db, "other", [NewColumn("title", "text")])) == {
            "other", "other_other_id_has_usergroup_usergroup_id",
        }  # fmt: skip
        assert await after(lambda db: granting.grant(db, "note", "users", granting.verbs(["create"]))) == {
            "note", "note_note_id_has_usergroup_usergroup_id",
        }  # fmt: skip
        assert await after(lambda db: db.execute("CREATE TABLE plain(a)")) == {"plain"}
        assert await after(lambda db: db.execute("DELETE FROM plain")) == set()
        assert await after(lambda db: db.execute("UPDATE world SET permission=0 WHERE table_name='other'")) == {
            "other", "other_other_id_has_usergroup_usergroup_id",
        }  # fmt: skip


@pytest.mark.parametrize("failing", [False, True])
async def test_rights_that_are_distrusted_while_a_look_is_delivered_are_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    async with served(tmp_path / "a.db") as live:
        renewed: list[Stale] = []
        handed_out = live.store.handed_out

        async def renew(stale: Stale = EVERYTHING) -> None:
            renewed.append(stale)
            if failing and len(renewed) == 1:
                raise sqlite3.OperationalError("disk I/O error")

        def once(*given: Any) -> None:
            monkeypatch.setattr(live.store, "handed_out", handed_out)
            live.tail.distrust()
            handed_out(*given)

        monkeypatch.setattr(live.tail._rights, "renew", renew)
        monkeypatch.setattr(live.store, "handed_out", once)
        await live.write("INSERT INTO t VALUES(1, 'a')")
        await live.tail.caught_up()
        with trio.fail_after(5):
            while len(renewed) < 1 + failing:
                await trio.lowlevel.checkpoint()
        assert renewed == [EVERYTHING] * (1 + failing)


@pytest.mark.parametrize(
    ("taken_up", "reading"),
    [("INSERT INTO _appliance_unwatched VALUES('nothing')", "synchronise"), ("SELECT 1", "read_settings")],
)
async def test_rights_that_a_command_changes_while_what_another_has_set_is_taken_up_are_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken_up: str, reading: str
) -> None:
    async with served(tmp_path / "a.db") as live:
        renewed: list[Stale] = []
        read, known = getattr(live.store, reading), []

        async def renew(stale: Stale = EVERYTHING) -> None:
            renewed.append(stale)

        async def between() -> Any:
            monkeypatch.setattr(live.store, reading, read)
            known.append(renewed.count(EVERYTHING))
            live.file.writer.execute(NEXT_GENERATION)  # as `token revoke` does, which leaves nothing in the outbox
            return await read()

        monkeypatch.setattr(live.tail._rights, "renew", renew)
        monkeypatch.setattr(live.store, reading, between)
        live.file.writer.execute(taken_up)
        live.file.writer.execute(NEXT_GENERATION)
        await live.write("INSERT INTO t VALUES(1, 'a')")
        with trio.fail_after(5):
            while not live.tail.has_all():
                live.tail.waking.wake()
                await trio.lowlevel.checkpoint()
        assert (known, renewed.count(EVERYTHING)) == ([1], 2)


async def test_what_is_delivered_is_not_for_whose_token_has_ended_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer()
        subscription = live.subscribe(peer)
        live.hub.attach(subscription)
        ended = []

        def end() -> None:
            ended.append(peer.sent[:])
            live.hub.unsubscribe(subscription)

        monkeypatch.setattr(live.tail._rights._sessions, "end_expired", end)
        await live.write("INSERT INTO t VALUES(1, 'a')")
        assert (ended, peer.sent) == ([[]], [])


async def test_rights_that_were_changed_by_events_that_are_lost_are_read_anew(tmp_path: Path) -> None:
    async with application.served(tmp_path / "a.db", tables={"todo": (NewColumn("title", "text"),)}) as live:
        with closing(sqlite3.connect(live.store.path, isolation_level=None)) as another:
            another.execute("BEGIN")
            another.execute("UPDATE world SET permission = 3 WHERE table_name = 'todo'")
            another.execute("INSERT INTO todo(title) VALUES('the rest of it')")
            # As a transaction does that is larger than what is kept.
            another.execute("DELETE FROM _appliance_outbox WHERE id < (SELECT max(id) FROM _appliance_outbox)")
            another.execute("COMMIT")
            ((highest,),) = another.execute("SELECT max(id) FROM _appliance_outbox").fetchall()
        await live.hub.reached(highest)
        assert live.hub.access.grant("todo").guarded.permission == 3


@asynccontextmanager
async def looking_no_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[application.Served]:
    """Serve a table whose tail sees nothing of what is written from now on."""
    async with application.served(path, tables={"todo": (NewColumn("title", "text"),)}) as live:

        async def look_never(*asked: Any) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(live.store, "look", look_never)
        live.sql("INSERT INTO todo(title) VALUES('the last that it sees')")
        yield live


async def newest(live: application.Served) -> int:
    ((found,),) = live.sql("SELECT max(id) FROM _appliance_outbox")
    return int(found)


async def test_up_to_where_rights_are_known_is_not_said_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with looking_no_more(tmp_path / "a.db", monkeypatch) as live:
        hub, read, known = live.hub, live.hub.access.read, []

        async def reading(*asked: Any, **options: Any) -> Any:
            known.append(hub.known_to)
            return await read(*asked, **options)

        monkeypatch.setattr(hub.access, "read", reading)
        before = hub.known_to
        live.sql("UPDATE world SET permission = 3 WHERE table_name = 'todo'")
        assert await Rights(hub.access, hub, Sessions()).renew_to(live.store, await newest(live))
        assert (known, hub.known_to) == ([before], await newest(live))


async def test_nobody_waits_for_rights_of_who_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with looking_no_more(tmp_path / "a.db", monkeypatch) as live:
        hub, renewed = live.hub, live.hub.access.renewed
        live.sql(f"DELETE FROM {join_table('user_account')}")
        assert not await Rights(hub.access, hub, Sessions()).renew_to(live.store, await newest(live))
        assert (hub.known_to, hub.access.renewed > renewed) == (await newest(live), True)


@pytest.mark.parametrize("live_set", [False, True])
async def test_who_comes_while_it_is_looked_whether_rights_have_changed_is_told_by_what_rows_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live_set: bool
) -> None:
    columns, renew_to = (NewColumn("text", "text"),), Rights.renew_to
    async with application.served(tmp_path / "a.db", tables={"todo": columns, "note": columns}) as live:
        hub, ann, has_come = live.hub, peer("ann", "staff"), False
        comes = "INSERT INTO todo(reference_id, permission) VALUES('r', 0)"
        if live_set:
            live.sql(comes)
            await caught_up(live)
        for topic in ("note", "todo")[: 1 + live_set]:
            hub.attach(hub.subscribe(peer("bob"), topic, Wish()))

        async def come(rights: Rights, *asked: Any) -> bool:
            nonlocal has_come
            renewed = await renew_to(rights, *asked)
            if not has_come:
                has_come = True
                hub.attach(hub.subscribe(ann, "todo", Wish(live_set=live_set)))
            return renewed

        monkeypatch.setattr(Rights, "renew_to", come)
        with closing(sqlite3.connect(live.store.path, isolation_level=None)) as another:
            another.execute("BEGIN")
            another.execute("INSERT INTO note(text) VALUES('a row that facts are read of')")
            if not live_set:
                another.execute(comes)
            another.execute(
                f"INSERT INTO {join_table('todo')}(todo_id, usergroup_id, permission) VALUES('r', 'staff', ?)",
                (Verb.READ << GROUP_SHIFT,),
            )
            another.execute("COMMIT")
        await caught_up(live)
        assert [(event["EventType"], event["Key"]) for event in ann.sent] == [("create", ["r"])]


async def test_live_events_of_rows_that_say_who_may_read_them_do_not_wait_for_those_who_read(tmp_path: Path) -> None:
    async with application.served(tmp_path / "a.db", tables={"todo": (NewColumn("text", "text"),)}) as live:
        ann, held = peer("ann"), threading.Event()
        live.hub.attach(live.hub.subscribe(ann, "todo", Wish()))
        async with trio.open_nursery() as nursery:
            for _ in range(READERS + 1):
                nursery.start_soon(live.store.read, lambda db: held.wait())
            await wait_all_tasks_blocked()
            try:
                live.sql("UPDATE world SET permission = permission | 2 WHERE table_name = 'todo'")
                live.sql("INSERT INTO todo(text, user_account_id) VALUES('hers', 'ann')")
                with trio.fail_after(5):
                    await caught_up(live)
            finally:
                held.set()
        assert [event["EventData"]["text"] for event in ann.sent] == ["hers"]


async def test_what_the_end_of_a_transaction_takes_away_ends_delivery_before_its_first_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOOK_ROWS", "GLANCE_ROWS"):
        monkeypatch.setattr(look, name, 2)
    async with application.served(tmp_path / "a.db", "CREATE TABLE plain(a)") as live:
        live.sql("UPDATE world SET permission = 3 WHERE table_name = 'plain'")
        await caught_up(live)
        ann = peer("ann")
        subscription = live.hub.subscribe(ann, "plain", Wish())
        live.hub.attach(subscription)
        with closing(sqlite3.connect(live.store.path, isolation_level=None)) as another:
            another.execute("BEGIN")
            for number in range(5):
                another.execute("INSERT INTO plain VALUES(?)", (number,))
            another.execute("UPDATE world SET permission = 0 WHERE table_name = 'plain'")
            another.execute("COMMIT")
        await caught_up(live)
        assert (ann.sent, subscription.ended) == ([], True)
