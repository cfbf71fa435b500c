"""Where a table's events are not the whole story, and that no position is on both sides of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.store.file import schema
from appliance.store.tables import breaks, watch
from tests.capture.support import Captured, everything


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Captured]:
    opened = Captured(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE u(a)")
    yield opened
    opened.close()


def test_a_table_that_is_captured_before_any_event_is_complete_from_the_beginning(file: Captured) -> None:
    assert breaks.breaks(file.server) == {"t": 0, "u": 0}
    assert schema.highest(file.server) == 0


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE T ADD COLUMN b",
        "CREATE TRIGGER theirs AFTER INSERT ON t BEGIN SELECT 1; END",
        "DROP TRIGGER _appliance_2_insert",
        "DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
    ],
)
@pytest.mark.parametrize("written", [0, 3])
def test_triggers_made_anew_are_a_break_after_all_that_was_before(file: Captured, change: str, written: int) -> None:
    if "_appliance_2" in change:
        (name,) = file.writer.execute("SELECT name FROM sqlite_schema WHERE tbl_name='t' AND name GLOB '*[0-9]_insert'")
        change = f'DROP TRIGGER "{name[0]}"'
    for _ in range(written):
        file.writer.execute("INSERT INTO u VALUES(1)")
    before = schema.highest(file.server)
    file.writer.executescript(change)
    file.synchronise()
    assert breaks.breaks(file.server) == {"t": before + 1, "u": 0}
    file.synchronise()
    assert breaks.breaks(file.server) == {"t": before + 1, "u": 0}
    assert file.said("INSERT INTO t(a) VALUES(2)")[0][0] == "create"  # nobody takes it for an event


def test_a_table_off_the_watch_for_a_while_has_a_break_though_nothing_else_was_written(file: Captured) -> None:
    for expected in (1, 2):
        file.watched = lambda table: table != "t"
        file.synchronise()
        file.writer.execute("INSERT INTO t(a) VALUES(1)")
        file.watched = everything
        file.synchronise()
        assert breaks.breaks(file.server)["t"] == expected


def test_a_table_made_after_the_first_event_is_complete_from_its_capture_on(file: Captured) -> None:
    file.writer.execute("INSERT INTO t(a) VALUES(1)")
    file.writer.executescript("CREATE TABLE late(a); INSERT INTO late VALUES(1)")
    file.synchronise()
    assert breaks.breaks(file.server)["late"] == 2


def test_a_table_that_cannot_be_captured_has_its_break_when_it_can(file: Captured) -> None:
    columns = ", ".join(f"c{number}" for number in range(60))
    file.writer.execute(f"CREATE TABLE large({columns})")
    usual = file.server.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 15_000)
    assert list(file.synchronise().skipped) == ["large"]
    assert "large" not in breaks.breaks(file.server)
    file.server.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, usual)
    assert not file.synchronise().skipped
    assert breaks.breaks(file.server)["large"] == 0
    assert watch.captured(file.server) == ["large", "t", "u"]
