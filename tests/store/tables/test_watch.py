"""Whatever somebody does to the schema, the triggers are right after the next synchronisation."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.capture.triggers import fingerprint
from appliance.store.file import schema
from appliance.store.tables import watch
from tests.capture.support import Captured, everything, nothing_secret

DDL = """CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b); CREATE TABLE other(a PRIMARY KEY, b) WITHOUT ROWID;
CREATE TRIGGER theirs AFTER INSERT ON other BEGIN SELECT 1; END"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Captured]:
    opened = Captured(tmp_path / "a.db", DDL)
    yield opened
    opened.close()


def state(file: Captured) -> tuple[int, int]:
    return file.server.total_changes, file.server.execute("PRAGMA schema_version").fetchone()[0]


def settle(file: Captured) -> watch.Synced:
    """Synchronise; a second time must change nothing at all."""
    synced = file.synchronise()
    before = state(file)
    again = watch.synchronise(file.server, secret=file.secret, watched=file.watched)
    assert state(file) == before
    assert (again.shapes, again.changed, again.dropped) == (synced.shapes, (), ())
    return synced


def check_capture(file: Captured, table: str = "t", key: str = "id") -> None:
    """Let the table be written in every way and see it come."""
    file.events()
    name = f'"{table}"'
    db = file.writer
    db.execute(f"DELETE FROM {name}")
    file.events()
    db.execute(f"INSERT INTO {name}({key}, a) VALUES(1, 'x'), (2, 'y')")
    db.execute(f"INSERT OR REPLACE INTO {name}({key}, a) VALUES(1, 'z')")
    db.execute(f"UPDATE {name} SET a = 'w' WHERE {key} = 2")
    db.execute(f"DELETE FROM {name} WHERE {key} = 1")
    assert [event.op.name for event in file.events()] == ["CREATE", "CREATE", "UPDATE", "UPDATE", "DELETE"]


def test_a_change_of_one_table_costs_no_trigger_of_another(file: Captured) -> None:
    settle(file)
    before = fingerprint.cache_info().misses
    file.writer.execute("CREATE TABLE more(id INTEGER PRIMARY KEY)")
    settle(file)

    assert fingerprint.cache_info().misses == before + 1


def test_nothing_is_written_when_nothing_is_to_do(file: Captured) -> None:
    settle(file)
    version = file.server.execute("PRAGMA data_version").fetchone()
    with closing(file.connect()) as reader:
        reader.execute("BEGIN IMMEDIATE")  # and nothing is waited for
        settle(file)
        reader.execute("ROLLBACK")
    assert file.server.execute("PRAGMA data_version").fetchone() == version


def test_each_table_is_looked_at_once_for_a_new_one(file: Captured) -> None:
    settle(file)
    file.writer.execute("CREATE TABLE late(a)")
    said: list[str] = []
    file.server.set_trace_callback(said.append)
    file.synchronise()
    file.server.set_trace_callback(None)
    for table in ("t", "late"):
        assert sum(each == f'PRAGMA main.table_xinfo("{table}")' for each in said) == 1
    check_capture(file)


@pytest.mark.parametrize(
    ("change", "changed", "dropped"),
    [
        ("ALTER TABLE t ADD COLUMN late TEXT DEFAULT 'x' COLLATE NOCASE", ("t",), ()),
        ("ALTER TABLE t RENAME COLUMN b TO c", ("t",), ()),
        ("CREATE UNIQUE INDEX i ON t(b)", ("t",), ()),
        ("CREATE UNIQUE INDEX i ON t(b) WHERE a > 1", ("t",), ()),
        ("CREATE INDEX i ON t(b)", (), ()),
        ("CREATE TRIGGER mine AFTER INSERT ON t BEGIN SELECT 1; END", ("t",), ()),
        ("DROP TRIGGER theirs", ("other",), ()),
        ("VACUUM", (), ()),
        ("REINDEX", (), ()),
        ("ANALYZE", (), ()),
        ("PRAGMA user_version=7", (), ()),
        ("CREATE TABLE late(id INTEGER PRIMARY KEY, a)", (), ()),
        ("CREATE VIEW v AS SELECT * FROM t", (), ()),
        ("DROP TABLE other", (), ()),
        ("DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b)", ("t",), ()),
        ("DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, a, c, d)", ("t",), ()),
        (
            "BEGIN; CREATE TABLE new_t(id INTEGER PRIMARY KEY, a UNIQUE, b, c); INSERT INTO new_t SELECT *, 1 FROM t;"
            "DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT",
            ("t",),
            (),
        ),
    ],
)
def test_after_each_kind_of_change_the_table_is_captured(
    file: Captured, change: str, changed: tuple[str, ...], dropped: tuple[str, ...]
) -> None:
    file.writer.execute("INSERT INTO t VALUES(1, 2, 3)")
    file.writer.executescript(change)
    synced = settle(file)
    assert (synced.changed, synced.dropped, dict(synced.skipped)) == (changed, dropped, {})
    check_capture(file)


