"""Who is let into a group of a row, in the transaction that changes it, is told what it is and not what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.live.matching.audience import Wish
from tests.live.matching.test_facts import peer
from tests.live.replay.rows import COMES, GOES, JOIN, PARTS, RENAMED, follow, put, row_and_club, told

WRITE, SHARE = "UPDATE todo SET text = 'open'", JOIN.format("club")
#: The join row was there, and gave nothing.
GRANT = "UPDATE todo_todo_id_has_usergroup_usergroup_id SET permission = 1048575"


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
@pytest.mark.parametrize(
    ("before", "statements", "seen"),
    [
        ((), (WRITE, SHARE), {}),
        ((), (SHARE, WRITE), {}),
        ((), (RENAMED, SHARE.replace("'r'", "'q'"), WRITE), {"text": "shared"}),  # it was so behind that, too
        ((SHARE.replace("32768", "0"),), (WRITE, GRANT), {}),
        ((SHARE,), (WRITE, GRANT), {"text": "shared"}),
        ((SHARE,), (PARTS, WRITE, SHARE), {"text": "shared"}),
        ((SHARE,), (WRITE,), {"text": "shared"}),
    ],
)
async def test_what_a_row_was_is_for_whose_it_was(
    tmp_path: Path, how: str, before: tuple[str, ...], statements: tuple[str, ...], seen: dict[str, str]
) -> None:
    async with row_and_club(tmp_path, before) as live:
        dan = peer("dan", "club")
        await follow(live, how, [(dan, Wish(old=True))], statements, keys="OFF")
        assert {each["EventType"] for each in dan.sent} == {"update"}
        assert dan.sent[-1]["EventData"]["text"] == "open"
        former = [each["OldData"] for each in dan.sent if "OldData" in each]
        assert former == ([seen] if seen else [])
        assert not seen or not any("OldKey" in each for each in dan.sent)


MIDST, LAST, COME = put("midst"), put("last"), (GOES, COMES.format("midst"))
CREATED, IS_SO = ("create", "midst"), ("update", "last")


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
@pytest.mark.parametrize(
    ("before", "statements", "seen", "held"),
    [
        ((), (MIDST, LAST, SHARE), [IS_SO], []),
        ((), (MIDST, put("more"), SHARE, LAST), [("update", "more"), IS_SO], []),
        # Where it was so when the row was joined, too, that may have been committed.
        ((), (MIDST, SHARE, LAST), [("update", "midst"), IS_SO], [CREATED, ("delete", "midst")]),
        ((), (SHARE, MIDST, LAST), [("update", "midst"), IS_SO], [CREATED, ("delete", "midst")]),
        ((), (SHARE, PARTS, MIDST, LAST, SHARE), [IS_SO], []),
        # It was the group's before.
        ((SHARE,), (PARTS, MIDST, LAST, SHARE), [("update", "midst"), IS_SO], [CREATED, ("delete", "midst")]),
        # Of a row that comes, all is told.
        ((), (*COME, LAST, SHARE), [CREATED, IS_SO], [CREATED, ("delete", "midst")]),
        ((), (*COME, SHARE, LAST), [CREATED, IS_SO], [CREATED, ("delete", "midst")]),
    ],
)
async def test_what_a_row_was_in_the_midst_is_not_for_who_is_let_in_behind_that(
    tmp_path: Path,
    how: str,
    before: tuple[str, ...],
    statements: tuple[str, ...],
    seen: list[tuple[str, str]],
    held: list[tuple[str, str]],
) -> None:
    async with row_and_club(tmp_path, before) as live:
        follows, holds = peer("dan", "club"), peer("dan", "club")
        wishes = (follows, Wish()), (holds, Wish({"text": "midst"}, live_set=True))
        await follow(live, how, wishes, statements)
        assert told(follows) == seen
        assert [
            each for each in told(holds) if each != ("delete", "")
        ] == held  # that it leaves a group, it may be told


CLOSES = "UPDATE todo SET permission = 0"


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
async def test_what_everybody_might_read_is_told_to_whom_the_row_is_for_behind_that(tmp_path: Path, how: str) -> None:
    async with row_and_club(tmp_path, ("UPDATE todo SET permission = 2",)) as live:
        dan, eve = peer("dan", "club"), peer("eve")
        await follow(live, how, [(each, Wish(old=True)) for each in (dan, eve)], (MIDST, CLOSES, SHARE))
        assert [(event["EventData"]["text"], event.get("OldData")) for event in dan.sent] == [
            ("midst", {"text": "shared"}),
            ("midst", {"permission": 2}),
        ]
        assert eve.sent == []
