"""The operators of a filter on a table: each *is* one SQL expression under the column's own affinity and collation.

``OPERATORS`` is the reference: it holds the expression beside the function that builds it together with the Python
that answers the same without a database. In the expressions ``c`` is the column and ``x`` an operand.

* An operand in JSON is a string, a number, ``true`` or ``false`` (1 and 0; not beside a TEXT column), or ``null``
  where NULL can be meant. The column's affinity applies to it, as in SQL: ``"42"`` equals an INTEGER 42.
* ``gt gte lt lte`` compare only numbers with numbers or text with text, never across SQLite's storage classes.
* ``contains`` and ``startswith`` compare bytes, as ``instr`` does, whatever the collation.
* Two kinds of operand have two alternatives, of which either may match: beside a column without affinity a numeric
  string is the text or the number; beside a BOOLEAN column ``"true"`` and ``"false"`` are 1 and 0 or the text.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

from appliance.errors import BadFilter
from appliance.model import JSON, UTF_8, Affinity, Column, SQLiteValue, quote_identifier
from appliance.protocol.coercion import as_number, as_text, instr, text_bytes
from appliance.protocol.collations import COLLATIONS, equality_key, itself, text_order
from appliance.protocol.json import INTEGER_MAX, INTEGER_MIN
from appliance.protocol.wording import kind, quote, unknown

ITEMS_LIMIT = 256  # values in one list

C = TypeVar("C")
Test: TypeAlias = Callable[[SQLiteValue], bool]


class Stored(NamedTuple):
    """A condition on a value that stands without its column's affinity and collation, as in the outbox.

    ``{}`` in ``sql`` is the value. It is true wherever ``Condition.test`` is, and for a value that was cut (an empty
    blob there) wherever ``if_cut`` is. ``cheap``: what it mostly costs is one comparison. ``among``, where it is not
    ``None``: only values that equal one of these, to Python, pass the test. ``between``, where it is not ``None``: only
    values that are from the first to the second of one of these pairs, in SQLite's order without
    collation (of blobs only ``b""`` is said, for all).
    """

    sql: str
    parameters: tuple[SQLiteValue, ...] = ()
    cheap: bool = True
    among: tuple[SQLiteValue, ...] | None = None
    between: tuple[tuple[SQLiteValue, SQLiteValue], ...] | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on the column at ``position`` of the shape.

    ``sql`` is its expression with ``?`` for each of ``parameters``; ``test`` gives the same answer for a stored value.
    ``keys``, where it is not ``None``: those values pass whose ``equality_key`` is among them, and no others.
    ``if_cut`` is the answer for a value that was too long to be stored: what is known of it is that it is not NULL, and
    long.
    """

    position: int
    sql: str
    parameters: tuple[SQLiteValue, ...]
    test: Test
    stored: Stored
    keys: frozenset[Hashable] | None = None
    if_cut: bool = False


def conditions(column: Column, position: int, wanted: JSON) -> list[Condition]:
    """Compile what a filter wants of one column. Raises ``BadFilter``, naming the column."""
    if column.collation.upper() not in COLLATIONS:
        raise BadFilter(
            f"the column {quote(column.name)} has the collation {quote(column.collation)} of an application, "
            "whose order is not known here; it cannot be filtered by"
        )

    def build(name: str, operand: JSON) -> Condition:
        return OPERATORS[name].build(column, position, operand)

    return each_operator(column.name, wanted, OPERATORS, build)


def each_operator(name: str, wanted: JSON, known: Collection[str], build: Callable[[str, JSON], C]) -> list[C]:
    """Compile what a filter wants of one column or key: a value, a list of values, or operators with their operands.

    ``build`` compiles one of the ``known`` operators. Raises ``BadFilter``, naming the column or key.
    """
    if isinstance(wanted, list):
        wanted = {"in": wanted}
    elif not isinstance(wanted, dict):
        wanted = {"eq": wanted}
    if not wanted:
        raise BadFilter(f"the filter on {quote(name)} is empty; give it one of: {', '.join(known)}")
    found = []
    for operator_name, operand in wanted.items():
        if operator_name not in known:
            raise BadFilter(f"filter on {quote(name)}: {unknown(operator_name, 'an operator', known)}")
        try:
            found.append(build(operator_name, operand))
        except BadFilter as error:
            raise BadFilter(f"filter on {quote(name)}: {quote(operator_name)} {error.message}") from None
    return found


@dataclass(frozen=True, slots=True)
class Operator:
    """One row of the reference: the expression, what the operand must be, and how both are compiled."""

    sql: str
    takes: str
    build: Callable[[Column, int, JSON], Condition]


# --- operands -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Operand:
    """One alternative of an operand: as it is bound in SQL, and what the column's affinity makes of that."""

    bound: SQLiteValue
    value: SQLiteValue


