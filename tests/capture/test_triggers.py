"""The triggers of one small table word for word, and what they do."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from appliance.capture.expressions import any_of
from appliance.capture.outbox import LONG_TEXT, VALUE_LIMIT
from appliance.capture.shape import Table, TableColumn, UniqueIndex, shape_of
from appliance.capture.triggers import triggers
from tests.capture.support import Captured, Replica, Row, nothing_secret

#: CREATE TABLE note(id INTEGER PRIMARY KEY, word TEXT COLLATE NOCASE UNIQUE)
NOTE = Table(
    "note",
    (TableColumn("id", "INTEGER", "BINARY", 1), TableColumn("word", "TEXT", "NOCASE")),
    (UniqueIndex((("word", "NOCASE"),)),),
    integer_key="id",
)


def test_the_triggers_are_these_to_the_letter() -> None:
    made = triggers(NOTE, shape_of(NOTE, 7, nothing_secret))
    expected = (Path(__file__).parent / "triggers_of_note.sql").read_text()
    assert "".join(f"{trigger.sql};\n\n" for trigger in made) == expected
    assert [trigger.name for trigger in made] == [
        f"_appliance_7_{kind}"
        for kind in (
            "update", "delete", "displaced_by_update", "insert", "insert_displacing", "before_update_0",
            "before_update_1", "before_update_clear", "before_insert",
        )
    ]  # fmt: skip


def test_they_say_what_is_done(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE note(id INTEGER PRIMARY KEY, word TEXT COLLATE NOCASE UNIQUE)")
    assert file.said("INSERT INTO note VALUES(1, 'a'), (2, 'b'), (3, 'c')") == [
        ("create", "note", None, (1, "a")), ("create", "note", None, (2, "b")), ("create", "note", None, (3, "c")),
    ]  # fmt: skip
    assert file.said("UPDATE note SET word = 'A' WHERE id = 1") == [("update", "note", (1, "a"), (1, "A"))]
    assert file.said("UPDATE note SET word = word") == []
    assert file.said("INSERT OR IGNORE INTO note VALUES(9, 'B')") == []
    assert file.said("INSERT INTO note VALUES(2, 'x') ON CONFLICT DO UPDATE SET word = 'B'") == [
        ("update", "note", (2, "b"), (2, "B"))
    ]
    assert file.said("REPLACE INTO note VALUES(2, 'B')") == []
    assert file.said("REPLACE INTO note VALUES(2, 'C')") == [
        ("delete", "note", (3, "c"), None),
        ("update", "note", (2, "B"), (2, "C")),
    ]
    assert file.said("UPDATE OR REPLACE note SET word = 'a' WHERE id = 2") == [
        ("delete", "note", (1, "A"), None),
        ("update", "note", (2, "C"), (2, "a")),
    ]
    assert file.said("UPDATE note SET id = 5") == [("update", "note", (2, "a"), (5, "a"))]
    assert file.said("DELETE FROM note") == [("delete", "note", (5, "a"), None)]
    assert file.said("INSERT INTO note VALUES(6, 'new')") == [("create", "note", None, (6, "new"))]
    file.close()


def test_a_statement_reports_what_it_reports_without_us(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)")
    db = file.writer
    inserted = db.execute("INSERT INTO t(a) VALUES(1), (2) RETURNING id")
    assert inserted.fetchall() == [(1,), (2,)]
    replaced = db.execute("REPLACE INTO t VALUES(7, 1)")
    assert (replaced.rowcount, replaced.lastrowid, db.execute("SELECT changes()").fetchone()) == (1, 7, (1,))
    assert db.execute("UPDATE t SET a = a + 1").rowcount == 2
    assert db.execute("SELECT last_insert_rowid()").fetchone() == (7,)
    assert db.execute("DELETE FROM t").rowcount == 2
    file.close()


#: Rows of which each but the last is the next one's parent.
TREE = """CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE,
n DEFAULT 9 REFERENCES t(id) ON DELETE {0} ON UPDATE CASCADE);
INSERT INTO t VALUES(1, 10, NULL), (2, 20, 1), (3, 30, 2), (9, 90, NULL)"""

#: Statements in which a user's trigger or foreign key writes the table while one of its rows is being replaced.
NESTED = {
    "a cascade to a table with a trigger": (
        """CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, n);
        CREATE TABLE child(t REFERENCES t(id) ON DELETE CASCADE);
        CREATE TRIGGER back AFTER DELETE ON child BEGIN UPDATE OR REPLACE t SET a = 30 WHERE id = 2; END;
        INSERT INTO t VALUES(1, 10, 0), (2, 20, 0), (3, 30, 0); INSERT INTO child VALUES(1)""",
        ["REPLACE INTO t VALUES(1, 11, 0)", "REPLACE INTO t VALUES(5, 30, 1)", "DELETE FROM t"],
    ),
    "a cycle of cascades": (
        """CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, n REFERENCES u(id) ON DELETE CASCADE);
        CREATE TABLE u(id INTEGER PRIMARY KEY, t REFERENCES t(id) ON DELETE CASCADE);
        INSERT INTO t VALUES(1, 10, NULL); INSERT INTO u VALUES(1, 1); INSERT INTO t VALUES(2, 20, 1), (3, 30, NULL)""",
        ["REPLACE INTO t VALUES(4, 10, NULL)", "REPLACE INTO t VALUES(3, 31, NULL)", "DELETE FROM t"],
    ),
    "a before trigger that replaces": (
        """CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, n);
        CREATE TRIGGER first BEFORE INSERT ON t WHEN NEW.n > 0 BEGIN REPLACE INTO t VALUES(NEW.id + 1, NEW.a, 0); END;
        INSERT INTO t VALUES(1, 10, 0), (2, 20, 0)""",
        ["REPLACE INTO t VALUES(1, 20, 1)", "REPLACE INTO t VALUES(7, 10, 1)", "DELETE FROM t"],
    ),
    "a row that is taken along by the one that its update displaces": (
        TREE.format("CASCADE"),
        ["UPDATE OR REPLACE t SET id = 1 WHERE id = 2", "INSERT INTO t VALUES(1, 10, NULL)", "DELETE FROM t"],
    ),
    "children that lose their parent": (
        TREE.format("SET NULL"),
        ["REPLACE INTO t VALUES(1, 10, NULL)", "REPLACE INTO t VALUES(5, 10, NULL)", "DELETE FROM t"],
    ),
    "children that get another parent": (
        TREE.format("SET DEFAULT"),
        ["REPLACE INTO t VALUES(1, 11, NULL)", "UPDATE t SET n = 9", "REPLACE INTO t VALUES(7, 40, 7)"],
    ),
    "a key that moves after a write that came to nothing": (
        TREE.format("CASCADE"),
        [
            *("INSERT OR IGNORE INTO t VALUES(1, 1, 1)", "UPDATE t SET id = 6 WHERE id = 1"),
            *("UPDATE OR IGNORE t SET id = 6 WHERE id = 9", "UPDATE t SET id = 1 WHERE id = 6", "DELETE FROM t"),
        ],
    ),
    "keys with a NULL, which are no keys": (
        """CREATE TABLE t(id TEXT, a UNIQUE, n REFERENCES t(a) ON DELETE SET NULL, v, PRIMARY KEY(id, a));
        INSERT INTO t VALUES(NULL, 10, NULL, 1), ('2', NULL, 10, 2), (NULL, NULL, NULL, 3)""",
        [
            *("UPDATE t SET n = 10 WHERE v = 3", "UPDATE t SET id = '1' WHERE a = 10", "UPDATE t SET id = NULL"),
            *("UPDATE t SET v = v + 10", "DELETE FROM t WHERE a = 10", "DELETE FROM t"),
        ],
    ),
    "a deletion after a write that came to nothing": (
        TREE.format("SET NULL"),
        [
            *("INSERT OR IGNORE INTO t VALUES(1, 1, 1)", "DELETE FROM t WHERE id = 1"),
            *("UPDATE OR IGNORE t SET id = 2 WHERE id = 9", "DELETE FROM t WHERE id = 2", "DELETE FROM t"),
        ],
    ),
}


#: Statements that displace a row in ways that are not seen by looking at what was to be written.
UNSEEN = {
    "a default in the place of NULL": (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT 'x' UNIQUE); INSERT INTO t VALUES(1, 'x')",
        [
            *("REPLACE INTO t VALUES(2, NULL)", "INSERT INTO t VALUES(3, 'y')"),
            *("UPDATE OR REPLACE t SET a = NULL WHERE id = 3", "REPLACE INTO t VALUES(3, NULL)"),
        ],
    ),
    "a default in the key": (
        "CREATE TABLE t(a DEFAULT (1 + 1) PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO t VALUES(2, 1), (3, 3)",
        ["REPLACE INTO t VALUES(NULL, 2)", "UPDATE OR REPLACE t SET a = NULL WHERE a = 3"],
    ),
    "a default that a constraint asks for": (
        "CREATE TABLE t(a NOT NULL ON CONFLICT REPLACE DEFAULT on_, b UNIQUE ON CONFLICT REPLACE, "
        "PRIMARY KEY(a) ON CONFLICT REPLACE); INSERT INTO t VALUES('on_', 1), ('off', 2)",
        ["INSERT INTO t VALUES(NULL, 3)", "UPDATE t SET a = NULL WHERE b = 2", "UPDATE t SET b = 2"],
    ),
    "several defaults": (
        f"CREATE TABLE t(n, {', '.join(f'c{each} NOT NULL DEFAULT {each}' for each in range(4))}, "
        "UNIQUE(n, c1, c2, c3), UNIQUE(n, c0, c1, c2, c3)); INSERT INTO t(n) VALUES(1), (2), (3)",
        [
            *("REPLACE INTO t VALUES(1, NULL, 1, 2, NULL)", "REPLACE INTO t VALUES(2, 5, NULL, NULL, 3)"),
            *("REPLACE INTO t VALUES(3, NULL, NULL, NULL, NULL)", "UPDATE OR REPLACE t SET n = 1, c2 = NULL"),
        ],
    ),
    "some of many defaults": (
        f"CREATE TABLE t(n, {', '.join(f'c{each} NOT NULL DEFAULT {each}' for each in range(5))}, "
        "UNIQUE(c4, c0 COLLATE NOCASE, c1, c2, c3)); INSERT INTO t(n, c4) VALUES(1, 1), (2, 2), (3, 3), (4, 4)",
        [
            *("REPLACE INTO t VALUES(5, NULL, NULL, 2, 3, 1)", "REPLACE INTO t VALUES(6, 0, NULL, NULL, NULL, 2)"),
            *(
                "REPLACE INTO t VALUES(7, NULL, 1, NULL, 3, NULL)",
                "UPDATE OR REPLACE t SET c1 = NULL, c4 = 3, c0 = NULL",
            ),
        ],
    ),
    "a condition on the rowid": (
        'CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE UNIQUE INDEX i ON t(a) WHERE "rowid" > 5;'
        "INSERT INTO t VALUES(1, 1), (7, 1), (2, 2), (8, 2)",
        ["UPDATE OR REPLACE t SET id = 10 WHERE id = 1", "UPDATE OR REPLACE t SET oid = 11 WHERE id = 2"],
    ),
    "a condition on the column that is the rowid": (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE UNIQUE INDEX i ON t(a) WHERE id > 5;"
        "INSERT INTO t VALUES(1, 1), (7, 1), (2, 2), (8, 2)",
        ["UPDATE OR REPLACE t SET rowid = 10 WHERE id = 1", "UPDATE OR REPLACE t SET _rowid_ = 11 WHERE id = 2"],
    ),
    "no row, by a key whose columns another index has in another order": (
        "CREATE TABLE t(a TEXT, b INT, c UNIQUE, PRIMARY KEY(a, b)) WITHOUT ROWID; CREATE UNIQUE INDEX i ON t(b);"
        "INSERT INTO t VALUES('2.5', 'x', 1), ('3', 'y', 2)",
        [
            *("INSERT OR IGNORE INTO t VALUES('2.5', 'x', 5)", "INSERT INTO t VALUES('4', 'z', 3)"),
            *("REPLACE INTO t VALUES('5', 'y', 1)", "UPDATE OR REPLACE t SET b = 'z' WHERE a = '5'", "DELETE FROM t"),
        ],
    ),
    "rows of many columns that are read in reverse": (
        f"CREATE TABLE t(id INTEGER PRIMARY KEY, {', '.join(f'c{each}' for each in range(60))});"
        "INSERT INTO t(id, c0, c59) VALUES(1, 1, 1)",
        ["PRAGMA reverse_unordered_selects=ON", "REPLACE INTO t(id, c0, c59) VALUES(1, 2, 2)"],
    ),
}


@pytest.mark.parametrize("case", UNSEEN)
def test_a_row_is_told_to_be_displaced_in_whatever_way_it_is(tmp_path: Path, case: str) -> None:
    ddl, statements = UNSEEN[case]
    with closing(Captured(tmp_path / "a.db", ddl)) as file:
        assert not file.synced.warnings
        replica = Replica()
        replica.load(file)
        for statement in statements:
            file.writer.execute(statement)
            replica.apply(file.events())
            assert replica.content("t") == file.content("t"), statement


@pytest.mark.parametrize("recursive", ["OFF", "ON"])
@pytest.mark.parametrize("case", NESTED)
def test_a_table_that_is_written_while_it_is_written_is_told_in_full(tmp_path: Path, case: str, recursive: str) -> None:
    ddl, statements = NESTED[case]
    with closing(Captured(tmp_path / "a.db", ddl)) as file:
        file.writer.execute("PRAGMA foreign_keys=ON")
        file.writer.execute(f"PRAGMA recursive_triggers={recursive}")
        replica = Replica()
        replica.load(file)
        for statement in statements:
            file.writer.execute(statement)
            replica.apply(file.events())
            for table in file.synced.shapes:
                assert replica.content(table) == file.content(table), statement


@pytest.mark.parametrize(
    ("action", "children"),
    [
        ("CASCADE", [("delete", "t", (3, 30, 2), None), ("delete", "t", (2, 20, 1), None)]),
        ("SET NULL", [("update", "t", (2, 20, 1), (2, 20, None))]),
        ("SET DEFAULT", [("update", "t", (2, 20, 1), (2, 20, 9))]),
    ],
)
def test_a_row_that_is_replaced_under_its_key_is_an_update_for_its_children_too(
    tmp_path: Path, action: str, children: list[Row]
) -> None:
    with closing(Captured(tmp_path / "a.db", TREE.format(action))) as file:
        file.writer.execute("PRAGMA foreign_keys=ON")
        update = ("update", "t", (1, 10, None), (1, 11, None))
        assert file.said("REPLACE INTO t VALUES(1, 11, NULL)") == [*children, update]


def test_the_triggers_of_a_table_that_nothing_leads_back_to_have_nothing_for_that(tmp_path: Path) -> None:
    lone = "CREATE TABLE lone(id INTEGER PRIMARY KEY, a UNIQUE, n REFERENCES t(id) ON DELETE CASCADE)"
    with closing(Captured(tmp_path / "a.db", f"{TREE.format('CASCADE')}; {lone}")) as file:
        made = file.server.execute("SELECT tbl_name, name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        with_fate = {table for table, _, sql in made if "fate" in sql}
        assert (with_fate, {table for table, name, _ in made if "before_delete" in name}) == ({"t"}, {"t"})


def test_an_outer_or_ignore_or_or_replace_does_not_reach_into_the_outbox(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(a PRIMARY KEY, b)")
    file.writer.execute("INSERT INTO t VALUES(1, 1)")
    for verb in ("INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR FAIL", "INSERT OR ROLLBACK", "INSERT OR ABORT"):
        file.writer.execute("DELETE FROM t")
        file.writer.execute(f"{verb} INTO t VALUES(1, 2), (2, 3)")
    assert len(file.events()) == 1 + 5 * 2 + 1 + 4 * 2
    file.close()


@pytest.mark.parametrize("declared", ["", "TEXT", "TEXT COLLATE NOCASE", "INTEGER", "BLOB COLLATE NOCASE", "REAL"])
def test_a_long_value_is_cut_in_every_way_of_writing(tmp_path: Path, declared: str) -> None:
    file = Captured(tmp_path / "a.db", f"CREATE TABLE t(id INTEGER PRIMARY KEY, a {declared}, b UNIQUE)")
    exact, long = b"x" * VALUE_LIMIT, "y" * (VALUE_LIMIT + 1)
    file.writer.execute("INSERT INTO t VALUES(1, ?, 1), (2, ?, 2)", (exact, long))
    file.writer.execute("UPDATE t SET b = b + 10")
    file.writer.execute("REPLACE INTO t VALUES(2, 'short', 11)")
    file.writer.execute("UPDATE t SET a = ?", (long.encode(),))
    file.writer.execute("DELETE FROM t")
    images = [(event.op.name, event.old, event.new) for event in file.events()]
    shown = [
        (name, *(image and (image.values[1] == exact or image.values[1], sorted(image.cut)) for image in both))
        for name, *both in images
    ]
    whole, cut = (True, []), (None, [1])
    assert shown == [
        ("CREATE", None, whole), ("CREATE", None, cut), ("UPDATE", whole, whole), ("UPDATE", cut, cut),
        ("DELETE", whole, None), ("UPDATE", cut, ("short", [])), ("UPDATE", ("short", []), cut), ("DELETE", cut, None),
    ]  # fmt: skip
    file.close()


@pytest.mark.parametrize("number", [LONG_TEXT, float(LONG_TEXT), str(LONG_TEXT)])
@pytest.mark.parametrize("declared", ["TEXT", "INTEGER", "REAL", "", "BLOB", "NUMERIC"])
def test_what_stands_for_a_long_value_may_be_written_itself(tmp_path: Path, declared: str, number: float | str) -> None:
    file = Captured(tmp_path / "a.db", f"CREATE TABLE t(id INTEGER PRIMARY KEY, a {declared})")
    for sql in ("INSERT INTO t(a) VALUES(?)", "REPLACE INTO t VALUES(1, ?)", "UPDATE t SET id = 2, a = ?"):
        file.writer.execute(sql, (number,))
    assert [event.new.cut for event in file.events() if event.new] == [frozenset()] * 2
    replica = Replica()
    replica.load(file)
    assert replica.content("t") == file.content("t")
    file.close()


def test_a_value_is_looked_at_by_way_of_more_than_three_unique_indexes(tmp_path: Path) -> None:
    columns = ", ".join(f"c{number} UNIQUE" for number in range(7))
    file = Captured(tmp_path / "a.db", f"CREATE TABLE t(id INTEGER PRIMARY KEY, {columns})")
    file.writer.execute(
        "INSERT INTO t VALUES(1, 1, 1, 1, 1, 1, 1, 1), (2, 2, 2, 2, 2, 2, 2, 2), (3, 3, 3, 3, 3, 3, 3, 3)"
    )
    file.events()
    said = file.said("REPLACE INTO t VALUES(2, 1, 2, 2, 3, 1, 9, 3)")
    assert [(op, old[0]) for op, _, old, _ in said] == [("delete", 1), ("delete", 3), ("update", 2)]
    file.close()


@pytest.mark.parametrize("name", ["new", "Old"])
@pytest.mark.parametrize("rowid", ["", " WITHOUT ROWID"])
def test_a_table_may_be_called_as_what_a_trigger_sees(tmp_path: Path, name: str, rowid: str) -> None:
    file = Captured(tmp_path / "a.db", f"CREATE TABLE {name}(id INTEGER PRIMARY KEY, a UNIQUE, b){rowid}")
    file.said(f"INSERT INTO {name} VALUES(1, 1, 1), (2, 2, 2), (3, 3, 3)")
    assert [each[0] for each in file.said(f"REPLACE INTO {name} VALUES(1, 2, 5)")] == ["delete", "update"]
    assert [each[0] for each in file.said(f"UPDATE OR REPLACE {name} SET a = 3 WHERE id = 1")] == ["delete", "update"]
    assert [each[0] for each in file.said(f"UPDATE {name} SET b = 9")] == ["update"]
    assert [each[0] for each in file.said(f"DELETE FROM {name}")] == ["delete"]
    file.close()


def test_lists_are_flat() -> None:
    assert any_of(["a", "b"]) == "CASE WHEN a THEN 1 WHEN b THEN 1 ELSE 0 END"
    assert any_of([]) == "0"


@pytest.mark.parametrize("ddl", [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b)",
    "CREATE TABLE t(a TEXT PRIMARY KEY COLLATE NOCASE, b INT UNIQUE)",
    "CREATE TABLE t(a, b, c, PRIMARY KEY(a, b), UNIQUE(c, b))",
    "CREATE TABLE t(a TEXT COLLATE NOCASE, b INT, c, PRIMARY KEY(a, b)) WITHOUT ROWID",
    "CREATE TABLE t(a, b, c); CREATE UNIQUE INDEX u ON t(a COLLATE NOCASE) WHERE b = 1",
    "CREATE TABLE t(a NOT NULL DEFAULT 1, b TEXT NOT NULL DEFAULT 'x' COLLATE NOCASE, c, PRIMARY KEY(a, b), UNIQUE(b))",
    "CREATE TABLE t(a TEXT PRIMARY KEY, b REFERENCES t(a) ON DELETE CASCADE, c)",
])  # fmt: skip
def test_no_write_reads_the_whole_table(tmp_path: Path, ddl: str) -> None:
    file = Captured(tmp_path / "a.db", ddl)
    file.writer.execute("INSERT INTO t(a, b) VALUES(1, 1)")
    for trigger in file.server.execute(
        "SELECT sql FROM sqlite_schema WHERE type='trigger' AND tbl_name='t'"
    ).fetchall():
        # A trigger's own plan is not shown, so its parts are asked for with values in the place of NEW and OLD.
        for statement in trigger[0].partition("BEGIN\n")[2].removesuffix("END").split(";\n"):
            if "_appliance_scratch" in statement and statement.startswith(("INSERT", "UPDATE", "DELETE")):
                plain = re.sub(r'(NEW|OLD)\.("[^"]*"|\w+)', "1", statement)
                plan = [row[3] for row in file.server.execute(f"EXPLAIN QUERY PLAN {plain}")]
                assert not [step for step in plan if re.match(r"SCAN (TABLE )?t\b", step)], (statement, plan)
        if (when := trigger[0].partition("\nWHEN ")[2].partition("\nBEGIN")[0]) and "FROM" in when:
            plain = re.sub(r'(NEW|OLD)\.("[^"]*"|\w+)', "1", when)
            plan = [row[3] for row in file.server.execute(f"EXPLAIN QUERY PLAN SELECT {plain}")]
            assert not [step for step in plan if re.match(r"SCAN (TABLE )?t\b", step)], (when, plan)
    file.close()


@pytest.mark.parametrize("rowid", ["", "WITHOUT ROWID"])
def test_what_stands_in_the_way_is_never_looked_for_in_a_list_of_the_whole_table(tmp_path: Path, rowid: str) -> None:
    kinds = ("a", "b TEXT", "c TEXT COLLATE NOCASE", "d INT", "e REAL", "f NUMERIC", "g BLOB", "h INT AS (d + 1)")
    others = ", ".join(f"c{number}" for number in range(70))
    uniques = "".join(f"CREATE UNIQUE INDEX u{kind[0]} ON t({kind[0]});" for kind in kinds)
    more = "CREATE UNIQUE INDEX more ON t(b COLLATE NOCASE); CREATE UNIQUE INDEX other ON t(c COLLATE BINARY);"
    table = f"CREATE TABLE t(key PRIMARY KEY, {', '.join(kinds)}, {others}) {rowid}"
    file = Captured(tmp_path / "a.db", f"{table}; {uniques} {more}")
    written = ("key", "rowid", *"abcdefg") if not rowid else ("key", *"abcdefg")
    statements = ["INSERT INTO t(b) VALUES(1)", *(f"UPDATE t SET {each}=0" for each in written)]
    anew = file.connect()
    for statement in statements:
        program = condition = ""
        for _, operation, _, _, _, comment, *_ in anew.execute(f"EXPLAIN {statement}"):
            if operation == "Init":
                program = condition = str(comment)
            elif operation == "Trace":  # behind its condition
                condition = ""
            assert not (operation == "OpenEphemeral" and "_before_" in condition), (statement, program)
        assert "_appliance_" in program
    anew.close()
    file.close()


def test_copies_that_came_to_nothing_stay_few_and_are_never_told(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, n)")
    file.writer.execute("INSERT INTO t(a, n) VALUES(1, 0), (2, 0), (3, 0)")
    file.events()
    for a in (1, 2, 3):
        assert file.said("INSERT OR IGNORE INTO t(a) VALUES(?)", (a,)) == []
        assert file.server.execute("SELECT count(*) FROM _appliance_scratch").fetchone() == (1,)
    assert file.said("INSERT INTO t(a, n) VALUES(4, 0)") == [("create", "t", None, (4, 4, 0))]
    file.said("INSERT OR IGNORE INTO t(a) VALUES(1)")
    assert file.said("UPDATE t SET n = 1 WHERE a = 1") == [("update", "t", (1, 1, 0), (1, 1, 1))]
    assert file.said("REPLACE INTO t(a, n) VALUES(1, 2)") == [
        ("delete", "t", (1, 1, 1), None), ("create", "t", None, (5, 1, 2)),
    ]  # fmt: skip
    file.said("INSERT OR IGNORE INTO t(a) VALUES(2)")
    assert file.said("DELETE FROM t WHERE a = 2") == [("delete", "t", (2, 2, 0), None)]
    assert file.said("INSERT INTO t(id, a) VALUES(2, 2)") == [("create", "t", None, (2, 2, None))]
    assert file.server.execute("SELECT count(*) FROM _appliance_scratch").fetchone() == (0,)
    file.close()


@pytest.mark.parametrize(
    "ddl", ["CREATE TABLE t(a UNIQUE, b, rowid, oid, _rowid_)", "CREATE TABLE t(a PRIMARY KEY, b UNIQUE) WITHOUT ROWID"]
)
def test_a_table_of_nothing_but_secrets_tells_that_rows_come_and_go(tmp_path: Path, ddl: str) -> None:
    file = Captured(tmp_path / "a.db")
    file.secret = lambda table, _column, _key: table == "t"
    file.writer.execute(ddl)
    file.synchronise()
    assert file.said("INSERT INTO t(a, b) VALUES(1, 2)") == [("create", "t", None, ())]
    assert file.said("UPDATE t SET a = 3, b = 4") == []
    assert file.said("DELETE FROM t") == [("delete", "t", (), None)]
    file.close()


def test_what_other_tables_keep_costs_no_write_anything(tmp_path: Path) -> None:
    tables = "".join(
        f"CREATE TABLE t{each}(id INTEGER PRIMARY KEY, a UNIQUE, n);"
        f"CREATE TRIGGER checks{each} BEFORE INSERT ON t{each} WHEN NEW.n < 0 BEGIN SELECT RAISE(ABORT, 'no'); END;"
        for each in range(20)
    )
    with closing(Captured(tmp_path / "a.db", tables)) as file:

        def steps(number: int) -> int:
            """Count SQLite's steps for one write, when copies are kept already."""
            count = 0

            def step() -> int:
                nonlocal count
                count += 1
                return 0

            file.writer.set_progress_handler(step, 1)
            file.writer.execute("REPLACE INTO t0 VALUES(?1, ?1, 0)", (number,)).fetchall()
            file.writer.set_progress_handler(None, 0)
            return count

        file.writer.executemany("REPLACE INTO t0 VALUES(?1, ?1, 0)", [(number,) for number in range(40)])
        alone = steps(40)
        for each in range(1, 20):
            file.writer.executemany(f"REPLACE INTO t{each} VALUES(?1, ?1, 0)", [(number,) for number in range(40)])
        assert file.server.execute("SELECT count(*) FROM _appliance_scratch").fetchone()[0] > 500
        assert steps(41) < 1.1 * alone
