"""A row of a group called staff, what is done to it, another group called club, and who follows."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

from appliance.live.matching.audience import Wish
from appliance.live.replay.reading import Reading
from appliance.protocol.permissions import GROUP_SHIFT, Verb
from appliance.store.tables.standard import join_table
from tests.live.matching.test_facts import caught_up, shared_row
from tests.live.replay.test_reading import Peer
from tests.web.api.application import Served

JOIN = (
    f"INSERT INTO {join_table('todo')}(todo_id, usergroup_id, permission) "
    f"VALUES('r', '{{}}', {Verb.READ << GROUP_SHIFT})"
)
#: The row is the group's ``staff``.
LEAVES, PARTS, GOES = "UPDATE todo SET text = 'other'", f"DELETE FROM {join_table('todo')}", "DELETE FROM todo"
#: Another takes its name, and is for another group.
COMES = "INSERT INTO todo(reference_id, text, permission) VALUES('r', '{}', 0)"
RENAMED = "UPDATE todo SET reference_id = 'q'"


def put(text: str) -> str:
    return f"UPDATE todo SET text = '{text}'"


@asynccontextmanager
async def row_and_club(tmp_path: Path, before: tuple[str, ...] = ()) -> AsyncIterator[Served]:
    """Serve a row of a group and a group called club, behind these statements; nobody follows yet."""
    async with shared_row(tmp_path / "a.db") as (live, _, held):
        live.hub.unsubscribe(held)
        live.sql("INSERT INTO usergroup(reference_id, name) VALUES('club', 'club')")
        await run(live, before, at_once=False)
        yield live


async def run(live: Served, statements: tuple[str, ...], *, at_once: bool, keys: str = "ON") -> None:
    """Run these, in one transaction or one each."""
    with closing(sqlite3.connect(live.store.path, isolation_level=None)) as db:
        db.execute(f"PRAGMA foreign_keys={keys}")
        for statement in ("BEGIN", *statements, "COMMIT") if at_once else statements:
            db.execute(statement)
    await caught_up(live)


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


def told(who: Peer) -> list[tuple[str, str]]:
    """Say what somebody was told of rows: what happened, and the text that was shown."""
    return [(each["EventType"], each["EventData"].get("text", "")) for each in who.sent]


def held_by(who: Peer, held: set[str]) -> bool:
    """Say whether somebody who applies what it was told holds the row."""
    for each in who.sent:
        if each["EventType"] == "delete":
            held.discard("r")
        else:
            held.add("r")
    return bool(held)
