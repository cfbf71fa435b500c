"""Three users hold a table's rows while its owners, bits and groups change at random: each holds what it may SELECT."""

from __future__ import annotations

import random
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from appliance.model import Principal
from appliance.protocol.tokens import ISSUER
from appliance.store import connections, grants, schema, standard
from appliance.store.standard import USERS, NewColumn, join_table
from tests.e2e.live import Client, Live, serving, token, until

pytestmark = pytest.mark.e2e

BITS = (0, 2, 256, 258, 256 | 1, 2 | 16384 | 32768)  # of a row: nothing, guests read, the owner reads, both, …
MEMBERS = join_table("user_account")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    db = tmp_path_factory.mktemp("differential") / "shop.db"
    with serving(db) as served:
        yield served


class Holder:
    """A user who holds the rows of a table, as what it is told says, and another who only listens."""

    def __init__(self, user: str, table: str, holding: Client, listening: Client) -> None:
        self.user = user
        self.table = table
        self.rows: dict[str, Any] = {}
        self.heard: list[dict[str, Any]] = []
        self._holding = holding
        self._listening = listening
        self._begin()
        listening.done("subscribe", topic=table)

    def _begin(self) -> None:
        self.rows.clear()
        self._holding.done("subscribe", topic=self.table, snapshot=True)
        while (event := self._holding.event())["EventType"] != "live":
            self._apply(event)

    def catch_up(self) -> None:
        events = self._holding.all_until_now()
        while any(event["EventType"] == "resync" for event in events):
            self._holding.done("unsubscribe", topic=self.table)
            self._holding.waiting.clear()
            self._begin()
            events = self._holding.all_until_now()
        for event in events:
            self._apply(event)
        self.heard = [event for event in self._listening.all_until_now() if event["MessageSource"] == "database"]

    def _apply(self, event: dict[str, Any]) -> None:
        assert event["MessageSource"] == "database", event
        (key,) = event["Key"]
        if event["EventType"] == "delete":
            self.rows.pop(key, None)
        else:
            self.rows[key] = event["EventData"]["text"]


def step(db: sqlite3.Connection, chance: random.Random, table: str, users: list[str], groups: list[str]) -> None:
    """Change something: a row, whose it is, who may read it, its groups, or who is in them; often several at once."""
    joined = join_table(table)
    rows = [row for (row,) in db.execute(f"SELECT reference_id FROM {table}").fetchall()]
    row = chance.choice(rows) if rows else None
    owner, group, bits = chance.choice([*users, None]), chance.choice(groups), chance.choice(BITS)
    deed = chance.choice(
        ("insert", "insert", "text", "owner", "bits", "join", "join", "part", "delete", "enter", "leave")
    )
    if deed == "insert" or row is None:
        db.execute(
            f"INSERT INTO {table}(text, user_account_id, permission) VALUES(?, ?, ?)", (chance.random(), owner, bits)
        )
    elif deed == "text":
        db.execute(f"UPDATE {table} SET text = ? WHERE reference_id = ?", (chance.random(), row))
    elif deed == "owner":
        db.execute(f"UPDATE {table} SET user_account_id = ? WHERE reference_id = ?", (owner, row))
    elif deed == "bits":
        db.execute(f"UPDATE {table} SET permission = ? WHERE reference_id = ?", (bits, row))
    elif deed == "join":
        db.execute(
            f"INSERT OR REPLACE INTO {joined}({table}_id, usergroup_id, permission) VALUES(?, ?, ?)",
            (row, group, chance.choice((32768, 32768, 16384))),
        )
    elif deed == "part":
        db.execute(f"DELETE FROM {joined} WHERE {table}_id = ? AND usergroup_id = ?", (row, group))
    elif deed == "delete":
        db.execute(f"DELETE FROM {table} WHERE reference_id = ?", (row,))
    elif deed == "enter":
        db.execute(
            f"INSERT OR IGNORE INTO {MEMBERS}(user_account_id, usergroup_id) VALUES(?, ?)",
            (chance.choice(users), group),
        )
    else:
        db.execute(
            f"DELETE FROM {MEMBERS} WHERE user_account_id = ? AND usergroup_id = ?", (chance.choice(users), group)
        )


def readable(db: sqlite3.Connection, table: str, user: str) -> dict[str, Any]:
    """Ask the store what a user may read, as its SQL twin of the decision says."""
    grant, stands = grants.read(db)[table], grants.standing(db, [user])[user]
    principal = Principal(ISSUER, user, admin=False, expires_at=0)
    condition, values = grants.readable(grant, principal, stands.groups)
    return dict(db.execute(f"SELECT reference_id, text FROM {table} WHERE {condition}", values).fetchall())


@pytest.mark.parametrize("seed", range(4))
def test_each_holds_what_it_may_select_and_hears_nothing_else(live: Live, seed: int) -> None:
    chance = random.Random(seed)
    table = f"diff{seed}"
    users, groups = ([str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(3)] for _ in range(2))
    with closing(connections.open_file(live.db, busy_timeout_s=20)) as db, ExitStack() as opened:
        with schema.transaction(db):
            standard.create(db, table, [NewColumn("text", "real")])
            for number, group in enumerate(groups):
                db.execute("INSERT INTO usergroup(reference_id, name) VALUES(?, ?)", (group, f"{table} {number}"))
            for number, user in enumerate(users):
                db.execute(
                    "INSERT INTO user_account(reference_id, email) VALUES(?, ?)",
                    (user, f"{table}.{number}@example.com"),
                )
                for each in (USERS, chance.choice(groups)):
                    db.execute(
                        f"INSERT OR IGNORE INTO {MEMBERS}(user_account_id, usergroup_id) VALUES(?, ?)", (user, each)
                    )
        with live.client() as client:
            until(lambda: client.ask("subscribe", topic=table)["EventType"] == "response", "the table is a topic")
        holders = []
        for user in users:
            key = token(live.db, "--subject", user)
            pair = [opened.enter_context(live.client(key)) for _ in range(2)]
            holders.append(Holder(user, table, *pair))
        for _ in range(25):
            steps = chance.choice((1, 1, 2, 6))
            with schema.transaction(db):
                for _ in range(steps):
                    step(db, chance, table, users, groups)
            for holder in holders:
                holder.catch_up()
                allowed = readable(db, table, holder.user)
                assert holder.rows == allowed
                # Within a longer transaction a row may have been what nobody could ever SELECT.
                for event in holder.heard if steps == 1 else ():
                    assert event["EventType"] == "delete" or event["Key"][0] in allowed, event
