"""Every kind of table, index and name that can stand in somebody's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.capture.shape import Table
from appliance.model import quote_identifier as quote
from appliance.store.tables import catalog
from tests.capture.support import Captured, brief


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as opened:
        yield opened


def only(db: sqlite3.Connection) -> Table:
    (table,) = catalog.tables(db)
    return table


def names(db: sqlite3.Connection) -> list[str]:
    return [table.name for table in catalog.tables(db)]


def test_views_virtual_shadow_temporary_attached_and_internal_tables_are_no_topics(db: sqlite3.Connection) -> None:
    db.executescript(
        """CREATE TABLE plain(id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE VIEW v AS SELECT * FROM plain;
        CREATE VIEW broken AS SELECT missing FROM nowhere; CREATE VIRTUAL TABLE docs USING fts5(body);
        CREATE TABLE docs_archive(a); CREATE TEMP TABLE passing(a); CREATE TABLE "_Appliance_x"(a);
        ATTACH ':memory:' AS other; CREATE TABLE other.elsewhere(a); ANALYZE"""
    )
    assert names(db) == ["docs_archive", "plain"]


def test_the_schema_is_looked_through_as_often_for_many_tables_as_for_few(db: sqlite3.Connection) -> None:
    looked: list[int] = []
    for count in (3, 30):
        for number in range(count):
            db.execute(f"CREATE TABLE IF NOT EXISTS t{number}(id INTEGER PRIMARY KEY, a UNIQUE)")
        said: list[str] = []
        db.set_trace_callback(said.append)
        assert len(names(db)) == count
        db.set_trace_callback(None)
        looked.append(sum("sqlite_schema" in each for each in said))
    assert looked[0] == looked[1]


def test_the_tables_that_litestream_keeps_are_no_topics(db: sqlite3.Connection) -> None:
    db.executescript(
        "CREATE TABLE _litestream_seq(id, seq); CREATE TABLE _Litestream_lock(id); CREATE TABLE litestream(a)"
    )

    assert names(db) == ["litestream"]


def test_a_virtual_table_whose_module_is_missing_and_its_shadow_tables_are_no_topics(db: sqlite3.Connection) -> None:
    db.executescript("CREATE TABLE plain(a); CREATE TABLE gone_data(a); CREATE TABLE gone_by_data(a)")
    db.execute("PRAGMA writable_schema=ON")
    db.execute(
        "INSERT INTO sqlite_schema VALUES('table', 'gone', 'gone', 0, 'CREATE VIRTUAL TABLE gone USING missing(a)')"
    )
    db.execute("PRAGMA writable_schema=RESET")
    assert names(db) == ["gone_by_data", "plain"]


def test_a_temporary_table_does_not_hide_the_table_of_its_name(db: sqlite3.Connection) -> None:
    db.executescript("CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TEMP TABLE t(other)")
    assert [column.name for column in only(db).columns] == ["a", "b"]


@pytest.mark.parametrize(
    ("ddl", "rowid", "integer_key"),
    [
        ("CREATE TABLE t(a)", "rowid", None),
        ("CREATE TABLE t(a INTEGER PRIMARY KEY)", "rowid", "a"),
        ("CREATE TABLE t(a INT PRIMARY KEY)", "rowid", None),
        ("CREATE TABLE t(a INTEGER PRIMARY KEY DESC)", "rowid", None),
        ("CREATE TABLE t(a INTEGER, PRIMARY KEY(a DESC))", "rowid", "a"),
        ("CREATE TABLE t(a INTEGER, b, PRIMARY KEY(a, b))", "rowid", None),
        ("CREATE TABLE t(a PRIMARY KEY) WITHOUT ROWID", None, None),
        ("CREATE TABLE t(a INTEGER PRIMARY KEY) WITHOUT ROWID", None, None),
        ("CREATE TABLE t(RowId)", "_rowid_", None),
        ("CREATE TABLE t(rowid, _rowid_)", "oid", None),
        ("CREATE TABLE t(rowid, _rowid_, oid)", None, None),
        ("CREATE TABLE t(rowid, _rowid_, oid INTEGER PRIMARY KEY)", '"oid"', "oid"),
    ],
)
def test_the_rowid_is_known_by_a_name_that_no_column_has(
    db: sqlite3.Connection, ddl: str, rowid: str | None, integer_key: str | None
) -> None:
    db.execute(ddl)
    assert (only(db).rowid, only(db).integer_key) == (rowid, integer_key)


def test_what_the_columns_are_is_read(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE t(b TEXT COLLATE NOCASE, a INT, v AS (a) VIRTUAL, s INT AS (a) STORED, PRIMARY KEY(a, b))")
    found = [(each.name, each.declared, each.collation, each.key, each.virtual) for each in only(db).columns]
    assert found == [
        ("b", "TEXT", "NOCASE", 2, False), ("a", "INT", "BINARY", 1, False),
        ("v", "", "BINARY", 0, True), ("s", "INT", "BINARY", 0, False),
    ]  # fmt: skip


def test_unique_indexes_are_read_with_their_collations_and_conditions(db: sqlite3.Connection) -> None:
    db.executescript(
        """CREATE TABLE t(a COLLATE NOCASE PRIMARY KEY, b UNIQUE, c);
        CREATE UNIQUE INDEX one ON t(b COLLATE RTRIM, c) WHERE c > 1 -- only these
        ; CREATE UNIQUE INDEX two ON t(a, lower(b)); CREATE INDEX three ON t(c);
        CREATE UNIQUE INDEX four ON t(c) WHERE length(b) > 1"""
    )
    found = {(each.columns, each.where, each.expression, each.primary) for each in only(db).uniques}
    assert found == {
        ((("a", "NOCASE"),), None, False, True),
        ((("b", "BINARY"),), None, False, False),
        ((("b", "RTRIM"), ("c", "BINARY")), "c > 1", False, False),
        ((("a", "NOCASE"),), None, True, False),
        ((("c", "BINARY"),), "length(b) > 1", False, False),
    }


def test_a_condition_that_calls_what_not_every_writer_has_is_not_used(db: sqlite3.Connection) -> None:
    db.create_function("mine", 1, lambda value: value, deterministic=True)
    db.executescript("CREATE TABLE t(a, b); CREATE UNIQUE INDEX i ON t(a) WHERE mine(b)")
    (unique,) = only(db).uniques
    assert (unique.where, unique.expression) == (None, True)


def test_a_collation_that_we_do_not_know_is_read_all_the_same(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as made:
        made.create_collation("theirs", lambda one, other: (one > other) - (one < other))
        made.execute("CREATE TABLE t(a TEXT COLLATE theirs, b TEXT UNIQUE COLLATE theirs)")
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        assert [each.collation for each in only(db).columns] == ["theirs", "theirs"]
        assert only(db).uniques[0].columns == (("b", "theirs"),)


@pytest.mark.parametrize(
    ("ddl", "nested"),
    [
        ("CREATE TABLE u(a)", []),
        ("CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END", ["t"]),
        ("CREATE TABLE u(t REFERENCES T(id))", []),
        ("CREATE TABLE u(u REFERENCES u(u))", ["u"]),
        (
            "CREATE TABLE u(t REFERENCES T(id)); CREATE TABLE w(u REFERENCES u(t));"
            "CREATE TRIGGER x AFTER DELETE ON W BEGIN UPDATE t SET a = 1; END",
            ["t", "u", "w"],
        ),
        ("CREATE TABLE u(id, t REFERENCES t(id)); ALTER TABLE t ADD COLUMN u REFERENCES u(id)", ["t", "u"]),
    ],
)
def test_a_table_is_nested_when_writing_it_can_write_it_again(
    db: sqlite3.Connection, ddl: str, nested: list[str]
) -> None:
    db.executescript("CREATE TABLE t(id INTEGER PRIMARY KEY, a);" + ddl)
    assert [table.name for table in catalog.tables(db) if table.nested] == nested


#: Names that have broken programs.
ODD = (
    "", " ", "select", "table", "NEW", "OLD", "new", "rowid", "id", "shape", "op", "cut", "part", "v0", "k0",
    "excluded", "with space", "quo\"te", "quo'te", "[brackets]", "`tick`", "semi;colon", "-- comment", "/* comment */",
    "per%cent_", "q?mark", ":named", "@at", "$dollar", "über", "ÜBER", "naïve", "日本語", "🙂", "a\nb", "a\tb",
    "a\u00a0b", "\u202e",
    "true", "null", "1", "1e5", "x'00'", "sqlitex", "_appliance", "main.t", "x" * 400,
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in ODD if name])
def test_a_table_and_a_column_of_any_name_are_captured(tmp_path: Path, name: str) -> None:
    table, column = quote(name), quote(name + "2" if name in ("rowid",) else name)
    file = Captured(
        tmp_path / "a.db",
        f"CREATE TABLE {table}({column} TEXT COLLATE NOCASE, other UNIQUE, PRIMARY KEY({column}));"
        f"CREATE UNIQUE INDEX i ON {table}(other, {column}) WHERE {column} IS NOT NULL",
    )
    assert (list(file.synced.shapes), dict(file.synced.skipped)) == ([name], {})
    writer = file.writer
    writer.execute(f"INSERT INTO {table} VALUES('a', 1), ('b', 2), ('c', 3)")
    writer.execute(f"INSERT OR REPLACE INTO {table} VALUES('A', 2)")
    writer.execute(f"UPDATE {table} SET {column} = 'z' WHERE other = 3")
    writer.execute(f"UPDATE OR REPLACE {table} SET other = 3 WHERE other = 2")
    writer.execute(f"DELETE FROM {table}")
    assert [brief(event) for event in file.events()] == [
        ("create", name, None, ("a", 1)), ("create", name, None, ("b", 2)), ("create", name, None, ("c", 3)),
        ("delete", name, ("b", 2), None), ("update", name, ("a", 1), ("A", 2)), ("update", name, ("c", 3), ("z", 3)),
        ("delete", name, ("z", 3), None), ("update", name, ("A", 2), ("A", 3)), ("delete", name, ("A", 3), None),
    ]  # fmt: skip
    file.close()


def test_a_column_may_have_no_name_at_all(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", 'CREATE TABLE t("" UNIQUE, " " PRIMARY KEY)')
    assert file.said("INSERT INTO t VALUES(1, 2)") == [("create", "t", None, (1, 2))]
    assert file.said("REPLACE INTO t VALUES(3, 2)") == [("update", "t", (1, 2), (3, 2))]
    file.close()


def test_columns_of_all_odd_names_stand_in_one_table(tmp_path: Path) -> None:
    chosen = [name for name in ODD if name != "new"]
    file = Captured(tmp_path / "a.db", f"CREATE TABLE t({', '.join(map(quote, chosen))}, UNIQUE(v0, k0, shape, id))")
    marks = ", ".join("?" * len(chosen))
    first, other = [str(place) for place in range(len(chosen))], [f"x{place}" for place in range(len(chosen))]
    for name in ("v0", "k0", "shape", "id"):
        other[chosen.index(name)] = first[chosen.index(name)]
    assert file.said(f"INSERT INTO t VALUES({marks})", first) == [("create", "t", None, tuple(first))]
    assert file.said(f"REPLACE INTO t VALUES({marks})", other) == [
        ("delete", "t", tuple(first), None),
        ("create", "t", None, tuple(other)),
    ]
    file.close()


def test_names_that_differ_only_in_the_case_of_letters_beyond_ascii_are_two_tables(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE über(a); CREATE TABLE ÜBER(ä, Ä)")
    assert file.said("INSERT INTO über VALUES(1)") == [("create", "über", None, (1,))]
    assert file.said("INSERT INTO ÜBER VALUES(1, 2)") == [("create", "ÜBER", None, (1, 2))]
    assert file.said("INSERT INTO Über VALUES(3, 4)".replace("Über", "ÜBEr")) == [("create", "ÜBER", None, (3, 4))]
    file.close()


def test_a_file_that_holds_all_kinds_at_once_is_captured(tmp_path: Path) -> None:
    file = Captured(
        tmp_path / "a.db",
        """CREATE VIEW broken AS SELECT missing FROM nowhere; CREATE VIRTUAL TABLE docs USING fts5(body);
        CREATE TABLE strict(a INTEGER PRIMARY KEY, b ANY) STRICT; CREATE TABLE keyed(a PRIMARY KEY, b) WITHOUT ROWID;
        CREATE TABLE made(a, v AS (a + 1), s AS (a + 2) STORED);
        CREATE TABLE nameless(rowid, _rowid_, oid UNIQUE)""",
    )
    assert sorted(file.synced.shapes) == ["keyed", "made", "nameless", "strict"]
    assert list(file.synced.warnings) == ["nameless"]
    assert file.said("INSERT INTO made VALUES(1)") == [("create", "made", None, (1, 3))]
    assert file.said("INSERT INTO strict VALUES(1, '1')") == [("create", "strict", None, (1, "1"))]
    assert file.said("UPDATE keyed SET b = 1") == []
    assert file.said("INSERT INTO nameless VALUES(1, 2, 3)") == [("create", "nameless", None, (1, 2, 3))]
    assert file.said("UPDATE nameless SET rowid = 5") == [("update", "nameless", (1, 2, 3), (5, 2, 3))]
    assert file.said("INSERT INTO docs VALUES('searched for')") == []
    file.close()


#: Statements that change the schema, each of which can follow all before it.
MOVES = (
    "CREATE TABLE a(x UNIQUE, y)",
    "CREATE TABLE b(x REFERENCES a(x), y)",
    "CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT)",
    "CREATE INDEX i ON a(y)",
    "CREATE INDEX j ON a(x, y)",
    "CREATE VIEW v AS SELECT x, y FROM a",
    "CREATE TRIGGER g AFTER INSERT ON b BEGIN UPDATE a SET y = NEW.y; END",
    "ALTER TABLE a RENAME COLUMN y TO z",
    "ALTER TABLE a ADD COLUMN more",
    "ALTER TABLE a DROP COLUMN more",
    "ALTER TABLE a RENAME TO c",
    "DROP INDEX i",
    "DROP VIEW v",
    "DROP TRIGGER g",
    "DROP TABLE b",
    "DROP TABLE c",
)


def test_no_more_statements_are_counted_than_have_moved_the_schema(db: sqlite3.Connection) -> None:
    """Or a VACUUM among them would go unseen: it moves the schema by one, too, and is not counted."""

    def seen() -> tuple[int, dict[str, str | None]]:
        rows = db.execute("SELECT type || ' ' || name, sql FROM sqlite_schema").fetchall()
        return int(db.execute("PRAGMA schema_version").fetchone()[0]), dict(rows)

    found = [seen()]
    for move in MOVES:
        db.execute(move)
        found.append(seen())
    for first, (version, before) in enumerate(found):
        for later, after in found[first:]:
            assert catalog.statements(before, after) <= later - version
    for (version, before), (later, after), move in zip(found, found[1:], MOVES, strict=False):
        assert catalog.statements(before, after) == later - version == 1, move
    db.execute("VACUUM")
    assert (catalog.statements(found[-1][1], seen()[1]), seen()[0] - found[-1][0]) == (0, 1)
