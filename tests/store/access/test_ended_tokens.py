"""Whatever somebody does to accounts by SQL: who had a token of an account that is another now has it no more."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config import SECRET_COLUMNS
from appliance.store.access import accounts, grants
from appliance.store.file import schema
from appliance.store.tables import standard
from appliance.store.tables.secrecy import Secrecy
from tests.capture.support import Captured
from tests.capture.test_limits import harden

ANN = "INSERT INTO user_account(reference_id, email, password) VALUES('ann', 'ann@example.com', 'one')"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Captured]:
    opened = Captured(tmp_path / "a.db")
    standard.prepare(opened.server)
    opened.secret = Secrecy(SECRET_COLUMNS, ())
    opened.synchronise()
    opened.writer.execute(ANN)
    yield opened
    opened.close()


def ended(db: sqlite3.Connection) -> set[str]:
    """Give the subjects whose tokens of before this second are dead."""
    rows = db.execute("SELECT subject, not_before FROM _appliance_account").fetchall()
    assert all(time.time() - 60 < not_before <= time.time() + 1 for _, not_before in rows)
    return {subject for subject, _ in rows}


@pytest.mark.parametrize(
    ("statements", "subjects"),
    [
        ("UPDATE user_account SET password = 'two'", {"ann"}),
        ("UPDATE user_account SET password = NULL", {"ann"}),
        ("UPDATE user_account SET password = password, name = 'x'", set()),
        ("REPLACE INTO user_account(reference_id, email, password) VALUES('ann', 'ann@example.com', 'two')", {"ann"}),
        ("REPLACE INTO user_account(reference_id, email, password) VALUES('ann', 'other@example.com', 'two')", {"ann"}),
        ("REPLACE INTO user_account(reference_id, email, password) VALUES('eve', 'ANN@example.com', 'two')", {"ann"}),
        ("REPLACE INTO user_account(id, reference_id, email) SELECT id, 'eve', 'eve@example.com' FROM user_account",
         {"ann"}),
        ("DELETE FROM user_account; " + ANN.replace("one", "two"), {"ann"}),
        ("DELETE FROM user_account", {"ann"}),
        ("UPDATE user_account SET reference_id = 'bob'; " + ANN.replace("ann@", "other@"), {"ann"}),
        (ANN.replace("ann", "bob") + "; UPDATE OR REPLACE user_account SET email = 'ann@example.com' WHERE "
         "reference_id = 'bob'", {"ann"}),
        (ANN.replace("ann", "bob"), set()),
        (ANN.replace("INSERT", "INSERT OR IGNORE"), set()),
        (ANN.replace("INSERT", "INSERT OR IGNORE") + "; " + ANN.replace("ann", "bob"), set()),
        (ANN + " ON CONFLICT(email) DO UPDATE SET name = 'x'", set()),
        (ANN.replace("one", "two") + " ON CONFLICT(email) DO UPDATE SET password = excluded.password", {"ann"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("recursive", [False, True])
def test_a_token_ends_with_the_account_or_password_that_it_was_for(
    file: Captured, statements: str, subjects: set[str], recursive: bool
) -> None:
    assert ended(file.writer) == set()
    before = schema.generation(file.writer)
    file.writer.execute(f"PRAGMA recursive_triggers={recursive}")
    file.writer.execute("PRAGMA trusted_schema=OFF")
    harden(file.writer)
    file.writer.executescript(f"BEGIN; {statements}; COMMIT")
    assert ended(file.writer) == subjects
    assert (schema.generation(file.writer) > before) == bool(subjects)
    secrets = file.writer.execute("SELECT * FROM _appliance_outbox").fetchall()
    assert not {"one", "two"} & {value for row in secrets for value in row}


def test_an_account_that_is_there_again_has_none_of_the_tokens_of_before(file: Captured) -> None:
    issued = int(time.time())
    file.writer.execute("DELETE FROM user_account")
    file.writer.execute(ANN)
    stands = grants.standing(file.server, ["ann"])["ann"]
    assert stands.exists
    assert stands.not_before > issued


def test_what_no_token_can_outlive_is_forgotten(file: Captured) -> None:
    db = file.server
    accounts.end_tokens(db, "ann")
    accounts.end_tokens(db, "bob")
    db.execute("UPDATE _appliance_account SET not_before = 1000 WHERE subject = 'bob'")
    assert not accounts.outlived(db, 1000)
    assert accounts.outlived(db, 1001)
    accounts.forget_outlived(db, 1001)
    assert ended(db) == {"ann"}
    plan = db.execute("EXPLAIN QUERY PLAN DELETE FROM _appliance_account WHERE not_before < 1").fetchall()
    assert "_appliance_account_ended" in str(plan)