def _alternatives(column: Column, operand: JSON) -> tuple[_Operand, ...]:
    if operand is None:
        return (_Operand(None, None),)
    if isinstance(operand, bool):
        if column.affinity is Affinity.TEXT:
            raise BadFilter(f"takes no {str(operand).lower()} here: the column holds text")
        return (_Operand(int(operand), int(operand)),)
    if isinstance(operand, str):
        return _text_alternatives(column, _clean(column, operand))
    if isinstance(operand, (int, float)):
        if isinstance(operand, float) and not math.isfinite(operand):
            raise BadFilter("takes no number that is not finite")
        if isinstance(operand, int) and not INTEGER_MIN <= operand <= INTEGER_MAX:
            raise BadFilter("takes no integer beyond 64 bits")
        return (_Operand(operand, as_text(operand) if column.affinity is Affinity.TEXT else operand),)
    raise BadFilter(f"takes strings, numbers, true, false and null, this is {kind(operand)}")


def _text_alternatives(column: Column, text: str) -> tuple[_Operand, ...]:
    if column.affinity is Affinity.TEXT:
        return (_Operand(text, text),)
    number = as_number(text)
    if column.affinity is Affinity.BLOB:
        as_is, untyped = _Operand(text, text), "BLOB" not in column.declared.upper()
        return (as_is, _Operand(number, number)) if untyped and number is not None else (as_is,)
    if column.boolean and text.lower() in _BOOLEANS:
        flag = _BOOLEANS[text.lower()]
        return (_Operand(text, text), _Operand(flag, flag))
    return (_Operand(text, text if number is None else number),)


_BOOLEANS = {"true": 1, "false": 0}


