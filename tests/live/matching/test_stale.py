"""Whose rights some events may have changed."""

from __future__ import annotations

import pytest

from appliance.live.matching.stale import Stale, stale
from appliance.live.matching.telling import Told
from appliance.model import Affinity, Change, Column, Image, Op, Shape
from appliance.store.tables.standard import USER_ACCOUNT, join_table

ACCOUNT = "reference_id"
MEMBER = "user_account_id"


@pytest.mark.parametrize(
    ("table", "column", "subjects"),
    [
        (USER_ACCOUNT, ACCOUNT, frozenset({"ann"})),
        (USER_ACCOUNT, "name", None),
        (join_table(USER_ACCOUNT), MEMBER, frozenset({"ann"})),
        (join_table(USER_ACCOUNT), ACCOUNT, None),
    ],
)
def test_a_change_that_does_not_name_whom_it_concerns_concerns_everybody(
    table: str, column: str, subjects: frozenset[str] | None
) -> None:
    shape = Shape(1, table, (Column(column, "TEXT", Affinity.TEXT),), (0,), standard=True)
    gone = Told(Change(1, Op.DELETE, shape, None, Image(("ann",))))
    assert stale([gone]) == Stale(subjects)
