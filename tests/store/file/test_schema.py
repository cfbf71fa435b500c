"""The format of our own tables: what is made, what is migrated, what is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from appliance import __version__
from appliance.capture import outbox
from appliance.capture.decode import decode
from appliance.errors import StoreInUse, StoreUnusable
from appliance.model import Op
from appliance.store import offline
from appliance.store.file import live_file, schema
from appliance.store.file.connections import open_file
from appliance.store.tables import watch

FORMAT_1 = Path(__file__).with_name("format_1.sql")


def objects(db: sqlite3.Connection) -> dict[str, str]:
    rows = db.execute("SELECT name, sql FROM sqlite_schema WHERE name LIKE '\\_appliance\\_%' ESCAPE '\\'")
    return {name: sql for name, sql in rows if not name.startswith("_appliance_1_")}  # but for the table's triggers


def rows(db: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    tables = ("orders", "notes", "_appliance_outbox", "_appliance_topic", "_appliance_unwatched", "_appliance_shape")
    return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store of format 1."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FORMAT_1.read_text())
    return path


def test_a_new_store_says_which_program_made_it_and_is_written_once(tmp_path: Path) -> None:
    with closing(open_file(tmp_path / "a.db", busy_timeout_s=1)) as db:
        schema.prepare(db)
        assert (schema.get(db, "format"), schema.get(db, "program")) == (schema.FORMAT, __version__)
        assert set(objects(db)) == {*schema._NAMES, "_appliance_trim"}
        before = db.total_changes
        schema.prepare(db)
        assert db.total_changes == before


def test_every_table_of_ours_is_known_by_name() -> None:
    assert len(schema._NAMES) == len(schema.DDL)


def test_a_table_of_ours_that_somebody_dropped_is_made_again(tmp_path: Path) -> None:
    with closing(open_file(tmp_path / "a.db", busy_timeout_s=1)) as db:
        schema.prepare(db)
        before, secret = objects(db), schema.get(db, "secret")
        db.execute("DROP TABLE _appliance_mark")
        schema.prepare(db)
        assert (objects(db), schema.get(db, "secret")) == (before, secret)


@pytest.mark.parametrize("dropped", ["_appliance_revoked", "_appliance_account"])
def test_where_it_is_forgotten_which_tokens_were_ended_all_are(dropped: str, tmp_path: Path) -> None:
    with closing(open_file(tmp_path / "a.db", busy_timeout_s=1)) as db:
        schema.prepare(db)
        before = schema.get(db, "secret"), schema.generation(db)
        schema.put(db, "former_secret", "of before")
        db.execute(f"DROP TABLE {dropped}")
        schema.prepare(db)
        assert (schema.get(db, "secret") != before[0], schema.get(db, "former_secret")) == (True, "")
        assert schema.generation(db) > before[1]


def test_a_store_of_format_1_is_migrated_and_a_copy_of_it_kept(old: Path, tmp_path: Path) -> None:
    with closing(open_file(old, busy_timeout_s=1)) as db:
        before = {name: schema.get(db, name) for name in ("secret", "epoch", "incarnation", "generation", "clean")}
        content = rows(db)
    old.chmod(0o640)
    with offline.open_store(old) as db:
        assert {name: schema.get(db, name) for name in before} == before
        assert rows(db) == content
        assert (schema.get(db, "format"), schema.get(db, "program")) == (schema.FORMAT, __version__)
        migrated = objects(db)
    with closing(open_file(tmp_path / "new.db", busy_timeout_s=1)) as db:
        schema.prepare(db)
        assert migrated == objects(db)
    copy = tmp_path / f"old.db.before-format-{schema.FORMAT}"
    assert copy.stat().st_mode & 0o777 == 0o640
    with closing(sqlite3.connect(copy)) as db:
        assert (schema.get(db, "format"), rows(db)) == (1, content)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {path.name for path in tmp_path.iterdir()} >= {"old.db", copy.name}
    assert not list(tmp_path.glob("*.unfinished*"))


@pytest.mark.parametrize("trimmed", [0, 2, 4])
def test_ids_go_on_from_where_an_earlier_format_was(old: Path, trimmed: int) -> None:
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("DELETE FROM _appliance_outbox WHERE id <= ?", (trimmed,))
    with offline.open_store(old) as db:
        assert schema.highest(db) == 4
        db.execute("INSERT INTO orders(item) VALUES('lamp')")
        assert db.execute("SELECT id, op FROM _appliance_outbox WHERE id > 4").fetchall() == [(5, int(Op.CREATE))]
        assert db.execute("SELECT * FROM sqlite_sequence").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = db.execute(outbox.select_after(), (0, 10)).fetchall()
        decoded = decode(found, watch.load_shapes(db), more=False)
        assert (decoded.events[-1].id, decoded.faults) == (5, [])


def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM _appliance_topic")
        raise RuntimeError

    monkeypatch.setattr(schema, "_MIGRATIONS", {1: fail})
    with closing(open_file(old, busy_timeout_s=1)) as db:
        before, content = objects(db), rows(db)
        with pytest.raises(RuntimeError):
            schema.prepare(db)
        assert (schema.get(db, "format"), objects(db), rows(db)) == (1, before, content)


def test_a_store_whose_copy_cannot_be_made_is_not_migrated(old: Path) -> None:
    Path(f"{old}.before-format-{schema.FORMAT}").mkdir()
    with pytest.raises(StoreUnusable, match="copy"), offline.open_store(old):
        pass
    with closing(open_file(old, busy_timeout_s=1)) as db:
        assert schema.get(db, "format") == 1
    assert not list(old.parent.glob("*.unfinished*"))


def test_a_store_that_an_earlier_version_serves_is_not_migrated_under_it(old: Path) -> None:
    with live_file.hold(old), pytest.raises(StoreInUse), offline.open_store(old):
        pass
    with closing(open_file(old, busy_timeout_s=1)) as db:
        assert schema.get(db, "format") == 1


def test_a_store_of_a_later_format_is_refused_with_the_version_that_made_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(open_file(path, busy_timeout_s=1)) as db:
        schema.prepare(db)
        schema.put(db, "format", schema.FORMAT + 1)
        schema.put(db, "program", "7.8.9")
    said = rf"live-appliance 7\.8\.9.*format {schema.FORMAT + 1}\b"
    with pytest.raises(StoreUnusable, match=said), offline.open_store(path):
        pass


def insert(db: sqlite3.Connection, count: int) -> None:
    with schema.transaction(db):
        db.executemany("INSERT INTO _appliance_outbox(op) VALUES(?)", [(4,)] * count)


def kept(db: sqlite3.Connection) -> tuple[int, int]:
    return db.execute("SELECT min(id), max(id) FROM _appliance_outbox").fetchone()  # type: ignore[no-any-return]


def test_the_row_bound_holds_without_a_server_and_follows_the_configuration(tmp_path: Path) -> None:
    with closing(open_file(tmp_path / "a.db", busy_timeout_s=1)) as db:
        schema.prepare(db)
        assert schema.oldest(db) == 0
        schema.keep_rows(db, 1000)
        before = db.execute("PRAGMA schema_version").fetchone()
        schema.keep_rows(db, 1000)
        assert db.execute("PRAGMA schema_version").fetchone() == before
        insert(db, 10_000)
        assert kept(db) == (10_000 - 16 - 1000 + 1, 10_000)  # 10,000 is 16 past the last multiple of 64
        assert schema.oldest(db) == kept(db)[0] - 1
        schema.keep_rows(db, 100)
        changes = db.total_changes
        insert(db, 64)
        assert db.total_changes - changes <= 64 + outbox.TRIM_AT_MOST  # a lowered bound is no burden on one statement
        insert(db, 640)
        assert kept(db)[1] - kept(db)[0] < 100 + outbox.TRIM_EVERY
        db.execute("DELETE FROM _appliance_outbox WHERE id < 10704")
        assert (schema.oldest(db), schema.highest(db)) == (10_703, 10_704)
