"""Other people's DDL, read as SQLite reads it."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.capture.sql import (
    column_collations,
    constant,
    functions,
    index_predicate,
    resolves_conflicts,
    tokens,
    virtual_module,
)


@pytest.mark.parametrize(
    ("ddl", "collations"),
    [
        ("CREATE TABLE t(a, b)", {}),
        ("CREATE TABLE t(a TEXT COLLATE NOCASE, b collate rtrim)", {"a": "NOCASE", "b": "rtrim"}),
        ('CREATE TABLE "t(x COLLATE y"(a COLLATE "my ""own""")', {"a": 'my "own"'}),
        ("CREATE TABLE [a(b](`c``d` TEXT COLLATE [odd one])", {"c`d": "odd one"}),
        ("CREATE TABLE t('a' COLLATE 'NOCASE')", {"a": "NOCASE"}),
        ("CREATE TABLE t(a -- COLLATE NOCASE, (\n, b /* COLLATE ) */ COLLATE RTRIM)", {"b": "RTRIM"}),
        ("CREATE TABLE t(a DEFAULT 'it''s ) COLLATE NOCASE', b)", {}),
        ("CREATE TABLE t(a DEFAULT ('x' COLLATE NOCASE), b COLLATE RTRIM)", {"b": "RTRIM"}),
        ("CREATE TABLE t(a CHECK (a COLLATE NOCASE <> 'x') COLLATE RTRIM)", {"a": "RTRIM"}),
        ("CREATE TABLE t(a, b AS (a || ')' COLLATE NOCASE) STORED COLLATE RTRIM)", {"b": "RTRIM"}),
        ("CREATE TABLE t(a NUMERIC(10, 2) COLLATE NOCASE, b)", {"a": "NOCASE"}),
        ("CREATE TABLE t(a, PRIMARY KEY(a COLLATE NOCASE), CHECK(a COLLATE NOCASE > 1))", {}),
        ("CREATE TABLE t(a COLLATE NOCASE COLLATE RTRIM)", {"a": "RTRIM"}),
        ('CREATE TABLE t(a "COLLATE" NOCASE)', {}),
        ("CREATE TABLE t(a\N{NO-BREAK SPACE}b COLLATE NOCASE)", {"a\N{NO-BREAK SPACE}b": "NOCASE"}),
        ("CREATE TABLE t(a COLLATE NOCASE) /* never closed", {"a": "NOCASE"}),
        ("CREATE TABLE t(a TEXT CONSTRAINT c NOT NULL ON CONFLICT IGNORE COLLATE NOCASE, b)", {"a": "NOCASE"}),
    ],
)
def test_each_columns_collation_is_found(ddl: str, collations: dict[str, str]) -> None:
    assert column_collations(ddl) == collations
    if sqlite3.sqlite_version_info >= (3, 35):
        db = sqlite3.connect(":memory:")
        for name in collations.values():
            db.create_collation(name, lambda one, other: (one > other) - (one < other))
        db.execute(ddl)  # it is what SQLite takes, too
        db.close()


@pytest.mark.parametrize(
    ("ddl", "said"),
    [
        ("CREATE TABLE t(a UNIQUE ON CONFLICT REPLACE)", True),
        ("CREATE TABLE t(a, b, UNIQUE(a, b) on -- \n conflict\tignore)", True),
        ("CREATE TABLE t(a INTEGER PRIMARY KEY ASC ON CONFLICT FAIL, b)", True),
        ("CREATE TABLE t(a UNIQUE, b REFERENCES t(a) ON DELETE CASCADE)", False),
        ("CREATE TABLE t(\"ON CONFLICT\" UNIQUE, b DEFAULT 'ON CONFLICT') -- ON CONFLICT", False),
        ('CREATE TABLE t("ON" UNIQUE, conflict)', False),
    ],
)
def test_a_table_that_says_what_becomes_of_conflicts_is_told_from_others(ddl: str, said: bool) -> None:
    assert resolves_conflicts(ddl) is said
    db = sqlite3.connect(":memory:")
    db.execute(ddl)  # it is what SQLite takes, too
    db.close()


