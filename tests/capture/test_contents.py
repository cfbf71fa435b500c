"""What is known of the outbox's blocks: nothing that may be wanted is left out, and little else is looked at."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.capture import contents
from appliance.capture.contents import Contents, Kind, signs
from appliance.model import Op

KINDS: list[tuple[Kind | None, tuple[Any, ...]]] = [
    (1, (1, int(Op.CREATE), None)),
    (2, (2, int(Op.MORE), None)),
    (3, (3, int(Op.GRANTS), None)),
    ("news", (None, int(Op.MESSAGE), None)),
    (None, (None, int(Op.BREAK), None)),
]
VALUES: list[Any] = [None, 0, 1, -1, 1.0, 2.5, "a", "A", b"a", "a" * 70, 1 << 62]


def row(place: int, kind: int, value: Any = None) -> tuple[Any, ...]:
    return (place, *KINDS[kind][1], "NEWS" if KINDS[kind][0] == "news" else value, value)


def rows(first: int, kinds: list[int]) -> list[tuple[Any, ...]]:
    return [row(first + place, kind) for place, kind in enumerate(kinds)]


def left(known: Contents, after: int, upto: int, *sought: Kind | tuple[Kind, list[Any]]) -> list[int]:
    """Give the ids that are still to be looked at, for rows of kinds, or for those of a kind that have some values."""
    asked = [(each[0], tuple(signs([value]) for value in each[1])) if isinstance(each, tuple) else (each, ())
             for each in sought]  # fmt: skip
    found = list(known.stretches(after, upto, tuple(asked)))
    assert all(one < other for one, other in pairwise([place for stretch in found for place in stretch]))
    assert not found or (found[0][0] >= after and found[-1][1] <= upto)
    return [each for begun, last in found for each in range(begun + 1, last + 1)]


A_ROW = st.tuples(st.integers(0, len(KINDS) - 1), st.sampled_from(VALUES))
LOOKS = st.lists(st.tuples(st.lists(A_ROW, max_size=12), st.sampled_from((0, 0, 0, 1, 9))), max_size=30)


@given(
    looks=LOOKS,
    begun=st.integers(0, 20),
    wanted=st.lists(st.tuples(st.sampled_from([1, 2, 3, "news"]), st.none() | st.sampled_from(VALUES)), max_size=3),
    after=st.integers(0, 100),
    beyond=st.integers(0, 5),
)
def test_nothing_that_may_be_wanted_is_left_out(
    looks: list[tuple[list[tuple[int, Any]], int]],
    begun: int,
    wanted: list[tuple[Kind, Any]],
    after: int,
    beyond: int,
) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(contents, "BLOCK", 4)
        small.setattr(contents, "PLACES", 64)
        known, end, there = Contents(), begun, dict[int, tuple[Kind | None, Any]]()
        for look, lost in looks:
            end += lost  # rows that were trimmed before anybody saw them
            seen = [row(end + 1 + place, kind, value) for place, (kind, value) in enumerate(look)]
            known.note(end, seen, end + len(seen))
            there |= {each[0]: (KINDS[kind][0], value) for each, (kind, value) in zip(seen, look, strict=True)}
            end += len(seen)
        upto = max(after, end + beyond)
        sought = [kind if value is None else (kind, [value]) for kind, value in wanted]

        def is_due(place: int) -> bool:
            kind, value = there.get(place, (None, None))
            unseen = place <= begun or place > end
            return unseen or any(kind == each and (wish is None or wish == value) for each, wish in wanted)

        due = {place for place in range(after + 1, upto + 1) if is_due(place)}
        assert due <= set(left(known, after, upto, *sought))


def test_only_blocks_that_may_hold_something_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    known.note(0, rows(1, [0, 0, 1, 0, 0]), 5)
    known.note(5, rows(6, [0, 0, 3, 0, 4, 0, 0]), 12)
    assert left(known, 0, 11, 2) == [1, 2, 3]
    assert left(known, 0, 11, "news") == [8, 9, 10, 11]
    assert left(known, 4, 11, 2) == left(known, 0, 11, 3) == left(known, 0, 11) == []
    assert left(known, 0, 11, 2, "news") == [1, 2, 3, 8, 9, 10, 11]
    assert left(known, 0, 12, 3) == [12]  # of a block that is not yet at its end nothing is known
    assert list(known.stretches(3, 12, None)) == [(3, 12)]


def test_a_block_without_a_value_that_each_wanted_row_has_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    known.note(0, [row(place, 0, f"value {place}") for place in range(1, 17)], 16)
    assert left(known, 0, 15, (1, ["value 5"])) == [4, 5, 6, 7]
    assert left(known, 0, 15, (1, ["value 5", "value 6"])) == [4, 5, 6, 7]
    assert left(known, 0, 15, (1, ["value 5", "value 9"])) == left(known, 0, 15, (2, ["value 5"])) == []
    assert left(known, 0, 15, (1, ["value 5"]), (1, ["value 15"])) == [4, 5, 6, 7, 12, 13, 14, 15]
    either = ((1, (signs(["value 5", "value 9"]),)),)
    assert list(known.stretches(0, 15, either)) == [(3, 11)]


def test_of_a_block_that_was_not_seen_whole_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    known.note(5, rows(6, [0] * 8), 13)  # as by a server that began at position 5
    assert left(known, 0, 15, 2) == [1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15]
    known.note(20, rows(21, [0] * 8), 28)
    assert left(known, 0, 28, 2) == [*range(1, 24), 28]


def test_the_oldest_blocks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    monkeypatch.setattr(contents, "BLOCKS", 3)
    known = Contents()
    for first in range(1, 25):
        known.note(first - 1, rows(first, [0]), first)
    assert left(known, 0, 23, 2) == [*range(1, 12)]
