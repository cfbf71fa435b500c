"""What has happened to one row, found in the outbox by its key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import CommandError
from appliance.store.file import schema
from appliance.store.outbox.history import history
from tests.capture.support import Captured, brief

TABLES = f"""
CREATE TABLE one(id INTEGER PRIMARY KEY, a);
CREATE TABLE named(name TEXT PRIMARY KEY COLLATE NOCASE, a);
CREATE TABLE pair(a TEXT, b INTEGER, c, PRIMARY KEY(a, b));
CREATE TABLE bare(a);
CREATE TABLE wide({", ".join(f"c{number}" for number in range(60))}, PRIMARY KEY(c50));
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Captured]:
    opened = Captured(tmp_path / "a.db", TABLES)
    yield opened
    opened.close()


def told(file: Captured, table: str, *key: Any) -> list[Any]:
    return [brief(each) for each in history(file.server, table, key)]


def test_a_row_is_found_by_its_key_as_text_or_number(file: Captured) -> None:
    file.writer.executescript("INSERT INTO one VALUES(1, 'x'), (12, 'y'); UPDATE one SET a = 'z'; DELETE FROM one")
    expected = [
        ("create", "one", None, (1, "x")),
        ("update", "one", (1, "x"), (1, "z")),
        ("delete", "one", (1, "z"), None),
    ]
    assert told(file, "one", "1") == told(file, "ONE", 1) == expected
    assert told(file, "one", "2") == []


def test_a_key_compares_as_its_column_does(file: Captured) -> None:
    file.writer.execute("INSERT INTO named VALUES('Ann', 1), ('7', 2)")
    assert told(file, "named", "aNN") == [("create", "named", None, ("Ann", 1))]
    assert told(file, "named", 7) == [("create", "named", None, ("7", 2))]


def test_a_key_of_several_columns_is_a_list(file: Captured) -> None:
    file.writer.execute("INSERT INTO pair VALUES('x', 1, 2), ('x', 2, 3), ('y', 1, 4)")
    assert told(file, "pair", "x", "1") == [("create", "pair", None, ("x", 1, 2))]
    with pytest.raises(CommandError, match="a, b, not 1 values"):
        told(file, "pair", "x")


def test_an_update_of_the_key_is_found_by_both(file: Captured) -> None:
    file.writer.executescript("INSERT INTO one VALUES(1, 'x'); UPDATE one SET id = 2; UPDATE one SET a = 'y'")
    moved = ("update", "one", (1, "x"), (2, "x"))
    assert told(file, "one", 1) == [("create", "one", None, (1, "x")), moved]
    assert told(file, "one", 2) == [moved, ("update", "one", (2, "x"), (2, "y"))]


def test_a_row_without_a_key_is_found_by_its_rowid(file: Captured) -> None:
    file.writer.executescript("INSERT INTO bare VALUES('x'), ('y'); DELETE FROM bare")
    assert told(file, "bare", "2") == [("create", "bare", None, ("y",)), ("delete", "bare", ("y",), None)]
    with pytest.raises(CommandError, match="rowid"):
        told(file, "bare", "x")


def test_a_row_of_many_columns_is_found_in_whichever_part_its_key_is(file: Captured) -> None:
    for number in range(3):
        file.writer.execute("INSERT INTO wide(c50, c0) VALUES(?, 50)", (number,))
    file.writer.execute("UPDATE wide SET c59 = 'x'")
    found = list(history(file.server, "wide", [1]))
    assert [(each.op.name, each.new.values[50] if each.new else None) for each in found] == [
        ("CREATE", 1),
        ("UPDATE", 1),
    ]


def test_a_row_is_followed_through_changes_of_its_table(file: Captured) -> None:
    file.writer.execute("INSERT INTO one VALUES(1, 'x')")
    file.writer.execute("ALTER TABLE one ADD COLUMN b")
    file.synchronise()
    file.writer.execute("UPDATE one SET b = 'y'")
    assert told(file, "one", 1) == [("create", "one", None, (1, "x")), ("update", "one", (1, "x", None), (1, "x", "y"))]


def test_it_begins_where_the_outbox_does(file: Captured) -> None:
    file.writer.execute("INSERT INTO one VALUES(1, 0)")
    for _ in range(50):
        file.writer.execute("UPDATE one SET a = a + 1")
    file.writer.execute("DELETE FROM _appliance_outbox WHERE id <= 91")
    assert schema.oldest(file.server) == 91
    assert told(file, "one", 1)[0] == ("update", "one", (1, 45), (1, 46))
    assert len(told(file, "one", 1)) == 5


def test_a_table_that_was_never_captured_is_refused(file: Captured) -> None:
    with pytest.raises(CommandError, match="nope"):
        told(file, "nope", 1)
