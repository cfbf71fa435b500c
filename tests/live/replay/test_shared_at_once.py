"""Who is let into a group of a row, in the transaction that changes it, is told what it is and not what it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.live.matching.audience import Wish
from appliance.live.replay.reading import Reading
from tests.live.matching.test_facts import caught_up, peer, shared_row
from tests.live.replay.test_names_again import COMES, GOES, JOIN, PARTS, RENAMED, run, told
from tests.live.replay.test_reading import Peer
from tests.web.api.application import Served

WRITE, SHARE = "UPDATE todo SET text = 'open'", JOIN.format("club")
#: The join row was there, and gave nothing.
GRANT = "UPDATE todo_todo_id_has_usergroup_usergroup_id SET permission = 1048575"


@asynccontextmanager
async def row_and_club(tmp_path: Path, before: tuple[str, ...]) -> AsyncIterator[Served]:
    """Serve a row of a group and a group called club, behind these statements; nobody follows yet."""
    async with shared_row(tmp_path / "a.db") as (live, _, held):
        live.hub.unsubscribe(held)
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('club', 'club')")
        await run(live, before, at_once=False)
        await caught_up(live)
        yield live


async def follow(
    live: Served, how: str, wishes: Sequence[tuple[Peer, Wish]], *commits: tuple[str, ...], keys: str = "ON"
) -> None:
    """Run commits of statements, with peers whom the hub feeds, or who are read for from memory or the file."""
    begun = live.hub.position.id
    some = [(each, live.hub.subscribe(each, "todo", wish)) for each, wish in wishes]
    for _, subscription in some:
        if how == "fed":
            live.hub.attach(subscription)
    for statements in commits:
        await run(live, statements, at_once=True, keys=keys)
    if how == "read":
        live.hub.recent.forget(live.hub.position.id)
    for each, subscription in some:
        if how != "fed":
            await Reading(live.hub, live.store, each, [subscription], begun).run()


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


def put(text: str) -> str:
    return f"UPDATE todo SET text = '{text}'"


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
    async with shared_row(tmp_path / "a.db") as (live, _, carls):
        live.hub.unsubscribe(carls)
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('club', 'club')")
        await run(live, before, at_once=False)
        await caught_up(live)
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
    async with shared_row(tmp_path / "a.db") as (live, _, held):
        live.hub.unsubscribe(held)
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('club', 'club')")
        live.sql("UPDATE todo SET permission = 2")
        await caught_up(live)
        dan, eve = peer("dan", "club"), peer("eve")
        await follow(live, how, [(each, Wish(old=True)) for each in (dan, eve)], (MIDST, CLOSES, SHARE))
        assert [(event["EventData"]["text"], event.get("OldData")) for event in dan.sent] == [
            ("midst", {"text": "shared"}),
            ("midst", {"permission": 2}),
        ]
        assert eve.sent == []
