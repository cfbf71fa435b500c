"""Every value comes out of the outbox as it went in, to the bit."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.capture.outbox import VALUE_LIMIT
from tests.capture.support import Captured, Replica, exactly

VALUES: dict[str, Any] = {
    "null": None,
    "zero": 0,
    "largest integer": 2**63 - 1,
    "smallest integer": -(2**63),
    "beyond 2^53": 2**53 + 1,
    "sum of tenths": 0.1 + 0.2,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "minus zero": -0.0,
    "smallest denormal": 5e-324,
    "largest real": 1.7976931348623157e308,
    "a real that is an integer": 1.0,
    "a real beyond the integers": 9.3e18,
    "empty text": "",
    "empty blob": b"",
    "text with NUL": "a\0b\0",
    "only NUL": "\0",
    "blob with NUL": b"\0\xff\0",
    "astral text": "🙂\N{COMBINING ACUTE ACCENT}\u202e\ufeff",
    "noncharacters": "\uffff\U0010ffff",
    "a blob like text": b"text",
    "text like a number": "1.0",
    "text at the limit": "é" * (VALUE_LIMIT // 2),
    "blob at the limit": b"\xff" * VALUE_LIMIT,
}

#: Bytes that are no UTF-8, put in as TEXT.
BROKEN = [b"\xff\xfe", b"ok\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"a\x00\xff", b"\x80" * 100]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_every_value_comes_as_it_is(tmp_path: Path, encoding: str) -> None:
    file = Captured(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
        prepare=lambda db: db.execute(f"PRAGMA encoding='{encoding}'"),
    )
    assert file.writer.execute("PRAGMA encoding").fetchone() == (encoding,)
    for name, written in VALUES.items():
        value = written
        if "limit" in name and encoding != "UTF-8":
            continue  # the limit counts bytes as stored
        file.writer.execute("INSERT INTO t VALUES(1, ?)", (value,))
        if encoding != "UTF-8":  # SQLite's conversion from UTF-16 has no noncharacters
            (value,) = file.writer.execute("SELECT a FROM t").fetchone()
        file.writer.execute("UPDATE t SET a = 'other'")
        file.writer.execute("DELETE FROM t")
        created, updated, _ = file.events()
        assert created.new is not None
        assert updated.old is not None
        for image in (created.new, updated.old):
            assert (exactly(image.values), image.cut) == (exactly([1, value]), frozenset()), name
    file.close()


@pytest.mark.parametrize("raw", BROKEN)
def test_text_that_is_not_utf8_keeps_its_bytes(tmp_path: Path, raw: bytes) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(a TEXT, b TEXT PRIMARY KEY)")
    file.writer.execute("INSERT INTO t VALUES(CAST(? AS TEXT), 'key')", (raw,))
    file.writer.execute("REPLACE INTO t SELECT a || '', b FROM t")
    for event in file.events():
        assert event.new is not None
        value = event.new.values[0]
        assert isinstance(value, str)
        assert value.encode("utf-8", "surrogateescape") == raw
    file.close()


def test_not_a_number_is_null_as_sqlite_has_it(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(a)")
    assert file.said("INSERT INTO t VALUES(?)", (math.nan,)) == [("create", "t", None, (None,))]
    file.close()


def test_what_affinity_makes_of_a_value_is_what_comes(tmp_path: Path) -> None:
    file = Captured(tmp_path / "a.db", "CREATE TABLE t(i INTEGER, r REAL, n NUMERIC, x TEXT, b BLOB, f BOOLEAN)")
    (said,) = file.said("INSERT INTO t VALUES('12', 3, '1e3', 4.5, '5', 1)")
    assert exactly(said[3]) == exactly([12, 3.0, 1000, "4.5", "5", 1])
    file.close()


CHANGES = [(1, 1.0), ("a", "A"), ("a", b"a"), ("a", "a "), (0, None), ("", None), (b"", ""), (1, "1"), (2**53, 2.0**53)]


@pytest.mark.parametrize(("old", "new"), CHANGES)
@pytest.mark.parametrize("declared", ["", "COLLATE NOCASE", "COLLATE RTRIM"])
def test_a_change_of_the_type_or_the_case_only_is_a_change(tmp_path: Path, old: Any, new: Any, declared: str) -> None:
    file = Captured(tmp_path / "a.db", f"CREATE TABLE t(a {declared}, b)")
    file.writer.execute("INSERT INTO t VALUES(?, 1)", (old,))
    file.events()
    for before, after in ((old, new), (new, old)):
        (said,) = file.said("UPDATE t SET a = ?", (after,))
        assert (exactly(said[2]), exactly(said[3])) == (exactly([before, 1]), exactly([after, 1]))
        assert file.said("UPDATE t SET a = a, b = b") == []
    file.close()


SQL_VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.binary(max_size=20),
)


@given(st.lists(st.tuples(SQL_VALUES, SQL_VALUES), min_size=1, max_size=5), SQL_VALUES)
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_whatever_is_written_is_read(tmp_path_factory: Any, rows: list[tuple[Any, Any]], last: Any) -> None:
    file = Captured(tmp_path_factory.mktemp("values") / "a.db", "CREATE TABLE t(a, b NUMERIC)")
    replica = Replica()
    file.writer.executemany("INSERT INTO t VALUES(?, ?)", rows)
    replica.apply(file.events())
    assert replica.content("t") == file.content("t")
    file.writer.execute("UPDATE t SET a = b, b = ?", (last,))
    replica.apply(file.events())
    # SQLite compares 0.0 and -0.0 as equal, so that this change alone is none.
    assert str(replica.content("t")).replace("-0.0", "0.0") == str(file.content("t")).replace("-0.0", "0.0")
    file.close()


@pytest.mark.parametrize("width", [23, 24, 25, 48, 49, 300, 1500])
@pytest.mark.parametrize("rowid", [True, False])
def test_a_table_of_many_columns_comes_whole(tmp_path: Path, width: int, rowid: bool) -> None:
    names = [f"c{number}" for number in range(width)]
    key = "" if rowid else ", PRIMARY KEY(c0), UNIQUE(c1)"
    file = Captured(tmp_path / "a.db", f"CREATE TABLE t({', '.join(names)}{key})")
    assert not file.synced.skipped
    marks = ", ".join("?" * width)
    first, second = [f"value {number}" for number in range(width)], list(range(width))
    file.writer.execute(f"INSERT INTO t VALUES({marks})", first)
    file.writer.execute(f"INSERT INTO t VALUES({marks})", second)
    file.writer.execute(f"UPDATE t SET c{width - 1} = NULL WHERE c0 = 0")
    file.writer.execute("REPLACE INTO t(c0, c1) VALUES(0, 'value 1')")
    file.writer.execute("DELETE FROM t")
    replica = Replica()
    events = file.events()
    replica.apply(events)
    assert replica.rows == {}
    created, _, updated, *rest = events
    assert created.new is not None
    assert updated.new is not None
    assert list(created.new.values) == first
    assert list(updated.new.values) == [*second[:-1], None]
    kinds = [event.op.name for event in rest]
    assert kinds == (["CREATE", "DELETE", "DELETE", "DELETE"] if rowid else ["DELETE", "UPDATE", "DELETE"])
    file.close()


HUGE = """
import resource, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
size = int(sys.argv[2])
db.execute("INSERT INTO t VALUES(1, CAST(zeroblob(?) AS %s), 'x', 1)", (size,))
db.execute("UPDATE t SET n = n + 1")
db.execute("REPLACE INTO t VALUES(2, '', 'x', 1)")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_huge(path: Path, size: int, kind: str) -> int:
    """Write a row of ``size`` bytes in another process; give the most memory that it used, in bytes."""
    command = [sys.executable, "-c", HUGE % kind, str(path), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    return int(done.stdout) * 1024


DDL = "CREATE TABLE t(id INTEGER PRIMARY KEY, body, name UNIQUE, n)"


@pytest.mark.heavy
@pytest.mark.parametrize(("kind", "size"), [("BLOB", 500_000_000), ("TEXT", 100_000_000)])
def test_a_row_of_half_a_gigabyte_can_be_written_in_every_way(tmp_path: Path, kind: str, size: int) -> None:
    with closing(sqlite3.connect(tmp_path / "plain.db")) as plain:
        plain.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + DDL)
    without = write_huge(tmp_path / "plain.db", size, kind)
    file = Captured(tmp_path / "a.db", DDL)
    with_us = write_huge(file.path, size, kind)
    events = file.events()
    assert [event.op.name for event in events] == ["CREATE", "UPDATE", "DELETE", "CREATE"]
    images = [image for event in events[:3] for image in (event.old, event.new) if image]
    assert all(image.cut == {1} and image.values[1] is None for image in images)
    print(f"{kind}: the writer's peak without us {without >> 20} MiB, with us {with_us >> 20} MiB")
    assert with_us < without + 3 * size  # both images of an update, and one being looked at
    assert sum(len(str(row)) for row in file.server.execute("SELECT * FROM _appliance_outbox")) < 1000
    file.close()
    for left in tmp_path.glob("*.db*"):
        left.unlink()
