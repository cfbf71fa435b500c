"""Who is let into a group of a row, in the transaction that changes it, is told what it is and not what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.live.matching.audience import Wish
from appliance.live.replay.reading import Reading
from tests.live.matching.test_facts import caught_up, peer, shared_row
from tests.live.replay.test_names_again import JOIN, PARTS, RENAMED, run

WRITE, SHARE = "UPDATE todo SET text = 'open'", JOIN.format("club")
#: The join row was there, and gave nothing.
GRANT = "UPDATE todo_todo_id_has_usergroup_usergroup_id SET permission = 1048575"


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
@pytest.mark.parametrize(
    ("before", "statements", "seen"),
    [
        ((), (WRITE, SHARE), {}),
        ((), (SHARE, WRITE), {}),
        ((), (RENAMED, SHARE.replace("'r'", "'q'"), WRITE), {}),
        ((SHARE.replace("32768", "0"),), (WRITE, GRANT), {}),
        ((SHARE,), (WRITE, GRANT), {"text": "shared"}),
        ((SHARE,), (PARTS, WRITE, SHARE), {"text": "shared"}),
        ((SHARE,), (WRITE,), {"text": "shared"}),
    ],
)
async def test_what_a_row_was_is_for_whose_it_was(
    tmp_path: Path, how: str, before: tuple[str, ...], statements: tuple[str, ...], seen: dict[str, str]
) -> None:
    async with shared_row(tmp_path / "a.db") as (live, _, held):
        live.hub.unsubscribe(held)
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('club', 'club')")
        await run(live, before, at_once=False)
        await caught_up(live)
        dan, begun = peer("dan", "club"), live.hub.position.id
        subscription = live.hub.subscribe(dan, "todo", Wish(old=True))
        if how == "fed":
            live.hub.attach(subscription)
        await run(live, statements, at_once=True, keys="OFF")
        if how == "read":
            live.hub.recent.forget(live.hub.position.id)
        if how != "fed":
            await Reading(live.hub, live.store, dan, [subscription], begun).run()
        assert {each["EventType"] for each in dan.sent} == {"update"}
        assert dan.sent[-1]["EventData"]["text"] == "open"
        former = [each["OldData"] for each in dan.sent if "OldData" in each]
        assert former == ([seen] if seen else [])
        assert not seen or not any("OldKey" in each for each in dan.sent)
