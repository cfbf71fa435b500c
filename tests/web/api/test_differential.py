"""Random histories of three users by the API, against a model that knows only ``permits``.

After every step each user's list is exactly what the model lets that user read, and every refusal is the one that the
model foretells: 404 for what may not be peeked, 403 for what may be peeked and not done.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.model import Principal
from appliance.protocol.permissions import GROUP_SHIFT, MOST, OWNER_SHIFT, Guarded, Verb, permits
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import USERS, join_table
from tests.web.api.application import Served, ids, served

TABLES = {"todo": (NewColumn("title", "text"), NewColumn("todo_id", "todo"))}
JOIN = join_table("todo")
MEMBERSHIP = join_table("user_account")
WHO: tuple[str | None, ...] = ("ann", "bob", None)  # None is the administrator
STEPS = 60


@dataclass
class Row:
    owner: str | None
    permission: int
    version: int = 1
    joins: dict[str, int] = field(default_factory=dict)

    @property
    def guard(self) -> Guarded:
        return Guarded(self.permission, self.owner, tuple(self.joins.items()))


class Model:
    """What there should be."""

    def __init__(self, chosen: random.Random) -> None:
        self.rows: dict[str, Row] = {}
        self.groups = {"ann": {USERS}, "bob": {USERS}}
        self.chosen = chosen

    def may(self, who: str | None, verb: Verb, row: Row) -> bool:
        principal = Principal("live-appliance", who or "administrator", admin=who is None, expires_at=0)
        return permits(principal, self.groups.get(who or "", set()), verb, row.guard)

    def expected(self, who: str | None, verb: Verb, row_id: str, done: set[int]) -> set[int]:
        row = self.rows.get(row_id)
        if row is None or (not self.may(who, verb, row) and not self.may(who, Verb.PEEK, row)):
            return {404}
        return done if self.may(who, verb, row) else {403}

    def bits(self) -> int:
        """Choose a permission; often one that gives a few things to few."""
        shifts = (0, OWNER_SHIFT, GROUP_SHIFT)
        some = sum(1 << self.chosen.choice(range(7)) + self.chosen.choice(shifts) for _ in range(4)) & MOST
        return self.chosen.choice((some, some | 1, 2097057, self.chosen.randrange(MOST + 1)))

    def one(self) -> str:
        """Choose a row, now and then one that is not there."""
        return self.chosen.choice([*self.rows, "nothing"])


async def create(live: Served, model: Model, who: str | None) -> None:
    attributes: dict[str, Any] = {"title": "t"}
    if model.chosen.random() < 0.7:
        attributes["permission"] = model.bits()
    target = model.one() if model.chosen.random() < 0.3 else None
    if target is not None:
        attributes["todo_id"] = target
    answer = await live.create("todo", who, **attributes)
    if target is not None and (target not in model.rows or not model.may(who, Verb.REFER, model.rows[target])):
        assert answer.status_code == 404
        return
    assert answer.status_code == 201, answer.text
    row_id = answer.json()["data"]["id"]
    model.rows[row_id] = Row(who or "administrator", attributes.get("permission", 2097057))
    assert ("attributes" in answer.json()["data"]) == model.may(who, Verb.READ, model.rows[row_id])


async def change(live: Served, model: Model, who: str | None) -> None:
    row_id = model.one()
    column, value = model.chosen.choice(
        (("title", str(model.chosen.random())), ("permission", model.bits()), ("user_account_id", "bob"))
    )
    row = model.rows.get(row_id)
    answer = await live.change("todo", row_id, who, **{column: value})
    expected = model.expected(who, Verb.UPDATE, row_id, {200, 204})
    same = row is not None and value == {"permission": row.permission, "user_account_id": row.owner}.get(column)
    if expected == {200, 204} and row is not None and column != "title" and not same:
        expected = expected if who is None or row.owner == who else {403}
    assert answer.status_code in expected, (answer.text, who, column, row)
    if row is not None and answer.status_code in (200, 204) and not same:
        row.version += 1
        if column == "permission":
            row.permission = int(value)  # type: ignore[call-overload]
        elif column == "user_account_id":
            row.owner = str(value)
    if row is not None and answer.status_code == 200:
        assert answer.json()["data"]["attributes"]["version"] == row.version
        assert model.may(who, Verb.READ, row)


async def delete(live: Served, model: Model, who: str | None) -> None:
    row_id = model.one()
    answer = await live.ask("DELETE", f"/api/todo/{row_id}", who)
    assert answer.status_code in model.expected(who, Verb.DELETE, row_id, {204, 409}), answer.text
    if answer.status_code == 204:
        del model.rows[row_id]


async def join(live: Served, model: Model, who: str | None) -> None:
    row_id, bits = model.one(), model.bits()
    row = model.rows.get(row_id)
    answer = await live.create(JOIN, who, todo_id=row_id, usergroup_id=USERS, permission=bits)
    if row is None:
        assert answer.status_code == (404 if who is None else 403)
    elif who is not None and row.owner != who:
        assert answer.status_code == 403
    elif row.joins:
        assert answer.status_code == 409
    else:
        assert answer.status_code == 201, answer.text
        row.joins[USERS] = bits


async def part(live: Served, model: Model, who: str | None) -> None:
    """Take a row out of its group, in SQL, or a user."""
    if model.chosen.random() < 0.5:
        row_id = model.one()
        live.sql(f'DELETE FROM "{JOIN}" WHERE todo_id = ?', row_id)
        if row_id in model.rows:
            model.rows[row_id].joins.clear()
    elif USERS in model.groups["bob"]:
        live.sql(f'DELETE FROM "{MEMBERSHIP}" WHERE user_account_id = ?', "bob")
        model.groups["bob"].clear()
    else:
        live.sql(f'INSERT INTO "{MEMBERSHIP}"(user_account_id, usergroup_id) VALUES(?, ?)', "bob", USERS)
        model.groups["bob"].add(USERS)


@pytest.mark.parametrize("seed", range(4))
async def test_every_list_and_every_refusal_is_the_one_that_permits_foretells(tmp_path: Path, seed: int) -> None:
    model = Model(random.Random(seed))
    async with served(tmp_path / "live.db", tables=TABLES) as live:
        for _ in range(STEPS):
            step = model.chosen.choice((create, create, change, change, delete, join, part))
            await step(live, model, model.chosen.choice(WHO))

            row_id = model.one()
            for who in WHO:
                readable = {each for each, row in model.rows.items() if model.may(who, Verb.READ, row)}
                assert set(ids(await live.ask("GET", "/api/todo?page[size]=1000", who))) == readable
                read = await live.ask("GET", f"/api/todo/{row_id}", who)
                assert {read.status_code} == model.expected(who, Verb.READ, row_id, {200})
        assert len(model.rows) > 3
