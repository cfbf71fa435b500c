"""What the outbox keeps, by age, rows and bytes; how it is measured, and what a clock that is set does."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.store.file import schema
from appliance.store.file.connections import open_file
from appliance.store.outbox import retention
from appliance.store.outbox.retention import ROW_BYTES, SAMPLE_ROWS, Clock, Retention

AGES = Retention(age_s=100, rows=1_000_000, bytes=1 << 40)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_file(tmp_path / "a.db", busy_timeout_s=1)
    connection.execute("PRAGMA journal_mode=WAL")
    schema.prepare(connection)
    yield connection
    connection.close()


def insert(db: sqlite3.Connection, count: int, value: object = None) -> None:
    with schema.transaction(db):
        db.executemany("INSERT INTO _appliance_outbox(op, v0) VALUES(4, ?)", [(value,)] * count)


def mark(db: sqlite3.Connection, at: float) -> int:
    """Set a mark as the keeper does; give the id."""
    last = retention.last_mark(db)
    highest = schema.highest(db)
    retention.mark(db, highest, at, retention.measure(db, last[0] if last else 0, highest))
    return highest


def trim(db: sqlite3.Connection, upto: int) -> int:
    deleted, rows = 0, 1
    while rows:
        rows, _ = retention.trim(db, upto, 100)
        deleted += rows
    return deleted


def test_what_is_older_than_the_age_goes_and_nothing_else(db: sqlite3.Connection) -> None:
    insert(db, 30)
    first = mark(db, 1000)
    insert(db, 20)
    second = mark(db, 1050)
    assert retention.due(db, AGES, 1099.9) == 0
    assert retention.due(db, AGES, 1100) == first
    assert retention.due(db, AGES, 1149) == first
    assert trim(db, retention.due(db, AGES, 1149)) == 30
    assert (schema.oldest(db), schema.highest(db)) == (30, 50)
    assert retention.kept(db).since == 1000
    assert retention.due(db, AGES, 1150) == second - 1  # the next id comes from the newest row
    assert trim(db, second) == 19
    assert (schema.oldest(db), schema.highest(db)) == (49, 50)
    insert(db, 1)  # too young for any mark
    assert retention.due(db, AGES, 9999) == 50


def test_more_than_the_bytes_goes_oldest_first(db: sqlite3.Connection) -> None:
    for at in range(5):
        insert(db, 100, "x" * 960)  # 1000 bytes a row
        mark(db, at)
    each = 960 + ROW_BYTES
    assert retention.kept(db).bytes == 500 * each
    limits = Retention(age_s=1e9, rows=1_000_000, bytes=250 * each)
    assert retention.due(db, limits, 10) == 250  # in the midst of a stretch
    trim(db, 250)
    assert retention.kept(db).bytes == 250 * each
    assert retention.due(db, limits, 10) <= 250


def test_what_was_written_while_no_server_ran_is_one_long_stretch(db: sqlite3.Connection) -> None:
    insert(db, 20_000, "x" * 160)
    mark(db, 0)
    assert retention.kept(db).bytes == 20_000 * 200
    assert retention.due(db, Retention(age_s=1e9, rows=1_000_000, bytes=1_000_000), 1) == 15_000


def test_a_lowered_bound_on_rows_is_come_down_to_without_a_writer(db: sqlite3.Connection) -> None:
    insert(db, 3000)
    assert retention.due(db, Retention(age_s=1e9, rows=1000, bytes=1 << 40), 0) == 2000


def test_marks_go_with_the_rows_between_them(db: sqlite3.Connection) -> None:
    for at in range(50):
        insert(db, 10)
        mark(db, at)
    trim(db, 405)
    ids = [row[0] for row in db.execute("SELECT id FROM _appliance_mark ORDER BY id")]
    assert ids == list(range(400, 501, 10))
    assert retention.kept(db).bytes == 95 * ROW_BYTES
    db.execute("DELETE FROM _appliance_outbox WHERE id <= 455")  # the trigger knows nothing of marks
    assert retention.kept(db).bytes == 45 * ROW_BYTES
    assert retention.kept(db).rows == 45


@pytest.mark.parametrize("value", ["x" * 100, "é" * 50, b"x" * 100])
def test_few_rows_are_measured_exactly(db: sqlite3.Connection, value: object) -> None:
    insert(db, 50, value)
    assert retention.measure(db, 10, 50) == 40 * (100 + ROW_BYTES)
    assert retention.measure(db, 50, 50) == 0


def test_many_rows_are_measured_by_samples(db: sqlite3.Connection) -> None:
    true = 0
    for number in range(40):
        value = "x" * (number * 37 % 400)
        insert(db, 1000, value)
        true += 1000 * (len(value) + ROW_BYTES)
    assert abs(retention.measure(db, 0, 40_000) - true) < true / 20
    visited: list[str] = []
    db.set_trace_callback(visited.append)
    retention.measure(db, 0, 40_000)
    bounds = [tuple(map(int, sql.split("id > ")[1].split(" AND id <= "))) for sql in visited if "total" in sql]
    assert sum(last - first for first, last in bounds) == SAMPLE_ROWS
    assert (bounds[0][0], bounds[-1][1]) == (0, 40_000)


def test_a_clock_that_is_set_while_the_server_runs_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(None)
    before = clock.now()
    for leap in (3600, -3600, 1e9):
        wall = time.time() + leap
        monkeypatch.setattr(time, "time", lambda wall=wall: wall)
        assert 0 <= clock.now() - before < 60


def test_at_a_start_time_never_goes_back() -> None:
    last = time.time() + 3600  # the clock was ahead, or is an hour behind now
    clock = Clock(last)
    assert last <= clock.now() < last + 60
    assert time.time() - 1 <= Clock(last - 7200).now() < time.time() + 60
