"""Three users hold and follow tables while all that decides about them changes at random: rows, owners, bits, groups,
memberships, grants. Each holds what it may SELECT and is told of nothing else, live, by the API and after a resume.

``python -m tests.e2e.test_rights_differential FIRST LAST`` runs more histories than CI does.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.protocol import tokens
from appliance.store.access import granting
from appliance.store.file import connections, schema
from appliance.store.tables import making
from appliance.store.tables.making import NewColumn
from tests.e2e.differential import MEMBERS, USERS, Changes, Data, Row, State, state
from tests.e2e.live import Client, Live, serving, until
from tests.e2e.server_process import PATIENCE_S

pytestmark = pytest.mark.e2e

COMMITS = 14
#: What the filtered subscriptions of all users ask for, and the same in Python.
FILTER = {"n": {"gte": 3}}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    db = tmp_path_factory.mktemp("differential") / "shop.db"
    with serving(db) as served:
        yield served


def matches(data: Data) -> bool:
    return isinstance(data[1], int) and data[1] >= 3


class Reader:
    """One connection of a user, with a subscription to each table that the user may know of."""

    def __init__(self, client: Client, user: str, tables: Sequence[str], **wish: Any) -> None:
        self.user = user
        self.client = client
        self.wish = wish
        #: By table, the rows that it holds; no entry where it has no subscription.
        self.rows: dict[str, dict[Any, Data]] = {}
        #: By table, what has been told since it was last asked.
        self.heard: dict[str, list[tuple[str, Any, Data]]] = {}
        #: The keys that rows have got since then, by table and by the keys that they had.
        self.renamed: dict[tuple[str, Any], Any] = {}
        self._tables = tables

    def _subscribe(self, table: str, **position: Any) -> bool:
        reply = self.client.ask("subscribe", topic=table, **self.wish, **position)
        if reply["EventType"] == "response":
            self.rows[table] = {} if not reply["EventData"].get("recovered") else self.rows.get(table, {})
            return True
        assert reply["EventData"]["code"] == "unknown-topic", reply
        self.rows.pop(table, None)
        return False

    def settle(self, now: State) -> None:
        """Take all that has come by now; begin anew where it is told to, or where it may again."""
        self.listen()
        again = self._take(self.client.all_until_now())
        for table in self._tables:
            if table in again or table not in self.rows:
                if table in self.rows:
                    self.client.done("unsubscribe", topic=table)
                    self.client.waiting = [each for each in self.client.waiting if each["ObjectType"] != table]
                assert self._subscribe(table) == now.knows(self.user, table), table
                if table in self.rows and self.wish.get("snapshot"):
                    self._begin(table)

    def listen(self) -> None:
        """Forget what has been told until now."""
        self.heard = {table: [] for table in self._tables}
        self.renamed = {}

    def now_called(self, table: str, key: Any) -> Any:
        """Give the key that a row has by now."""
        left = dict(self.renamed)
        while (table, key) in left:
            key = left.pop((table, key))
        return key

    def _begin(self, table: str) -> None:
        while True:
            event = self.client.event()
            assert not self._take([event]), event
            if (event["EventType"], event["ObjectType"]) == ("live", table):
                return

    def _take(self, events: list[dict[str, Any]]) -> set[str]:
        again = set()
        for event in events:
            kind, table = event["EventType"], event["ObjectType"]
            if event["MessageSource"] == "database":
                (key,) = event["Key"]
                data = (event["EventData"].get("text"), event["EventData"].get("n"))
                data += () if "reference_id" in event["EventData"] else (event["EventData"].get("owner"),)
                self.heard.setdefault(table, []).append((kind, key, data))
                if kind == "delete":
                    self.rows[table].pop(key, None)
                else:
                    old = event.get("OldKey", event["Key"])
                    if old != event["Key"]:
                        self.renamed[table, old[0]] = key
                    if kind != "create":
                        self.rows[table].pop(old[0], None)
                    self.rows[table][key] = data
            elif kind == "resync":
                assert event["EventData"]["reason"] == "permission", event
                again.add(table)
            elif kind in ("table-dropped", "topic-destroyed"):
                assert event["EventData"]["reason"] == "permission", event
                self.rows.pop(table, None)
            else:
                assert kind == "live", event
        return again & self.rows.keys()

    def resume(self, client: Client, position: dict[str, Any]) -> None:
        """Go on at a position, on another connection."""
        self.client = client
        for table in [*self.rows]:
            if self._subscribe(table, since=position["EventId"], epoch=position["epoch"]):
                self._begin(table)


def held_against(name: str, reader: Reader, before: State, after: State, *, single: bool) -> None:
    """Say that one who only follows was told of what it may SELECT, after or before the commit, and of all of that."""
    user = reader.user
    was, is_now = before.tables[name].rows, after.tables[name].rows
    may_now, might = after.readable(user, name), before.readable(user, name)
    # A deletion is for those who are in the row's groups when they are told.
    might_now = {key for key, row in was.items() if after.reads(user, name, row)}
    heard = reader.heard[name]
    # A row that a transaction has made and deleted again, be it by another key, is told to whom it was there for.
    gone = {key for kind, key, _ in heard if kind == "delete"}
    passing = {key for kind, key, _ in heard if kind == "create" and {key, reader.now_called(name, key)} & gone}
    for kind, key, data in heard:
        if (key in was or key in is_now) and key not in passing and data not in may_now.values():
            # Of a row that is the user's to read in the end all is told that its transaction has done to it.
            known = {key, reader.now_called(name, key)}
            assert known & (might_now | might.keys() | may_now.keys()), (kind, key, data)
        if single and kind != "delete":
            assert may_now[key] == data, (kind, key, data)
        if single and kind == "delete":
            assert key in might_now, (kind, key, data)
    if not single or name not in reader.rows or not (before.knows(user, name) and after.knows(user, name)):
        return
    told = {key: (kind, data) for kind, key, data in heard}
    for key in was.keys() | is_now.keys():
        if not _differ(was.get(key), is_now.get(key)):
            continue
        if key in may_now:
            assert told[key][1] == may_now[key], key
        elif key not in is_now and key in might_now:
            assert told[key][0] == "delete" or len(heard) > 1, key


def resumed_against(name: str, reader: Reader, states: Sequence[State]) -> None:
    """Say that one who came back was told of nothing that it could not SELECT after any of the commits, or now."""
    user, now = reader.user, states[-1]
    readable = [each.readable(user, name) for each in states]
    for kind, key, data in reader.heard[name]:
        there = [each.tables[name].rows[key] for each in states if key in each.tables[name].rows]
        # A row may have got another key since, by the same transaction.
        if there and not any(key in rows or data in rows.values() for rows in readable):
            assert any(now.reads(user, name, row) for row in there), (kind, key, data)


def _differ(one: Row | None, other: Row | None) -> bool:
    if one is None or other is None:
        return True
    return (one.data, one.permission, one.owner) != (other.data, other.permission, other.owner)


class History:
    """One store's tables, users and groups, of one seed."""

    def __init__(self, live: Live, seed: int, opened: ExitStack) -> None:
        self.live = live
        self.db = opened.enter_context(closing(connections.open_file(live.db, busy_timeout_s=20)))
        self.db.execute("PRAGMA foreign_keys=ON")
        self.users = [f"ann {uuid.uuid4()}", str(uuid.uuid4().int % 10**12), f"eve {uuid.uuid4()}"]
        groups = [str(uuid.uuid4()) for _ in range(2)]
        tag = f"{seed}x{uuid.uuid4().hex[:6]}"
        self.standard, self.plain = [f"note{tag}"], [f"item{tag}", f"pair{tag}"]
        self.changes = Changes(self.db, seed, self.users, groups)
        self._make(groups)
        secret = str(schema.get(self.db, "secret"))
        self.keys = {
            user: tokens.issue(secret, subject=user, now=time.time(), ttl_s=3600, token_id=user) for user in self.users
        }
        self._opened = opened

    def _make(self, groups: Sequence[str]) -> None:
        (note,), (item, pair) = self.standard, self.plain
        with schema.transaction(self.db):
            making.create(self.db, note, [NewColumn("text", "text"), NewColumn("n", "integer")])
            self.db.execute(f"CREATE TABLE {item}(k INTEGER PRIMARY KEY, text TEXT, n INTEGER, owner)")
            self.db.execute(f"CREATE TABLE {pair}(k TEXT PRIMARY KEY, text TEXT, n INTEGER, owner TEXT) WITHOUT ROWID")
            for group in groups:
                self.db.execute("INSERT INTO usergroup(reference_id, name) VALUES(?, ?)", (group, group))
            for user in self.users:
                self.db.execute(
                    "INSERT INTO user_account(reference_id, email) VALUES(?, ?)", (user, f"{uuid.uuid4()}@example.com")
                )
                self.db.execute(f"INSERT INTO {MEMBERS}(user_account_id, usergroup_id) VALUES(?, ?)", (user, USERS))
            for table in self.plain:
                granting.grant(self.db, table, "owner", granting.verbs(["read"]), owner_column="owner")
        with self.live.client() as client:
            for table in (*self.standard, *self.plain):
                until(lambda t=table: client.ask("subscribe", topic=t)["EventType"] == "response", "it is a topic")  # type: ignore[misc]

    @property
    def tables(self) -> list[str]:
        return [*self.standard, *self.plain]

    def now(self) -> State:
        return state(self.db, self.users, self.standard, self.plain)

    def reader(self, user: str, **wish: Any) -> Reader:
        return Reader(self.connect(user), user, self.tables, **wish)

    def connect(self, user: str) -> Client:
        return self._opened.enter_context(self.live.client(self.keys[user]))

    def commit(self) -> bool:
        """Commit some changes; say whether it was one only."""
        steps = self.changes.chance.choice((1, 1, 1, 2, 5))
        with schema.transaction(self.db):
            for _ in range(steps):
                table = self.changes.chance.choice((self.standard[0], *self.tables))
                deed = self.changes.step(table, standard=table in self.standard)
        return steps == 1 and deed not in ("again", "every owner", "key")

    def by_api(self, user: str, table: str, http: httpx.Client) -> list[str]:
        """List what the API lets a user read."""
        http.headers["Authorization"] = f"Bearer {self.keys[user]}"
        answer = http.get(f"/api/{table}?page[size]=1000&page[total]=true")
        if answer.status_code == 404:
            return ["not known"]
        assert answer.status_code == 200, answer.text
        rows = answer.json()["data"]
        assert answer.json()["meta"] == {"total": len(rows), "exact": True}
        return sorted(row["id"] for row in rows)


