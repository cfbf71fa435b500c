"""What a row became is judged by what has become of it since, so that no transaction's midst is shown to anybody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from appliance.live.matching import course
from appliance.live.matching.access import Access, Reader
from appliance.live.matching.course import Course
from appliance.live.matching.facts import Facts
from appliance.live.matching.telling import Told
from appliance.model import Affinity, Change, Column, Image, Op, Principal, Shape
from appliance.protocol.permissions import OWNER_SHIFT, Guarded, Verb
from appliance.store.access.grants import TableGrant, TableKind

SHAPE = Shape(1, "item", tuple(Column(name, "", Affinity.BLOB) for name in ("k", "owner")), key=(0,))
OWNERS = Guarded(Verb.PEEK | Verb.READ << OWNER_SHIFT)


class Rights(Access):
    """The rights of one plain table whose rows are their owners'."""

    def __init__(self) -> None:
        self._granted = {"item": TableGrant("item", TableKind.PLAIN, OWNERS, owner_column="owner")}


def row(owner: str, key: Any = 1) -> Image:
    return Image((key, owner))


async def decided(*steps: tuple[Image | None, Image | None]) -> tuple[Access, list[Change], Facts]:
    """Give what is known of these changes, which come together."""
    changes = [
        Change(number, Op.CREATE if old is None else Op.DELETE if new is None else Op.UPDATE, SHAPE, new, old)
        for number, (old, new) in enumerate(steps)
    ]
    rights = Rights()
    told = [Told(each) for each in changes]
    course = Course(("item",), rights.grant)
    course.add(told)
    course.end()
    return rights, changes, await rights.facts(told, ("item",), (), {"item": SHAPE}, course)


async def shown(*steps: tuple[Image | None, Image | None]) -> list[tuple[str, str]]:
    """Give who may see the old and the new image of each of these changes, which come together."""
    rights, changes, facts = await decided(*steps)
    return [(_who(rights, each, each.old, facts), _who(rights, each, each.new, facts)) for each in changes]


async def bereft(*steps: tuple[Image | None, Image | None]) -> dict[int, tuple[str, str]]:
    """Say by which of these changes it is told that a row is gone, to whom of these, but not of those."""
    _, _, facts = await decided(*steps)
    return {number: (_readers(each.before), _readers(each.gone)) for number, each in facts.closed.items()}


def _who(rights: Access, change: Change, image: Image | None, facts: Facts) -> str:
    return _readers(None if image is None else rights.guard(change, image, facts))


def _readers(guard: Guarded | None) -> str:
    people: Sequence[str] = "abc"
    return "".join(
        each
        for each in people
        if guard is not None
        and Reader(Principal("us", each, admin=False, expires_at=0), frozenset()).may(Verb.READ, guard)
    )


async def test_a_row_that_is_given_to_another_at_once_is_shown_to_that_one_only() -> None:
    assert await shown((None, row("a")), (row("a"), row("b"))) == [("", ""), ("", "b")]
    assert await shown((None, row("a"))) == [("", "a")]


async def test_who_had_a_row_before_is_shown_that_it_is_gone() -> None:
    assert await shown((row("a"), row("b")), (row("b"), row("c"))) == [("a", ""), ("", "c")]
    assert await shown((row("a"), row("b")), (row("b"), row("a"))) == [("a", ""), ("", "a")]


async def test_what_is_made_readable_and_deleted_at_once_is_shown_to_nobody_new() -> None:
    assert await shown((row("a"), row("b")), (row("b"), None)) == [("a", ""), ("", "")]
    assert await shown((row("a"), row("a")), (row("a"), None)) == [("a", "a"), ("a", "")]


async def test_who_had_a_row_before_it_was_given_away_and_deleted_is_told_by_the_first_of_that() -> None:
    assert await bereft((row("a"), row("b")), (row("b"), row("c")), (row("c"), None)) == {0: ("a", "")}
    assert await bereft((row("a"), row("a")), (row("a"), None)) == {}  # he is told as it happens
    assert await bereft((row("a"), row("b")), (row("b"), row("a")), (row("a"), None)) == {}
    assert await bereft((None, row("a")), (row("a"), row("b")), (row("b"), None)) == {}
    assert await bereft((row("a"), row("b")), (row("b"), row("b"))) == {}


async def test_a_row_that_comes_and_goes_is_told_to_whose_it_was() -> None:
    assert await shown((None, row("a")), (row("a"), None)) == [("", "a"), ("a", "")]


async def test_a_row_that_is_somebody_elses_only_between_its_coming_and_its_going_is_told_to_nobody() -> None:
    assert await shown((None, row("b")), (row("b"), row("a")), (row("a"), None)) == [("", ""), ("", ""), ("", "")]


async def test_another_row_under_the_same_key_is_another_row() -> None:
    changes = ((row("a"), None), (None, row("b")), (row("b"), None), (None, row("c")))
    assert await shown(*changes) == [("a", ""), ("", "b"), ("b", ""), ("", "c")]


async def test_rows_without_a_key_are_told_apart() -> None:
    changes = ((row("a", None), row("c", None)), (row("b", None), row("a", None)))
    assert await shown(*changes) == [("a", "c"), ("b", "a")]
    assert await shown((None, row("a", None)), (row("a", None), row("b", None))) == [("", ""), ("", "b")]


async def test_a_row_is_the_same_under_another_key() -> None:
    changes = ((row("a"), row("a", 2)), (row("a", 2), row("b", 2)), (None, row("c")))
    assert await shown(*changes) == [("a", ""), ("", "b"), ("", "c")]


async def test_a_row_that_is_changed_often_is_judged_once_by_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    judge = course.guard_of
    monkeypatch.setattr(course, "guard_of", lambda *given: asked.append(given) or judge(*given))
    updates = [Change(number, Op.UPDATE, SHAPE, row("b"), row("a")) for number in range(500)]
    grant = TableGrant("item", TableKind.PLAIN, OWNERS, owner_column="owner")
    of_it = Course(("item",), lambda table: grant)
    of_it.add(map(Told, updates))
    of_it.end()
    assert of_it.last == dict.fromkeys(range(500), Guarded(OWNERS.permission, "b"))
    assert of_it.between == set(range(1, 500))
    assert len(asked) == 2  # what it was before, too
