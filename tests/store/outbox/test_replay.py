"""Replay by pages: whatever was written, however small the pages, each wanted event comes once."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.capture import contents, outbox
from appliance.capture.contents import Contents
from appliance.capture.decode import decode
from appliance.model import Change, Message, Shape
from appliance.protocol.filters import compile_table
from appliance.store.file import schema
from appliance.store.outbox import replay, retention
from appliance.store.outbox.wanted import Wanted
from appliance.store.tables import watch
from tests.capture.support import Captured

WIDE = 2 * outbox.WIDTH + 3
DDL = (
    "CREATE TABLE narrow(id INTEGER PRIMARY KEY, room INTEGER, name TEXT);"
    f"CREATE TABLE wide(id INTEGER PRIMARY KEY, {', '.join(f'c{number}' for number in range(WIDE))});"
)


def write(file: Captured, chance: random.Random, count: int) -> None:
    """Write rows of both tables: short and long, changed and deleted, some of it not text in any encoding."""
    for _ in range(count):
        key, room = chance.randrange(9), chance.randrange(3)
        long = chance.choice(("x", "y" * 3000, b"\xff" * 10))
        file.writer.execute(*chance.choice((
            ("INSERT OR REPLACE INTO narrow VALUES(?, ?, CAST(? AS TEXT))", (key, room, long)),
            ("UPDATE narrow SET room = ? WHERE id = ?", (room, key)),
            ("DELETE FROM narrow WHERE id = ?", (key,)),
            (f"INSERT OR REPLACE INTO wide(id, c0, c{WIDE - 1}) VALUES(?, ?, ?)", (key, room, long)),
            (f"UPDATE wide SET c{WIDE - 1} = ? WHERE id = ?", (room, key)),
        )))  # fmt: skip


WISHES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "a filter": [("narrow", {"room": 1})],
    "a filter on the last part": [("wide", {f"c{WIDE - 1}": 2})],
    "two tables": [("wide", {"c0": [0, 2]}), ("narrow", {"name": {"startswith": "y"}})],
    "a range": [("narrow", {"room": {"gte": 2}, "name": {"lt": "y"}})],
    "a prefix": [("narrow", {"name": {"startswith": "xx"}}), ("wide", {"c0": {"lte": 1}})],
    "everything of one": [("wide", {})],
    "only deletes": [("narrow", {"EventType": "delete"}), ("wide", {"EventType": ["create", "delete"], "c0": [1, 2]})],
    "only creates": [("narrow", {"EventType": "create", "room": 1})],
    "only updates": [("narrow", {"EventType": "update", "room": 1}), ("wide", {"EventType": "update"})],
    "only updates of the last part": [("wide", {"EventType": ["update", "delete"], f"c{WIDE - 1}": {"ne": 1}})],
}


@settings(max_examples=25)
@example(763, "a filter", 2, 1, 3, 0, 0.4)  # a long row before the first that is wanted
@given(
    seed=st.integers(0, 10**6),
    wish=st.sampled_from(sorted(WISHES)),
    rows=st.integers(1, 7),
    size=st.sampled_from((1, 2000, 1 << 20)),
    ids=st.sampled_from((3, 40, 10_000)),
    values=st.sampled_from((0, 1000)),
    seen=st.sampled_from((0.0, 0.4, 1.0)),
)
def test_pages_give_every_wanted_event_once(
    seed: int, wish: str, rows: int, size: int, ids: int, values: int, seen: float
) -> None:
    chance = random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Captured(Path(folder, "a.db"), DDL)) as file,
        pytest.MonkeyPatch.context() as small,
    ):
        small.setattr(replay, "PAGE_ROWS", rows)
        small.setattr(replay, "PAGE_BYTES", size)
        small.setattr(replay, "PAGE_IDS", ids)
        small.setattr("appliance.store.outbox.wanted.BOUND_VALUES", values)
        small.setattr(contents, "BLOCK", 4)
        write(file, chance, 60)
        shapes = watch.load_shapes(file.server)
        filters = {
            shape: compile_table(wanted, shape) if wanted else None
            for table, wanted in WISHES[wish]
            for shape in shapes.values()
            if shape.table == table
        }
        whole = decode(file.rows(), shapes, more=False).events
        after = chance.choice([0, *[each.id or 0 for each in whole]])
        upto = whole[-1].id or 0
        wanted = Wanted.any_of([Wanted.rows([pair]) for pair in filters.items()])
        known, written = Contents(), file.rows()
        begun = int(len(written) * (1 - seen))
        known.note(begun, written[begun:], upto, 0)

        def due(event: Change | Message) -> bool:
            if not isinstance(event, Change) or event.shape not in filters:
                return False
            row_filter = filters[event.shape]
            if row_filter is None:
                return True
            images = (image for image in (event.old, event.new) if image is not None)
            return event.op in row_filter.events and any(map(row_filter.admits, images))

        found: list[Change | Message] = []
        position = after
        while position < upto:
            page = replay.page(file.server, position, upto, wanted, shapes, known, complete=False)
            assert (page.trimmed, page.unknown, page.faults) == (False, False, ())
            assert page.end > position  # it comes to an end
            assert all(position < (event.id or 0) <= page.end for event in page.events)
            found += page.events
            position = page.end
        assert [each for each in found if due(each)] == [each for each in whole if (each.id or 0) > after and due(each)]
        # What came along is as it was, too: what an event means may rest on it.
        assert [each for each in found if each not in whole] == []


def test_a_row_that_was_replaced_comes_along_as_an_update(tmp_path: Path) -> None:
    with closing(Captured(tmp_path / "a.db", DDL)) as file:
        for statement in ("INSERT INTO narrow VALUES(1, 0, '')", "REPLACE INTO narrow VALUES(1, 1, '')"):
            file.writer.execute(statement)
        file.writer.execute("INSERT INTO narrow VALUES(2, 2, '')")
        shapes = watch.load_shapes(file.server)
        whole = decode(file.rows(), shapes, more=False).events
        (narrow,) = (shape for shape in shapes.values() if shape.table == "narrow")
        wanted = Wanted.rows([(narrow, compile_table({"room": 2}, narrow))])
        page = replay.page(file.server, 0, whole[-1].id or 0, wanted, shapes, Contents(), complete=True)
        assert page.events == whole[-len(page.events) :]
        assert whole[-1] in page.events


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_text_of_any_encoding_is_replayed_as_it_is_told(tmp_path: Path, encoding: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    chance = random.Random(1)
    texts = ["".join(chance.choices("a~\x7f\xffĀ\ud7ff\ue000\ufffd\U0001f600", k=2)) for _ in range(60)]
    path = tmp_path / "a.db"
    with closing(Captured(path, DDL, prepare=lambda db: db.execute(f"PRAGMA encoding='{encoding}'"))) as file:
        file.writer.executemany("INSERT INTO narrow(name) VALUES(?)", [(each,) for each in texts])
        shapes = watch.load_shapes(file.server)
        (shape,) = (each for each in shapes.values() if each.table == "narrow")
        written, known = file.rows(), Contents()
        known.note(0, written, len(written), 0)
        for operator, text in product(("gt", "gte", "lt", "lte", "eq", "startswith", "contains"), texts[:20]):
            asked = compile_table({"name": {operator: text}}, shape)
            wanted = Wanted.rows([(shape, asked)])
            page = replay.page(file.server, 0, len(written), wanted, shapes, known, complete=True)
            events = decode(written, shapes, more=False).events
            told = [each.id for each in events if asked.admits(each.new)]
            assert [each.id for each in page.events if asked.admits(each.new)] == told
            expression, parameters = asked.sql
            assert file.writer.execute(f"SELECT id FROM narrow WHERE {expression}", parameters).fetchall() == [
                each.new.values[:1] for each in events if asked.admits(each.new)
            ]


def test_a_page_from_before_what_is_kept_says_so_and_gives_nothing(tmp_path: Path) -> None:
    with closing(Captured(tmp_path / "a.db", DDL)) as file:
        write(file, random.Random(1), 60)
        shapes = watch.load_shapes(file.server)
        (highest,) = file.writer.execute("SELECT max(id) FROM _appliance_outbox").fetchone()
        retention.trim(file.writer, 30, 30)
        oldest, everything = schema.oldest(file.server), Wanted.everything(shapes.values())
        page = replay.page(file.server, oldest - 1, highest, everything, shapes, Contents(), complete=False)
        assert (page.trimmed, page.events, page.end) == (True, [], oldest - 1)
        assert not replay.page(file.server, oldest, highest, everything, shapes, Contents(), complete=False).trimmed


@pytest.mark.parametrize("ids", [[3], [2, 4, 7], [2, 3, 4, 5], [9, 2, 5, 1, 6]])
def test_rows_of_a_table_are_those_of_any_shape_that_it_has_had(ids: list[int]) -> None:
    wanted = Wanted.rows([(Shape(each, "t", (), ()), None) for each in ids])
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE _appliance_outbox(shape)")
        db.executemany("INSERT INTO _appliance_outbox VALUES(?)", [(None,), *((each,) for each in range(12))])
        found = db.execute(f"SELECT shape FROM _appliance_outbox WHERE {wanted.sql}", wanted.parameters).fetchall()
    assert [shape for (shape,) in found] == sorted(ids)


def test_rows_are_found_by_their_names_in_all_shapes_of_their_table(tmp_path: Path) -> None:
    with closing(Captured(tmp_path / "a.db", "CREATE TABLE t(a, k INTEGER PRIMARY KEY)")) as file:
        for number in range(40):
            file.writer.execute(f"ALTER TABLE t ADD c{number}")
            file.synchronise()
            file.writer.executemany("INSERT INTO t(k) VALUES(?)", [(100 * number + each,) for each in range(5)])
        shapes = watch.load_shapes(file.server)
        names = [100 * number + 3 for number in range(40)]
        wanted = Wanted.named([(shape, 1) for shape in shapes.values()], names)
        whole = decode(file.rows(), shapes, more=False).events
        pages = list(replay.pages(file.server, 0, whole[-1].id or 0, wanted, shapes, Contents()))
        found = [each for page in pages for each in page.events if isinstance(each, Change) and each.new is not None]

    assert len(shapes) == 41
    assert len(wanted.parameters) == len(names)
    assert {each.new.values[1] for each in found if each.new is not None} >= set(names)


def test_a_position_in_the_midst_of_an_event_is_not_kept_once_a_part_of_that_is_trimmed(tmp_path: Path) -> None:
    with closing(Captured(tmp_path / "a.db", DDL)) as file:
        file.writer.execute("INSERT INTO narrow VALUES(1, 0, '')")  # 1
        for room in (1, 2):
            file.writer.execute("UPDATE narrow SET room = ?", (room,))  # 2 and 3, 4 and 5
        shapes = watch.load_shapes(file.server)

        def resumed(after: int) -> bool | list[int | None]:
            everything = Wanted.everything(shapes.values())
            found = replay.page(file.server, after, 5, everything, shapes, Contents(), complete=True)
            return found.trimmed or [each.id for each in found.events]

        assert [resumed(after) for after in range(6)] == [[1, 3, 5], [3, 5], [3, 5], [5], [5], []]
        file.writer.execute("DELETE FROM _appliance_outbox WHERE id <= 2")
        assert [resumed(after) for after in range(6)] == [True, True, True, [5], [5], []]
