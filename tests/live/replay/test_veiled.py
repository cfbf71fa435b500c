"""Where it is not known what a long transaction has done to a row before, what it was is not shown, but its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.live.matching.access import Reader
from appliance.live.matching.audience import Wish
from appliance.live.replay import beside, commits
from appliance.store.outbox import look
from tests.live.matching.test_facts import peer
from tests.live.replay.rows import GOES, JOIN, follow, put, row_and_club, run, told
from tests.live.replay.test_reading import ADMINISTRATOR, Peer

SHARE, SECRET = JOIN.format("club"), put("secret")
ANOTHER = "INSERT INTO todo(reference_id, text, permission) VALUES('{}', 'another', 0)"
KEY_ONLY = [("delete", "")]


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_ROWS", "GLANCE_ROWS"):
        monkeypatch.setattr(look, name, 2)


@pytest.mark.parametrize("how", ["fed", "read"])
async def test_a_deleted_row_to_which_more_was_done_than_is_looked_through_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with row_and_club(tmp_path) as live:
        monkeypatch.setattr(beside, "PAGES", -9)
        dan, holder, root = peer("dan", "club"), peer("dan", "club"), Peer(Reader(ADMINISTRATOR, frozenset()))
        wishes = [(dan, Wish()), (holder, Wish(live_set=True)), (root, Wish())]
        await follow(live, how, wishes, (SHARE, SECRET, GOES))
        assert "secret" not in str(dan.sent) + str(holder.sent)
        assert told(dan) == KEY_ONLY
        assert told(root)[-1] == ("delete", "secret")


@pytest.mark.parametrize(
    ("statements", "seen"),
    [
        ((SHARE, *(ANOTHER.format(each) for each in range(9)), GOES), KEY_ONLY),
        # What is only deleted was so before.
        (("DELETE FROM todo WHERE reference_id <> 'r'", GOES), []),
    ],
)
async def test_a_row_that_is_deleted_far_behind_what_else_its_transaction_writes_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statements: tuple[str, ...], seen: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(commits, "BACK", 4)
    monkeypatch.setattr(commits, "REACH", 8)
    async with row_and_club(tmp_path, tuple(ANOTHER.format(each) for each in range(20, 29))) as live:
        carl, dan = peer("carl", "staff"), peer("dan", "club")
        await follow(live, "fed", [(dan, Wish()), (carl, Wish())], statements)
        assert told(dan) == seen
        assert told(carl) == (KEY_ONLY if seen else [("delete", "shared")])
        for statement in (ANOTHER.format("r"), JOIN.format("staff"), GOES):
            await run(live, (statement,), at_once=True)
        assert told(carl)[-1] == ("delete", "another")  # the next transaction is another
