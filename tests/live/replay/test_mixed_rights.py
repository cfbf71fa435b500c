"""Rows are judged by the groups that they have now, and so are those who may read them: never by one of before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.live.matching.access import Reader
from appliance.live.matching.audience import Wish
from appliance.live.replay import reading
from appliance.live.replay.reading import Reading
from appliance.model import Principal
from appliance.protocol.permissions import GROUP_SHIFT, Verb
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import join_table
from tests.live.fanout.test_shared import many_read
from tests.live.matching.test_facts import caught_up, peer
from tests.live.replay.test_reading import Peer
from tests.web.api.application import USERS, Served, served

#: Ann leaves the group, and then a row is joined to it: it is no row of hers at any time.
LEAVES = f"DELETE FROM {join_table('user_account')} WHERE usergroup_id = 'staff'"
JOINS = (
    f"INSERT INTO {join_table('todo')}(todo_id, usergroup_id, permission) "
    f"VALUES('r', 'staff', {Verb.READ << GROUP_SHIFT})"
)
#: A row leaves the group, and then Ann comes to it.
PARTS = f"DELETE FROM {join_table('todo')}"


@asynccontextmanager
async def with_a_member(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Served, Peer, trio.Event]]:
    """Serve a private row beside a group with one member, whose tail looks no more; and tell when it is waited for."""
    async with served(path, tables={"todo": (NewColumn("text", "text"),)}) as live:
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('staff', 'staff')")
        live.sql("INSERT INTO todo(reference_id, text, permission) VALUES('r', 'secret', 0)")
        members = f"{join_table('user_account')}(user_account_id, usergroup_id)"
        live.sql(f"INSERT INTO {members} VALUES(?, 'staff')", USERS[0])
        await caught_up(live)
        reader = await live.hub.access.reader(await live.hub.access.principal(live.token(USERS[0])))
        assert "staff" in reader.groups
        look, reached, waited_for = live.store.look, live.hub.reached, trio.Event()

        async def look_never(*asked: Any) -> Any:
            await trio.sleep_forever()
            return await look(*asked)

        async def wait(position: int) -> None:
            if position > live.hub.position.id:
                waited_for.set()
            await reached(position)

        monkeypatch.setattr(live.store, "look", look_never)
        monkeypatch.setattr(live.hub, "reached", wait)
        for statement in (LEAVES, JOINS):
            live.sql(statement)
        yield live, Peer(reader), waited_for


async def read(live: Served, ann: Peer, wish: Wish, waited_for: trio.Event, *, after: int) -> None:
    """Read for her until it is known that something has happened that the hub does not know of."""
    subscription = live.hub.subscribe(ann, "todo", wish)
    async with trio.open_nursery() as nursery:
        begun = Reading(live.hub, live.store, ann, [subscription], after, scan=wish.live_set)
        nursery.start_soon(begun.run)
        with trio.fail_after(5):
            await waited_for.wait()
        nursery.cancel_scope.cancel()


async def test_a_snapshot_shows_no_row_that_has_come_to_a_group_behind_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_a_member(tmp_path / "a.db", monkeypatch) as (live, ann, waited_for):
        await read(live, ann, Wish(live_set=True), waited_for, after=live.hub.position.id)
        assert ann.sent == []


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_replay_shows_none_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: bool) -> None:
    async with with_a_member(tmp_path / "a.db", monkeypatch) as (live, ann, waited_for):
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        await read(live, ann, Wish(), waited_for, after=0)
        assert ann.sent == []


async def test_who_loses_the_sight_of_all_while_it_is_looked_for_changed_rights_is_told_what_its_groups_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "a.db", tables={"todo": (NewColumn("text", "text"),)}) as live:
        hub, changed_upto = live.hub, reading.changed_upto
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('staff', 'staff')")
        live.sql("INSERT INTO todo(reference_id, permission) VALUES('r', 0)")
        live.sql(JOINS)
        await caught_up(live)
        ann = Peer(Reader(Principal("us", "ann", admin=True, expires_at=float("inf")), frozenset()))
        subscription = hub.subscribe(ann, "todo", Wish())

        async def lose(*asked: Any) -> bool:
            changed = await changed_upto(*asked)
            if ann.reader.principal.admin:
                ann.reader = Reader(replace(ann.reader.principal, admin=False), frozenset(("staff",)))
                hub.reassess([subscription])
            return changed

        monkeypatch.setattr(reading, "changed_upto", lose)
        await Reading(hub, live.store, ann, [subscription], 0).run()
        assert [(event["EventType"], event["Key"]) for event in ann.sent] == [("create", ["r"])]


@asynccontextmanager
async def with_a_row_of_a_group(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """Serve a row of a group, whose tail looks no more."""
    async with served(path, tables={"todo": (NewColumn("text", "text"),)}) as live:
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('staff', 'staff')")
        live.sql("INSERT INTO todo(reference_id, text, permission) VALUES('r', 'secret', 0)")
        live.sql(JOINS)
        await caught_up(live)

        async def look_never(*asked: Any) -> Any:
            await trio.sleep_forever()

        monkeypatch.setattr(live.store, "look", look_never)
        yield live


async def test_who_comes_to_a_group_while_rows_are_judged_is_shown_none_that_has_left_it_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_a_row_of_a_group(tmp_path / "a.db", monkeypatch) as live:
        hub, changed_upto, ann = live.hub, reading.changed_upto, peer("ann")
        subscription = hub.subscribe(ann, "todo", Wish())

        async def come(*asked: Any) -> bool:
            changed = await changed_upto(*asked)
            if "staff" not in ann.reader.groups:
                live.sql(PARTS)
                ann.reader = joined_now(ann.reader)
                hub.reassess([subscription])
            return changed

        monkeypatch.setattr(reading, "changed_upto", come)
        await Reading(hub, live.store, ann, [subscription], 0).run()
        assert ann.sent == []


async def test_nor_who_has_come_to_it_since_they_were_judged_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_a_row_of_a_group(tmp_path / "a.db", monkeypatch) as live:
        hub, bob, ann = live.hub, peer("bob", "staff"), peer("ann")
        with many_read(hub.shared):
            await Reading(hub, live.store, bob, [hub.subscribe(bob, "todo", Wish())], 0).run()
            live.sql(PARTS)
            ann.reader = joined_now(ann.reader)
            await Reading(hub, live.store, ann, [hub.subscribe(ann, "todo", Wish())], 0).run()
        assert [event["Key"] for event in bob.sent] == [["r"]]
        assert ann.sent == []


def joined_now(reader: Reader) -> Reader:
    """Give somebody's rights as they are read at this moment: of a member of the group."""
    return replace(reader, groups=reader.groups | {"staff"}, read_at=trio.current_time())
