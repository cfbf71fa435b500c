"""Whom a transaction takes a row from that it deletes hears once that it is gone, and what it was before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.live.matching.audience import Wish
from appliance.model import JSON
from appliance.protocol.permissions import OWNER_SHIFT, Verb
from tests.live.matching.test_facts import peer
from tests.live.replay.rows import GOES, JOIN, PARTS, RENAMED, follow, put, row_and_club, told
from tests.live.replay.test_reading import Peer

SHARE = JOIN.format("club")
OPENS, CLOSES = "UPDATE todo SET permission = 2", "UPDATE todo SET permission = 0"
OF_DAN = f"UPDATE todo SET permission = {Verb.READ << OWNER_SHIFT}, user_account_id = 'dan'"
OF_EVE = "UPDATE todo SET user_account_id = 'eve'"
MIDST = put("midst")
GONE = [("delete", "shared")]


def everybody() -> dict[str, Peer]:
    return {"carl": peer("carl", "staff"), "dan": peer("dan", "club"), "eve": peer("eve")}


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
@pytest.mark.parametrize(
    ("before", "statements", "hear"),
    [
        ((PARTS, OPENS), (SHARE, CLOSES, GOES), "carl dan eve"),
        ((PARTS, OPENS), (CLOSES, SHARE, GOES), "carl dan eve"),
        ((PARTS, OPENS), (MIDST, CLOSES, GOES), "carl dan eve"),
        ((PARTS, OPENS), (CLOSES, OPENS, CLOSES, GOES), "carl dan eve"),
        ((), (PARTS, GOES), "carl"),
        ((), (PARTS, SHARE, MIDST, GOES), "carl"),
        ((PARTS, OF_DAN), (OF_EVE, GOES), "dan"),
        ((PARTS, OF_DAN), (CLOSES, SHARE, GOES), "dan"),
        ((PARTS, OPENS), (CLOSES, RENAMED, GOES), "carl dan eve"),
        # Nobody could read it before.
        ((PARTS,), (OPENS, SHARE, CLOSES, GOES), ""),
        ((PARTS,), (OF_DAN, OF_EVE, GOES), ""),
    ],
)
async def test_who_could_read_a_row_hears_once_that_it_is_gone_and_what_it_was(
    tmp_path: Path, how: str, before: tuple[str, ...], statements: tuple[str, ...], hear: str
) -> None:
    async with row_and_club(tmp_path, before) as live:
        follows, holds, deletions = everybody(), everybody(), everybody()
        only = Wish({"EventType": "delete"})
        wishes = [(each, Wish()) for each in follows.values()] + [(each, only) for each in deletions.values()]
        wishes += [(each, Wish(live_set=True)) for each in holds.values()]
        await follow(live, how, wishes, statements)
        for name in follows:
            assert told(follows[name]) == told(deletions[name]) == (GONE if name in hear else [])
            assert all(each["Key"] == ["r"] for each in follows[name].sent)
            left = [each for each in holds[name].sent if each["Key"] == ["r"]]
            assert [each["EventType"] for each in left] == ["delete"] * (name in hear)
            assert "midst" not in str(holds[name].sent)


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ("shared", GONE),
        ({"startswith": "shared"}, GONE),
        ({"startswith": "mid"}, []),
        ("midst", []),
    ],
)
async def test_a_filter_is_put_to_what_could_be_read(
    tmp_path: Path, how: str, wanted: JSON, seen: list[tuple[str, Any]]
) -> None:
    async with row_and_club(tmp_path, (OPENS,)) as live:
        eve = peer("eve")
        await follow(live, how, [(eve, Wish({"text": wanted}))], (CLOSES, MIDST, GOES))
        assert told(eve) == seen


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
async def test_who_may_read_it_to_the_end_is_told_each_statement(tmp_path: Path, how: str) -> None:
    async with row_and_club(tmp_path, (OPENS,)) as live:
        carl, eve = peer("carl", "staff"), peer("eve")
        await follow(live, how, [(each, Wish()) for each in (carl, eve)], (MIDST, GOES))
        assert told(eve) == [("update", "midst"), ("delete", "midst")]
        assert told(carl)[-1] == ("delete", "midst")
