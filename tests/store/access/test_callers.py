"""Whom a token stands for: by what it says itself, and by what the store says at the moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.model import Principal
from appliance.protocol.tokens import ADMINISTRATOR, ISSUER, NO_KEY, OTHERS
from appliance.store.access import accounts, callers, keys
from appliance.store.file import connections, schema
from appliance.store.tables import standard
from appliance.store.tables.standard import ADMINISTRATORS


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = connections.open_file(tmp_path / "a.db", busy_timeout_s=5)
    schema.prepare(opened)
    standard.prepare(opened)
    yield opened
    opened.close()


@pytest.mark.parametrize("by_token", [False, True])
def test_who_is_an_administrator_by_a_group_is_one_while_in_it(db: sqlite3.Connection, by_token: bool) -> None:
    ann = accounts.add(db, "ann@example.com", None, admin=True).reference_id
    principal = Principal(ISSUER, ann, admin=by_token, expires_at=0)
    for member in (True, True, False, False, True):
        (accounts.join if member else accounts.leave)(db, ann, ADMINISTRATORS)
        # An open connection is asked about with what it was found to be the last time.
        (caller,) = callers.identify(db, [principal])
        principal = caller.principal
        assert principal.admin == (by_token or member)
    assert replace(principal, admin=by_token, appointed=False) == Principal(ISSUER, ann, by_token, 0)


def test_another_issuers_subject_is_none_of_ours(db: sqlite3.Connection) -> None:
    ann, gone = (accounts.add(db, f"{name}@example.com", None).reference_id for name in ("ann", "gone"))
    accounts.remove(db, "gone@example.com")
    refused = [
        callers.identify(db, [Principal("https://issuer.example", subject, admin=True, expires_at=0)])[0].refused
        for subject in (ann, gone, ADMINISTRATOR, "guest", "system", "database", "ben")
    ]
    assert [bool(each) for each in refused] == [True] * 6 + [False]
    (ours,) = callers.identify(db, [Principal(ISSUER, ADMINISTRATOR, admin=True, expires_at=0)])
    assert (ours.refused, ours.principal.admin) == ("", True)


def test_no_subject_of_ours_is_called_as_the_server_is(db: sqlite3.Connection) -> None:
    refused = [
        callers.identify(db, [Principal(ISSUER, subject, admin=admin, expires_at=0)])[0].refused
        for subject in ("guest", "system", "database", "guests")
        for admin in (False, True)
    ]
    assert [bool(each) for each in refused] == [True] * 6 + [False] * 2


def test_a_token_ends_with_its_secret_whoever_has_verified_it_before_that(db: sqlite3.Connection) -> None:
    (key,) = keys.Secrets().keys(db)
    principal = Principal(ISSUER, ADMINISTRATOR, admin=True, expires_at=0, key_id=key.id)
    refused = []
    for drop in (False, True):
        with schema.transaction(db):
            keys.rotate(db, drop=drop)
        refused.append(callers.identify(db, [principal])[0].refused)
    keys.Secrets(("of a file",)).note(db)  # then the store's own are not what counts
    refused.append(callers.identify(db, [principal])[0].refused)
    assert refused == ["", NO_KEY, ""]


def test_a_token_of_another_issuer_for_an_account_needs_no_key_of_the_stores(db: sqlite3.Connection) -> None:
    ann = accounts.add(db, "ann@example.com", None).reference_id
    principal = Principal(ISSUER, ann, admin=False, expires_at=0, key_id=OTHERS + "1", issued_at=1e12, registered=True)
    (caller,) = callers.identify(db, [principal])
    assert caller.refused == ""
    assert standard.USERS in caller.groups
