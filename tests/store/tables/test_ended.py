"""Shapes that no table has any more are forgotten, and none before the last row that has it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.store.file import schema
from appliance.store.outbox import retention
from appliance.store.tables import watch
from appliance.store.tables.breaks import breaks
from tests.capture.support import Captured


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Captured]:
    opened = Captured(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)")
    yield opened
    opened.close()


def trim(db: sqlite3.Connection) -> None:
    """Let only the newest row be."""
    retention.trim(db, schema.highest(db), 1_000_000)


def shapes(file: Captured) -> dict[int, str]:
    return {shape.id: shape.table for shape in watch.load_shapes(file.server).values()}


def captured_anew(file: Captured, ddl: str) -> None:
    file.writer.executescript(ddl)
    file.synchronise()


def test_tables_for_one_task_each_leave_nothing_behind(file: Captured) -> None:
    for number in range(20):
        captured_anew(file, f"CREATE TABLE job_{number}(a); INSERT INTO t(a) VALUES('job {number}')")
        assert file.said(f"INSERT INTO job_{number} VALUES(1)")[-1] == ("create", f"job_{number}", None, (1,))
        file.writer.execute(f"DROP TABLE job_{number}")
        trim(file.server)
    captured_anew(file, "CREATE TABLE last(a)")
    assert len(shapes(file)) <= 4
    assert breaks(file.server).keys() <= {"t", "job_18", "job_19", "last"}
    assert max(shapes(file)) == 22  # none has the id of another
    assert file.said("REPLACE INTO t VALUES(1, 'job 5')")[-1] == ("update", "t", (1, "job 0"), (1, "job 5"))


def test_a_shape_is_there_for_as_long_as_a_row_is_that_has_it(file: Captured) -> None:
    file.writer.execute("INSERT INTO t VALUES(1, 'x')")
    captured_anew(file, "ALTER TABLE t ADD COLUMN b")
    captured_anew(file, "ALTER TABLE t ADD COLUMN c; INSERT INTO t VALUES(2, 'y', 'b', 'c')")
    captured_anew(file, "CREATE TABLE u(a)")
    assert shapes(file) == {1: "t", 2: "t", 3: "t", 4: "u"}
    first = file.events()[0]
    assert (first.shape.id, first.new and first.new.values) == (1, (1, "x"))
    file.writer.execute("INSERT INTO u VALUES(1)")
    trim(file.server)
    captured_anew(file, "CREATE TABLE v(a)")
    assert shapes(file) == {3: "t", 4: "u", 5: "v"}
    captured_anew(file, "DROP TABLE v; DROP TABLE u; DROP TRIGGER _appliance_3_insert")
    file.writer.execute("INSERT INTO t(id) VALUES(3), (4)")
    trim(file.server)
    captured_anew(file, "DROP TRIGGER _appliance_3_insert")
    assert shapes(file) == {3: "t", 5: "v"}  # the newest stays


def test_a_table_that_is_put_back_with_its_triggers_has_its_shape_again(file: Captured) -> None:
    dump = [line for line in file.writer.iterdump() if '"t"' in line or " t(" in line]
    captured_anew(file, "INSERT INTO t VALUES(1, 'x'); CREATE TABLE u(a); DROP TABLE t; CREATE TABLE v(a)")
    captured_anew(file, "CREATE TABLE w(a)")
    captured_anew(file, ";".join(dump))
    captured_anew(file, "INSERT INTO t VALUES(2, 'y'); DROP TABLE t; INSERT INTO u VALUES(1)")
    retention.trim(
        file.server, file.server.execute("SELECT max(id) FROM _appliance_outbox WHERE op=5").fetchone()[0], 99
    )
    captured_anew(file, "CREATE TABLE x(a)")
    assert 1 in shapes(file)
    rows = file.server.execute("SELECT shape FROM _appliance_outbox WHERE shape=1").fetchall()
    assert rows == [(1,)]
