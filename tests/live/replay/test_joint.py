"""What is due of some events is found once for all who want the same and may see the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.live.fanout.hub import Hub
from appliance.live.matching.access import Reader
from appliance.live.matching.audience import Wish
from appliance.live.replay import joint
from appliance.live.replay.reading import Reading
from appliance.model import JSON
from appliance.protocol.permissions import GROUP_SHIFT, OWNER_SHIFT, Verb
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import join_table
from tests.live.fanout.test_shared import many_read
from tests.live.matching.test_facts import caught_up, peer
from tests.live.replay.test_reading import ADMINISTRATOR, Peer
from tests.web.api.application import served

OWNERS, GROUPS, ALL = Verb.READ << OWNER_SHIFT, Verb.READ << GROUP_SHIFT, int(Verb.READ)
ROWS = [
    ("anns", OWNERS, "ann"),
    ("bobs", OWNERS | GROUPS, "bob"),
    ("staffs", 0, None),
    ("alls", ALL, "ann"),
    ("nobodys", 0, "ann"),
]
JOIN = f"INSERT INTO {join_table('todo')}(todo_id, usergroup_id, permission) SELECT reference_id, 'staff', {GROUPS}"
WISHES = [Wish(), Wish(old=True), Wish({"n": {"gte": 2}}), Wish(live_set=True)]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give who it was found for, as often as it was."""
    for_whom, of = list[str](), joint._of

    def noted(hub: Hub, subscription: Any, *asked: Any) -> joint.Joint:
        for_whom.append(subscription.reader.principal.subject)
        return of(hub, subscription, *asked)

    monkeypatch.setattr(joint, "_of", noted)
    return for_whom


@pytest.mark.parametrize("remembered", [True, False])
async def test_each_of_many_is_told_what_it_is_told_by_itself(
    tmp_path: Path, found: list[str], remembered: bool
) -> None:
    columns = (NewColumn("text", "text"), NewColumn("n", "integer"))
    async with served(tmp_path / "a.db", tables={"todo": columns}) as live:
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('staff', 'staff')")
        begun = live.hub.position.id
        for text, permission, owner in ROWS:
            live.sql(
                "INSERT INTO todo(text, permission, user_account_id, n) VALUES(?, ?, ?, 1)", text, permission, owner
            )
        live.sql(f"{JOIN} FROM todo WHERE text = 'staffs'")
        live.sql("UPDATE todo SET n = 2")
        live.sql("UPDATE todo SET user_account_id = 'bob' WHERE text = 'anns'")
        live.sql("UPDATE todo SET n = 1 WHERE text = 'staffs'")
        live.sql("DELETE FROM todo WHERE text IN ('bobs', 'alls')")
        await caught_up(live)
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)

        async def read() -> list[list[dict[str, JSON]]]:
            plain, staff = ("ann", "bob", "carl", "dan"), ("eve", "flo", "ann")
            held = []
            for wish in WISHES:
                peers = [Peer(Reader(ADMINISTRATOR, frozenset())) for _ in range(2)]
                peers += [*map(peer, plain), *(peer(name, "staff") for name in staff)]
                held += [(each, live.hub.subscribe(each, "todo", wish)) for each in peers]
            for each, subscription in held:
                await Reading(live.hub, live.store, each, [subscription], begun, announce=True).run()
            for _, subscription in held:
                live.hub.unsubscribe(subscription)
            return [each.came for each, _ in held]

        alone = await read()
        assert not found
        with many_read(live.hub.shared):
            assert await read() == alone
        # For owners of a row once more, by themselves; live sets, which hear of join rows, only for administrators.
        assert found == ["root", "ann", "eve"] * 3 + ["root"]
        assert len({len(came) for came in alone}) > 2


async def test_what_is_long_is_not_kept(tmp_path: Path, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "STRETCH", 1000)
    async with served(tmp_path / "a.db", tables={"todo": (NewColumn("text", "text"),)}) as live:
        begun = live.hub.position.id
        live.sql(f"INSERT INTO todo(text, permission) VALUES('{'x' * 500}', {ALL}), ('{'y' * 500}', {ALL})")
        await caught_up(live)
        with many_read(live.hub.shared):
            held = [(who := peer(name), live.hub.subscribe(who, "todo", Wish())) for name in ("ann", "bob")]
            for who, subscription in held:
                await Reading(live.hub, live.store, who, [subscription], begun).run()
                assert [event["EventData"]["text"][0] for event in who.sent] == ["x", "y"]
            assert found == ["ann"]