def test_the_collations_of_tables_made_and_altered_by_sqlite_are_found() -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE one(a TEXT COLLATE NOCASE)")
    db.execute("CREATE TABLE two AS SELECT a, a AS 'b, c' FROM one")
    db.execute("ALTER TABLE one ADD COLUMN late TEXT DEFAULT ')' COLLATE RTRIM")
    db.execute("ALTER TABLE one RENAME COLUMN a TO [a COLLATE RTRIM]")
    found = {name: column_collations(sql) for name, sql in db.execute("SELECT name, sql FROM sqlite_schema")}
    assert found == {"one": {"a COLLATE RTRIM": "NOCASE", "late": "RTRIM"}, "two": {}}
    db.close()


@pytest.mark.parametrize(
    ("ddl", "predicate"),
    [
        ("CREATE UNIQUE INDEX i ON t(a)", None),
        ("CREATE UNIQUE INDEX i ON t(a) WHERE b", "b"),
        ("create unique index i on t(a) where b>=1 and c <> 'where';", "b>=1 and c <> 'where'"),
        ('CREATE UNIQUE INDEX "WHERE" ON [WHERE](a, "WHERE") WHERE "b" IS NOT NULL', '"b" IS NOT NULL'),
        ("CREATE UNIQUE INDEX i ON t(a) WHERE b -- and that is it", "b"),
        ("CREATE UNIQUE INDEX i ON t(a) -- WHERE no\n WHERE b -- one\n AND c /* two */ = 2 /* open", "b AND c = 2"),
        ("CREATE UNIQUE INDEX i ON t(a) WHERE (b) IN (1, 'x;y')", "(b) IN (1, 'x;y')"),
        ("CREATE UNIQUE INDEX i ON t(a) WHERE a = x'00ff' OR b = 1.5e-3", "a = x'00ff' OR b = 1.5e-3"),
        ('CREATE UNIQUE INDEX i ON t(a) WHERE b = "it\'s"', "b = 'it''s'"),
        ('CREATE UNIQUE INDEX i ON t(a) WHERE "t"."B" = "c" COLLATE "NOCASE"', '"t"."B" = "c" COLLATE "NOCASE"'),
        ('CREATE UNIQUE INDEX i ON t(a) WHERE "length"(b) > 2', '"length"(b) > 2'),
    ],
)
def test_the_condition_of_a_partial_index_can_stand_in_a_trigger(ddl: str, predicate: str | None) -> None:
    assert index_predicate(ddl, ["a", "b", "c"]) == predicate


@pytest.mark.parametrize(
    ("default", "value"),
    [
        ("NULL", None),
        ("'it''s'", "'it''s'"),
        ("-1", "-1"),
        ("+ 1.5e-3", "+ 1.5e-3"),
        ("0x10", "0x10"),
        ("x'00ff'", "x'00ff'"),
        ("true", "true"),
        ("Current_Date", "Current_Date"),
        ("on_", "'on_'"),
        ('"it\'s"', "'it''s'"),
        ("[a]", "'a'"),
        ('"a" || `b` /* c */ || lower("D")', "'a' || 'b' || lower('D')"),
    ],
)
def test_the_default_of_a_column_can_stand_in_a_trigger(default: str, value: str | None) -> None:
    assert constant(default) == value


@pytest.mark.parametrize(
    ("expression", "called"),
    [
        ("a IN (1, 2) AND NOT (b) OR CASE WHEN (c) THEN (a) ELSE (b) END", set()),
        ('Lower(a) = "MyOwn"(b) AND [f] (c)', {"lower", "myown", "f"}),
        ("a LIKE 'x%' AND b GLOB '*' ", {"like", "glob"}),
        ("coalesce(a, abs(b)) > 'f(' -- g(", {"coalesce", "abs"}),
    ],
)  # fmt: skip
def test_what_an_expression_calls_is_found(expression: str, called: set[str]) -> None:
    assert functions(expression) == called


def test_the_module_of_a_virtual_table_is_found() -> None:
    assert virtual_module('CREATE VIRTUAL TABLE "USING" USING "fts5"(a, b)') == "fts5"
    assert virtual_module("CREATE TABLE t(a)") is None


@given(st.text(alphabet=st.sampled_from("()'\"`[]-/*\n aCOLLATEWHERE,;é.=")))
def test_any_text_is_read_without_fail(sql: str) -> None:
    found = list(tokens(sql))
    assert all(sql[token.start : token.end] == token.text for token in found)
    column_collations(sql)
    index_predicate(sql, ["a"])
    functions(sql)
    assert all(isinstance(token.name, str) for token in found)
