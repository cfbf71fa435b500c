"""What the store says of rights: read right, and as SQL the very same decision as ``permits``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.model import Principal, SQLiteValue, ascii_fold
from appliance.protocol.permissions import TABLE_DEFAULT, Guarded, Verb, bits, owner_of, permits, permits_on_join
from appliance.store.access import grants
from appliance.store.access.grants import TableGrant, TableKind
from appliance.store.access.readable import readable
from appliance.store.file import connections, schema
from appliance.store.tables import making, standard
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import ADMINISTRATORS, USERS, join_table

ANN = Principal("live-appliance", "ann", False, 0)
MEMBERS = join_table("user_account")
JOINS = join_table("todo")


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("grants") / "a.db"
    opened = connections.open_file(path, busy_timeout_s=5)
    opened.execute("PRAGMA foreign_keys=OFF")
    schema.prepare(opened)
    standard.prepare(opened)
    with schema.transaction(opened):
        making.create(opened, "todo", [NewColumn("title", "text")], owner="ann")
    opened.executescript(
        """CREATE TABLE plain(a, own, digits INTEGER, spelled TEXT COLLATE NOCASE);
        CREATE TABLE "odd ""name"(a); CREATE INDEX i ON plain(own);"""
    )
    yield opened
    opened.close()


def row_guard(grant: TableGrant, row: Mapping[str, SQLiteValue], joined: tuple[tuple[str, int], ...] = ()) -> Guarded:
    """Give what guards one row, by its values and the groups that it is joined to, as PROTOCOL has it."""
    if grant.kind is TableKind.PLAIN:
        if grant.owner_column is None:
            return grant.guarded
        return grant.guarded._replace(owner=owner_of(row.get(grant.owner_column)))
    return Guarded(bits(row["permission"]), owner_of(row["user_account_id"]), joined)


@pytest.fixture(autouse=True)
def undone(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN")
    yield
    db.execute("ROLLBACK")


def test_every_table_that_can_be_a_topic_has_a_grant(db: sqlite3.Connection) -> None:
    found = grants.read(db)
    assert {name: each.kind for name, each in found.items()} == {
        "user_account": TableKind.ACCOUNT,
        "usergroup": TableKind.STANDARD,
        "world": TableKind.STANDARD,
        "todo": TableKind.STANDARD,
        ascii_fold(MEMBERS): TableKind.MEMBERSHIP,
        join_table("world"): TableKind.JOIN,
        JOINS: TableKind.JOIN,
        "plain": TableKind.PLAIN,
        'odd "name': TableKind.PLAIN,
    }
    assert found["plain"].guarded == Guarded(TABLE_DEFAULT)
    assert found["todo"].guarded == Guarded(2097057, "ann")
    assert (found["todo"].join_table, found["todo"].join_column) == (JOINS, "todo_id")
    assert (found[JOINS].object_table, found[JOINS].object_column) == ("todo", "todo_id")
    assert (found["usergroup"].join_table, found["usergroup"].join_column) == (None, None)


def test_a_grant_is_the_row_in_world_with_its_groups(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO world(reference_id, table_name, permission, user_account_id, owner_column) "
               "VALUES('w', 'PLAIN', 5, 'ann', 'OWN')")  # fmt: skip
    db.execute(f"INSERT INTO {join_table('world')}(world_id, usergroup_id, permission) VALUES('w', '{USERS}', 32768)")
    grant = grants.read(db)["plain"]
    assert grant.guarded == Guarded(5, "ann", ((USERS, 32768),))
    assert grant.owner_column == "own"


def test_an_owner_column_that_is_gone_closes_the_table(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO world(table_name, permission, owner_column) VALUES('plain', 2097151, 'gone')")
    assert grants.read(db)["plain"].guarded == grants.CLOSED


def test_without_system_tables_every_table_is_for_administrators(tmp_path: Path) -> None:
    opened = connections.open_file(tmp_path / "a.db", busy_timeout_s=5)
    opened.executescript("CREATE TABLE world(table_name, permission); INSERT INTO world VALUES('t', 2097151); "
                         "CREATE TABLE t(a)")  # fmt: skip
    schema.prepare(opened)
    grants.adopt(opened, ["t"])
    assert opened.execute("SELECT count(*) FROM world").fetchone() == (1,)
    assert {each.guarded for each in grants.read(opened).values()} == {Guarded(TABLE_DEFAULT)}
    assert grants.standing(opened, ["ann"])["ann"] == grants.Standing(False, False, frozenset(), 0)
    assert grants.guards(opened, "t", ["x"]) == {}
    opened.close()


def test_a_table_is_adopted_once_and_keeps_what_was_granted(db: sqlite3.Connection) -> None:
    db.execute("ROLLBACK")
    grants.adopt(db, ["plain", 'odd "name', "todo"])
    db.execute("UPDATE world SET permission = 3 WHERE table_name = 'plain'")
    before = db.total_changes
    grants.adopt(db, ["PLAIN", 'odd "name', "todo"])
    assert db.total_changes == before
    rows = dict(db.execute("SELECT table_name, permission FROM world").fetchall())
    db.execute("DELETE FROM world WHERE table_name IN ('plain', 'odd \"name')")
    db.execute("BEGIN")
    assert (rows["plain"], rows['odd "name'], rows["todo"]) == (3, 2097024, 2097057)


def test_standing_is_what_the_membership_rows_say(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO user_account(reference_id, email) VALUES('ann', 'a'), ('bob', 'b')")
    db.execute(f"INSERT INTO {MEMBERS}(user_account_id, usergroup_id) "
               f"VALUES('ann', '{USERS}'), ('bob', '{ADMINISTRATORS}'), ('gone', '{ADMINISTRATORS}')")  # fmt: skip
    db.execute("INSERT INTO _appliance_account VALUES('ann', 100), ('gone', 200)")
    found = grants.standing(db, ["ann", "bob", "gone", "never"])
    assert found == {
        "ann": grants.Standing(True, False, frozenset((USERS,)), 100),
        "bob": grants.Standing(True, True, frozenset((ADMINISTRATORS,)), 0),
        "gone": grants.Standing(False, False, frozenset(), 200),
        "never": grants.Standing(False, False, frozenset(), 0),
    }


def test_many_are_asked_for_in_batches(db: sqlite3.Connection) -> None:
    count = 2 * grants.BATCH + 1
    names = [f"u{number}" for number in range(count)]
    db.executemany("INSERT INTO user_account(reference_id, email) VALUES(?1, ?1)", [(name,) for name in names])
    db.executemany(f"INSERT INTO {MEMBERS}(user_account_id, usergroup_id, permission) VALUES(?, 'g', 1)",
                   [(name,) for name in names])  # fmt: skip
    assert all(
        each.exists and not each.groups for each in grants.standing(db, names).values()
    )  # there is no such group
    db.execute("INSERT INTO usergroup(reference_id, name) VALUES('g', 'g')")
    assert all(each.exists and each.groups == {"g"} for each in grants.standing(db, names).values())
    assert grants.guards(db, "user_account", [*names, "never"]) == {
        name: Guarded(2097057, name, (("g", 1),)) for name in names
    }


def test_groups_that_another_issuers_token_names_are_found_but_for_the_administrators(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO usergroup(reference_id, name) VALUES('e', 'Editors')")
    named = grants.groups_named(db, ["Editors", "editors", "administrators", ADMINISTRATORS, "nobody"])
    assert named == {"e", USERS}
    assert grants.groups_named(db, ["e"]) == {"e", USERS}


# --- the decision as SQL ----------------------------------------------------------------------------------------------

SUBJECTS = ("ann", "bob", "42", "042", "", "ANN")
GROUPS = ("g1", "g2")

permission = st.one_of(st.integers(0, 2097151), st.sampled_from((0, 1, 2, 256, 32768, 2097151)))
#: What can stand in a column, whatever it is declared as.
anything = st.one_of(st.none(), st.sampled_from(SUBJECTS), st.sampled_from((42, 4.0, b"ann", -1)))
joined = st.dictionaries(st.sampled_from(GROUPS), permission, max_size=2)
principals = st.builds(
    replace,
    st.just(ANN),
    subject=st.sampled_from(SUBJECTS),
    admin=st.sampled_from((False, False, False, True)),
    guest=st.sampled_from((False, False, True)),
)
membership = st.frozensets(st.sampled_from(GROUPS))
verbs = st.sampled_from(Verb)
property_ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)


def says(db: sqlite3.Connection, grant: grants.TableGrant, *asked: Any) -> bool:
    """Ask the SQL of the one row that the table has."""
    condition, values = readable(grant, *asked)
    name = standard.quote_identifier(grant.table)
    return bool(db.execute(f"SELECT count(*) FROM {name} WHERE {condition}", values).fetchone()[0])


def values_of(db: sqlite3.Connection, table: str) -> dict[str, Any]:
    cursor = db.execute(f'SELECT * FROM "{table}"')
    return dict(zip([each[0] for each in cursor.description], cursor.fetchone(), strict=True))


def fill(db: sqlite3.Connection, bits_: Any, owner: Any, groups: dict[str, int]) -> None:
    db.execute("DELETE FROM todo")
    db.execute(f"DELETE FROM {JOINS}")
    db.execute("INSERT INTO todo(reference_id, permission, user_account_id) VALUES('x', ?, ?)", (bits_, owner))
    for group, each in groups.items():
        db.execute(f"INSERT INTO {JOINS}(todo_id, usergroup_id, permission) VALUES('x', ?, ?)", (group, each))


@property_
@given(bits_=st.one_of(permission, st.sampled_from(("x", b"\xff", 2.5))), owner=anything, groups=joined, who=principals,
       member=membership, verb=verbs)  # fmt: skip
def test_sql_says_of_a_standard_row_what_permits_says(
    db: sqlite3.Connection,
    bits_: Any,
    owner: Any,
    groups: dict[str, int],
    who: Principal,
    member: frozenset[str],
    verb: Verb,
) -> None:
    fill(db, bits_, owner, groups)
    grant = grants.read(db)["todo"]
    guard = grants.guards(db, "todo", ["x"])["x"]

    assert guard == row_guard(grant, values_of(db, "todo"), tuple(sorted(groups.items())))
    assert says(db, grant, who, member, verb) is permits(who, member, verb, guard)


@property_
@given(bits_=permission, owner=anything, groups=joined, who=principals, member=membership, verb=verbs)
def test_sql_says_of_a_join_row_what_the_function_for_it_says(
    db: sqlite3.Connection,
    bits_: int,
    owner: Any,
    groups: dict[str, int],
    who: Principal,
    member: frozenset[str],
    verb: Verb,
) -> None:
    fill(db, bits_, owner, groups)
    db.execute(f"INSERT OR IGNORE INTO {JOINS}(todo_id, usergroup_id, permission) VALUES('x', 'g3', 2097151)")
    guard = grants.guards(db, "todo", ["x"])["x"]
    grant = grants.read(db)[JOINS]
    condition, values = readable(grant, who, member, verb)
    seen = db.execute(f"SELECT count(*) FROM {JOINS} WHERE usergroup_id = 'g3' AND {condition}", values).fetchone()[0]

    assert bool(seen) is permits_on_join(who, member, verb, guard)


@property_
@given(
    bits_=permission, groups=joined, who=principals, member=membership, verb=verbs, account=st.sampled_from(SUBJECTS)
)
def test_sql_says_of_an_account_and_its_memberships_what_the_functions_say(
    db: sqlite3.Connection,
    bits_: int,
    groups: dict[str, int],
    who: Principal,
    member: frozenset[str],
    verb: Verb,
    account: str,
) -> None:
    db.execute("DELETE FROM user_account")
    db.execute(f"DELETE FROM {MEMBERS}")
    db.execute("INSERT INTO user_account(reference_id, email, permission, user_account_id) VALUES(?, 'e', ?, 'bob')",
               (account, bits_))  # fmt: skip
    for group, each in {**groups, "g3": 0}.items():
        db.execute(f"INSERT INTO {MEMBERS}(user_account_id, usergroup_id, permission) VALUES(?, ?, ?)",
                   (account, group, each))  # fmt: skip
    found = grants.read(db)
    guard = grants.guards(db, "user_account", [account])[account]
    assert guard.owner == account

    assert says(db, found["user_account"], who, member, verb) is permits(who, member, verb, guard)
    seen = says(db, found[MEMBERS], who, member, verb)
    assert seen is permits_on_join(who, member, verb, guard, membership=True)


@property_
@given(
    bits_=permission,
    owner=anything,
    column=st.sampled_from((None, "own", "digits", "spelled")),
    table_owner=st.sampled_from((None, *SUBJECTS)),
    groups=joined,
    who=principals,
    member=membership,
    verb=verbs,
)
def test_sql_says_of_a_plain_row_what_permits_says(
    db: sqlite3.Connection, bits_: int, owner: Any, column: str | None, table_owner: str | None, groups: dict[str, int],
    who: Principal, member: frozenset[str], verb: Verb,
) -> None:  # fmt: skip
    db.execute("DELETE FROM plain")
    db.execute("DELETE FROM world WHERE table_name = 'plain'")
    db.execute(f"DELETE FROM {join_table('world')}")
    db.execute(f"INSERT INTO plain({column or 'own'}) VALUES(?)", (owner,))
    db.execute("INSERT INTO world(reference_id, table_name, permission, user_account_id, owner_column) "
               "VALUES('w', 'plain', ?, ?, ?)", (bits_, table_owner, column))  # fmt: skip
    for group, each in groups.items():
        db.execute(
            f"INSERT INTO {join_table('world')}(world_id, usergroup_id, permission) VALUES('w', ?, ?)", (group, each)
        )
    grant = grants.read(db)["plain"]

    guard = row_guard(grant, values_of(db, "plain"))
    assert says(db, grant, who, member, verb) is permits(who, member, verb, guard)


def test_a_list_by_owner_or_by_key_uses_the_index(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO world(table_name, permission, owner_column) VALUES('plain', 2097024, 'own')")
    condition, values = readable(grants.read(db)["plain"], ANN, ())
    plan = db.execute(f"EXPLAIN QUERY PLAN SELECT * FROM plain WHERE {condition}", values).fetchall()
    assert [row[3] for row in plan] == ["SEARCH plain USING INDEX i (own=?)"]
    condition, values = readable(grants.read(db)["todo"], ANN, (USERS,))
    plan = db.execute(f"EXPLAIN QUERY PLAN SELECT * FROM todo WHERE {condition}", values).fetchall()
    assert not [row[3] for row in plan if row[3].startswith("SCAN") and JOINS in row[3]]
