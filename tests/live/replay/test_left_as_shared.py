"""A row that leaves a filter in the transaction that lets somebody read it stays in no live set."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.live.matching.audience import Wish
from appliance.model import JSON
from tests.live.matching.test_facts import peer
from tests.live.replay.rows import JOIN, LEAVES, follow, held_by, row_and_club

ENTERS, SHARE = "UPDATE todo SET text = 'shared'", JOIN.format("club")
OTHER = "UPDATE todo SET text = 'another'"


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
@pytest.mark.parametrize("wanted", ["shared", {"startswith": "shared"}])
@pytest.mark.parametrize(
    "commits",
    [
        ((ENTERS, LEAVES, SHARE),),
        ((ENTERS, SHARE, LEAVES),),
        ((SHARE, ENTERS, LEAVES),),
        ((ENTERS, LEAVES, OTHER, SHARE),),
        ((ENTERS,), (LEAVES, SHARE)),
        ((ENTERS,), (SHARE, LEAVES)),
        ((ENTERS,), (LEAVES,), (SHARE,)),
    ],
)
async def test_a_row_that_leaves_a_filter_as_it_is_shared_leaves_whoever_was_told_of_it(
    tmp_path: Path, how: str, wanted: JSON, commits: tuple[tuple[str, ...], ...]
) -> None:
    async with row_and_club(tmp_path, (LEAVES,)) as live:
        dan = peer("dan", "club")
        await follow(live, how, [(dan, Wish({"text": wanted}, live_set=True))], *commits)
        assert not held_by(dan, set())
        if commits[-1] in ((LEAVES, SHARE), (SHARE, LEAVES)):
            # What it was before the transaction that shares it was never his to read.
            gone = [each["EventData"] for each in dan.sent if each["EventType"] == "delete"]
            assert all(each == {"__type": "todo"} for each in gone)
