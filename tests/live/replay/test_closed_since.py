"""Who has lost a row by now is not sent what it was before, however long ago that was."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import pytest

from appliance.live.matching.audience import Wish
from appliance.live.replay import beside
from appliance.live.replay.reading import Reading
from appliance.protocol.permissions import OWNER_SHIFT, Verb
from appliance.store.outbox import look, replay
from appliance.store.tables.making import NewColumn
from tests.live.matching.test_facts import caught_up, peer
from tests.web.api.application import Served, served

OWNERS = Verb.READ << OWNER_SHIFT
COMES = f"INSERT INTO todo(reference_id, text, permission, user_account_id) VALUES('r', 'a', {OWNERS}, 'ann')"
CHANGES = "UPDATE todo SET text = 'b'"
CLOSED, GIVEN_AWAY = "UPDATE todo SET permission = 0", "UPDATE todo SET user_account_id = 'bob'"
OPENED = f"UPDATE todo SET permission = {OWNERS}"
RENAMED, DELETED_AGAIN = "UPDATE todo SET reference_id = 'q'", "DELETE FROM todo WHERE reference_id = 'r'"


#: What somebody was told of rows: what happened, and the text that was shown.
Told: TypeAlias = list[tuple[str, str]]


async def replayed(live: Served, table: str, statements: Sequence[str], *, remembered: bool) -> list[Told]:
    """Run these, and give what Ann is told of them in a replay: as one who follows, and as one who holds rows."""
    begun, found = live.hub.position.id, list[Told]()
    peers = [peer("ann"), peer("ann")]
    wishes = (Wish(), Wish(live_set=True))
    subscribed = [live.hub.subscribe(ann, table, wish) for ann, wish in zip(peers, wishes, strict=True)]
    for statement in statements:
        live.sql(statement)
        await caught_up(live)
    if not remembered:
        live.hub.recent.forget(live.hub.position.id)
    for ann, subscription in zip(peers, subscribed, strict=True):
        await Reading(live.hub, live.store, ann, [subscription], begun).run()
        found.append([(event["EventType"], event["EventData"].get("text", "")) for event in ann.sent])
    return found


def assert_told(followed: Told, held: Told | None, told: list[Told]) -> None:
    """Compare; ``None``: whatever it is."""
    assert told[0] == followed
    assert held is None or told[1] == held


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize(
    ("statements", "followed", "held"),
    [
        ((COMES, CHANGES), [("create", "a"), ("update", "b")], [("create", "a"), ("update", "b")]),
        ((COMES, CHANGES, CLOSED), [], [("delete", "a"), ("delete", "b")]),
        ((COMES, CHANGES, GIVEN_AWAY), [], [("delete", "a"), ("delete", "b")]),
        ((COMES, CHANGES, GIVEN_AWAY, "DELETE FROM todo"), [("create", "a"), ("update", "b")], None),
        (
            (COMES, CLOSED, CHANGES, OPENED),
            [("create", "a"), ("update", "b")],
            [("create", "a"), ("delete", "a"), ("create", "b")],
        ),
        # The second of that name is gone, as is the name of the first.
        ((COMES, RENAMED, CLOSED, COMES, DELETED_AGAIN), [("create", "a"), ("create", "a"), ("delete", "a")], None),
    ],
)
async def test_a_replay_has_what_may_be_read_now_and_might_then(
    tmp_path: Path,
    remembered: bool,
    statements: tuple[str, ...],
    followed: Told,
    held: Told | None,
) -> None:
    async with served(tmp_path / "a.db", tables={"todo": (NewColumn("text", "text"),)}) as live:
        assert_told(followed, held, await replayed(live, "todo", statements, remembered=remembered))


#: Tables whose rows are found by their keys in as many ways.
KEYS = [
    "(k INTEGER PRIMARY KEY, text, owner TEXT)",
    "(k, text, owner TEXT)",
    "(k TEXT COLLATE NOCASE, j DEFAULT 1, text, owner TEXT, PRIMARY KEY(j, k)) WITHOUT ROWID",
    "(k PRIMARY KEY DEFAULT NULL, text, owner TEXT)",
]
PUT = "INSERT INTO note(k, text, owner) VALUES({}, 'a', 'ann')"
AGAIN = "INSERT INTO note(k, text, owner) VALUES({}, 'c', 'bob')"
REWRITTEN, PASSED_ON, DELETED = "UPDATE note SET text = 'b'", "UPDATE note SET owner = 'bob'", "DELETE FROM note"
BACK = "UPDATE note SET owner = 'ann'"


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("table", KEYS)
@pytest.mark.parametrize("key", ["1", "CAST(x'ff' AS TEXT)"])
@pytest.mark.parametrize(
    ("statements", "followed", "held"),
    [
        ((PUT, REWRITTEN), [("create", "a"), ("update", "b")], [("create", "a"), ("update", "b")]),
        ((PUT, REWRITTEN, PASSED_ON), [], [("delete", "a"), ("delete", "b")]),
        ((PUT, PASSED_ON, REWRITTEN, BACK), [("create", "a"), ("update", "b")], None),
        ((PUT, REWRITTEN, PASSED_ON, DELETED), [("create", "a"), ("update", "b")], None),
        # Another row has its place; of its own it has all.
        ((PUT, DELETED, AGAIN), [("create", "a"), ("delete", "a")], [("create", "a"), ("delete", "a")]),
        ((PUT, DELETED, PUT, REWRITTEN, PASSED_ON), [("create", "a"), ("delete", "a")], None),
    ],
)
async def test_so_it_is_with_rows_of_a_plain_table_that_have_owners(
    tmp_path: Path,
    table: str,
    key: str,
    remembered: bool,
    statements: tuple[str, ...],
    followed: Told,
    held: Told | None,
) -> None:
    if key != "1" and ("INTEGER PRIMARY" in table or DELETED in statements[:-1]):
        return  # nothing can be asked for by what is no UTF-8
    async with served(tmp_path / "a.db", f"CREATE TABLE note{table}") as live:
        permission = Verb.PEEK | OWNERS
        live.sql("UPDATE world SET owner_column = 'owner', permission = ? WHERE table_name = 'note'", permission)
        await caught_up(live)
        made = [statement.format(key) for statement in statements]
        assert_told(followed, held, await replayed(live, "note", made, remembered=remembered))


@pytest.mark.parametrize("goes", [False, True])
@pytest.mark.parametrize("table", ["note", "todo"])
async def test_what_a_transaction_gives_and_takes_back_is_shown_to_nobody_however_much_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, goes: bool
) -> None:
    for name in ("LOOK_ROWS", "GLANCE_ROWS"):
        monkeypatch.setattr(look, name, 2)
    monkeypatch.setattr(beside, "PAGES", 0)
    monkeypatch.setattr(replay, "PAGE_ROWS", 1)
    columns = (NewColumn("text", "text"),)
    async with served(tmp_path / "a.db", f"CREATE TABLE note{KEYS[0]}", tables={"todo": columns}) as live:
        live.sql("UPDATE world SET owner_column = 'owner', permission = ? WHERE table_name = 'note'", 1 | OWNERS)
        for statement in (PUT.format(1), PASSED_ON, COMES, GIVEN_AWAY):
            live.sql(statement)
        await caught_up(live)
        follows, holds = peer("ann"), peer("ann")
        for ann, wish in ((follows, Wish()), (holds, Wish(live_set=True))):
            live.hub.attach(live.hub.subscribe(ann, table, wish))
        to_ann, taken = (
            (BACK, PASSED_ON) if table == "note" else ("UPDATE todo SET user_account_id = 'ann'", GIVEN_AWAY)
        )
        often = (f"UPDATE {table} SET text = text || '.'",) * 8
        end = (*often, f"DELETE FROM {table}") if goes else ()
        with closing(sqlite3.connect(live.store.path, isolation_level=None)) as another:
            for statement in ("BEGIN", to_ann, *often, taken, *end, "COMMIT"):
                another.execute(statement)
        await caught_up(live)
        assert follows.sent == holds.sent == []
        assert {(each["EventType"], each["EventData"]["reason"]) for each in holds.told} == {("resync", "overrun")}