def play(live: Live, seed: int) -> None:
    """Play one history and hold everything that is told against the file."""
    with ExitStack() as opened:
        history = History(live, seed, opened)
        chance, leaving = history.changes.chance, random.Random(seed)
        http = opened.enter_context(httpx.Client(base_url=f"http://localhost:{live.port}", timeout=PATIENCE_S))
        before = history.now()
        followers = [history.reader(user) for user in history.users]
        holders = [history.reader(user, snapshot=True) for user in history.users]
        choosers = [history.reader(user, snapshot=True, filters=FILTER) for user in history.users]
        for each in (*followers, *holders, *choosers):
            each.settle(before)
        for _ in range(COMMITS):
            # Somebody goes away, and comes back when it is another's rights by now.
            away = chance.choice(holders) if chance.random() < 0.25 else None
            position = away.client.done("ping") if away else {}
            absent = leaving.choice(followers) if leaving.random() < 0.3 else None
            left_at, states = absent.client.done("ping") if absent else {}, [before]
            if absent:
                absent.client.connection.close()
            if away:
                away.client.connection.close()
                for _ in range(chance.randrange(3)):
                    history.commit()
                    states.append(history.now())
                before = states[-1]
                for reader in followers:
                    if reader is not absent:
                        reader.settle(before)
            single = history.commit()
            after = history.now()
            if away:
                away.resume(history.connect(away.user), position)
            if absent:
                absent.listen()
                absent.resume(history.connect(absent.user), left_at)
                for name in history.tables:
                    resumed_against(name, absent, [*states, after])
            for reader in (*followers, *holders, *choosers):
                reader.settle(after)
            for name in history.tables:
                for reader in filter(lambda each: each is not absent, followers):
                    held_against(name, reader, before, after, single=single)
                for reader in holders:
                    assert reader.rows.get(name, {}) == after.readable(reader.user, name), reader.heard[name]
                for reader in choosers:
                    chosen = {key: data for key, data in after.readable(reader.user, name).items() if matches(data)}
                    assert reader.rows.get(name, {}) == chosen, reader.heard[name]
            if chance.random() < 0.2:
                user, name = chance.choice(history.users), chance.choice(history.tables)
                known = after.knows(user, name)
                listed = sorted(map(str, after.readable(user, name))) if known else ["not known"]
                assert history.by_api(user, name, http) == listed
            before = after


# 131: a REPLACE takes a row out of its group and its filter; 341: a row that was just made goes by another key.
@pytest.mark.parametrize("seed", [*range(3), 131, 341])
def test_each_holds_what_it_may_select_and_hears_nothing_else(live: Live, seed: int) -> None:
    play(live, seed)


def main(first: int, last: int) -> None:
    failed = []
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder, "shop.db")) as served:
        for seed in range(first, last):
            try:
                play(served, seed)
            except (AssertionError, KeyError, sqlite3.Error):
                failed.append(seed)
                print(seed, traceback.format_exc(limit=-2), flush=True)
            if seed % 10 == 9:
                print(f"{seed + 1 - first} played, {len(failed)} failed", flush=True)
    print(f"failed: {failed}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
