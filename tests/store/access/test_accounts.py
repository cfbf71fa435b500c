"""Accounts, groups, and the first administrator."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from appliance.errors import BadRequest, CommandError, Conflict, Forbidden, Unauthorized
from appliance.model import SQLiteValue
from appliance.store.access import accounts, callers, grants, passwords
from appliance.store.file import connections, schema
from appliance.store.file.texts import said
from appliance.store.tables import standard
from appliance.store.tables.standard import ADMINISTRATORS, GUESTS, USERS


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = connections.open_file(tmp_path / "a.db", busy_timeout_s=5)
    schema.prepare(opened)
    standard.prepare(opened)
    yield opened
    opened.close()


def standing(db: sqlite3.Connection, subject: str) -> grants.Standing:
    return grants.standing(db, [subject])[subject]


def test_an_account_is_its_own_and_in_users(db: sqlite3.Connection) -> None:
    made = accounts.add(db, " Ann@Example.COM ", "hash", name="Ann")
    assert (made.email, made.name, made.confirmed) == ("ann@example.com", "Ann", False)
    owner = db.execute("SELECT user_account_id FROM user_account").fetchone()
    assert owner == (made.reference_id,)
    assert standing(db, made.reference_id) == grants.Standing(True, False, frozenset((USERS,)), 0)
    assert accounts.account(db, "ANN@example.com") == made
    assert "hash" not in repr(made)
    assert accounts.add(db, "bob@example.com", None).name == "bob"


def test_whatever_somebody_has_written_into_an_account_it_is_found_and_listed(db: sqlite3.Connection) -> None:
    for email, name, password in (("a@x.example", b"A", b"\xff"), ("b@x.example", 5, 5), (b"\xff", "C", None)):
        db.execute("INSERT INTO user_account(email, name, password) VALUES(?, ?, ?)", (email, name, password))
    db.execute("INSERT INTO user_account(email, name, password) VALUES('d@x.example', CAST(x'44ff' AS TEXT), x'')")
    db.execute("UPDATE user_account SET password = CAST(x'ff' AS TEXT) WHERE email = 'd@x.example'")
    found = [(each.email, each.name, each.password) for each, _ in accounts.accounts(db)]
    assert found == [
        ("a@x.example", "", b"\xff"), ("b@x.example", "5", "5"), ("d@x.example", "D\ufffd", "\udcff"), ("", "C", None),
    ]  # fmt: skip
    assert accounts.known(db, "d@x.example").name == "D\ufffd"
    ann = accounts.add(db, "ann@x.example", None).reference_id
    accounts.join(db, ann, accounts.add_group(db, "shown"))
    db.execute("UPDATE usergroup SET name = CAST(x'67ff' AS TEXT) WHERE name = 'shown'")
    assert accounts.accounts(db)[1][1] == ["g\ufffd", "users"]
    assert ("g\ufffd", 1) in accounts.groups(db)


def test_an_error_is_told_without_the_value_that_cannot_be_read(db: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        db.execute("SELECT CAST(x'736563726574ff' AS TEXT) AS mail").fetchone()
    assert "secret" in str(caught.value)
    assert said(caught.value) == "Could not decode to UTF-8 column 'mail'"
    assert "secret" not in str(connections.refusal(Path("a.db"), caught.value))


@pytest.mark.parametrize("again", ["ann@example.com", "ANN@EXAMPLE.COM", "\tann@example.com\n"])
def test_an_address_is_unique_in_any_case(db: sqlite3.Connection, again: str) -> None:
    accounts.add(db, "ann@example.com", None)
    with pytest.raises(Conflict):
        accounts.add(db, again, None)


@pytest.mark.parametrize(
    ("one", "other"),
    [("zo\u00eb", "ZOE\u0308"), ("\u1e96", "H\u0331")],  # for the second there is no capital of one character
)
def test_addresses_that_look_the_same_are_the_same(db: sqlite3.Connection, one: str, other: str) -> None:
    accounts.add(db, f"{one}@example.com", None)
    with pytest.raises(Conflict):
        accounts.add(db, f"{other}@example.com", None)


#: To put as many marks in order would take days.
MARKS = "\u0301\u0327" * (1 << 21)


@pytest.mark.parametrize(
    "bad",
    [
        "", "ann", "@example.com", "ann@", "a b@example.com", "a\0@example.com", "x@" + "y" * 253, f"a{MARKS}@b.com",
        "a@b.com" + " " * 1100 + "x",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(db: sqlite3.Connection, bad: str) -> None:
    with pytest.raises(BadRequest):
        accounts.add(db, bad, None)


def test_a_new_password_ends_all_tokens_of_before(db: sqlite3.Connection) -> None:
    made = accounts.add(db, "ann@example.com", "one")
    before = time.time()
    changed = accounts.set_password(db, "ANN@example.com", "two")
    now = standing(db, changed.reference_id)
    assert now.not_before > before
    assert now.not_before <= time.time() + 1
    row = db.execute("SELECT password, version, updated_at IS NOT NULL FROM user_account").fetchone()
    assert row == ("two", 2, 1)
    found = accounts.account(db, made.email)
    assert found is not None
    assert found.not_before == now.not_before
    with pytest.raises(CommandError, match="user list"):
        accounts.set_password(db, "nobody@example.com", "x")


def test_a_removed_account_has_no_standing_and_its_tokens_are_dead(db: sqlite3.Connection) -> None:
    made = accounts.add(db, "ann@example.com", "x", admin=True)
    assert standing(db, made.reference_id).admin
    db.execute("PRAGMA foreign_keys=OFF")
    accounts.remove(db, "ann@example.com")
    after = standing(db, made.reference_id)
    assert (after.exists, after.admin, after.groups) == (False, False, frozenset())
    assert after.not_before > 0
    assert db.execute(f"SELECT count(*) FROM {standard.join_table('user_account')}").fetchone() == (0,)


def test_groups_are_joined_and_left(db: sqlite3.Connection) -> None:
    made = accounts.add(db, "ann@example.com", None)
    group = accounts.add_group(db, "Editors")
    accounts.join(db, made.reference_id, group)
    accounts.join(db, made.reference_id, group)
    assert standing(db, made.reference_id).groups == {USERS, group}
    assert dict(accounts.groups(db)) == {"Editors": 1, "administrators": 0, "guests": 0, "users": 1}
    assert accounts.accounts(db) == [(made, ["Editors", "users"])]
    assert accounts.leave(db, made.reference_id, group)
    assert not accounts.leave(db, made.reference_id, group)
    assert standing(db, made.reference_id).groups == {USERS}


def test_a_group_goes_with_what_was_granted_to_it(db: sqlite3.Connection) -> None:
    group = accounts.add_group(db, "Editors")
    (world,) = db.execute("SELECT reference_id FROM world WHERE table_name='world'").fetchone()
    db.execute("PRAGMA foreign_keys=OFF")
    table = standard.join_table("world")
    db.execute(f"INSERT INTO {table}(world_id, usergroup_id) VALUES(?, ?)", (world, group))
    accounts.remove_group(db, "editors")
    assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    for name in ("users", "Guests", ADMINISTRATORS):
        with pytest.raises(BadRequest, match="built in"):
            accounts.remove_group(db, name)


def test_built_in_groups_are_known_by_id_whatever_they_are_called(db: sqlite3.Connection) -> None:
    db.execute("UPDATE usergroup SET name = 'staff' WHERE reference_id = ?", (USERS,))
    db.execute("INSERT INTO usergroup(reference_id, name) VALUES('mine', 'users')")
    assert accounts.group_named(db, "users") == accounts.group_named(db, "staff") == USERS
    assert accounts.group_named(db, "GUESTS") == GUESTS
    assert accounts.group_named(db, "mine") == "mine"
    with pytest.raises(CommandError):
        accounts.group_named(db, "nobody")


@pytest.mark.parametrize(
    "taken", ["users", "Administrators", "guests", "owner", "Editors", "editors", "", "x" * 129, "a\nb"]
)
def test_a_group_takes_no_name_that_is_taken(db: sqlite3.Connection, taken: str) -> None:
    accounts.add_group(db, "Editors")
    with pytest.raises((BadRequest, Conflict)):
        accounts.add_group(db, taken)


def test_the_setup_code_makes_the_first_administrator_once(db: sqlite3.Connection) -> None:
    accounts.add(db, "first@example.com", None)  # being first makes nobody an administrator
    assert not accounts.has_administrator(db)
    stale = accounts.setup_code(db)
    code = accounts.setup_code(db)
    assert stale
    assert code
    assert code not in str(db.execute("SELECT * FROM _appliance_meta").fetchall())
    for wrong in (stale, code[:-1], "", code + "x", "\udc80"):
        with pytest.raises(Unauthorized):
            accounts.redeem(db, wrong, "evil@example.com", "hash")
    made = accounts.redeem(db, code, "root@example.com", "hash", name="Root")
    assert standing(db, made.reference_id).admin
    with pytest.raises(Unauthorized):
        accounts.redeem(db, code, "evil@example.com", "hash")
    assert accounts.setup_code(db) is None


def test_the_setup_code_ends_with_its_time_and_with_the_first_administrator(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = accounts.setup_code(db)
    assert code
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now + accounts.SETUP_S + 1)
        with pytest.raises(Unauthorized):
            accounts.redeem(db, code, "root@example.com", "hash")
    accounts.add(db, "other@example.com", None, admin=True)
    with pytest.raises(Unauthorized):
        accounts.redeem(db, code, "root@example.com", "hash")


def test_a_code_that_makes_no_account_stays_good(db: sqlite3.Connection) -> None:
    accounts.add(db, "ann@example.com", None)
    code = accounts.setup_code(db)
    assert code
    with pytest.raises(Conflict):
        accounts.redeem(db, code, "ann@example.com", "hash")
    assert accounts.redeem(db, code, "root@example.com", "hash")


def test_a_store_without_accounts_has_none(tmp_path: Path) -> None:
    db = connections.open_file(tmp_path / "b.db", busy_timeout_s=5)
    schema.prepare(db)
    db.executescript(
        "CREATE TABLE user_account(email, password); INSERT INTO user_account VALUES('ann@example.com', 'x')"
    )
    with pytest.raises(Forbidden, match=r"keeps no accounts: .* or was never served"):
        accounts.account(db, "ann@example.com")
    assert accounts.setup_code(db) is None
    with pytest.raises(Forbidden):
        accounts.add(db, "bob@example.com", "x")
    db.close()


def test_a_revoked_token_is_remembered_until_it_would_have_expired(db: sqlite3.Connection) -> None:
    now = time.time()
    accounts.revoke(db, "old", now - 10)
    accounts.revoke(db, "new", now + 1000)
    accounts.revoke(db, "new", now + 1000)
    assert callers.revoked(db) == {"new"}
    for until in (now + 5000, now + 1000):
        accounts.revoke(db, "new", until)
    assert db.execute("SELECT expires_at FROM _appliance_revoked").fetchall() == [(math.ceil(now + 5000),)]


# --- passwords --------------------------------------------------------------------------------------------------------


def test_a_password_is_hashed_with_a_cost_that_is_high_enough() -> None:
    hashed = passwords.hash_password("correct horse")
    assert hashed.startswith("$2b$11$")
    assert passwords.is_password("correct horse", hashed)
    assert not passwords.is_password("correct horsf", hashed)
    assert bcrypt.checkpw(b"correct horse", hashed.encode())


@pytest.mark.parametrize("password", ["", "seven77", "x" * 73, "\u00e9" * 37, "nul\0 inside", "\ud800 surrogate"])
def test_a_password_of_another_length_is_refused_without_being_told(password: str) -> None:
    with pytest.raises(BadRequest) as caught:
        passwords.hash_password(password)
    assert len(password) < 7 or password not in str(caught.value)


def test_the_longest_password_counts_to_its_last_byte() -> None:
    hashed = passwords.hash_password("x" * 72)
    assert passwords.is_password("x" * 72, hashed)
    assert not passwords.is_password("x" * 71 + "y", hashed)
    assert not passwords.is_password("x" * 73, hashed)


SALTED = "V1QxSK3jW/9.5MSC.jnnYuZ7glkZrQ6rg3k2rkKcjRIeXy6KnLM8G"


@pytest.mark.parametrize("hashed", [
    None, "", "plain text", "$2b$11$short", "\u00e9", "\udcff", b"", b"\0\xff", 5, 1.5, b"$2b$11$", f"$2$11${SALTED}",
    f"$2b$+4${SALTED}", f"$2b$004${SALTED}", f"$2b$00${SALTED}", f"$2b$31${SALTED}", f"$2b$17${SALTED}".encode(),
    f"$2b$\u0661\u0661${SALTED}", f"$2b$11${SALTED}\n", f"$2b$04${SALTED[:21]}0{SALTED[22:]}",
])  # fmt: skip
def test_where_there_is_no_hash_no_password_is_right_and_it_takes_one_hashing(
    hashed: SQLiteValue, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[bytes] = []
    check = bcrypt.checkpw

    def counted(password: bytes, against: bytes) -> bool:
        same = check(password, against)
        done.append(against)
        return same

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    for password in ("nobody has this password", "x" * 100, ""):
        assert not passwords.is_password(password, hashed)
    assert [each[:7] for each in done] == [b"$2b$11$"] * 3


@pytest.mark.parametrize("cost", [4, 8, 10, 11])
def test_a_hash_of_a_lower_cost_takes_as_long(monkeypatch: pytest.MonkeyPatch, cost: int) -> None:
    rounds: list[int] = []
    check = bcrypt.checkpw
    hashed = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(cost))

    def counting(raw: bytes, against: bytes) -> bool:
        rounds.append(1 << int(against[4:6]))
        return check(raw, against) if against == hashed else False

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    assert passwords.is_password("correct horse", hashed.decode())
    assert not passwords.is_password("wrong password", hashed)
    assert sum(rounds) == 2 << passwords.COST  # of two tries


def test_a_hash_may_be_stored_as_the_bytes_that_bcrypt_gives() -> None:
    hashed = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4))
    assert passwords.is_password("correct horse", hashed)
    assert not passwords.is_password("correct horsf", hashed)
