"""Pages of rows: each begins where the one before ended, whatever the values, and an index answers."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from appliance.errors import Unavailable
from appliance.model import SQLiteValue
from appliance.store.file import texts
from appliance.store.tables import rows
from appliance.store.tables.resources import Resource, Resources
from appliance.store.tables.rows import Term

VALUES: tuple[SQLiteValue, ...] = (None, -1, 0, 0.5, 2, "", "a", "A", "b", "\udcff", b"", b"a", float("inf"))
COLUMNS = "a, b TEXT COLLATE NOCASE, c INTEGER NOT NULL"


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.text_factory = texts.text
        yield db


def resource(db: sqlite3.Connection) -> Resource:
    return Resources(lambda table, column, key: False).read(db)["t"]


def fill(db: sqlite3.Connection, seed: str, nullable_key: bool) -> None:
    chosen = random.Random(seed)
    for number in range(60):
        given = [chosen.choice(VALUES) for _ in range(2)]
        bound = [each.encode("utf-8", "surrogateescape") if each == "\udcff" else each for each in given]
        casts = ["CAST(? AS TEXT)" if each == "\udcff" else "?" for each in given]
        key = None if nullable_key and number % 3 == 0 else number
        sql = f"INSERT INTO t(k, a, b, c) VALUES(?, {', '.join(casts)}, ?)"
        db.execute(sql, (key, *bound, chosen.randrange(3)))


def pages(
    db: sqlite3.Connection, of: Resource, order: list[Term], size: int
) -> Iterator[list[tuple[SQLiteValue, ...]]]:
    where: list[rows.Clause] = []
    more = True
    while more:
        found, more = rows.page(db, of, where, order, size)
        yield found
        where = [rows.after(order, rows.at(found[-1], order))]


@pytest.mark.parametrize("asked", ["", "a", "-a", "b,-a", "-b,a", "c,a", "-c,-b,a"])
@pytest.mark.parametrize(
    ("schema", "nullable"),
    [
        (f"k INTEGER PRIMARY KEY, {COLUMNS}", False),
        (f"k TEXT PRIMARY KEY, {COLUMNS}", True),
        (f"k, {COLUMNS}", True),
        (f"k, {COLUMNS}, PRIMARY KEY(c, k)) WITHOUT ROWID", False),
    ],
)
@pytest.mark.parametrize("size", [1, 7])
def test_pages_are_the_list_without_gap_or_double(
    db: sqlite3.Connection, asked: str, schema: str, nullable: bool, size: int
) -> None:
    db.execute(f"CREATE TABLE t({schema}" + ")" * (not schema.endswith("ROWID")))
    fill(db, asked + schema, nullable)
    of = resource(db)
    names = [column.name for column in of.shape.columns]
    order = [
        rows.column_term(of, names.index(each.lstrip("-")), descending=each.startswith("-"))
        for each in asked.split(",")
        if each
    ]
    taken = {term.sql for term in order}
    order += [term for term in rows.key_terms(of, descending=asked.startswith("-")) if term.sql not in taken]

    whole, more = rows.page(db, of, [], order, 100)
    found = [each for page in pages(db, of, order, size) for each in page]

    assert not more
    assert len(whole) == 60
    assert found == whole


def plan(db: sqlite3.Connection, clause: rows.Clause) -> str:
    sql, parameters = clause
    """Give SQLite's plan in one line, as every version of it would word it."""
    return " | ".join(
        row[3].replace("main.", "").replace("TABLE ", "")
        for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    )


def test_the_next_page_is_found_by_the_key(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE t(k INTEGER PRIMARY KEY, c NOT NULL, d)")
    db.execute("CREATE INDEX i ON t(c)")
    of = resource(db)
    key = rows.key_terms(of)
    by_column = [rows.column_term(of, 1), *key]

    assert rows.page_sql(of, [rows.after(key, (5,))], key, 10) == (
        'SELECT rowid, "k", "c", "d" FROM main."t" WHERE ("k" > ?) ORDER BY "k" LIMIT ?', (5, 10),
    )  # fmt: skip
    assert plan(db, rows.page_sql(of, [rows.after(key, (5,))], key, 10)) == (
        "SEARCH t USING INTEGER PRIMARY KEY (rowid>?)"
    )
    assert plan(db, rows.page_sql(of, [rows.after(by_column, (1, 5))], by_column, 10)) == (
        "SEARCH t USING INDEX i (c>?)"
    )
    assert rows.after(by_column, (1, 5)) == ('"c" >= ? AND ("c" > ? OR ("c" IS ? AND ("k" > ?)))', (1, 1, 1, 5))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("k INTEGER PRIMARY KEY, v)", "SEARCH t USING INTEGER PRIMARY KEY (rowid=?)"),
        ("k TEXT PRIMARY KEY, v)", "SEARCH t USING INDEX sqlite_autoindex_t_1 (k=?)"),
        ("v)", "SEARCH t USING INTEGER PRIMARY KEY (rowid=?)"),
        ("k PRIMARY KEY, v) WITHOUT ROWID", "SEARCH t USING PRIMARY KEY (k=?)"),
    ],
)
def test_a_row_is_found_by_its_key(db: sqlite3.Connection, schema: str, expected: str) -> None:
    db.execute(f"CREATE TABLE t({schema}")
    of = resource(db)
    seen: list[str] = []
    db.set_trace_callback(seen.append)
    rows.find(db, of, (1,))
    db.set_trace_callback(None)

    assert plan(db, (seen[-1], ())) == expected


def test_a_read_that_takes_too_long_is_ended_and_leaves_nothing_open(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE t(v)")
    db.execute(
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n"
    )

    with pytest.raises(Unavailable, match="index"), rows.reading(db, budget_s=0.0):
        db.execute("SELECT count(*) FROM t a, t b").fetchone()

    assert not db.in_transaction
    assert db.execute("SELECT count(*) FROM t a, t b").fetchone() == (1_000_000,)


def test_a_page_ends_early_when_its_rows_are_long(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    db.execute("CREATE TABLE t(v)")
    db.executemany("INSERT INTO t VALUES(?)", [("x" * 600,)] * 4)
    monkeypatch.setattr(rows, "PAGE_BYTES", 1000)
    of = resource(db)

    assert [len(page) for page in pages(db, of, rows.key_terms(of), 10)] == [2, 2]


def test_the_schema_is_read_again_when_it_has_changed(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE t(v)")
    known = Resources(lambda table, column, key: column == "w")
    before = known.read(db)

    assert known.read(db) is before
    db.execute("ALTER TABLE t ADD COLUMN w")
    assert known.read(db)["t"].hidden == {"w"}
