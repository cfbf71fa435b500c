"""A row is judged by its own groups, also where another one has had its ``reference_id`` since."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from appliance.live.matching.audience import Wish
from appliance.live.replay import commits
from appliance.live.replay.reading import Reading
from appliance.protocol.permissions import OWNER_SHIFT, Verb
from appliance.store.outbox import look
from appliance.store.tables.standard import USERS, join_table
from tests.live.fanout.test_shared import many_read
from tests.live.matching.test_facts import behind_a_look, caught_up, peer, read_one_by_one, shared_row
from tests.live.replay.rows import COMES, GOES, JOIN, LEAVES, PARTS, RENAMED, held_by, row_and_club, run, told

#: It is Carl's own then, and not what he asked for.
BECOMES_CARLS = f"UPDATE todo SET text = 'other', user_account_id = 'carl', permission = {Verb.READ << OWNER_SHIFT}"
ANOTHER, NO_MATCH = (COMES.format("shared"), JOIN.format("club")), (COMES.format("other"), JOIN.format("club"))


@pytest.mark.parametrize("how", ["fed", "remembered", "read", "remembered for all", "read for all"])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("statements", "staff", "club"),
    [
        ((GOES, *ANOTHER), [("delete", "shared")], [("create", "shared")]),
        ((GOES, *NO_MATCH), [("delete", "shared")], []),
        ((LEAVES, GOES, *ANOTHER), [("delete", "shared")], [("create", "shared")]),
        ((LEAVES, GOES, *NO_MATCH), [("delete", "shared")], []),
        ((PARTS, GOES, *NO_MATCH), [("delete", "")], []),
        ((PARTS, GOES, *ANOTHER), [("delete", "")], [("create", "shared")]),
        ((LEAVES, JOIN.format("club"), GOES), [("delete", "shared")], []),
        ((LEAVES, GOES, *ANOTHER, GOES, *NO_MATCH), [("delete", "shared")], None),
        (
            (LEAVES, GOES, COMES.format("shared"), JOIN.format("staff")),
            [("delete", "shared"), ("create", "shared")],
            [],
        ),
    ],
)
async def test_a_live_set_ends_with_what_may_be_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    at_once: bool,
    statements: tuple[str, ...],
    staff: list[tuple[str, str]],
    club: list[tuple[str, str]] | None,
) -> None:
    read_one_by_one(monkeypatch)
    if how.endswith("for all"):
        monkeypatch.setattr(commits, "MANY", 1)
    async with row_and_club(tmp_path) as live:
        carl, dan = peer("carl", "staff"), peer("dan", "club")
        wish, begun = Wish({"text": "shared"}, live_set=True), live.hub.position.id
        some = [live.hub.subscribe(each, "todo", wish) for each in (carl, dan)]
        if how == "fed":
            for each in some:
                live.hub.attach(each)
        await run(live, statements, at_once=at_once)
        if how.startswith("read"):
            live.hub.recent.forget(live.hub.position.id)
        if how != "fed":
            for each, subscription in zip((carl, dan), some, strict=True):
                await Reading(live.hub, live.store, each, [subscription], begun).run()
        assert carl.told == dan.told == []
        assert held_by(carl, {"r"}) == (staff[-1][0] == "create")
        assert all(each in staff for each in told(carl))
        assert club is None or [each for each in told(dan) if each not in club] == []
        assert held_by(dan, set()) == bool(club)


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
@pytest.mark.parametrize("live_set", [False, True])
@pytest.mark.parametrize("former", ["UPDATE todo SET reference_id = 'z' WHERE reference_id = 'r'", GOES])
async def test_a_row_that_takes_the_name_of_a_groups_row_and_goes_is_not_shown_to_the_group(
    tmp_path: Path, how: str, live_set: bool, former: str
) -> None:
    async with shared_row(tmp_path / "a.db") as (live, carl, held):
        live.hub.unsubscribe(held)
        private = "INSERT INTO todo(reference_id, text, permission) VALUES('p', 'private', 0)"
        taken = "UPDATE todo SET reference_id = 'r' WHERE reference_id = 'p'"
        subscription, begun = live.hub.subscribe(carl, "todo", Wish(live_set=live_set)), live.hub.position.id
        if how == "fed":
            live.hub.attach(subscription)
        await run(live, (former, private, taken, "DELETE FROM todo WHERE reference_id = 'r'"), at_once=True, keys="OFF")
        if how == "read":
            live.hub.recent.forget(live.hub.position.id)
        if how != "fed":
            await Reading(live.hub, live.store, carl, [subscription], begun).run()
        assert "private" not in str(carl.sent)


@pytest.mark.parametrize("how", ["remembered", "read"])
@pytest.mark.parametrize("groups", [("staff",), ("staff", "club"), ("club",)])
async def test_a_row_that_leaves_a_filter_goes_to_another_group_and_is_deleted_leaves_whoever_held_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, groups: tuple[str, ...]
) -> None:
    read_one_by_one(monkeypatch)
    async with row_and_club(tmp_path) as live:
        ann, wish = peer("ann", *groups), Wish({"text": "shared"}, live_set=True)
        subscription, begun = live.hub.subscribe(ann, "todo", wish), live.hub.position.id
        moves = f"UPDATE {join_table('todo')} SET usergroup_id = 'club'"
        for statement in (LEAVES, moves, GOES):
            await run(live, (statement,), at_once=False)
        if how == "read":
            live.hub.recent.forget(live.hub.position.id)
        reader = Reading(live.hub, live.store, ann, [subscription], begun)
        await reader._is_last_step()
        monkeypatch.undo()  # what comes behind it is decided on together
        await reader.run()
        assert ann.told == []
        assert not held_by(ann, {"r"} if "staff" in groups else set())
        assert all(each["EventType"] == "delete" for each in ann.sent)
        assert "staff" in groups or "shared" not in str(ann.sent)


@pytest.mark.parametrize("how", ["fed", "remembered", "read"])
async def test_a_row_that_its_transaction_shares_changes_and_parts_is_shown_to_nobody_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    read_one_by_one(monkeypatch)
    for name in ("LOOK_ROWS", "GLANCE_ROWS"):
        monkeypatch.setattr(look, name, 2)
    async with row_and_club(tmp_path, (GOES,)) as live:
        dan, begun = peer("dan", "club"), live.hub.position.id
        subscription = live.hub.subscribe(dan, "todo", Wish({"text": "shared"}, live_set=True))
        if how == "fed":
            live.hub.attach(subscription)
            behind_a_look(monkeypatch, live, lambda: live.sql(GOES))
        await run(live, (COMES.format("shared"), JOIN.format("club"), LEAVES, PARTS), at_once=True)
        if how != "fed":
            await run(live, (GOES,), at_once=True)
            if how == "read":
                live.hub.recent.forget(live.hub.position.id)
            await Reading(live.hub, live.store, dan, [subscription], begun).run()
        await caught_up(live)
        assert "shared" not in str(dan.sent)
        assert dan.told == []


async def test_a_row_leaves_a_filter_that_came_when_it_had_been_judged_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_one_by_one(monkeypatch)
    async with shared_row(tmp_path / "a.db") as (live, carl, held):
        live.hub.unsubscribe(held)
        begun = live.hub.position.id
        for statement in (LEAVES, GOES):
            await run(live, (statement,), at_once=False)
        with many_read(live.hub.shared):
            for text in ("something else", "shared"):
                subscription = live.hub.subscribe(carl, "todo", Wish({"text": text}, live_set=True))
                await Reading(live.hub, live.store, carl, [subscription], begun).run()
                live.hub.unsubscribe(subscription)
        assert (told(carl), carl.told) == ([("delete", "shared")], [])


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_row_that_a_group_loses_and_whose_new_owner_did_not_ask_for_it_leaves_its_live_set(
    tmp_path: Path, remembered: bool
) -> None:
    async with shared_row(tmp_path / "a.db") as (live, carl, held):
        begun = live.hub.position.id
        for statement in (PARTS, BECOMES_CARLS, GOES):
            await run(live, (statement,), at_once=False)
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        await Reading(live.hub, live.store, carl, [held], begun).run()
        assert (held_by(carl, {"r"}), carl.told) == (False, [])


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_row_that_goes_to_another_owner_leaves_the_live_set_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    read_one_by_one(monkeypatch)
    becomes_dans = f"UPDATE todo SET permission = {Verb.READ << OWNER_SHIFT}, user_account_id = 'dan'"
    async with row_and_club(tmp_path, (becomes_dans,)) as live:
        dan = peer("dan")
        begun, subscription = live.hub.position.id, live.hub.subscribe(dan, "todo", Wish(live_set=True))
        taken = "UPDATE todo SET user_account_id = 'eve', text = 'of eve'"
        for statement in (taken, GOES, COMES.format("another"), JOIN.format(USERS)):
            await run(live, (statement,), at_once=True)
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        await Reading(live.hub, live.store, dan, [subscription], begun).run()
        assert set(told(dan)) == {("delete", "shared"), ("create", "another")}
        assert (held_by(dan, {"r"}), dan.told) == (True, [])


@pytest.mark.parametrize("begins", ["UPDATE todo SET text = 'secret'", COMES.format("secret")])
async def test_a_row_is_not_judged_by_another_that_has_its_name_when_the_server_has_just_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: str
) -> None:
    async with row_and_club(tmp_path, (GOES,) * begins.startswith("INSERT")) as live:
        dan = peer("dan", "club")
        live.hub.attach(live.hub.subscribe(dan, "todo", Wish(live_set=True)))

        def replace() -> None:
            with closing(sqlite3.connect(live.store.path, isolation_level=None)) as db:
                for statement in ("PRAGMA foreign_keys=ON", GOES, COMES.format("another"), JOIN.format("club")):
                    db.execute(statement)

        to_come = behind_a_look(monkeypatch, live, replace)
        live.sql(begins)
        while to_come:
            await trio.lowlevel.checkpoint()
        await caught_up(live)
        assert set(told(dan)) == {("create", "another")}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("statements", [(RENAMED, *NO_MATCH), (LEAVES, RENAMED, *NO_MATCH), (RENAMED, *ANOTHER, GOES)])
async def test_it_is_told_that_one_was_renamed_and_another_has_its_name(
    tmp_path: Path, statements: tuple[str, ...], at_once: bool
) -> None:
    async with row_and_club(tmp_path) as live:
        carl = peer("carl", "staff")
        live.hub.attach(live.hub.subscribe(carl, "todo", Wish({"text": "shared"}, live_set=True)))
        await run(live, statements, at_once=at_once, keys="OFF")
        assert [(each["EventType"], each["EventData"]["reason"]) for each in carl.told] == [("resync", "overrun")]
