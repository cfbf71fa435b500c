"""What is known of the outbox's blocks: nothing that may be wanted is left out, and little else is looked at."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.capture import contents
from appliance.capture.contents import Contents, Kind
from appliance.model import Op

KINDS: list[tuple[Kind | None, tuple[Any, ...]]] = [
    (1, (1, int(Op.CREATE), None, "news")),
    (2, (2, int(Op.MORE), None, None)),
    (3, (3, int(Op.GRANTS), None, "group")),
    ("news", (None, int(Op.MESSAGE), None, "NEWS")),
    (None, (None, int(Op.BREAK), None, None)),
]


def rows(first: int, kinds: list[int]) -> list[tuple[Any, ...]]:
    return [(first + place, *KINDS[kind][1]) for place, kind in enumerate(kinds)]


def left(known: Contents, after: int, upto: int, *kinds: Kind) -> list[int]:
    """Give the ids that are still to be looked at."""
    found = list(known.stretches(after, upto, frozenset(kinds)))
    assert all(one < other for one, other in pairwise([place for stretch in found for place in stretch]))
    assert not found or (found[0][0] >= after and found[-1][1] <= upto)
    return [each for begun, last in found for each in range(begun + 1, last + 1)]


@given(
    looks=st.lists(
        st.tuples(st.lists(st.integers(0, len(KINDS) - 1), max_size=12), st.sampled_from((0, 0, 0, 1, 9))), max_size=30
    ),
    begun=st.integers(0, 20),
    wanted=st.frozensets(st.sampled_from([kind for kind, _ in KINDS if kind is not None])),
    after=st.integers(0, 100),
    beyond=st.integers(0, 5),
)
def test_nothing_that_may_be_wanted_is_left_out(
    looks: list[tuple[list[int], int]], begun: int, wanted: frozenset[Kind], after: int, beyond: int
) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(contents, "BLOCK", 4)
        known, end, there = Contents(), begun, {each: {*wanted} for each in range(begun + 1)}
        for kinds, lost in looks:
            end += lost  # rows that were trimmed before anybody saw them
            known.note(end, rows(end + 1, kinds), end + len(kinds))
            for place, kind in enumerate(kinds):
                there[end + 1 + place] = {KINDS[kind][0]}
            end += len(kinds)
        upto = max(after, end + beyond)
        due = {each for each in range(after + 1, upto + 1) if each > end or there.get(each, set()) & wanted}
        assert due <= set(left(known, after, upto, *wanted))


def test_only_blocks_that_may_hold_something_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    known.note(0, rows(1, [0, 0, 1, 0, 0]), 5)
    known.note(5, rows(6, [0, 0, 3, 0, 4]), 10)
    assert left(known, 0, 10, 2) == [1, 2, 3]
    assert left(known, 0, 10, "news") == [8, 9, 10]
    assert left(known, 4, 10, 2) == left(known, 0, 10, 3) == left(known, 0, 10) == []
    assert left(known, 0, 10, 2, "news") == [1, 2, 3, 8, 9, 10]
    assert list(known.stretches(3, 10, None)) == [(3, 10)]


def test_of_a_block_that_was_not_seen_whole_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    known = Contents()
    known.note(5, rows(6, [0] * 8), 13)  # as by a server that began at position 5
    assert left(known, 0, 13, 2) == [1, 2, 3, 4, 5, 6, 7]
    assert left(known, 8, 15, 2) == [12, 13, 14, 15]  # the last rows are another process's, and not seen yet
    known.note(20, rows(21, [0] * 8), 28)
    assert left(known, 0, 28, 2) == [*range(1, 24)]


def test_the_oldest_blocks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK", 4)
    monkeypatch.setattr(contents, "BLOCKS", 3)
    known = Contents()
    for first in range(1, 24):
        known.note(first - 1, rows(first, [0]), first)
    assert left(known, 0, 23, 2) == [*range(1, 12)]