def _clean(column: Column, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadFilter("takes no half of a surrogate pair") from None
    # On its way into UTF-16 SQLite makes these two U+FFFD, in what is stored and in what is looked for.
    return text if column.encoding == UTF_8 else text.translate(_NO_CHARACTERS)


_NO_CHARACTERS = {0xFFFE: 0xFFFD, 0xFFFF: 0xFFFD}


# --- the operators ------------------------------------------------------------------------------------------------


def _any_of(column: Column, position: int, operands: Sequence[JSON]) -> Condition:
    sql, parameters, keys = _identities(column, operands, "IS", " OR ")
    key = equality_key(column)
    test: Test = keys.__contains__ if key is itself else lambda value: key(value) in keys
    values = tuple(each.value for operand in operands for each in _alternatives(column, operand))
    listed = f"{{}} COLLATE {column.collation} IN ({','.join('?' * len(values))})"
    stored = f"({listed} OR {{}} IS NULL)" if None in values else listed
    kept = Stored(stored, values, len(values) == 1, values if key is itself else None)
    return Condition(position, sql or "0", parameters, test, kept, keys=keys)


def _none_of(column: Column, position: int, operands: Sequence[JSON]) -> Condition:
    sql, parameters, keys = _identities(column, operands, "IS NOT", " AND ")
    key = equality_key(column)
    values = tuple(each.value for operand in operands for each in _alternatives(column, operand))
    stored = " AND ".join([f"{{}} COLLATE {column.collation} IS NOT ?"] * len(values)) or "1"
    kept = Stored(stored, values, len(values) == 1)
    return Condition(position, sql or "1", parameters, lambda value: key(value) not in keys, kept, if_cut=True)


def _identities(
    column: Column, operands: Sequence[JSON], relation: str, joint: str
) -> tuple[str, tuple[SQLiteValue, ...], frozenset[Hashable]]:
    found = [each for operand in operands for each in _alternatives(column, operand)]
    sql = joint.join([f"{quote_identifier(column.name)} {relation} ?"] * len(found))
    key = equality_key(column)
    return sql, tuple(each.bound for each in found), frozenset(key(each.value) for each in found)


def listed(operand: JSON) -> Sequence[JSON]:
    """Give the items of a list operand. Raises ``BadFilter``."""
    if not isinstance(operand, list):
        raise BadFilter(f"takes a list, this is {kind(operand)}")
    if len(operand) > ITEMS_LIMIT:
        raise BadFilter(f"takes a list of at most {ITEMS_LIMIT} values, this has {len(operand)}")
    return operand


def _ordering(sign: str, relation: Callable[[Any, Any], bool]) -> Callable[[Column, int, JSON], Condition]:
    def build(column: Column, position: int, operand: JSON) -> Condition:
        if operand is None:
            raise BadFilter('takes a string or a number; for NULL there is "null"')
        alternatives = _alternatives(column, operand)
        name = quote_identifier(column.name)
        expressions, tests, stored, between = [], [], [], []
        for each in alternatives:
            between.append(_stretch(column, sign, each.value))
            if isinstance(each.value, str):
                expressions.append(f"typeof({name}) = 'text' AND {name} {sign} ?")
                tests.append(_text_test(column, each.value))
                # SQLite's order is NULL, numbers, text, blobs: comparisons cost a tenth of what typeof does.
                beyond = "{} >= ''" if sign.startswith("<") else "{} < x''"
                stored.append(f"{{}} COLLATE {column.collation} {sign} ? AND {beyond}")
            else:
                expressions.append(f"typeof({name}) IN ('integer', 'real') AND {name} {sign} ?")
                tests.append(_number_test(each.value))
                stored.append(f"{{}} {sign} ?" if sign.startswith("<") else f"{{}} {sign} ? AND {{}} < ''")
        test = tests[0] if len(tests) == 1 else lambda value: any(each(value) for each in tests)
        return Condition(
            position,
            " OR ".join(expressions),
            tuple(each.bound for each in alternatives),
            test,
            Stored(f"({' OR '.join(stored)})", tuple(each.value for each in alternatives), between=tuple(between)),
        )

    def _text_test(column: Column, text: str) -> Test:
        order = text_order(column)
        bound = order(text)
        return lambda value: isinstance(value, str) and relation(order(value), bound)

    def _number_test(number: SQLiteValue) -> Test:
        return lambda value: isinstance(value, (int, float)) and relation(value, number)

    return build


def _stretch(column: Column, sign: str, value: SQLiteValue) -> tuple[SQLiteValue, SQLiteValue]:
    """Say from where to where values are that compare with one of their class like this."""
    least, beyond = ("", b"") if isinstance(value, str) else (-math.inf, math.inf)
    if isinstance(value, str) and (column.collation.upper() != "BINARY" or column.encoding != UTF_8):
        return least, beyond
    return (least, value) if sign.startswith("<") else (value, beyond)


def _search(column: Column, text: str, relation: Callable[[Any, Any], bool], places: range) -> Test:
    """Say whether ``instr`` finds the text in one of these places, which is where the relation holds."""
    needle, encoding = text.encode(), column.encoding

    def test(value: SQLiteValue) -> bool:
        if isinstance(value, str):
            return relation(value, text)  # UTF-8 synchronises itself: characters match where their bytes do
        if isinstance(value, bytes) and encoding != UTF_8:
            return instr(value, text, encoding) in places
        return value is not None and relation(text_bytes(value), needle)

    return test


def _contains(column: Column, position: int, operand: JSON) -> Condition:
    text = _text(column, operand)
    test = _search(column, text, operator.contains, range(1, 1 << 31))
    stored = Stored("instr({}, ?) > 0", (text,), cheap=False)
    return Condition(position, f"instr({quote_identifier(column.name)}, ?) > 0", (text,), test, stored)


def _startswith(column: Column, position: int, operand: JSON) -> Condition:
    text = _text(column, operand)
    test = _search(column, text, lambda value, needle: value.startswith(needle), range(1, 2))
    stored = Stored("instr({}, ?) = 1", (text,), cheap=False)
    if column.affinity is Affinity.TEXT and text and text[-1] < "\x7f":
        # No numbers here, only text and blobs, and comparisons cost less than a call. The bound behind differs in the
        # low byte of one ASCII character, so it is the greater in each of SQLite's encodings.
        behind = text[:-1] + chr(ord(text[-1]) + 1)
        within = "{} COLLATE BINARY >= ? AND ({} COLLATE BINARY < ? OR {} >= x'')"
        stored = Stored(f"{within} AND {stored.sql}", (text, behind, text), between=((text, behind), (b"", b"")))
    return Condition(position, f"instr({quote_identifier(column.name)}, ?) = 1", (text,), test, stored)


def _text(column: Column, operand: JSON) -> str:
    if not isinstance(operand, str):
        raise BadFilter(f"takes a string, this is {kind(operand)}")
    return _clean(column, operand)


def _null(column: Column, position: int, operand: JSON) -> Condition:
    name = quote_identifier(column.name)
    if operand is True:
        null = frozenset((None,))
        return Condition(position, f"{name} IS NULL", (), lambda value: value is None, Stored("{} IS NULL"), keys=null)
    if operand is False:
        there = Stored("{} IS NOT NULL")
        return Condition(position, f"{name} IS NOT NULL", (), lambda value: value is not None, there, if_cut=True)
    raise BadFilter(f"takes true or false, this is {kind(operand)}")


_VALUE = "a string, a number, true, false or null"
_ORDERED = "a string, a number, true or false"
_LIST = f"a list of at most {ITEMS_LIMIT} values"

OPERATORS: dict[str, Operator] = {
    "eq": Operator("c IS x", _VALUE, lambda column, at, x: _any_of(column, at, (x,))),
    "ne": Operator("c IS NOT x", _VALUE, lambda column, at, x: _none_of(column, at, (x,))),
    "gt": Operator("c > x, among numbers or among text", _ORDERED, _ordering(">", operator.gt)),
    "gte": Operator("c >= x, among numbers or among text", _ORDERED, _ordering(">=", operator.ge)),
    "lt": Operator("c < x, among numbers or among text", _ORDERED, _ordering("<", operator.lt)),
    "lte": Operator("c <= x, among numbers or among text", _ORDERED, _ordering("<=", operator.le)),
    "in": Operator("c IS x1 OR c IS x2 …", _LIST, lambda column, at, x: _any_of(column, at, listed(x))),
    "nin": Operator("c IS NOT x1 AND c IS NOT x2 …", _LIST, lambda column, at, x: _none_of(column, at, listed(x))),
    "contains": Operator("instr(c, x) > 0", "a string", _contains),
    "startswith": Operator("instr(c, x) = 1", "a string", _startswith),
    "null": Operator("c IS NULL for true, c IS NOT NULL for false", "true or false", _null),
}
