"""Which columns are secret, and which rules say it of none."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from appliance.store.tables.secrecy import Secrecy


def test_a_rule_that_names_no_column_is_given_once() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(
            'CREATE TABLE Orders(id, pin); CREATE TABLE "a.b"(c, v AS (c)); CREATE VIEW x AS SELECT 1 AS pin'
        )
        rules = Secrecy(
            ("password", "orders.PIN", "orders.pni", "x.pin"), ("x.password", "a.b.c", "a.b.v", "orders.pni")
        )
        assert rules.idle(db) == ["orders.pni", "x.pin", "x.password"]
        assert Secrecy(("password", "*_key"), ()).idle(db) == []