def test_a_dropped_index_is_taken_up(file: Captured) -> None:
    file.writer.execute("CREATE UNIQUE INDEX i ON t(b)")
    settle(file)
    file.writer.execute("DROP INDEX i")
    assert settle(file).changed == ("t",)
    check_capture(file)


def test_a_column_can_be_dropped_once_the_triggers_are_off(file: Captured) -> None:
    with pytest.raises(sqlite3.OperationalError, match="error in trigger"):
        file.writer.execute("ALTER TABLE t DROP COLUMN b")
    watch.release(file.server, "T")
    assert watch.captured(file.server) == ["other"]
    file.writer.execute("ALTER TABLE t DROP COLUMN b")
    assert settle(file).changed == ("t",)
    check_capture(file)


def test_a_renamed_table_is_another_topic(file: Captured) -> None:
    file.writer.execute("INSERT INTO t VALUES(1, 2, 3)")
    file.writer.execute('ALTER TABLE t RENAME TO "the new name"')
    file.writer.execute('DELETE FROM "the new name"')
    # What was written between is still of the old shape, and of the old name.
    assert [(event.op.name, event.shape.table) for event in file.events()] == [("CREATE", "t"), ("DELETE", "t")]
    synced = settle(file)
    assert (sorted(synced.shapes), synced.changed, synced.dropped) == (["other", "the new name"], (), ("t",))
    check_capture(file, "the new name")


def test_a_table_renamed_back_has_its_old_shape_again(file: Captured) -> None:
    shape = file.synced.shapes["t"]
    file.writer.execute("ALTER TABLE t RENAME TO u")
    settle(file)
    file.writer.execute("ALTER TABLE u RENAME TO t")
    synced = settle(file)
    assert (synced.shapes["t"], synced.changed, synced.dropped) == (shape, ("t",), ("u",))
    check_capture(file)


def test_a_table_whose_name_changes_its_case_only_is_the_same_topic(file: Captured) -> None:
    file.writer.execute("ALTER TABLE t RENAME TO passing")
    file.writer.execute("ALTER TABLE passing RENAME TO T")
    synced = settle(file)
    assert (sorted(synced.shapes), synced.changed, synced.dropped) == (["T", "other"], ("T",), ())
    check_capture(file, "T")


def test_each_trigger_of_ours_that_somebody_drops_is_made_again(file: Captured) -> None:
    ours = "SELECT name FROM sqlite_schema WHERE type='trigger' AND tbl_name='t'"
    for (name,) in file.writer.execute(ours).fetchall():
        file.writer.execute(f'DROP TRIGGER "{name}"')
        assert settle(file).changed == ("t",)
        check_capture(file)
    for (name,) in file.writer.execute(ours).fetchall():
        file.writer.execute(f'DROP TRIGGER "{name}"')
    assert settle(file).changed == ("t",)  # also when none is left to tell of it
    check_capture(file)


def test_a_trigger_of_ours_that_somebody_rewrote_is_put_right(file: Captured) -> None:
    name, sql = file.writer.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type='trigger' AND tbl_name='t' AND name LIKE '%delete'"
    ).fetchone()
    file.writer.execute(f'DROP TRIGGER "{name}"')
    file.writer.execute(sql.replace("BEGIN\n", "BEGIN\nSELECT 1;\n"))
    assert settle(file).changed == ("t",)
    check_capture(file)


