"""What decisions need beside the rows is read for all who are to be told, whenever they have come."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sized
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.live.fanout.subscribers import Subscription
from appliance.live.matching.access import Reader
from appliance.live.matching.audience import Wish
from appliance.live.matching.course import Course
from appliance.live.matching.facts import Facts
from appliance.live.matching.telling import Told
from appliance.live.replay import reading
from appliance.live.replay.reading import Reading
from appliance.live.tail.rights import Rights
from appliance.model import Change, Image, Op, Principal, Shape, SQLiteValue
from appliance.protocol.permissions import GROUP_SHIFT, Verb
from appliance.store.file.readers import READERS
from appliance.store.outbox import replay
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import USERS, join_table
from tests.live.replay.test_reading import Peer
from tests.web.api.application import Served, served


def peer(name: str, *groups: str) -> Peer:
    return Peer(Reader(Principal("us", name, admin=False, expires_at=float("inf")), frozenset((USERS, *groups))))


def created(number: int, shape: Shape | None) -> Change:
    assert shape is not None
    values: dict[str, SQLiteValue] = {"reference_id": "r", "permission": 0}
    return Change(number, Op.CREATE, shape, Image(tuple(values.get(each.name) for each in shape.columns)), None)


async def test_who_subscribes_while_facts_are_read_has_them_too(tmp_path: Path) -> None:
    columns = (NewColumn("text", "text"),)
    async with served(tmp_path / "a.db", tables={"todo": columns, "note": columns}) as live:
        hub, held = live.hub, threading.Event()
        course = Course(("todo", "note"), hub.access.grant)
        made = [Told(created(1, hub.table("todo"))), Told(created(2, hub.table("note")))]
        found: list[Facts] = []

        async def read() -> None:
            found.append(await hub.facts(made, course))

        hub.attach(hub.subscribe(peer("ann"), "todo", Wish()))
        async with trio.open_nursery() as nursery:
            for _ in range(READERS):
                nursery.start_soon(live.store.read, lambda db: held.wait())
            await wait_all_tasks_blocked()
            nursery.start_soon(read)
            await wait_all_tasks_blocked()  # it stands in line for a connection
            hub.attach(hub.subscribe(peer("bob"), "note", Wish()))
            held.set()
        (facts,) = found
        assert facts.guards.keys() == {("todo", "r"), ("note", "r")}


@asynccontextmanager
async def shared_row(path: Path) -> AsyncIterator[tuple[Served, Peer, Subscription]]:
    """Serve a row that a group holds by a filter; whoever holds it is still to be read for, from there on."""
    async with served(path, tables={"todo": (NewColumn("text", "text"),)}) as live:
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('staff', 'staff')")
        live.sql("INSERT INTO todo(reference_id, text, permission) VALUES('r', 'shared', 0)")
        live.sql(
            f"INSERT INTO {join_table('todo')}(todo_id, usergroup_id, permission) VALUES('r', 'staff', ?)",
            Verb.READ << GROUP_SHIFT,
        )
        await caught_up(live)
        holder = peer("carl", "staff")
        yield live, holder, live.hub.subscribe(holder, "todo", Wish({"text": "shared"}, live_set=True))


def read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a reading take one event at a time, from memory and from the file."""
    monkeypatch.setattr(reading, "STEPS", 1)
    monkeypatch.setattr(replay, "PAGE_ROWS", 1)


def behind_a_look(monkeypatch: pytest.MonkeyPatch, live: Served, work: Callable[[], object]) -> Sized:
    """Have a work done right behind the next look that finds something; what is given is empty once it has been."""
    look, left = live.store.look, [work]

    async def look_on(*asked: Any) -> Any:
        seen = await look(*asked)
        if left and seen is not None and seen.rows:
            left.pop()()
        return seen

    monkeypatch.setattr(live.store, "look", look_on)
    return left


async def caught_up(live: Served) -> None:
    ((highest,),) = live.sql("SELECT max(id) FROM _appliance_outbox")
    await live.hub.reached(highest)


LEAVES, GOES = "UPDATE todo SET text = 'other'", "DELETE FROM todo"


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_row_of_a_group_that_leaves_a_filter_leaves_the_live_set_though_a_later_page_has_its_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    read_one_by_one(monkeypatch)
    async with shared_row(tmp_path / "a.db") as (live, holder, subscription):
        begun = live.hub.position.id
        for statement in (LEAVES, GOES):
            live.sql(statement)
            await caught_up(live)
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        await Reading(live.hub, live.store, holder, [subscription], begun).run()
        assert [(event["EventType"], event["EventData"]["text"]) for event in holder.sent] == [("delete", "shared")]


async def test_so_it_does_that_is_deleted_when_the_server_has_just_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shared_row(tmp_path / "a.db") as (live, holder, subscription):
        live.hub.attach(subscription)
        to_come = behind_a_look(monkeypatch, live, lambda: live.sql(GOES))
        live.sql(LEAVES)
        await caught_up(live)
        while to_come:
            await trio.lowlevel.checkpoint()
        await caught_up(live)
        assert [(event["EventType"], event["EventData"]["text"]) for event in holder.sent] == [("delete", "shared")]


async def test_so_it_does_for_who_comes_when_it_is_known_what_leaves_the_filters_of_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shared_row(tmp_path / "a.db") as (live, _, held):
        live.hub.unsubscribe(held)
        holder, wishes = peer("carl", "staff"), [Wish({"text": "shared"}, live_set=True)]
        live.hub.attach(live.hub.subscribe(peer("dora"), "todo", Wish(live_set=True)))
        renew_to, to_come = Rights.renew_to, behind_a_look(monkeypatch, live, lambda: live.sql(GOES))

        async def come(rights: Rights, *asked: Any) -> bool:
            renewed = await renew_to(rights, *asked)
            if wishes:  # as who resumes at the hub's position
                live.hub.attach(live.hub.subscribe(holder, "todo", wishes.pop()))
            return renewed

        monkeypatch.setattr(Rights, "renew_to", come)
        live.sql(LEAVES)
        await caught_up(live)
        while to_come:
            await trio.lowlevel.checkpoint()
        await caught_up(live)
        assert [(event["EventType"], event["EventData"]["text"]) for event in holder.sent] == [("delete", "shared")]


async def test_a_row_that_was_shown_by_a_right_the_server_had_not_yet_looked_at_leaves_with_its_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "a.db", tables={"todo": (NewColumn("text", "text"),)}) as live:
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('staff', 'staff')")
        live.sql("INSERT INTO todo(reference_id, text, permission) VALUES('r', 'private', 0)")
        await caught_up(live)
        holder = peer("carl", "staff")
        live.hub.attach(live.hub.subscribe(holder, "todo", Wish(live_set=True)))
        into = f"{join_table('todo')}(todo_id, usergroup_id, permission)"
        joins = f"INSERT INTO {into} VALUES('r', 'staff', {Verb.READ << GROUP_SHIFT})"
        look, behind, before = live.store.look, [joins], [GOES]

        async def look_on(*asked: Any) -> Any:
            if before and not behind:
                live.sql(before.pop())
            seen = await look(*asked)
            if behind and seen is not None and seen.rows:
                live.sql(behind.pop())
            return seen

        monkeypatch.setattr(live.store, "look", look_on)
        live.sql("UPDATE todo SET text = 'shared'")
        await caught_up(live)
        while before:
            await trio.lowlevel.checkpoint()
        await caught_up(live)
        assert [(event["EventType"], event["Key"]) for event in holder.sent] == [("update", ["r"]), ("delete", ["r"])]
