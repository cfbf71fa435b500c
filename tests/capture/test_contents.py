"""What is known of the outbox's blocks: nothing that may be wanted is left out, and little else is looked at."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.capture import contents
from appliance.capture.contents import Contents, Having, Kind, in_order, one_of, within
from appliance.model import Op

KINDS: list[tuple[Kind | None, tuple[Any, ...]]] = [
    (1, (1, int(Op.CREATE), None)),
    (2, (2, int(Op.MORE), None)),
    (3, (3, int(Op.GRANTS), None)),
    ("news", (None, int(Op.MESSAGE), None)),
    (None, (None, int(Op.BREAK), None)),
]
VALUES: list[Any] = [None, 0, 1, -1, 1.0, 2.5, "a", "A", b"a", "a" * 70, 1 << 62, "é", "\udca9", "\U0001f600", "\uffff"]


def row(place: int, kind: int, value: Any = None) -> tuple[Any, ...]:
    return (place, *KINDS[kind][1], "NEWS" if KINDS[kind][0] == "news" else value, value)


def rows(first: int, kinds: list[int]) -> list[tuple[Any, ...]]:
    return [row(first + place, kind) for place, kind in enumerate(kinds)]


def left(known: Contents, after: int, upto: int, *sought: Kind | tuple[Kind, Having]) -> list[int]:
    """Give the ids that are still to be looked at, for rows of kinds, or for those of a kind that have something."""
    asked = [(each[0], (each[1],)) if isinstance(each, tuple) else (each, ()) for each in sought]
    found = list(known.stretches(after, upto, tuple(asked)))
    assert all(one < other for one, other in pairwise([place for stretch in found for place in stretch]))
    assert not found or (found[0][0] >= after and found[-1][1] <= upto)
    return [each for begun, last in found for each in range(begun + 1, last + 1)]


def is_wanted(value: Any, wish: Wish) -> bool:
    match wish:
        case None:
            return True
        case list():
            return value in wish
        case low, high:
            return value is not None and in_order(low) <= in_order(value) <= in_order(high)


def having(wish: Wish) -> tuple[Having, ...]:
    match wish:
        case None:
            return ()
        case list():
            return (one_of(1, wish),)
        case low, high:
            return (within(1, [(low, high)]),)


#: Any row, one with one of these values, one with a value from the first to the second of these.
Wish: TypeAlias = "list[Any] | tuple[Any, Any] | None"
THERE = [value for value in VALUES if value is not None]
WISH = st.none() | st.lists(st.sampled_from(VALUES), max_size=3) | st.tuples(*[st.sampled_from(THERE)] * 2)
A_ROW = st.tuples(st.integers(0, len(KINDS) - 1), st.sampled_from(VALUES))
LOOKS = st.lists(
    st.tuples(
        st.lists(A_ROW, max_size=12),
        st.sampled_from((0, 0, 0, 1, 9)),
        st.sampled_from((0, contents.TOGETHER_BYTES + 1)),
    ),
    max_size=30,
)


@given(
    looks=LOOKS,
    begun=st.integers(0, 20),
    wanted=st.lists(st.tuples(st.sampled_from([1, 2, 3]), WISH) | st.tuples(st.just("news"), st.none()), max_size=3),
    after=st.integers(0, 100),
    beyond=st.integers(0, 5),
    columns=st.sampled_from((0, 2, 64)),
)
def test_nothing_that_may_be_wanted_is_left_out(
    looks: list[tuple[list[tuple[int, Any]], int, int]],
    begun: int,
    wanted: list[tuple[Kind, Wish]],
    after: int,
    beyond: int,
    columns: int,
) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(contents, "BLOCK", 4)
        small.setattr(contents, "LEAST", 8)
        small.setattr(contents, "COLUMNS", columns)
        kept: dict[int, bytes] = {}
        known, end, there = Contents(keep=kept.__setitem__), begun, dict[int, tuple[Kind | None, Any]]()
        for look, lost, size in looks:
            end += lost  # rows that were trimmed before anybody saw them
            seen = [row(end + 1 + place, kind, value) for place, (kind, value) in enumerate(look)]
            known.note(end, seen, end + len(seen), size)
            there |= {each[0]: (KINDS[kind][0], value) for each, (kind, value) in zip(seen, look, strict=True)}
            end += len(seen)
        upto = max(after, end + beyond)

        def is_due(place: int) -> bool:
            kind, value = there.get(place, (None, None))
            unseen = place <= begun or place > end
            return unseen or any(kind == each and is_wanted(value, wish) for each, wish in wanted)

        due = {place for place in range(after + 1, upto + 1) if is_due(place)}
        sought = tuple((kind, having(wish)) for kind, wish in wanted)
        known.keep()
        for each in known, Contents(kept):  # and what is known at the next start
            stretches = each.stretches(after, upto, sought)
            assert due <= {place for one, last in stretches for place in range(one + 1, last + 1)}


def test_of_which_kinds_a_blocks_rows_are_is_kept_for_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    kept: list[tuple[int, bytes]] = []
    known = Contents(keep=lambda number, kinds: kept.append((number, kinds)))
    known.note(0, rows(1, [0, 0, 1, 0, 0]), 5, 0)
    beside = known.another()  # of the survey, say
    beside.note(7, rows(8, [0, 0, 3, 0, 4]), 12, 0)
    known.note(5, rows(6, [0, 0, 0, 0]), 9, 0)
    assert not kept
    known.keep()
    beside.keep()
    known.keep()
    # These very bits, in any process: hashes of texts are others in each.
    bits = {1: [23, 156], 2: [77, 149], "news": [16, 19]}
    assert [
        (number, [bit for bit in range(8 * contents.KINDS) if kinds[bit // 8] >> bit % 8 & 1]) for number, kinds in kept
    ] == [
        (0, sorted(bits[1] + bits[2])),
        (1, bits[1]),
        (2, sorted(bits[1] + bits["news"])),
    ]
    again = Contents(dict(kept))
    assert left(again, 0, 11, 2) == [1, 2, 3]
    assert left(again, 0, 11, "news") == [8, 9, 10, 11]
    assert left(again, 0, 11, 3) == []
    assert left(again, 0, 11, (1, one_of(1, ["none has this"]))) == [*range(1, 12)]  # of their values nothing is known
    assert left(again, 0, 13, 3) == [12, 13]
    monkeypatch.setattr(contents, "BLOCKS", 2)
    assert left(Contents(dict(kept)), 0, 11, 3) == [1, 2, 3]  # the newest are remembered


def test_only_blocks_that_may_hold_something_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    known.note(0, rows(1, [0, 0, 1, 0, 0]), 5, 0)
    known.note(5, rows(6, [0, 0, 3, 0, 4, 0, 0]), 12, 0)
    assert left(known, 0, 11, 2) == [1, 2, 3]
    assert left(known, 0, 11, "news") == [8, 9, 10, 11]
    assert left(known, 4, 11, 2) == left(known, 0, 11, 3) == left(known, 0, 11) == []
    assert left(known, 0, 11, 2, "news") == [1, 2, 3, 8, 9, 10, 11]
    assert left(known, 0, 12, 3) == [12]  # of a block that is not yet at its end nothing is known
    assert list(known.stretches(3, 12, None)) == [(3, 12)]


def test_a_block_without_a_value_that_each_wanted_row_has_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    known.note(0, [row(place, 0, f"value {place % 5} {place}") for place in range(1, 17)], 16, 0)

    def leaves(*values: str) -> list[int]:
        return left(known, 0, 15, (1, one_of(1, values)))

    assert leaves("value 0 5") == leaves("value 0 5", "value 0 6", "value 9") == [4, 5, 6, 7]
    assert leaves("value 1", "value 0 6", "value 0 7", "value 0 9") == []
    assert left(known, 0, 15, (2, one_of(1, ["value 0 5"]))) == []
    assert left(known, 0, 15, (1, one_of(7, ["value 0 5"]))) == []  # there is no such place in these rows
    assert left(known, 0, 15, (1, one_of(1, ["value 0 5"])), (1, one_of(0, ["value 0 15"]))) == [
        4,
        5,
        6,
        7,
        *range(12, 16),
    ]
    assert list(known.stretches(0, 15, ((1, (one_of(1, ["value 0 5", "value 4 9"]),)),))) == [(3, 11)]


def test_a_block_whose_values_are_all_before_or_behind_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    values = [None, 1, 2, 3, 4.5, 5, 6, -7, None, None, None, None, "x" * 99, "y", "z", b""]
    known.note(0, [row(place, 0, value) for place, value in enumerate(values, 1)], 16, 0)

    def leaves(low: Any, high: Any) -> list[int]:
        return left(known, 0, 15, (1, within(1, [(low, high)])))

    assert leaves(2, 2) == [1, 2, 3]
    assert leaves(3, "") == leaves(3.5, math.inf) == [4, 5, 6, 7]
    assert leaves(-math.inf, 0) == [8, 9, 10, 11]
    assert leaves(7, 9) == leaves("a", "w") == []
    assert leaves("xx", "xy") == leaves("a", b"") == [12, 13, 14, 15]


def test_rows_of_which_more_is_read_than_of_those_before_are_taken_note_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    known.note(0, [row(1, 0, "a")], 1, 0)
    known.note(1, [(*row(2, 1, "a"), 5), (*row(3, 1, "a"), 7), (*row(4, 1, "a"), 7)], 4, 0)
    assert left(known, 0, 3, (2, one_of(2, [7]))) == left(known, 0, 3, (1, one_of(1, ["a"]))) == [1, 2, 3]
    assert left(known, 0, 3, (2, one_of(2, [8]))) == left(known, 0, 3, (1, one_of(2, [7]))) == []


def test_of_a_hundred_values_that_are_not_there_few_blocks_are_thought_to_have_one() -> None:
    known, chance = Contents(), random.Random(1)
    count = 100 * contents.BLOCK
    for first in range(1, count, 1000):
        some = [
            (place, 1, 1, None, *(chance.randbytes(8).hex() for _ in range(4))) for place in range(first, first + 1000)
        ]
        known.note(first - 1, some, first + 999, 0)
    absent = one_of(2, [chance.randbytes(8).hex() for _ in range(100)])
    assert len(left(known, 0, 99 * contents.BLOCK, (1, absent))) < 40 * contents.BLOCK


def test_of_a_block_that_was_not_seen_whole_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    known.note(5, rows(6, [0] * 8), 13, 0)  # as by a server that began at position 5
    assert left(known, 0, 15, 2) == [1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15]
    known.note(20, rows(21, [0] * 8), 28, 0)
    assert left(known, 0, 28, 2) == [*range(1, 8), *range(12, 24), 28]


def test_the_oldest_blocks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    monkeypatch.setattr(contents, "BLOCKS", 3)
    known = Contents()
    for first in range(1, 25):
        known.note(first - 1, rows(first, [0]), first, 0)
    assert left(known, 0, 23, 2) == [*range(1, 12)]
    known.another().note(3, rows(4, [0] * 8), 11, 0)  # whoever reads what is older takes no newer one's place
    assert left(known, 0, 23, 2) == [*range(1, 12)]


def test_two_who_read_in_different_places_take_note_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    older = known.another()
    known.note(9, rows(10, [0] * 3), 12, 0)
    older.note(0, rows(1, [0] * 6), 6, 0)
    known.note(12, rows(13, [0] * 4), 16, 0)
    older.note(6, rows(7, [0] * 3), 9, 0)
    assert left(known, 0, 19, 2) == left(older, 0, 19, 2) == [8, 9, 10, 11, 16, 17, 18, 19]
