"""Filters: which events of a topic a subscriber wants, compiled once, when it subscribes.

Keys are ANDed, and so are the operators of one key. ``EventType`` says which events; any other key is a column of
the table (``operators``), or a top-level key of the message (``message_operators``). Column names compare without
ASCII case, as in SQL. ``EventType`` is never a column: a column of that name can be had in another case.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass

from appliance.errors import BadFilter
from appliance.model import JSON, Image, Op, Shape, SQLiteValue, ascii_fold
from appliance.protocol import message_operators, operators
from appliance.protocol.wording import kind, nearest, quote, unknown

KEYS_LIMIT = 32  # keys of one filter

_TABLE_EVENTS = {"create": Op.CREATE, "update": Op.UPDATE, "delete": Op.DELETE}
_EVERY = frozenset(_TABLE_EVENTS.values())
_MESSAGE_EVENTS = {"new-message": Op.MESSAGE}


@dataclass(frozen=True, slots=True)
class RowFilter:
    """The compiled filter of a subscription to a table.

    ``equalities`` are pairs of a position in ``Shape.columns`` and a set of keys, never empty: a row can match only if
    for *each* pair ``operators.equality_key(column)(value)`` is in the set. Necessary, not sufficient – ``matches``
    decides – so that a hub may index by any one of them. None are given when the filter names no values.
    """

    events: frozenset[Op]
    conditions: tuple[operators.Condition, ...]
    equalities: tuple[tuple[int, frozenset[Hashable]], ...]
    _tests: tuple[tuple[int, operators.Test], ...]

    def matches(self, op: Op, image: Image) -> bool:
        """Say whether an event passes. ``image`` is the row as it now is, or as it was for a delete."""
        return op in self.events and self.admits(image)

    def admits(self, image: Image) -> bool:
        """Say whether a row passes, whatever has happened to it."""
        values = image.values
        if image.cut:
            return all(
                each.if_cut if each.position in image.cut else each.test(values[each.position])
                for each in self.conditions
            )
        for position, test in self._tests:  # noqa: SIM110 - a generator would cost more than the tests
            if not test(values[position]):
                return False
        return True

    @property
    def is_equality(self) -> bool:
        """Whether the one pair in ``equalities`` is sufficient, too, for any event and any value that was not cut."""
        return self.events == _EVERY and len(self.conditions) == len(self.equalities) == 1

    @property
    def sql(self) -> tuple[str, tuple[SQLiteValue, ...]]:
        """The same filter, but for ``EventType``, as an expression for a WHERE on the table, and its parameters."""
        expression = " AND ".join(f"({each.sql})" for each in self.conditions) or "1"
        return expression, tuple(value for each in self.conditions for value in each.parameters)


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """The compiled filter of a subscription to a user topic.

    ``equalities`` are pairs of a key of the message and a set: a message can match only if for each pair
    ``json.identity`` of its value there (``None`` where it has none) is in the set, which is never empty. Necessary,
    not sufficient.
    """

    conditions: tuple[message_operators.Condition, ...]
    equalities: tuple[tuple[str, frozenset[Hashable]], ...]

    def matches(self, message: JSON) -> bool:
        """Say whether a message passes. One that is not an object has no keys."""
        fields = message if isinstance(message, dict) else {}
        return all(each.test(fields.get(each.key)) for each in self.conditions)


def compile_table(filters: dict[str, JSON], shape: Shape, hidden: Collection[str] = ()) -> RowFilter:
    """Compile the filters of a subscription to a table.

    ``hidden`` names columns, of ``shape`` or not, that this subscriber may not filter by. Raises ``BadFilter``, naming
    the key at fault, and nothing else.
    """
    _check_size(filters)
    folded = frozenset(map(ascii_fold, hidden))
    events = _EVERY
    conditions: list[operators.Condition] = []
    for name, wanted in filters.items():
        if name == "EventType":
            events = _events(wanted, _TABLE_EVENTS)
        else:
            position = _position(name, shape, folded)
            conditions += operators.conditions(shape.columns[position], position, wanted)
    return RowFilter(
        events=events,
        conditions=tuple(conditions),
        equalities=tuple((each.position, each.keys) for each in conditions if each.keys),
        _tests=tuple((each.position, each.test) for each in conditions),
    )


def compile_message(filters: dict[str, JSON]) -> MessageFilter:
    """Compile the filters of a subscription to a user topic. Raises ``BadFilter`` and nothing else."""
    _check_size(filters)
    conditions: list[message_operators.Condition] = []
    for name, wanted in filters.items():
        if name == "EventType":
            _events(wanted, _MESSAGE_EVENTS)
        else:
            conditions += message_operators.conditions(name, wanted)
    return MessageFilter(
        conditions=tuple(conditions),
        equalities=tuple((each.key, each.keys) for each in conditions if each.keys),
    )


def _check_size(filters: dict[str, JSON]) -> None:
    if len(filters) > KEYS_LIMIT:
        raise BadFilter(f"a filter has at most {KEYS_LIMIT} keys, this has {len(filters)}")


def _events(wanted: JSON, known: dict[str, Op]) -> frozenset[Op]:
    names = wanted if isinstance(wanted, list) else [wanted]
    listed = ", ".join(known)
    if not names:
        raise BadFilter(f'"EventType" lists nothing, so no event could pass; it is one or more of: {listed}')
    found = set()
    for name in names:
        if not isinstance(name, str):
            raise BadFilter(f'"EventType" is one or a list of: {listed}; this is {kind(name)}')
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {quote(near)}?" if near else f"there are: {listed}"
            raise BadFilter(f'"EventType": no event here is called {quote(name)}; {hint}')
        found.add(known[name])
    return frozenset(found)


def _position(name: str, shape: Shape, hidden: Collection[str]) -> int:
    folded = ascii_fold(name)
    if folded in hidden:
        raise BadFilter(f"the column {quote(name)} of {quote(shape.table)} is not sent, so it cannot be filtered by")
    for position, column in enumerate(shape.columns):
        if ascii_fold(column.name) == folded:
            return position
    known = (each.name for each in shape.columns if ascii_fold(each.name) not in hidden)
    raise BadFilter(unknown(name, f"a column of {quote(shape.table)} to filter by", known))
