"""Who has lost a row by now is not sent what it was before, however long ago that was."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.live.matching.audience import Wish
from appliance.live.replay.reading import Reading
from appliance.protocol.permissions import OWNER_SHIFT, Verb
from appliance.store.tables.standard import NewColumn
from tests.live.matching.test_facts import caught_up, peer
from tests.web.api.application import served

OWNERS = Verb.READ << OWNER_SHIFT
COMES = f"INSERT INTO todo(reference_id, text, permission, user_account_id) VALUES('r', 'a', {OWNERS}, 'ann')"
CHANGES = "UPDATE todo SET text = 'b'"
CLOSED, GIVEN_AWAY = "UPDATE todo SET permission = 0", "UPDATE todo SET user_account_id = 'bob'"
OPENED = f"UPDATE todo SET permission = {OWNERS}"


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize(
    ("statements", "followed", "held"),
    [
        ((COMES, CHANGES), [("create", "a"), ("update", "b")], [("create", "a"), ("update", "b")]),
        ((COMES, CHANGES, CLOSED), [], [("delete", "a"), ("delete", "b")]),
        ((COMES, CHANGES, GIVEN_AWAY), [], [("delete", "a"), ("delete", "b")]),
        ((COMES, CHANGES, GIVEN_AWAY, "DELETE FROM todo"), [("create", "a"), ("update", "b")], None),
        (
            (COMES, CLOSED, CHANGES, OPENED),
            [("create", "a"), ("update", "b")],
            [("create", "a"), ("delete", "a"), ("create", "b")],
        ),
    ],
)
async def test_a_replay_has_what_may_be_read_now_and_might_then(
    tmp_path: Path,
    remembered: bool,
    statements: tuple[str, ...],
    followed: list[tuple[str, str]],
    held: list[tuple[str, str]] | None,
) -> None:
    async with served(tmp_path / "a.db", tables={"todo": (NewColumn("text", "text"),)}) as live:
        ann, other, begun = peer("ann"), peer("ann"), live.hub.position.id
        subscription = live.hub.subscribe(ann, "todo", Wish())
        holding = live.hub.subscribe(other, "todo", Wish(live_set=True))
        for statement in statements:
            live.sql(statement)
            await caught_up(live)
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        for each, wanted, told in ((ann, subscription, followed), (other, holding, held)):
            await Reading(live.hub, live.store, each, [wanted], begun).run()
            if told is not None:
                assert [(event["EventType"], event["EventData"].get("text", "")) for event in each.sent] == told