def test_a_trigger_that_the_user_makes_later_fires_after_ours(file: Captured) -> None:
    file.writer.execute("CREATE TRIGGER mine AFTER INSERT ON t BEGIN UPDATE t SET b = 'mine' WHERE id = NEW.id; END")
    assert settle(file).changed == ("t",)
    assert file.said("INSERT INTO t VALUES(1, 2, 3)") == [
        ("create", "t", None, (1, 2, 3)),
        ("update", "t", (1, 2, 3), (1, 2, "mine")),
    ]


def test_a_restored_dump_is_captured(file: Captured, tmp_path: Path) -> None:
    file.writer.execute("INSERT INTO t VALUES(1, 2, 3)")
    restored = sqlite3.connect(tmp_path / "b.db")
    restored.executescript("\n".join(file.writer.iterdump()))
    restored.close()
    other = Captured(tmp_path / "b.db")
    other.events()  # what the dump had, and the restoring itself
    assert settle(other).shapes == file.synced.shapes
    assert other.said("DELETE FROM t") == [("delete", "t", (1, 2, 3), None)]
    other.close()


def test_a_table_that_is_not_watched_has_no_triggers(file: Captured) -> None:
    file.watched = lambda table: table != "t"
    synced = settle(file)
    assert (list(synced.shapes), synced.changed, synced.dropped) == (["other"], (), ("t",))
    assert file.said("INSERT INTO t VALUES(1, 2, 3)") == []
    file.watched = everything
    assert settle(file).changed == ("t",)  # what was written between is unknown
    check_capture(file)


def test_a_column_that_becomes_secret_changes_the_shape(file: Captured) -> None:
    file.secret = lambda _table, column, _key: column == "b"
    assert settle(file).changed == ("other", "t")
    assert file.said("INSERT INTO t VALUES(1, 2, 'hush')") == [("create", "t", None, (1, 2))]


def test_a_table_on_which_no_triggers_can_be_made_is_skipped_and_the_others_are_not(file: Captured) -> None:
    columns = ", ".join(f"c{number}" for number in range(60))
    file.writer.execute(f"CREATE TABLE large({columns})")
    file.writer.execute("CREATE TABLE small(id INTEGER PRIMARY KEY, a)")
    usual = file.server.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 15_000)
    synced = file.synchronise()
    assert (sorted(synced.shapes), list(synced.skipped)) == (["other", "small", "t"], ["large"])
    check_capture(file, "small")
    assert file.said("INSERT INTO large(c0) VALUES(1)") == []
    file.server.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, usual)
    assert not settle(file).skipped


def test_triggers_that_would_make_every_write_fail_are_not_left_on_a_table(file: Captured) -> None:
    file.writer.execute("ALTER TABLE t ADD COLUMN late")

    def refuse(action: int, table: str | None, _column: str | None, _schema: str | None, trigger: str | None) -> int:
        # CREATE TRIGGER passes; that a body cannot be compiled only a write shows.
        mine = action == sqlite3.SQLITE_INSERT and table == "_appliance_outbox" and "insert" in (trigger or "")
        return sqlite3.SQLITE_DENY if mine else sqlite3.SQLITE_OK

    for _ in range(2):
        file.server.set_authorizer(refuse)
        synced = file.synchronise()
        file.server.set_authorizer(None)
        assert list(synced.skipped) == ["t"]
        assert list(synced.shapes) == ["other"]
        assert watch.captured(file.server) == ["other"]
        assert file.said("INSERT INTO t(a) VALUES(abs(random()))") == []
    assert not settle(file).skipped
    check_capture(file)


