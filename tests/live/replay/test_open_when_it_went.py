"""A row that everybody might read when it was deleted, and nobody had asked for by then, leaves who held it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.live.matching.audience import Wish
from appliance.live.replay.reading import Reading
from tests.live.matching.test_facts import caught_up, peer, shared_row
from tests.live.replay.rows import GOES, LEAVES, PARTS, held_by, told

OPENS, MATCHES = "UPDATE todo SET permission = 2", "UPDATE todo SET text = 'shared'"
#: The join row stays, and lets nobody read any more.
LOWERS = "UPDATE todo_todo_id_has_usergroup_usergroup_id SET permission = 16384"


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize(
    "statements", [(LOWERS, LEAVES, OPENS, PARTS, GOES), (LOWERS, LEAVES, OPENS, GOES), (PARTS, LEAVES, OPENS, GOES)]
)
async def test_a_row_that_is_parted_and_leaves_a_filter_before_it_is_for_everybody_leaves_a_live_set(
    tmp_path: Path, remembered: bool, statements: tuple[str, ...]
) -> None:
    async with shared_row(tmp_path / "a.db") as (live, carl, held):
        begun, dan = live.hub.position.id, peer("dan")
        never = live.hub.subscribe(dan, "todo", Wish({"text": "shared"}, live_set=True))
        for statement in statements:  # each is known to be a transaction of its own
            live.sql(statement)
            await caught_up(live)
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        for who, subscription in ((carl, held), (dan, never)):
            await Reading(live.hub, live.store, who, [subscription], begun).run()
        assert carl.told == []
        assert not held_by(carl, {"r"})
        assert dan.came == []


async def test_what_it_was_asked_for_as_is_told_as_long_as_it_is_there(tmp_path: Path) -> None:
    async with shared_row(tmp_path / "a.db") as (live, carl, held):
        begun = live.hub.position.id
        for statement in (OPENS, PARTS, LEAVES, MATCHES, GOES):
            live.sql(statement)
            await caught_up(live)
        await Reading(live.hub, live.store, carl, [held], begun).run()
        # That it was parted takes it from nobody: what it was for everybody when it went says the event of that.
        assert told(carl) == [("create", "shared"), ("delete", "shared")] * 2
