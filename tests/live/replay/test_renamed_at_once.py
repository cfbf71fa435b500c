"""A row that its transaction names otherwise is not shown to those for whom another row, or none, has that name."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.live.matching.audience import Wish
from tests.live.matching.test_facts import peer, shared_row
from tests.live.replay.rows import COMES, GOES, JOIN, RENAMED, follow, put, row_and_club, told

SECRET, SHARE = COMES.format("secret"), JOIN.format("club")
LIVE_SETS = [False, True]


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
@pytest.mark.parametrize("live_set", LIVE_SETS)
@pytest.mark.parametrize("statements", [(SECRET, RENAMED), (SECRET, RENAMED, "DELETE FROM todo")])
async def test_a_row_is_not_for_whom_the_next_of_its_name_is(
    tmp_path: Path, how: str, live_set: bool, statements: tuple[str, ...]
) -> None:
    async with row_and_club(tmp_path, (GOES,)) as live:
        dan = peer("dan", "club")
        wishes = [(dan, Wish(live_set=live_set))]
        await follow(live, how, wishes, (*statements, COMES.format("another"), SHARE))
        assert "secret" not in str(dan.sent)
        assert ("create", "another") in told(dan)


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
@pytest.mark.parametrize("live_set", LIVE_SETS)
@pytest.mark.parametrize("statements", [(SECRET, SHARE, RENAMED), (SHARE, put("secret"), RENAMED)])
async def test_a_row_that_is_shared_under_a_name_that_it_has_not_kept_is_for_nobody_by_that(
    tmp_path: Path, how: str, live_set: bool, statements: tuple[str, ...]
) -> None:
    async with row_and_club(tmp_path, (GOES,) * (statements[0] is SECRET)) as live:
        dan = peer("dan", "club")
        await follow(live, how, [(dan, Wish(live_set=live_set))], statements, keys="OFF")
        assert "secret" not in str(dan.sent)


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
async def test_whose_it_was_under_its_former_name_has_it_no_more(tmp_path: Path, how: str) -> None:
    async with shared_row(tmp_path / "a.db") as (live, carl, held):
        live.hub.unsubscribe(held)
        wishes = [(carl, Wish({"text": "shared"}, live_set=True))]
        await follow(live, how, wishes, (put("other"), RENAMED), keys="OFF")
        assert told(carl) == [("delete", "shared")]
