"""The operators of a filter on a user topic: the names of those on tables, over JSON instead of SQL.

Values compare as JSON, type included: 1 and 1.0 are the same number, ``true`` and 1 are not the same, ``"1"`` is no
number. A key that the message does not have counts as ``null``. Text is in the order of its code points.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from appliance.errors import BadFilter
from appliance.model import JSON
from appliance.protocol.json import identity
from appliance.protocol.operators import each_operator, listed
from appliance.protocol.wording import kind

Test: TypeAlias = Callable[[JSON], bool]


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key of the message.

    ``keys``, where it is not ``None``, says that only values whose ``json.identity`` is among them pass.
    """

    key: str
    test: Test
    keys: frozenset[Hashable] | None = None


def conditions(key: str, wanted: JSON) -> list[Condition]:
    """Compile what a filter wants of one key. Raises ``BadFilter``, naming the key."""
    return each_operator(key, wanted, OPERATORS, lambda name, operand: OPERATORS[name](key, operand))


def _any_of(key: str, operands: Sequence[JSON]) -> Condition:
    keys = frozenset(map(identity, operands))
    return Condition(key, lambda value: identity(value) in keys, keys)


def _none_of(key: str, operands: Sequence[JSON]) -> Condition:
    keys = frozenset(map(identity, operands))
    return Condition(key, lambda value: identity(value) not in keys)


def _ordering(relation: Callable[[Any, Any], bool]) -> Callable[[str, JSON], Condition]:
    def build(key: str, operand: JSON) -> Condition:
        if isinstance(operand, str):
            return Condition(key, lambda value: isinstance(value, str) and relation(value, operand))
        if isinstance(operand, (int, float)) and not isinstance(operand, bool):
            return Condition(
                key,
                lambda value: (
                    isinstance(value, (int, float)) and not isinstance(value, bool) and relation(value, operand)
                ),
            )
        raise BadFilter(f"takes a string or a number, this is {kind(operand)}")

    return build


def _contains(key: str, operand: JSON) -> Condition:
    text = _text(operand)
    return Condition(key, lambda value: isinstance(value, str) and text in value)


def _startswith(key: str, operand: JSON) -> Condition:
    text = _text(operand)
    return Condition(key, lambda value: isinstance(value, str) and value.startswith(text))


def _text(operand: JSON) -> str:
    if not isinstance(operand, str):
        raise BadFilter(f"takes a string, this is {kind(operand)}")
    return operand


def _null(key: str, operand: JSON) -> Condition:
    if operand is True:
        return Condition(key, lambda value: value is None, frozenset((None,)))
    if operand is False:
        return Condition(key, lambda value: value is not None)
    raise BadFilter(f"takes true or false, this is {kind(operand)}")


OPERATORS: dict[str, Callable[[str, JSON], Condition]] = {
    "eq": lambda key, x: _any_of(key, (x,)),
    "ne": lambda key, x: _none_of(key, (x,)),
    "gt": _ordering(operator.gt),
    "gte": _ordering(operator.ge),
    "lt": _ordering(operator.lt),
    "lte": _ordering(operator.le),
    "in": lambda key, x: _any_of(key, listed(x)),
    "nin": lambda key, x: _none_of(key, listed(x)),
    "contains": _contains,
    "startswith": _startswith,
    "null": _null,
}
