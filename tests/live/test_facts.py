"""What decisions need beside the rows is read for all who are to be told, whenever they have come."""

from __future__ import annotations

import threading
from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from appliance.live.access import Reader
from appliance.live.audience import Wish
from appliance.live.facts import Facts, Together
from appliance.live.telling import Told
from appliance.model import Change, Image, Op, Principal, Shape, SQLiteValue
from appliance.store.readers import READERS
from appliance.store.standard import USERS, NewColumn
from tests.live.test_reading import Peer
from tests.web.api.application import served


def peer(name: str) -> Peer:
    return Peer(Reader(Principal("us", name, admin=False, expires_at=float("inf")), frozenset((USERS,))))


def created(number: int, shape: Shape | None) -> Change:
    assert shape is not None
    values: dict[str, SQLiteValue] = {"reference_id": "r", "permission": 0}
    return Change(number, Op.CREATE, shape, Image(tuple(values.get(each.name) for each in shape.columns)), None)


async def test_who_subscribes_while_facts_are_read_has_them_too(tmp_path: Path) -> None:
    columns = (NewColumn("text", "text"),)
    async with served(tmp_path / "a.db", tables={"todo": columns, "note": columns}) as live:
        hub, held = live.hub, threading.Event()
        made = [Told(created(1, hub.table("todo"))), Told(created(2, hub.table("note")))]
        found: list[Facts] = []

        async def read() -> None:
            found.append(await hub.facts(made, Together(made)))

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
