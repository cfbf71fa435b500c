"""Who sees what on open sockets: rows by owner, group and guest bit, and rights that change while they are open."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from appliance.store.file import connections, schema
from appliance.store.tables import making
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import ADMINISTRATORS, USERS, join_table
from tests.e2e.live import Client, Live, run, serving, sql, standing_still, token, until

pytestmark = pytest.mark.e2e

GROUP_READ, OWNER_READ, GUEST_READ = 32768, 256, 2
GROUP_PEEK_READ = 16384 + GROUP_READ


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    db = tmp_path_factory.mktemp("rights") / "shop.db"
    with serving(db) as served:
        yield served


class Person:
    """Somebody with an account, and a token."""

    def __init__(self, db: Path, *groups: str) -> None:
        self.id = str(uuid.uuid4())
        members = join_table("user_account")
        statements = [f"INSERT INTO user_account(reference_id, email) VALUES('{self.id}', '{self.id}@example.com')"]
        statements += [
            f"INSERT INTO {members}(user_account_id, usergroup_id) VALUES('{self.id}', '{group}')"
            for group in (USERS, *groups)
        ]
        sql(db, "; ".join(statements))
        self.token = token(db, "--subject", self.id)


@contextmanager
def held_by_a_group(live: Live, notes: str, text: str) -> Iterator[tuple[Client, str, str]]:
    """Give a client that holds a row as a member of a group, that group, and the row."""
    theirs = group(live.db)
    member = Person(live.db, theirs)
    row = insert(live.db, notes, text, permission=0)
    join(live.db, notes, row, theirs)
    with live.client(member.token) as client:
        client.done("subscribe", topic=notes, snapshot=True)
        assert begun(client) == [("snapshot", text)]
        yield client, theirs, row


@pytest.fixture
def notes(live: Live) -> str:
    return new_notes(live)


def new_notes(live: Live) -> str:
    """Make a standard table, of which everybody may know."""
    name = f"note{uuid.uuid4().hex[:8]}"
    with closing(connections.open_file(live.db, busy_timeout_s=10)) as db, schema.transaction(db):
        making.create(db, name, [NewColumn("text", "text")])
    with live.client() as client:
        until(lambda: client.ask("subscribe", topic=name)["EventType"] == "response", "the table is a topic")
    return name


def group(db: Path) -> str:
    reference = str(uuid.uuid4())
    sql(db, f"INSERT INTO usergroup(reference_id, name) VALUES('{reference}', '{reference}')")
    return reference


def insert(db: Path, table: str, text: str, owner: str | None = None, permission: int = OWNER_READ) -> str:
    reference = str(uuid.uuid4())
    by = "NULL" if owner is None else f"'{owner}'"
    sql(db, f"INSERT INTO {table}(reference_id, text, user_account_id, permission) "
            f"VALUES('{reference}', '{text}', {by}, {permission})")  # fmt: skip
    return reference


def join(db: Path, table: str, row: str, to: str, permission: int = GROUP_READ) -> None:
    sql(
        db,
        f"INSERT INTO {join_table(table)}({table}_id, usergroup_id, permission) VALUES('{row}', '{to}', {permission})",
    )


def told(client: Client) -> list[tuple[str, Any]]:
    """Give what a client has been told until now, of rows by their text."""
    return [
        (event["EventType"], event["EventData"].get("text", event["EventData"].get("reason")))
        for event in client.all_until_now()
    ]


def begun(client: Client) -> list[tuple[str, Any]]:
    """Give what a replay or snapshot has brought, up to its ``live`` notice."""
    found = []
    while (event := client.event())["EventType"] != "live":
        found.append((event["EventType"], event["EventData"].get("text")))
    return found


def taken_up(live: Live) -> None:
    """Wait until the server has read all that is committed: what follows is another transaction for it, too."""
    newest = int(sql(live.db, "SELECT max(id) FROM _appliance_outbox"))
    with live.client() as client:
        until(lambda: client.done("ping")["EventId"] >= newest, "it has read everything")


def test_each_sees_the_rows_that_are_theirs_to_see(live: Live, notes: str) -> None:
    theirs = group(live.db)
    owner, member, other = Person(live.db), Person(live.db, theirs), Person(live.db)
    with (
        live.client(owner.token) as a,
        live.client(member.token) as b,
        live.client(other.token) as c,
        live.client() as d,
    ):
        for client in (a, b, c, d):
            client.done("subscribe", topic=notes)
        insert(live.db, notes, "owned", owner.id)
        insert(live.db, notes, "nobodys")
        insert(live.db, notes, "open", permission=GUEST_READ)
        row = insert(live.db, notes, "shared")
        join(live.db, notes, row, theirs)
        assert told(b) == [("create", "open")]
        sql(live.db, f"UPDATE {notes} SET text = 'shared again' WHERE reference_id = '{row}'")
        sql(live.db, f"DELETE FROM {notes} WHERE reference_id = '{row}'")
        assert told(a) == [("create", "owned"), ("create", "open")]
        assert told(b) == [("update", "shared again"), ("delete", "shared again")]
        assert told(c) == [("create", "open")]
        assert [text for _, text in told(d)] == ["owned", "nobodys", "open", "shared", "shared again", "shared again"]


def test_a_row_that_is_moved_out_of_sight_ends_there(live: Live, notes: str) -> None:
    one, another = Person(live.db), Person(live.db)
    with live.client(one.token) as plain, live.client(one.token) as holder, live.client(another.token) as next_owner:
        plain.done("subscribe", topic=notes, old=True)
        holder.done("subscribe", topic=notes, snapshot=True)
        assert begun(holder) == []
        next_owner.done("subscribe", topic=notes, old=True)
        row = insert(live.db, notes, "mine", one.id)
        sql(live.db, f"UPDATE {notes} SET user_account_id = '{another.id}' WHERE reference_id = '{row}'")
        sql(live.db, f"UPDATE {notes} SET text = 'yours' WHERE reference_id = '{row}'")
        assert told(plain) == [("create", "mine")]
        assert told(holder) == [("create", "mine"), ("delete", "mine")]
        first, second = next_owner.all_until_now()
        assert "OldData" not in first
        assert second["OldData"] == {"text": "mine"}


@pytest.mark.parametrize("rows", [("a", "b"), ("b", "a")])
def test_a_join_row_that_is_moved_to_another_row_is_two_events_with_a_position_each(
    live: Live, notes: str, rows: tuple[str, str]
) -> None:
    theirs, (from_row, to_row) = group(live.db), rows
    member = Person(live.db, theirs)
    for row in rows:
        sql(live.db, f"INSERT INTO {notes}(reference_id, text, permission) VALUES('{row}', '{row}', 0)")
    join(live.db, notes, from_row, theirs)
    with live.client(member.token) as client:
        client.done("subscribe", topic=notes, snapshot=True)
        assert begun(client) == [("snapshot", from_row)]
        sql(live.db, f"UPDATE {join_table(notes)} SET {notes}_id = '{to_row}' WHERE {notes}_id = '{from_row}'")
        left, entered = client.all_until_now()
        epoch = client.done("ping")["epoch"]
    assert [(event["EventType"], event["Key"]) for event in (left, entered)] == [
        ("delete", [from_row]), ("create", [to_row]),
    ]  # fmt: skip
    assert left["EventId"] < entered["EventId"]
    # The connection may have ended between the two: what comes next is the other, and that only.
    with live.client(member.token) as client:
        client.done("subscribe", topic=notes, snapshot=True, since=left["EventId"], epoch=epoch)
        assert client.event() == entered
        assert client.event()["EventType"] == "live"


def test_a_delete_is_told_to_the_groups_that_could_read_the_row_before(live: Live, notes: str) -> None:
    theirs, joins = group(live.db), join_table(notes)
    member = Person(live.db, theirs)
    secret, shared = insert(live.db, notes, "secret", permission=0), insert(live.db, notes, "shared", permission=0)
    join(live.db, notes, shared, theirs)
    with live.client(member.token) as plain, live.client(member.token) as holder:
        plain.done("subscribe", topic=notes)
        holder.done("subscribe", topic=notes, snapshot=True)
        assert begun(holder) == [("snapshot", "shared")]
        for row in (secret, shared):  # one is joined anew, the other was joined already
            again = (
                f"INSERT INTO {joins}({notes}_id, usergroup_id, permission) VALUES('{row}', '{theirs}', {GROUP_READ})"
            )
            sql(live.db, f"PRAGMA foreign_keys = ON; BEGIN; DELETE FROM {joins} WHERE {notes}_id = '{row}'; {again};"
                         f"DELETE FROM {notes} WHERE reference_id = '{row}'; COMMIT")  # fmt: skip
        assert told(plain) == [("delete", "shared")]
        assert {event["Key"][0] for event in holder.all_until_now()} == {shared}


def test_a_transaction_of_thousands_of_rows_is_judged_by_its_end(live: Live, notes: str) -> None:
    theirs = group(live.db)
    member = Person(live.db, theirs)
    opened, joined, kept = (insert(live.db, notes, text, permission=0) for text in ("opened", "joined", "kept"))
    into_join = f"{join_table(notes)}({notes}_id, usergroup_id, permission)"
    statements = (
        f"UPDATE {notes} SET permission = {GUEST_READ} WHERE reference_id = '{opened}'",
        f"INSERT INTO {into_join} VALUES('{joined}', '{theirs}', {GROUP_READ})",
        f"INSERT INTO {notes}(reference_id, text, permission) VALUES('flash', 'flash', {GUEST_READ})",
        f"UPDATE {notes} SET text = 'still kept', permission = {GUEST_READ} WHERE reference_id = '{kept}'",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
        f"INSERT INTO {notes}(text, permission) SELECT i, 0 FROM n",
        f"UPDATE {notes} SET permission = 0 WHERE reference_id = 'flash'",
        f"DELETE FROM {notes} WHERE reference_id IN ('{opened}', '{joined}')",
    )
    with live.client(member.token) as plain, live.client(member.token) as holder:
        plain.done("subscribe", topic=notes)
        holder.done("subscribe", topic=notes, snapshot=True)
        assert begun(holder) == []
        sql(live.db, f"PRAGMA foreign_keys = ON; BEGIN; {'; '.join(statements)}; COMMIT")
        assert told(plain) == [("update", "still kept")]
        assert told(holder) == [("create", "still kept")]


def test_who_loses_one_way_to_a_table_and_gets_another_by_one_transaction_keeps_it(live: Live) -> None:
    table, theirs, person = f"plain{uuid.uuid4().hex[:8]}", group(live.db), Person(live.db)
    sql(live.db, f"CREATE TABLE {table}(text)")
    with live.client(person.token) as plain, live.client(person.token) as holder:
        until(
            lambda: "1" in sql(live.db, f"SELECT count(*) FROM world WHERE table_name = '{table}'"), "it has its rights"
        )
        joins, members = join_table("world"), join_table("user_account")
        grant = (
            f"INSERT INTO {joins}(world_id, usergroup_id, permission) SELECT reference_id, '{{}}', {GROUP_PEEK_READ}"
        )
        grant += f" FROM world WHERE table_name = '{table}'"
        sql(live.db, grant.format(USERS))
        plain.done("subscribe", topic=table)
        holder.done("subscribe", topic=table, snapshot=True)
        assert begun(holder) == []
        moved = (
            f"DELETE FROM {joins} WHERE world_id = (SELECT reference_id FROM world WHERE table_name = '{table}')",
            grant.format(theirs),
            f"INSERT INTO {members}(user_account_id, usergroup_id) VALUES('{person.id}', '{theirs}')",
            f"INSERT INTO {table} VALUES('there')",
        )
        sql(live.db, f"BEGIN; {'; '.join(moved)}; COMMIT")
        assert told(plain) == told(holder) == [("create", "there")]


def test_a_live_set_follows_the_groups_of_its_rows(live: Live, notes: str) -> None:
    theirs = group(live.db)
    member = Person(live.db, theirs)
    row = insert(live.db, notes, "there")
    with live.client(member.token) as client:
        client.done("subscribe", topic=notes, snapshot=True)
        assert begun(client) == []
        join(live.db, notes, row, theirs)
        assert told(client) == [("create", "there")]
        sql(live.db, f"DELETE FROM {join_table(notes)}")
        (gone,) = client.all_until_now()
        assert (gone["EventType"], gone["Key"], gone["EventData"]) == ("delete", [row], {"__type": notes})


def test_a_group_is_not_told_the_key_of_a_row_that_one_transaction_joins_and_parts(live: Live, notes: str) -> None:
    theirs, others, joins = group(live.db), group(live.db), join_table(notes)
    member = Person(live.db, theirs)
    given, moved, held = (insert(live.db, notes, text, permission=0) for text in ("given", "moved", "held"))
    join(live.db, notes, moved, others)
    join(live.db, notes, held, theirs)
    taken_up(live)
    with live.client(member.token) as client:
        client.done("subscribe", topic=notes, snapshot=True)
        assert begun(client) == [("snapshot", "held")]
        into = f"INSERT INTO {joins}({notes}_id, usergroup_id, permission)"
        statements = (
            f"{into} VALUES('{given}', '{theirs}', {GROUP_READ})",
            f"DELETE FROM {joins} WHERE {notes}_id = '{given}'",
            f"UPDATE {joins} SET usergroup_id = '{theirs}' WHERE {notes}_id = '{moved}'",
            f"UPDATE {joins} SET permission = 0 WHERE {notes}_id IN ('{moved}', '{held}')",
        )
        sql(live.db, f"BEGIN; {'; '.join(statements)}; COMMIT")
        assert [(event["EventType"], event["Key"]) for event in client.all_until_now()] == [("delete", [held])]


def test_who_leaves_a_group_is_told_to_load_anew_and_sees_no_more(live: Live, notes: str) -> None:
    theirs = group(live.db)
    member = Person(live.db, theirs)
    row = insert(live.db, notes, "there")
    join(live.db, notes, row, theirs)
    with live.client(member.token) as client:
        client.done("subscribe", topic=notes, snapshot=True)
        assert begun(client) == [("snapshot", "there")]
        sql(live.db, f"DELETE FROM {join_table('user_account')} WHERE usergroup_id = '{theirs}'; "
                     f"UPDATE {notes} SET text = 'secret' WHERE reference_id = '{row}'")  # fmt: skip
        assert told(client) == [("resync", "permission")]
        client.done("unsubscribe", topic=notes)
        client.done("subscribe", topic=notes, snapshot=True)
        assert begun(client) == []


def test_a_group_that_is_deleted_has_no_members_even_if_they_are_left_in_the_file(live: Live, notes: str) -> None:
    with held_by_a_group(live, notes, "there") as (client, theirs, _):
        # The shell does not enforce foreign keys.
        sql(live.db, f"DELETE FROM usergroup WHERE reference_id = '{theirs}'; UPDATE {notes} SET text = 'secret'")
        assert sql(live.db, f"SELECT count(*) FROM {join_table(notes)}") == "1\n"
        assert told(client) == [("resync", "permission")]
        client.done("unsubscribe", topic=notes)
        client.done("subscribe", topic=notes, snapshot=True)
        assert begun(client) == []


def test_who_was_left_as_a_member_of_a_group_that_is_made_again_is_one_at_once(live: Live, notes: str) -> None:
    with held_by_a_group(live, notes, "shared") as (client, theirs, row):
        sql(live.db, f"DELETE FROM usergroup WHERE reference_id = '{theirs}'")  # foreign keys are not enforced
        assert told(client) == [("resync", "permission")]
        sql(live.db, f"INSERT INTO usergroup(reference_id, name) VALUES('{theirs}', '{theirs}')")
        assert told(client) == [("resync", "permission")]
        sql(live.db, f"UPDATE {notes} SET text = 'again' WHERE reference_id = '{row}'")
        assert told(client) == [("update", "again")]


def test_a_replay_is_judged_by_the_rights_of_now(live: Live, notes: str) -> None:
    theirs = group(live.db)
    member, other = Person(live.db, theirs), Person(live.db)
    with live.client(member.token) as client:
        place = client.done("ping")
    row = insert(live.db, notes, "shared")
    join(live.db, notes, row, theirs)
    taken_up(live)
    sql(live.db, f"UPDATE {notes} SET text = 'again' WHERE reference_id = '{row}'; "
                 f"DELETE FROM {notes} WHERE reference_id = '{row}'")  # fmt: skip
    for person, seen in ((member, [("delete", "again")]), (other, [])):
        with live.client(person.token) as client:
            client.done("subscribe", topic=notes, since=place["EventId"], epoch=place["epoch"])
            assert begun(client) + told(client) == seen


def test_a_table_that_is_closed_ends_its_subscriptions(live: Live, notes: str) -> None:
    person = Person(live.db)
    with live.client(person.token) as client:
        client.done("subscribe", topic=notes)
        sql(live.db, f"UPDATE world SET permission = 0 WHERE table_name = '{notes}'")
        assert told(client) == [("table-dropped", "permission")]
        assert client.refused("subscribe", topic=notes) == "unknown-topic"


def test_an_account_that_is_removed_ends_its_connections(live: Live) -> None:
    person = Person(live.db)
    signed = sql(live.db, f"SELECT email FROM user_account WHERE reference_id = '{person.id}'")
    assert signed
    with live.client(person.token) as client:
        sql(live.db, f"DELETE FROM user_account WHERE reference_id = '{person.id}'")
        assert client.close_code() == 4401


def test_a_live_set_that_was_held_by_rights_that_are_gone_begins_anew(live: Live, notes: str) -> None:
    theirs = group(live.db)
    member, other = Person(live.db, theirs), Person(live.db)
    row = insert(live.db, notes, "shared")
    join(live.db, notes, row, theirs)
    positions = []
    for person, held in ((member, [("snapshot", "shared")]), (other, [])):
        with live.client(person.token) as client:
            client.done("subscribe", topic=notes, snapshot=True)
            assert begun(client) == held
            positions.append(client.done("ping"))
    sql(live.db, f"DELETE FROM {join_table('user_account')} WHERE usergroup_id = '{theirs}'")
    for person, position, recovered in zip((member, other), positions, (False, True), strict=True):
        with live.client(person.token) as client:
            since = {"since": position["EventId"], "epoch": position["epoch"]}
            assert client.done("subscribe", topic=notes, snapshot=True, **since)["recovered"] is recovered
            assert begun(client) == []


def test_an_administrator_who_is_taken_out_of_the_group_is_none_on_open_connections(live: Live, notes: str) -> None:
    root = Person(live.db, ADMINISTRATORS)
    insert(live.db, notes, "before")
    with live.client(root.token) as client:
        client.done("subscribe", topic=notes, snapshot=True)
        assert begun(client) == [("snapshot", "before")]
        sql(live.db, f"DELETE FROM {join_table('user_account')} WHERE usergroup_id = '{ADMINISTRATORS}' "
                     f"AND user_account_id = '{root.id}'")  # fmt: skip
        insert(live.db, notes, "after")
        assert told(client) == [("resync", "permission")]


def test_a_join_row_is_for_those_who_may_read_what_it_joins(live: Live, notes: str) -> None:
    theirs, joins = group(live.db), join_table(notes)
    member, other = Person(live.db, theirs), Person(live.db)
    row = insert(live.db, notes, "shared", permission=0)
    with live.client(member.token) as a, live.client(other.token) as b:
        for client in (a, b):
            client.done("subscribe", topic=joins)
        join(live.db, notes, row, theirs)
        (made,) = a.all_until_now()
        assert (made["EventType"], made["EventData"][f"{notes}_id"]) == ("create", row)
        hidden = insert(live.db, notes, "hidden", permission=0)
        sql(live.db, f"PRAGMA foreign_keys = ON; BEGIN; INSERT INTO {joins}({notes}_id, usergroup_id, permission) "
                     f"VALUES('{hidden}', '{theirs}', {GROUP_READ}); DELETE FROM {notes}; COMMIT")  # fmt: skip
        assert a.all_until_now() == b.all_until_now() == []
        sql(live.db, f"UPDATE world SET permission = 0 WHERE table_name = '{notes}'")
        assert told(a) == [("table-dropped", "permission")]
        assert not {notes, joins} & {*a.done("list-topic")["topics"]}
        assert a.refused("subscribe", topic=joins) == "unknown-topic"


def test_a_user_topic_is_for_those_who_may_read_it(live: Live) -> None:
    one, other = Person(live.db), Person(live.db)
    topics = {bits: str(uuid.uuid4()) for bits in (0, 1, 2, 1 | 2, 16384, 16384 | 32768)}
    with live.client(one.token) as owner, live.client(other.token) as client:
        for bits, name in topics.items():
            owner.done("create-topic", name=name, permission=bits | 16256)
        for bits in (0, 2):
            assert client.refused("subscribe", topic=topics[bits]) == "unknown-topic"
        for bits in (1, 16384):
            assert client.refused("subscribe", topic=topics[bits]) == "forbidden"
        for bits in (1 | 2, 16384 | 32768):
            client.done("subscribe", topic=topics[bits])
        for name in topics.values():
            owner.done("subscribe", topic=name)
        sql(live.db, f"DELETE FROM {join_table('user_account')} WHERE user_account_id = '{other.id}'")
        (ended,) = [each for each in client.all_until_now() if each["ObjectType"] in topics.values()]
        assert (ended["ObjectType"], ended["EventType"]) == (topics[16384 | 32768], "topic-destroyed")
        assert ended["EventData"] == {"reason": "permission"}


def test_who_makes_a_topic_of_a_former_ones_name_gets_none_of_its_messages(live: Live) -> None:
    ann, name = Person(live.db), str(uuid.uuid4())
    with live.client() as root, live.client(ann.token) as client:
        before = client.done("ping")
        root.done("create-topic", name=name, permission=0)
        root.done("new-message", topic=name, message="secret")
        root.done("destroy-topic", name=name)
        client.done("create-topic", name=name)
        place = {"since": before["EventId"], "epoch": before["epoch"]}
        assert client.refused("subscribe", topic=name, **place) == "gap"
        client.done("new-message", topic=name, message="mine")
        oldest = client.ask("subscribe", topic=name, **place)["EventData"]["oldest"]
        assert client.done("subscribe", topic=name, since=oldest, epoch=before["epoch"])["recovered"] is True
        assert client.event()["EventData"] == "mine"
        another = str(uuid.uuid4())  # of a new name nothing is lost
        client.done("create-topic", name=another)
        client.done("new-message", topic=another, message="first")
        assert client.done("subscribe", topic=another, **place)["recovered"] is True


def test_what_a_join_row_was_before_it_gave_the_right_to_read_is_not_told(live: Live, notes: str) -> None:
    theirs, joins = group(live.db), join_table(notes)
    member = Person(live.db, theirs)
    row = insert(live.db, notes, "shared", permission=0)
    join(live.db, notes, row, theirs, permission=0)
    with live.client(member.token) as client:
        client.done("subscribe", topic=joins, old=True)
        for permission in (GROUP_READ, GROUP_READ | 16384):
            taken_up(live)
            sql(live.db, f"UPDATE {joins} SET permission = {permission} WHERE {notes}_id = '{row}'")
        first, second = client.all_until_now()
        assert "OldData" not in first
        assert second["OldData"] == {"permission": GROUP_READ}


def test_a_row_that_was_joined_is_not_shown_as_what_has_taken_its_place(live: Live, notes: str) -> None:
    theirs, joins = group(live.db), join_table(notes)
    member = Person(live.db, theirs)
    row = insert(live.db, notes, "old", permission=0)
    with live.client(member.token) as client:
        client.done("subscribe", topic=notes, snapshot=True)
        assert begun(client) == []
        with standing_still(live):  # it finds both commits at one look
            join(live.db, notes, row, theirs)
            sql(live.db, f"PRAGMA foreign_keys = ON; REPLACE INTO {notes}(reference_id, text, permission) "
                         f"VALUES('{row}', 'secret', 0)")  # fmt: skip
            assert sql(live.db, f"SELECT count(*) FROM {joins}") == "0\n"
        assert "create" not in [event["EventType"] for event in client.all_until_now()]


def test_a_live_set_of_own_rows_begins_anew_when_another_column_says_whose_they_are(live: Live) -> None:
    ann, table = Person(live.db), f"item{uuid.uuid4().hex[:8]}"
    sql(live.db, f"CREATE TABLE {table}(text, maker, holder); "
                 f"INSERT INTO {table} VALUES('made', '{ann.id}', 'bob'), ('held', 'bob', '{ann.id}')")  # fmt: skip
    with live.client() as client:
        until(lambda: client.ask("subscribe", topic=table)["EventType"] == "response", "the table is a topic")
    sql(live.db, f"UPDATE world SET permission = {1 | OWNER_READ}, owner_column = 'maker' WHERE table_name = '{table}'")
    with live.client(ann.token) as client:
        client.done("subscribe", topic=table, snapshot=True)
        assert begun(client) == [("snapshot", "made")]
        sql(live.db, f"UPDATE world SET owner_column = 'holder' WHERE table_name = '{table}'")
        assert told(client) == [("resync", "permission")]
        client.done("unsubscribe", topic=table)
        client.done("subscribe", topic=table, snapshot=True)
        assert begun(client) == [("snapshot", "held")]
        sql(live.db, f"UPDATE world SET permission = permission | 4 WHERE table_name = '{table}'")
        assert told(client) == []  # that others may create rows is nothing to who holds some


@pytest.mark.parametrize(
    "command", [("token", "revoke", "{token}"), ("token", "revoke", "--user", "{email}"), ("token", "rotate", "--now")]
)
def test_whose_token_ends_is_not_told_what_the_server_sees_with_the_same_look(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE plain(text)")
    assert run("table", "grant", "plain", "--to", "users", "--can", "read", "--db", db).returncode == 0
    with serving(db) as live:
        person = Person(db)
        with live.client(person.token) as client:
            client.done("subscribe", topic="plain")
            with standing_still(live):
                named = {"token": person.token, "email": f"{person.id}@example.com"}
                assert run(*(word.format(**named) for word in command), "--db", db).returncode == 0
                sql(db, "INSERT INTO plain VALUES('secret')")
            with pytest.raises(ConnectionClosed) as closed:
                client.receive()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize("at_once", [False, True])
def test_who_loses_rights_while_their_tables_are_rebuilt_is_told_nothing_from_then_on(
    tmp_path: Path, at_once: bool
) -> None:
    db, members = tmp_path / "a.db", join_table("user_account")
    sql(db, "CREATE TABLE plain(text)")
    with serving(db) as live:
        theirs = group(db)
        assert run("table", "grant", "plain", "--to", theirs, "--can", "read", "--db", db).returncode == 0
        member = Person(db, theirs)
        with live.client(member.token) as client:
            client.done("subscribe", topic="plain")
            # As tools for migrations do it: another table takes the name, and the triggers go with the former one.
            names = sql(db, f"SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = '{members}'").split()
            triggers = "; ".join(f"DROP TRIGGER {name}" for name in names)
            with standing_still(live):
                sql(db, f"BEGIN; {triggers}; DELETE FROM {members} WHERE usergroup_id = '{theirs}'; COMMIT")
                if at_once:
                    sql(db, "INSERT INTO plain VALUES('secret')")
            if not at_once:
                captured = f"SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = '{members}'"
                until(lambda: int(sql(db, captured)) == len(names), "the triggers are there again")
                sql(db, "INSERT INTO plain VALUES('secret')")
            assert ("create", "secret") not in told(client)


@pytest.mark.parametrize("gone", ["user_account", "usergroup", join_table("user_account")])
def test_without_the_tables_that_rights_rest_on_nobody_has_any(tmp_path: Path, gone: str) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE plain(text)")
    with serving(db) as live:
        theirs = group(db)
        assert run("table", "grant", "plain", "--to", theirs, "--can", "read", "--db", db).returncode == 0
        with live.client(Person(db, theirs).token) as client, live.client() as other:
            client.done("subscribe", topic="plain")
            other.done("subscribe", topic=gone)
            sql(db, f"PRAGMA foreign_keys=OFF; DROP TABLE {gone}")
            assert other.event()["EventType"] == "table-dropped"
            sql(db, "INSERT INTO plain VALUES('secret')")
            with suppress(ConnectionClosed):  # whose account is gone
                assert client.receive()["EventType"] == "table-dropped"


def test_a_row_that_is_renamed_away_from_its_join_rows_leaves_the_live_sets_of_their_groups(
    live: Live, notes: str
) -> None:
    theirs = group(live.db)
    member = Person(live.db, theirs)
    shared = insert(live.db, notes, "shared", permission=0)
    join(live.db, notes, shared, theirs)
    with live.client(member.token) as holder:
        holder.done("subscribe", topic=notes, snapshot=True)
        assert begun(holder) == [("snapshot", "shared")]
        # As a program does that has not switched foreign keys on: SQLite's default.
        sql(live.db, f"UPDATE {notes} SET reference_id = 'elsewhere' WHERE reference_id = '{shared}'")
        (event,) = holder.all_until_now()
        assert (event["EventType"], event["Key"]) == ("delete", [shared])


def test_what_only_the_midst_of_a_transaction_shows_to_everybody_is_not_for_the_group_of_a_join_row_left_behind(
    live: Live, notes: str
) -> None:
    theirs, joins = group(live.db), join_table(notes)
    member = Person(live.db, theirs)
    row = insert(live.db, notes, "secret", permission=0)
    with live.client(member.token) as client:
        client.done("subscribe", topic=notes, snapshot=True)
        assert begun(client) == []
        sql(live.db, f"BEGIN; INSERT INTO {joins}({notes}_id, usergroup_id, permission) VALUES('{row}', '{theirs}', "
                     f"{GROUP_READ}); UPDATE {notes} SET permission = {GUEST_READ} WHERE reference_id = '{row}';"
                     f"UPDATE {notes} SET permission = 0 WHERE reference_id = '{row}';"
                     f"UPDATE {notes} SET reference_id = '{row} again' WHERE reference_id = '{row}'; "
                     "COMMIT")  # fmt: skip
        assert not [event for event in client.all_until_now() if "text" in event["EventData"]]


@pytest.mark.parametrize("gone", ["", "DELETE FROM {notes} WHERE reference_id = '{row} again';"])
@pytest.mark.parametrize("between", ["", "COMMIT; BEGIN;"])
def test_a_row_that_leaves_a_filter_and_is_renamed_away_from_its_join_rows_leaves_the_live_set(
    live: Live, notes: str, between: str, gone: str
) -> None:
    theirs = group(live.db)
    member = Person(live.db, theirs)
    row = insert(live.db, notes, "shared", permission=0)
    join(live.db, notes, row, theirs)
    wish: dict[str, Any] = {"topic": notes, "snapshot": True, "filters": {"text": "shared"}}
    with live.client(member.token) as holder, live.client(member.token) as resumed:
        holder.done("subscribe", **wish)
        assert begun(holder) == [("snapshot", "shared")]
        place = holder.done("ping")
        with standing_still(live):
            sql(live.db, f"BEGIN; UPDATE {notes} SET text = 'another' WHERE reference_id = '{row}'; {between}"
                         f"UPDATE {notes} SET reference_id = '{row} again' WHERE reference_id = '{row}';"
                         f"{gone.format(notes=notes, row=row)} COMMIT")  # fmt: skip
        taken_up(live)
        assert told(holder) == [("delete", "shared")]
        resumed.done("subscribe", since=place["EventId"], epoch=place["epoch"], **wish)
        assert begun(resumed) == [("delete", "shared")]


def test_a_row_that_leaves_a_filter_and_is_deleted_a_moment_later_leaves_the_live_set(live: Live, notes: str) -> None:
    theirs = group(live.db)
    member = Person(live.db, theirs)
    shared = insert(live.db, notes, "shared", permission=0)
    join(live.db, notes, shared, theirs)
    with live.client(member.token) as holder, live.client(member.token) as plain:
        holder.done("subscribe", topic=notes, snapshot=True, filters={"text": "shared"})
        assert begun(holder) == [("snapshot", "shared")]
        plain.done("subscribe", topic=notes)
        with standing_still(live):  # it sees both at once, and by then there is no join row
            sql(live.db, f"UPDATE {notes} SET text = 'another' WHERE reference_id = '{shared}'")
            sql(live.db, f"PRAGMA foreign_keys = ON; DELETE FROM {notes} WHERE reference_id = '{shared}'")
        taken_up(live)
        assert told(holder) == [("delete", "shared")]
        assert told(plain) == [("delete", "another")]


@pytest.mark.parametrize("enforced", ["ON", "OFF"])
@pytest.mark.parametrize("change", [
    "UPDATE {joins} SET usergroup_id = '{other}' WHERE {notes}_id = '{row}'",
    "INSERT INTO {joins}({notes}_id, usergroup_id, permission) VALUES('{row}', '{other}', 32768); "
    "DELETE FROM {joins} WHERE {notes}_id = '{row}' AND usergroup_id = '{one}'",
])  # fmt: skip
def test_a_row_that_goes_from_one_group_of_its_holder_to_another_and_is_deleted_leaves_the_live_set(
    live: Live, notes: str, change: str, enforced: str
) -> None:
    one, other, joins = group(live.db), group(live.db), join_table(notes)
    member = Person(live.db, one, other)
    row = insert(live.db, notes, "shared", permission=0)
    join(live.db, notes, row, one)
    with live.client(member.token) as holder:
        holder.done("subscribe", topic=notes, snapshot=True)
        assert begun(holder) == [("snapshot", "shared")]
        changed = change.format(joins=joins, notes=notes, row=row, one=one, other=other)
        sql(live.db, f"PRAGMA foreign_keys = {enforced}; BEGIN; {changed};"
                     f"DELETE FROM {notes} WHERE reference_id = '{row}'; COMMIT")  # fmt: skip
        assert {(event["EventType"], *event["Key"]) for event in holder.all_until_now()} == {("delete", row)}


@pytest.mark.parametrize("given", ["user_account_id = '{}'", f"permission = {GUEST_READ}"])
def test_a_row_that_is_taken_from_a_group_given_to_its_member_and_deleted_leaves_the_members_live_set(
    live: Live, notes: str, given: str
) -> None:
    theirs, joins = group(live.db), join_table(notes)
    member, other = Person(live.db, theirs), Person(live.db)
    with live.client(member.token) as holder:
        holder.done("subscribe", topic=notes, snapshot=True)
        assert begun(holder) == []
        for statements in ("{0}; {1}; {2}", "{1}; {0}; {2}", "BEGIN; {0}; {1}; {2}; COMMIT"):
            row = insert(live.db, notes, "shared", other.id)
            join(live.db, notes, row, theirs)
            taken_up(live)
            assert ("create", "shared") in told(holder)
            with standing_still(live):
                sql(live.db, statements.format(
                    f"DELETE FROM {joins} WHERE {notes}_id = '{row}'",
                    f"UPDATE {notes} SET {given.format(member.id)} WHERE reference_id = '{row}'",
                    f"DELETE FROM {notes} WHERE reference_id = '{row}'",
                ))  # fmt: skip
            assert [(event["EventType"], event["Key"]) for event in holder.all_until_now()] == [("delete", [row])]