def test_what_cannot_be_compiled_without_us_is_captured_all_the_same(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as theirs:
        theirs.create_function("mine", 1, lambda value: value, deterministic=True)
        theirs.create_collation("odd", lambda one, other: (one > other) - (one < other))
        theirs.execute("CREATE TABLE t(a UNIQUE COLLATE odd CHECK(mine(a) IS NOT 3), s AS (mine(a)) STORED)")
        file = Captured(tmp_path / "a.db")
        assert (list(file.synced.shapes), dict(file.synced.skipped)) == (["t"], {})
        theirs.isolation_level = None
        theirs.execute("INSERT INTO t VALUES(1)")
        theirs.execute("REPLACE INTO t VALUES(1)")
        assert [event.op.name for event in file.events()] == ["CREATE", "DELETE", "CREATE"]
        file.close()


def test_a_store_that_cannot_be_written_raises(file: Captured) -> None:
    file.writer.execute("ALTER TABLE t ADD COLUMN late")
    file.server.execute("PRAGMA busy_timeout=10")
    file.writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        file.synchronise()
    file.writer.execute("ROLLBACK")
    assert not file.server.in_transaction
    settle(file)
    check_capture(file)


def schema_dump(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    rows = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name <> 'sqlite_sequence' ORDER BY name"
    return db.execute(rows).fetchall()


def test_nothing_of_ours_is_left_after_it_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            DDL + '; CREATE TABLE "odd \'name"(a INTEGER PRIMARY KEY AUTOINCREMENT); CREATE VIEW v AS SELECT * FROM t'
        )
        before = schema_dump(db)
    file = Captured(path)
    file.writer.execute("INSERT INTO t VALUES(1, 2, 3)")
    assert schema_dump(file.server) != before
    watch.remove(file.server)
    assert schema_dump(file.server) == before
    file.writer.execute("INSERT INTO t VALUES(2, 3, 4)")
    file.close()


def hammer(path: Path, start: float, end: float) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
        for number in range(int(start), int(end)):
            watch.synchronise(db, secret=nothing_secret, watched=everything)
            db.execute(f"CREATE TABLE IF NOT EXISTS made_{number % 3}(id INTEGER PRIMARY KEY, a)")
            watch.synchronise(db, secret=nothing_secret, watched=everything)
            db.execute(f"ALTER TABLE t ADD COLUMN x{number}")
            db.execute(f"DROP TABLE IF EXISTS made_{number % 3}")


def test_two_processes_can_synchronise_at_once(file: Captured) -> None:
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=hammer, args=(file.path, start, start + 10)) for start in (100, 200)]
    for each in others:
        each.start()
    for each in others:
        each.join(60)
    assert [each.exitcode for each in others] == [0, 0]
    settle(file)
    assert len(file.synced.shapes["t"].columns) == 23
    assert len({shape.id for shape in watch.load_shapes(file.server).values() if shape.table == "t"}) <= 21
    check_capture(file)
    schema.check_format(file.server)


def test_a_table_is_captured_in_the_transaction_that_makes_it(file: Captured) -> None:
    file.events()
    with schema.transaction(file.server):
        file.server.execute("CREATE TABLE fresh(k INTEGER PRIMARY KEY, v)")
        watch.capture(file.server, secret=file.secret, unwatched=())
    file.writer.execute("INSERT INTO fresh VALUES(1, 'a')")
    (event,) = file.events()
    assert (event.op.name, event.shape.table) == ("CREATE", "fresh")
    before = state(file)
    synced = file.synchronise()
    assert "fresh" in synced.shapes
    assert synced.changed == ()
    assert state(file)[1] == before[1]


def test_what_is_captured_at_once_is_rolled_back_with_its_table(file: Captured) -> None:
    before = schema_dump(file.server)
    file.server.execute("BEGIN IMMEDIATE")
    file.server.execute("CREATE TABLE fresh(k INTEGER PRIMARY KEY, v)")
    watch.capture(file.server, secret=file.secret, unwatched=())
    file.server.execute("ROLLBACK")
    assert schema_dump(file.server) == before


def test_triggers_that_were_made_with_their_table_are_not_taken_for_a_vacuum(file: Captured) -> None:
    before = file.synchronise()
    with schema.transaction(file.server):
        file.server.execute("CREATE TABLE fresh(k INTEGER PRIMARY KEY, v)")
        watch.capture(file.server, secret=file.secret, unwatched=())
    after = file.synchronise()
    assert after.found_version - before.schema_version == 1
    file.writer.execute("VACUUM")
    assert file.synchronise().found_version - after.schema_version == 1


def test_a_table_that_is_off_the_watch_is_not_captured_at_once_either(file: Captured) -> None:
    with schema.transaction(file.server):
        file.server.execute("CREATE TABLE Fresh(k INTEGER PRIMARY KEY, v)")
        watch.capture(file.server, secret=file.secret, unwatched=("fresh",))
    assert "Fresh" not in watch.captured(file.server)
