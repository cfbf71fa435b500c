"""Rows of the outbox to events: every branch, and that nothing whatever stops it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.capture.decode import Decoded, Fault, decode
from appliance.capture.outbox import LONG_TEXT, WIDTH
from appliance.model import Affinity, Change, Column, Image, Message, Op, Shape

Row = tuple[Any, ...]


def shape(number: int, width: int, *, rowid: bool = False) -> Shape:
    columns = tuple(Column(f"c{place}", "", Affinity.BLOB) for place in range(width))
    return Shape(number, f"t{number}", columns, () if rowid else (0,), rowid)


NARROW, KEYLESS, WIDE, BRIM = shape(1, 2), shape(2, 2, rowid=True), shape(3, WIDTH + 2), shape(4, WIDTH - 1, rowid=True)
EMPTY = shape(5, 0)
SHAPES = {each.id: each for each in (NARROW, KEYLESS, WIDE, BRIM, EMPTY)}


def row(number: int, shape: Any, op: Any, *values: Any, cut: Any = None) -> Row:
    return (number, shape, op, cut, *values, *[None] * (WIDTH - len(values)))


def test_a_create_an_update_and_a_delete() -> None:
    rows = [row(4, 1, 1, "a", 1), row(5, 1, 2, "a", 1), row(6, 1, 0, "a", 2), row(7, 1, 3, "a", 2)]
    decoded = decode(rows, SHAPES, more=False)
    assert decoded.events == [
        Change(4, Op.CREATE, NARROW, Image(("a", 1)), None),
        Change(6, Op.UPDATE, NARROW, Image(("a", 2)), Image(("a", 1))),
        Change(7, Op.DELETE, NARROW, None, Image(("a", 2))),
    ]
    assert (decoded.consumed, decoded.faults) == (4, [])


def test_a_rowid_stands_before_the_columns() -> None:
    (event,) = decode([row(1, 2, 1, 99, "a", "b")], SHAPES, more=False).events
    assert event == Change(1, Op.CREATE, KEYLESS, Image(("a", "b"), 99), None)


def test_an_image_that_is_too_wide_goes_on_in_the_next_row() -> None:
    old, new = tuple(range(WIDTH + 2)), tuple(range(100, 102 + WIDTH))
    rows = [
        row(1, 3, 2, *old[:WIDTH]), row(2, 3, 0, *old[WIDTH:]), row(3, 3, 0, *new[:WIDTH]), row(4, 3, 0, *new[WIDTH:]),
    ]  # fmt: skip
    assert decode(rows, SHAPES, more=False).events == [Change(4, Op.UPDATE, WIDE, Image(new), Image(old))]


def test_a_create_behind_an_updates_old_image_is_its_new_one() -> None:
    old, new = tuple(range(WIDTH + 2)), tuple(range(100, 102 + WIDTH))
    rows = [
        row(1, 1, 2, "a", 1), row(2, 1, 1, "a", 2), row(3, 1, 1, "b", 3),
        row(4, 3, 2, *old[:WIDTH]), row(5, 3, 0, *old[WIDTH:]), row(6, 3, 1, *new[:WIDTH]), row(7, 3, 0, *new[WIDTH:]),
    ]  # fmt: skip
    assert decode(rows, SHAPES, more=False) == Decoded([
        Change(2, Op.UPDATE, NARROW, Image(("a", 2)), Image(("a", 1))),
        Change(3, Op.CREATE, NARROW, Image(("b", 3)), None),
        Change(7, Op.UPDATE, WIDE, Image(new), Image(old)),
    ], 7, [])  # fmt: skip
    for there in range(3, 6):
        assert decode(rows[:there], SHAPES, more=True).consumed == 3
    broken = decode([*rows[3:6], row(7, 1, 1, "c", 4)], SHAPES, more=False)
    assert (broken.faults, [event.id for event in broken.events]) == ([Fault(6, "its continuation is missing")], [7])


def test_an_image_that_just_fits_is_one_row() -> None:
    values = tuple(range(WIDTH - 1))
    (event,) = decode([row(1, 4, 3, 7, *values)], SHAPES, more=False).events
    assert event == Change(1, Op.DELETE, BRIM, None, Image(values, 7))


def test_a_value_that_was_cut_is_told_from_an_empty_one() -> None:
    (event, other) = decode([row(1, 1, 1, "a", b"", cut=1), row(2, 1, 1, "a", b"")], SHAPES, more=False).events
    assert isinstance(event, Change)
    assert isinstance(other, Change)
    assert event.new == Image(("a", None), None, frozenset({1}))
    assert other.new == Image(("a", b""))


def test_a_cut_value_is_counted_from_the_columns_also_behind_a_rowid_and_in_a_later_part() -> None:
    (event,) = decode([row(1, 2, 1, 5, b"", "b", cut=1)], SHAPES, more=False).events
    assert isinstance(event, Change)
    assert event.new == Image((None, "b"), 5, frozenset({0}))
    first = [b"", *range(1, WIDTH)]
    (event,) = decode([row(1, 3, 1, *first), row(2, 3, 0, b"", b"x", cut=1)], SHAPES, more=False).events
    assert isinstance(event, Change)
    assert event.new is not None
    assert event.new.cut == {WIDTH}
    assert (event.new.values[0], event.new.values[WIDTH:]) == (b"", (None, b"x"))


@pytest.mark.parametrize(("declared", "is_cut"), [("TEXT", True), ("", False), ("INTEGER", False)])
def test_a_number_stands_for_a_long_value_where_there_is_none_otherwise(declared: str, is_cut: bool) -> None:
    columns = (Column("n", "INTEGER", Affinity.INTEGER), Column("c", declared, Affinity.of(declared)))
    for shape in (Shape(1, "t", columns, key=(0,)), Shape(1, "t", columns, key=(), rowid=True)):
        rowid = LONG_TEXT if shape.rowid else None
        values = [LONG_TEXT] * (2 + shape.rowid)
        (event,) = decode([row(1, 1, 1, *values)], {1: shape}, more=False).events
        assert isinstance(event, Change)
        image = Image((LONG_TEXT, None), rowid, frozenset({1})) if is_cut else Image((LONG_TEXT, LONG_TEXT), rowid)
        assert event.new == image


def test_a_cut_old_image_leaves_the_new_one_whole() -> None:
    rows = [row(1, 1, 2, "a", b"", cut=1), row(2, 1, 0, "a", b"")]
    (event,) = decode(rows, SHAPES, more=False).events
    assert isinstance(event, Change)
    assert (event.old, event.new) == (Image(("a", None), None, frozenset({1})), Image(("a", b"")))


def test_messages_stand_between_changes() -> None:
    rows = [row(1, None, 4, "topic", "sender", b"{}", "key"), row(2, 1, 1, "a", 1), row(3, None, 4, "t", "s", "[]")]
    first, _, last = decode(rows, SHAPES, more=False).events
    assert (first, last) == (Message(1, "topic", "sender", b"{}"), Message(3, "t", "s", b"[]"))


@pytest.mark.parametrize(
    "values",
    [
        (), (b"t", "s", b"1"), ("t", 1, b"1"), ("t", "s"), ("t", "s", 1.5), ("t", "s", "no JSON"), ("t", "s", "NaN"),
        ("t", "s", "'\udcff'"), ("t", "s", '"\udcff"'), ("t", "\udcff", b"1"), ("t", "s", "[" * 100_000),
    ],
)  # fmt: skip
def test_what_is_no_message_is_a_fault_and_stops_nothing(values: tuple[Any, ...]) -> None:
    decoded = decode([row(1, None, 4, *values), row(2, None, 4, "t", "\xe4", b"1")], SHAPES, more=False)
    assert decoded.events == [Message(2, "t", "\xe4", b"1")]
    assert [fault.id for fault in decoded.faults] == [1]


def test_a_row_of_an_unknown_shape_is_a_fault_and_stops_nothing() -> None:
    decoded = decode([row(1, 77, 1, "x"), row(2, 77, 0, "x"), row(3, 1, 1, "a", 1)], SHAPES, more=False)
    assert [event.id for event in decoded.events] == [3]
    assert [(fault.id, fault.unknown_shape) for fault in decoded.faults] == [(1, True), (2, True)]


def test_a_break_is_no_event_and_no_fault() -> None:
    decoded = decode([row(1, None, 5), row(2, 1, 1, "a", 1), row(3, None, 5)], SHAPES, more=False)
    assert (len(decoded.events), decoded.consumed, decoded.faults) == (1, 3, [])


@pytest.mark.parametrize("op", [0, 7, None, "1", b"", 1.5])
def test_a_row_of_no_kind_is_a_fault(op: Any) -> None:
    decoded = decode([row(1, 1, op, "x"), row(2, 1, 1, "a", 1)], SHAPES, more=False)
    assert (len(decoded.events), decoded.consumed) == (1, 2)
    assert decoded.faults == [Fault(1, f"its op is {op!r}")]


def test_what_comes_instead_of_a_continuation_is_not_lost() -> None:
    rows = [row(1, 1, 2, "a", 1), row(2, 4, 1, 7), row(3, 3, 1, 0), row(4, None, 4, "t", "s", b"1")]
    decoded = decode(rows, SHAPES, more=False)
    assert [event.id for event in decoded.events] == [2, 4]
    assert decoded.faults == [Fault(1, "its continuation is missing"), Fault(3, "its continuation is missing")]
    assert decoded.consumed == 4


@pytest.mark.parametrize("there", [1, 2, 3])
def test_an_event_whose_rest_is_still_to_be_read_is_left(there: int) -> None:
    event = [row(2, 3, 2), row(3, 3, 0), row(4, 3, 0, "new"), row(5, 3, 0)]
    rows = [row(1, 1, 1, "a", 1), *event[:there]]
    decoded = decode(rows, SHAPES, more=True)
    assert ([each.id for each in decoded.events], decoded.consumed, decoded.faults) == ([1], 1, [])
    whole = decode([*event, row(6, 1, 1, "b", 1)], SHAPES, more=True)
    assert [each.id for each in whole.events] == [5, 6]


def test_an_update_that_changed_nothing_to_the_bit_is_no_event() -> None:
    same = [row(1, 1, 2, "a", 1), row(2, 1, 0, "a", 1)]
    assert decode(same, SHAPES, more=False) == Decoded([], 2, [])
    for new in (1.0, True):
        (event,) = decode([row(1, 1, 2, "a", 1), row(2, 1, 0, "a", new)], SHAPES, more=False).events
        assert event.id == 2
    (event,) = decode([row(1, 1, 2, "a", b"", cut=1), row(2, 1, 0, "a", b"", cut=1)], SHAPES, more=False).events
    assert event.id == 2  # of values that are too long nothing is known


def test_an_event_whose_rest_will_never_come_is_a_fault() -> None:
    decoded = decode([row(1, 1, 1, "a", 1), row(2, 3, 2), row(3, 3, 0)], SHAPES, more=False)
    assert ([each.id for each in decoded.events], decoded.consumed) == ([1], 3)
    assert decoded.faults == [Fault(3, "its continuation is missing")]


def test_a_table_of_which_nothing_may_be_captured_still_has_events() -> None:
    (event,) = decode([row(1, 5, 1)], SHAPES, more=False).events
    assert event == Change(1, Op.CREATE, EMPTY, Image(()), None)


CELLS = st.one_of(st.none(), st.integers(-2, 6), st.floats(), st.text(max_size=3), st.binary(max_size=3))
ROWS = st.lists(
    st.tuples(CELLS, CELLS, CELLS, CELLS, st.lists(CELLS, min_size=WIDTH, max_size=WIDTH)).map(
        lambda made: (*made[:4], *made[4])
    ),
    max_size=12,
)


@given(ROWS, st.booleans())
def test_nothing_whatever_in_the_outbox_stops_decoding(rows: list[Row], more: bool) -> None:
    decoded = decode(rows, SHAPES, more=more)
    assert decoded.consumed <= len(rows)
    assert more or decoded.consumed == len(rows)
    assert not more or len(rows) - decoded.consumed < 4  # the parts of the widest event


@given(st.lists(st.sampled_from(["narrow", "wide", "message"]), max_size=8), st.integers(1, 20))
def test_events_are_the_same_however_the_reading_is_divided(kinds: list[str], size: int) -> None:
    rows: list[Row] = []
    for kind in kinds:
        at = len(rows) + 1
        if kind == "narrow":
            rows.append(row(at, 1, 1, at, at))
        elif kind == "message":
            rows.append(row(at, None, 4, "t", "s", b"1"))
        else:
            rows += [row(at, 3, 2, at), row(at + 1, 3, 0), row(at + 2, 3, 0, at), row(at + 3, 3, 0)]
    events, place = [], 0
    limit = size
    while place < len(rows):
        batch = rows[place : place + limit]
        decoded = decode(batch, SHAPES, more=len(batch) == limit)
        assert decoded.faults == []
        events += decoded.events
        place += decoded.consumed
        limit = limit * 2 if not decoded.consumed else size
    assert events == decode(rows, SHAPES, more=False).events
