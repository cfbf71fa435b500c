"""The filters of user topics: values compare as JSON, type included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import BadFilter
from appliance.protocol.filters import compile_message
from appliance.protocol.json import identity
from appliance.protocol.message_operators import OPERATORS
from appliance.protocol.operators import OPERATORS as TABLE_OPERATORS

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["a", "ab", "1", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["k", "eq", "in", "b"]), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


def test_the_operators_have_the_same_names_as_those_on_tables() -> None:
    assert list(OPERATORS) == list(TABLE_OPERATORS)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({}, 5),
        ({"EventType": "new-message"}, {"a": 1}),
        ({"EventType": ["new-message"], "a": 1}, {"a": 1.0}),
        ({"a": "x"}, {"a": "x", "b": 2}),
        ({"a": ["x", 2]}, {"a": 2}),
        ({"a": None}, {}),
        ({"a": None}, "text"),
        ({"a": {"ne": 1}}, {"a": True}),
        ({"a": {"nin": [1, "1"]}}, [1]),
        ({"a": {"eq": {"k": [1, True]}}}, {"a": {"k": [1.0, True]}}),
        ({"a": [[1, 2]]}, {"a": [1, 2]}),
        ({"a": {"gt": 1, "lte": 2}}, {"a": 2}),
        ({"a": {"gte": "b"}}, {"a": "b"}),
        ({"a": {"contains": "b"}}, {"a": "abc"}),
        ({"a": {"startswith": "ab"}}, {"a": "abc"}),
        ({"a": {"null": False}}, {"a": 0}),
    ],
)
def test_these_messages_pass(filters: dict[str, object], message: object) -> None:
    assert compile_message(filters).matches(message)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": True}, {"a": 1}),
        ({"a": "1"}, {"a": 1}),
        ({"a": 1}, {"A": 1}),
        ({"a": 1}, 1),
        ({"a": []}, {"a": 1}),
        ({"a": {"gt": 0}}, {"a": True}),
        ({"a": {"gt": 0}}, {"a": "1"}),
        ({"a": {"contains": "b"}}, {"a": ["b"]}),
        ({"a": 1, "b": 2}, {"a": 1}),
    ],
)
def test_these_messages_do_not_pass(filters: dict[str, object], message: object) -> None:
    assert not compile_message(filters).matches(message)


@pytest.mark.parametrize(
    "filters",
    [
        {"EventType": "create"}, {"EventType": []}, {"a": {}}, {"a": {"gt": None}}, {"a": {"gt": True}},
        {"a": {"in": 1}},
        {"a": {"like": "x"}}, {"a": {"contains": 1}}, {"a": {"null": None}}, {"a": [0] * 257},
        dict.fromkeys(map(str, range(33)), 1),
    ],
)  # fmt: skip
def test_bad_filters_are_refused(filters: dict[str, object]) -> None:
    with pytest.raises(BadFilter):
        compile_message(filters)


@given(st.dictionaries(st.sampled_from(["a", "EventType"]), JSON_VALUES), JSON_VALUES)
def test_any_json_compiles_or_is_a_bad_filter_and_equalities_are_necessary(
    filters: dict[str, object], value: object
) -> None:
    try:
        compiled = compile_message(filters)
    except BadFilter:
        return
    for message in ({"a": value}, value):
        if compiled.matches(message):
            fields = message if isinstance(message, dict) else {}
            assert all(identity(fields.get(key)) in keys for key, keys in compiled.equalities)
