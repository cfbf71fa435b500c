"""What else happened in the transactions of some events is found, in memory and in the outbox; of others nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.capture.decode import decode
from appliance.live.matching.telling import Told
from appliance.live.replay import beside, commits
from appliance.live.replay.commits import Commits
from appliance.model import Change
from appliance.store.outbox.borders import Borders
from tests.live.replay.test_reading import Served, served


async def with_them(live: Served, *ids: int) -> set[int]:
    """Say which changes are known to be of the same row as others of their transaction, these with what is beside."""
    every = decode(live.file.rows(), live.hub.shapes, more=False).events
    events = [Told(each) for each in every if isinstance(each, Change) and each.id in ids]
    return set((await Commits(live.hub, live.store).of(events, ("t",))).last)


async def that_come(live: Served, position: int, *ids: int) -> set[int]:
    """Say the same when these are the next ones behind a position."""
    every = decode(live.file.rows(), live.hub.shapes, more=False).events
    events = [Told(each) for each in every if isinstance(each, Change) and each.id in ids]
    live.hub.position, newest = replace(live.hub.position, id=position), live.hub.position
    try:
        course = await Commits(live.hub, live.store).coming(events, newest.id, ("t",))
    finally:
        live.hub.position = newest
    return set(course.last)


@pytest.mark.parametrize(("reach", "ahead", "behind"), [(commits.REACH, {4, 6, 8}, {4, 6, 8}), (2, {4, 6}, {6, 8})])
async def test_of_what_comes_the_rest_of_its_transaction_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reach: int, ahead: set[int], behind: set[int]
) -> None:
    monkeypatch.setattr(commits, "REACH", reach)
    monkeypatch.setattr(commits, "BACK", reach)
    async with served(tmp_path / "a.db") as live:
        await live.write("INSERT INTO t VALUES(1, 0)", "INSERT INTO t VALUES(2, 0)")  # 1, 2
        again = "UPDATE t SET v = v + 1 WHERE id = 1"
        await live.write("BEGIN", again, again, again, "INSERT INTO t VALUES(3, 0)", "COMMIT")  # 4, 6, 8, 9
        assert await that_come(live, 2, 4) == ahead
        assert await that_come(live, 6, 8) == behind
        assert await that_come(live, 2, 4, 6, 8, 9) == {4, 6, 8}


@pytest.mark.parametrize("bound", [beside.BOUND, 0])
@pytest.mark.parametrize("remembered", [True, False])
async def test_what_a_transaction_did_to_the_same_rows_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: bool, bound: int
) -> None:
    monkeypatch.setattr(beside, "BOUND", bound)
    async with served(tmp_path / "a.db") as live:
        await live.write("BEGIN", "INSERT INTO t VALUES(1, 0)", "INSERT INTO t VALUES(2, 0)", "COMMIT")  # 1, 2
        again = "UPDATE t SET v = v + 1 WHERE id = 1"
        await live.write("BEGIN", again, "INSERT INTO t VALUES(3, 0)", again, "COMMIT")  # 4, 5, 7
        await live.write("DELETE FROM t WHERE id = 1")  # 8
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        assert await with_them(live, 7) == {4, 7}  # 5 is of the same transaction, but of another row
        assert await with_them(live, 8) == set()
        assert await with_them(live, 4, 8) == {4, 7}


@pytest.mark.parametrize("known", [True, False])
async def test_where_it_is_not_known_what_is_between_counts_as_one(tmp_path: Path, known: bool) -> None:
    async with served(tmp_path / "a.db") as live:
        for _ in range(3):
            await live.write("REPLACE INTO t VALUES(1, random())")  # 1, 3, 5
        if not known:
            live.store.borders = Borders()
        assert await with_them(live, 3) == (set() if known else {1, 3, 5})
