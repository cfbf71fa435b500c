"""Rights on tables, granted and taken back, and said in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import BadRequest, CommandError
from appliance.model import Principal
from appliance.protocol.permissions import Verb, permits
from appliance.store.access import accounts, granting, grants
from appliance.store.access.grants import TableKind
from appliance.store.file import connections, schema
from appliance.store.tables import making, standard
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import USERS

ANN = Principal("live-appliance", "ann", False, 0)
GUEST = Principal("", "", False, 0, guest=True)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = connections.open_file(tmp_path / "a.db", busy_timeout_s=5)
    opened.executescript('CREATE TABLE Orders(id INTEGER PRIMARY KEY, "User Id" TEXT, n)')
    schema.prepare(opened)
    standard.prepare(opened)
    with schema.transaction(opened):
        making.create(opened, "todo", [NewColumn("title", "text")])
    yield opened
    opened.close()


def may(db: sqlite3.Connection, who: Principal, groups: tuple[str, ...], *, owner: str | None = None) -> list[str]:
    """Name what somebody may do with a row of Orders."""
    grant = grants.read(db)["orders"]
    guard = grant.guarded if grant.owner_column is None else grant.guarded._replace(owner=owner)
    return [verb.name.lower() for verb in Verb if permits(who, groups, verb, guard)]


def said(db: sqlite3.Connection, table: str = "orders") -> list[str]:
    return granting.words(db, grants.read(db)[table])


def test_nothing_is_granted_until_it_is(db: sqlite3.Connection) -> None:
    assert said(db) == ["administrators only"]
    assert may(db, ANN, (USERS,), owner="ann") == may(db, GUEST, ()) == []


def test_a_grant_to_users_or_a_group_is_theirs_only(db: sqlite3.Connection) -> None:
    editors = accounts.add_group(db, "Editors")
    before = schema.generation(db)
    granting.grant(db, "ORDERS", "users", granting.verbs(["read"]))
    granting.grant(db, "orders", "editors", granting.verbs(["Update", "create"]))
    assert schema.generation(db) == before + 2
    assert may(db, ANN, (USERS,)) == ["peek", "read"]
    assert may(db, ANN, (editors,)) == ["peek", "create", "update"]
    assert may(db, GUEST, ("00000000-0000-4000-8000-000000000001",)) == []
    assert said(db) == ["group users: peek, read", "group Editors: peek, create, update"] or said(db) == [
        "group Editors: peek, create, update", "group users: peek, read",
    ]  # fmt: skip
    granting.revoke(db, "orders", "users", granting.verbs(["all"]))
    assert may(db, ANN, (USERS,)) == []
    granting.revoke(db, "orders", "Editors", granting.verbs(["create"]))
    assert said(db) == ["group Editors: peek, update"]


def test_a_grant_to_guests_is_everybodys(db: sqlite3.Connection) -> None:
    granting.grant(db, "orders", "guests", Verb.READ)
    assert may(db, GUEST, ()) == may(db, ANN, ()) == ["peek", "read"]
    assert said(db) == ["everybody: peek, read"]
    granting.revoke(db, "orders", "guests", granting.VERBS["all"])
    assert said(db) == ["administrators only"]


def test_an_owner_column_gives_rows_to_their_owners_with_what_was_granted_and_no_more(db: sqlite3.Connection) -> None:
    granting.grant(db, "orders", "owner", Verb.READ | Verb.CREATE, owner_column="user id")
    assert may(db, ANN, (), owner="ann") == ["read", "create"]
    assert may(db, ANN, (), owner="bob") == may(db, GUEST, (), owner="ann") == may(db, ANN, (), owner=None) == []
    table = grants.read(db)["orders"].guarded
    assert [verb.name for verb in Verb if permits(ANN, (USERS,), verb, table)] == ["PEEK", "CREATE"]
    assert said(db) == ["group users: peek, create", "a row's owner (User Id): read, create"]
    granting.grant(db, "orders", "owner", Verb.UPDATE)
    assert may(db, ANN, (), owner="ann") == ["read", "create", "update"]
    granting.revoke(db, "orders", "owner", Verb.CREATE)
    assert may(db, ANN, (), owner="ann") == ["read", "update"]
    granting.revoke(db, "orders", "owner", granting.VERBS["all"])
    assert grants.read(db)["orders"].owner_column is None
    assert may(db, ANN, (), owner="ann") == []


def test_what_users_were_granted_with_an_owners_rights_is_taken_back_with_them(db: sqlite3.Connection) -> None:
    def users() -> list[str]:
        return may(db, ANN, (USERS,))

    owner = Verb.READ | Verb.CREATE
    granting.grant(db, "orders", "owner", owner, owner_column="user id")
    assert users() == ["peek", "create"]
    granting.revoke(db, "orders", "owner", Verb.CREATE)
    assert users() == ["peek"]
    granting.revoke(db, "orders", "owner", granting.VERBS["all"])
    assert said(db) == ["administrators only"]

    granting.grant(db, "orders", "owner", owner, owner_column="user id")
    granting.revoke(db, "orders", "owner", granting.VERBS["all"])
    assert said(db) == ["administrators only"]

    granting.grant(db, "orders", "owner", owner, owner_column="user id")
    granting.grant(db, "orders", "users", Verb.READ)
    granting.revoke(db, "orders", "owner", granting.VERBS["all"])
    assert users() == ["peek", "read"]

    granting.grant(db, "todo", "users", Verb.CREATE)
    granting.revoke(db, "todo", "owner", Verb.CREATE)
    assert "group users: peek, create" in said(db, "todo")


def test_an_owner_column_is_one_that_is_captured(db: sqlite3.Connection) -> None:
    db.execute('ALTER TABLE Orders ADD COLUMN whose AS (lower("User Id"))')
    with pytest.raises(BadRequest, match="VIRTUAL"):
        granting.grant(db, "orders", "owner", Verb.READ, owner_column="WHOSE")
    assert said(db) == ["administrators only"]


def test_a_standard_table_is_granted_only_as_a_whole(db: sqlite3.Connection) -> None:
    granting.grant(db, "todo", "users", Verb.CREATE)
    assert said(db, "todo") == ["everybody: peek, execute", "group users: peek, create", "its rows say the rest"]
    for to, bits in (("users", Verb.READ), ("guests", Verb.UPDATE), ("owner", Verb.PEEK)):
        with pytest.raises(BadRequest, match="its rows say who may"):
            granting.grant(db, "todo", to, bits)
    with pytest.raises(BadRequest, match="user_account_id"):
        granting.grant(db, "todo", "owner", Verb.READ, owner_column="title")


def test_words_are_there_for_every_kind_of_table(db: sqlite3.Connection) -> None:
    accounts.add(db, "ann@example.com", None)
    db.execute("UPDATE world SET user_account_id = (SELECT reference_id FROM user_account) WHERE table_name = 'todo'")
    assert "its owner ann@example.com: all" in said(db, "todo")
    kinds = {each.kind: granting.words(db, each) for each in grants.read(db).values()}
    assert set(kinds) == set(TableKind)
    assert all(kinds.values())


@pytest.mark.parametrize(("table", "to", "column", "error"), [
    ("nope", "users", None, CommandError), ("orders", "nobody", None, CommandError),
    ("orders", "owner", None, BadRequest), ("orders", "owner", "nope", BadRequest),
    ("_appliance_meta", "users", None, CommandError),
])  # fmt: skip
def test_what_cannot_be_granted_is_refused(
    db: sqlite3.Connection, table: str, to: str, column: str | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        granting.grant(db, table, to, Verb.READ, owner_column=column)
    with pytest.raises(BadRequest):
        granting.verbs(["reed"])


def test_columns_are_written_with_colons() -> None:
    assert granting.columns(["a", "b:int", "c:text:required:unique", "d:json:unique"]) == [
        NewColumn("a", "text"), NewColumn("b", "int"), NewColumn("c", "text", True, True),
        NewColumn("d", "json", unique=True),
    ]  # fmt: skip
    with pytest.raises(BadRequest):
        granting.columns(["a:text:reqired"])


def test_what_is_not_utf_8_is_said_so_that_it_can_be_shown(db: sqlite3.Connection) -> None:
    grants.adopt(db, ["Orders"])
    db.execute("PRAGMA foreign_keys=OFF")
    db.execute("UPDATE world SET user_account_id = CAST(x'41ff' AS TEXT) WHERE table_name = 'Orders'")
    db.execute(
        f"INSERT INTO {standard.join_table('world')}(world_id, usergroup_id, permission) "
        "SELECT reference_id, CAST(x'42ff' AS TEXT), ? FROM world WHERE table_name = 'Orders'",
        (Verb.READ << 14,),
    )
    assert said(db) == ["a group that is gone (B\ufffd): read", "its owner A\ufffd: all"]
