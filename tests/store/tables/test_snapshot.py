"""Snapshots by pages: every row that stays comes once, by whatever key, also while others write."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from appliance.model import Image, Shape
from appliance.store.tables import snapshot
from appliance.store.tables.snapshot import Condition, Place
from tests.capture.support import Captured

TABLES = {
    "rowid": "CREATE TABLE t(a, b)",
    "integer key": "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
    "text key": "CREATE TABLE t(a TEXT PRIMARY KEY, b)",
    "without rowid": "CREATE TABLE t(a TEXT PRIMARY KEY, b) WITHOUT ROWID",
    "composite": "CREATE TABLE t(a INTEGER, b TEXT, PRIMARY KEY(b, a)) WITHOUT ROWID",
    "nocase": "CREATE TABLE t(a INTEGER, b TEXT COLLATE NOCASE, PRIMARY KEY(b DESC, a)) WITHOUT ROWID",
    "braces": 'CREATE TABLE t(a INTEGER PRIMARY KEY, b, "{c} {}" DEFAULT 1)',
    "untyped": "CREATE TABLE t(a, b, PRIMARY KEY(a, b)) WITHOUT ROWID",
}


@pytest.fixture(autouse=True)
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PAGE_ROWS", 7)
    monkeypatch.setattr(snapshot, "SCAN_ROWS", (4, 10))


def fill(file: Captured, count: int) -> None:
    chance = random.Random(count)
    for number in range(count):
        text = chance.choice(("", "A", "a", "é", "z" * 50)) + str(number)
        raw = text.encode() + (b"\xff" if number % 5 == 0 else b"")
        file.writer.execute("INSERT OR IGNORE INTO t(a, b) VALUES(?, CAST(? AS TEXT))", (number, raw))


def pages(file: Captured, shape: Shape, wanted: Condition) -> list[list[Image]]:
    found, place = [], snapshot.Place()
    at: Place | None = place
    while at is not None:
        page = snapshot.page(file.server, shape, wanted, at)
        found.append(page.images)
        at = page.next
    return found


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("wanted", [Condition("1"), Condition('"b" > ?', ("a",)), Condition("0")])
def test_every_row_that_is_wanted_comes_once(tmp_path: Path, kind: str, wanted: Condition) -> None:
    with closing(Captured(tmp_path / "a.db", TABLES[kind])) as file:
        fill(file, 100)
        came = [image.values[:2] for page in pages(file, file.synced.shapes["t"], wanted) for image in page]
        there = file.writer.execute(f"SELECT a, b FROM t WHERE {wanted.sql}", wanted.parameters).fetchall()
        assert sorted(came, key=repr) == sorted(there, key=repr)


def test_what_is_there_all_the_time_comes_once_while_others_write(tmp_path: Path) -> None:
    chance = random.Random(1)
    with closing(Captured(tmp_path / "a.db", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")) as file:
        file.writer.executemany("INSERT INTO t VALUES(?, 0)", [(number,) for number in range(0, 400, 2)])
        place: Place | None = Place()
        came: list[int] = []
        positions: list[int] = []
        while place is not None:
            page = snapshot.page(file.server, file.synced.shapes["t"], Condition("1"), place)
            came += [int(str(image.values[0])) for image in page.images]
            positions.append(page.position)
            place = page.next
            file.writer.execute("INSERT OR REPLACE INTO t VALUES(?, 1)", (chance.randrange(1, 400, 2),))
            file.writer.execute("DELETE FROM t WHERE a % 2 = 1 AND a = ?", (chance.randrange(400),))
        assert came == sorted(set(came))
        assert set(range(0, 400, 2)) <= set(came)
        assert positions == sorted(positions)


def test_long_values_end_a_page_before_its_rows_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PAGE_BYTES", 10_000)
    with closing(Captured(tmp_path / "a.db", TABLES["integer key"])) as file:
        file.writer.executemany("INSERT INTO t VALUES(?, ?)", [(number, "x" * 9000) for number in range(20)])
        found = pages(file, file.synced.shapes["t"], Condition("1"))
        assert [image.values[0] for page in found for image in page] == list(range(20))
        assert max(map(len, found)) <= 3


def test_of_rows_that_are_long_a_page_has_no_more_than_by_one(tmp_path: Path) -> None:
    with closing(Captured(tmp_path / "a.db", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")) as file:
        for number in range(7):
            file.writer.execute("INSERT INTO t VALUES(?, zeroblob(?))", (number, snapshot.PAGE_BYTES * 2 // 5))
        assert [len(page) for page in pages(file, file.synced.shapes["t"], Condition("1"))] == [3, 3, 1]
