"""Rows as they stand on the wire.

``EventData`` of a row is ``__type`` (the table) first, then the columns in the table's order, then, where they
apply, ``__lossy`` and ``__truncated``. A row is sent as its columns are: a column that has one of these three names
stands for itself, and the marker of that name is left out – a key never stands twice.

=============================  =======================================================================
stored                         sent
=============================  =======================================================================
INTEGER                        a number with all its digits; beyond ±(2^53-1) as configured
REAL                           the shortest number that reads back the same (``5.0``, ``0.1``)
infinite REAL                  ``{"$real":"Infinity"}``, ``{"$real":"-Infinity"}``
TEXT                           a string; what is not UTF-8 as U+FFFD, and the column named in ``__lossy``
BLOB                           ``{"$blob":"<base64>"}``
NULL                           ``null``
0, 1 in a BOOLEAN column       ``false``, ``true``
TEXT in a JSON column          the value it holds, if ``json.decode`` reads it, otherwise a string
=============================  =======================================================================
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from appliance.errors import BadJson
from appliance.model import JSON, Image, Shape, SQLiteValue
from appliance.protocol.json import decode, encode

EVENT_LIMIT = 1 << 20  # bytes of one row's EventData, unless configured otherwise
EXACT_INTEGER = (1 << 53) - 1  # beyond it a reader that has only doubles (JavaScript) sees another number

_STRUCT_COLUMNS = 100  # of a row that is encoded as a struct: a class is made for each shape
_PLANS_LIMIT = 4096  # shapes remembered; a plan is made again in microseconds


@dataclass(frozen=True, slots=True)
class ValueOptions:
    """How a server sends values.

    ``big_integers``: how integers beyond ``EXACT_INTEGER`` go, as a number or as a string. ``event_limit``: bytes
    of one row's ``EventData``; a longer row is sent as its key columns and ``"__truncated":true``.
    """

    big_integers: Literal["number", "string"] = "number"
    event_limit: int = EVENT_LIMIT


def row(image: Image, shape: Shape, options: ValueOptions) -> bytes:
    """Encode a row as ``EventData``.

    At most ``options.event_limit`` bytes, but for a table whose bare name is longer: a row that would be longer, or
    that has cut values, is its key columns and ``"__truncated":true``; without the key columns if these are cut or
    too long themselves.
    """
    plan = _plan_of(shape)
    if not image.cut:
        try:
            encoded = plan.whole(image.values, options)
        except UnicodeEncodeError:
            encoded = encode(plan.whole_lossy(image.values, options))
        if len(encoded) <= options.event_limit:
            return encoded
    encoded = encode(plan.truncated(image, options))
    if len(encoded) <= options.event_limit:
        return encoded
    return encode({"__type": plan.table, "__truncated": True})


def changes(old: Image, new: Image, shape: Shape, options: ValueOptions) -> bytes:
    """Encode the former values of the columns that are another now, to the bit, as ``OldData``.

    A value that was cut is left out and ``"__truncated":true`` says so; so it does, alone, when what would be sent is
    longer than ``options.event_limit``.
    """
    plan = _plan_of(shape)
    found: dict[str, JSON] = {}
    truncated = False
    for position, (was, now) in enumerate(zip(old.values, new.values, strict=True)):
        if position in old.cut:
            truncated = True
        elif position in new.cut or was != now or type(was) is not type(now):
            found[plan.names[position]] = plan.value(position, was, options)
    if truncated:
        found.setdefault("__truncated", True)
    encoded = encode(found)
    return encoded if len(encoded) <= options.event_limit else encode({"__truncated": True})


def wire(image: Image, shape: Shape, options: ValueOptions) -> dict[str, JSON]:
    """Give a row's ``EventData`` as a value: what ``row`` encodes, read back."""
    value: dict[str, JSON] = msgspec.json.decode(row(image, shape, options))
    return value


def key(image: Image, shape: Shape, options: ValueOptions) -> bytes | None:
    """Encode a row's ``Key``, the list of its primary key's values.

    ``None`` when the shape has no key that can be sent, when a value of it was cut, or when it is longer than
    ``options.event_limit`` bytes.
    """
    number = image.rowid if shape.rowid else _plan_of(shape).number(image.values)
    if type(number) is int and (options.big_integers == "number" or abs(number) <= EXACT_INTEGER):
        encoded = b"[%d]" % number  # most keys there are
        return encoded if len(encoded) <= options.event_limit else None
    if shape.rowid:
        values: Sequence[JSON] = _sent((image.rowid,), options)
    elif not shape.key or not image.cut.isdisjoint(shape.key):
        return None
    else:
        values = _plan_of(shape).key(image.values, options)
    encoded = encode(list(values))
    return encoded if len(encoded) <= options.event_limit else None


def table(shape: Shape) -> bytes:
    """Encode the name of a shape's table."""
    return _plan_of(shape).encoded_table


class _Plan:
    """What encoding the rows of one shape needs to know, found out once."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.table = legible(shape.table)
        self.encoded_table = encode(self.table)
        self.names = tuple(legible(column.name) for column in shape.columns)
        self.fields = ("__type", *self.names)
        self.booleans = tuple(i for i, column in enumerate(shape.columns) if column.boolean)
        self.jsons = tuple(i for i, column in enumerate(shape.columns) if column.json)
        plain = len(shape.key) == 1 and shape.key[0] not in self.booleans
        self._plain_key = shape.key[0] if plain else None
        self._struct = self._as_struct()

    def _as_struct(self) -> type[msgspec.Struct] | None:
        """Make a row into a struct, which is encoded in two thirds of a dict's time; ``None`` where it cannot be one.

        That is where a name would have to be escaped or is ``__type`` itself.
        """
        if len(self.names) > _STRUCT_COLUMNS:
            return None
        fields = [(f"v{position}", Any) for position in range(len(self.names))]
        renamed = {field: name for (field, _), name in zip(fields, self.names, strict=True)}
        try:
            return msgspec.defstruct("Row", fields, rename=renamed, tag_field="__type", tag=self.table, gc=False)
        except ValueError:
            return None

    def whole(self, values: Sequence[SQLiteValue], options: ValueOptions) -> bytes:
        """Encode the whole row. Raises ``UnicodeEncodeError`` for text that is not UTF-8."""
        sent = self._interpreted(values, _sent(values, options))
        if self._struct is not None:
            return encode(self._struct(*sent))
        return encode(dict(zip(self.fields, (self.table, *sent), strict=True)))

    def number(self, values: Sequence[SQLiteValue]) -> SQLiteValue:
        """Give the key's value if the key is one column that is sent as it is; ``None`` also where it was cut."""
        return values[self._plain_key] if self._plain_key is not None else None

    def key(self, values: Sequence[SQLiteValue], options: ValueOptions) -> Sequence[JSON]:
        """Give the values of the primary key."""
        return [self.value(position, values[position], options) for position in self.shape.key]

    def whole_lossy(self, values: Sequence[SQLiteValue], options: ValueOptions) -> dict[str, JSON]:
        """Give the whole row, with U+FFFD where text is not UTF-8."""
        sent = self._interpreted(values, _sent(tuple(map(_legible_value, values)), options))
        data: dict[str, JSON] = dict(zip(self.fields, (self.table, *sent), strict=True))
        return self._marked(data, range(len(values)), values)

    def truncated(self, image: Image, options: ValueOptions) -> dict[str, JSON]:
        """Give a row's key columns, as far as they were not cut."""
        data: dict[str, JSON] = {"__type": self.table}
        kept = [position for position in sorted(self.shape.key) if position not in image.cut]
        for position in kept:
            data[self.names[position]] = self.value(position, image.values[position], options)
        self._marked(data, kept, image.values)
        data.setdefault("__truncated", True)
        return data

    def value(self, position: int, value: SQLiteValue, options: ValueOptions) -> JSON:
        """Give one column's value."""
        (sent,) = _sent((_legible_value(value),), options)
        if position in self.booleans:
            return _boolean(value, sent)
        if position in self.jsons:
            return _json(value, sent)
        return sent

    def _interpreted(self, values: Sequence[SQLiteValue], sent: Sequence[JSON]) -> Sequence[JSON]:
        if self.booleans or self.jsons:
            sent = list(sent)
            for position in self.booleans:
                sent[position] = _boolean(values[position], sent[position])
            for position in self.jsons:
                sent[position] = _json(values[position], sent[position])
        return sent

    def _marked(
        self, data: dict[str, JSON], positions: Sequence[int], values: Sequence[SQLiteValue]
    ) -> dict[str, JSON]:
        lossy: list[JSON] = [
            self.names[position] for position in positions if _legible_value(values[position]) != values[position]
        ]
        if lossy:
            data.setdefault("__lossy", lossy)
        return data


# By identity: hashing a shape hashes all its columns, which takes longer than encoding a row. A plan holds its shape,
# so an id cannot be given to another one while its entry stands.
_plans: dict[int, _Plan] = {}


def _plan_of(shape: Shape) -> _Plan:
    plan = _plans.get(id(shape))
    if plan is None:
        if len(_plans) >= _PLANS_LIMIT:
            _plans.clear()
        plan = _plans[id(shape)] = _Plan(shape)
    return plan


_PLAIN = frozenset((int, str, type(None)))  # types whose values encode as they are
_FINITE = _PLAIN | {float}  # and one whose values do if they are finite


def _sent(values: Sequence[SQLiteValue], options: ValueOptions) -> Sequence[JSON]:
    """Give stored values as JSON, whatever their columns mean; text is left as it is."""
    as_strings = options.big_integers == "string"
    if not as_strings and _is_plain(values):
        return values  # type: ignore[return-value]
    sent: list[JSON] = []
    for value in values:
        if isinstance(value, float) and math.isinf(value):
            sent.append({"$real": "Infinity" if value > 0 else "-Infinity"})
        elif isinstance(value, bytes):
            sent.append({"$blob": base64.b64encode(value).decode("ascii")})
        elif as_strings and isinstance(value, int) and not -EXACT_INTEGER <= value <= EXACT_INTEGER:
            sent.append(str(value))
        else:
            sent.append(value)
    return sent


def _is_plain(values: Sequence[SQLiteValue]) -> bool:
    """Whether all values encode as they are."""
    if _PLAIN.issuperset(map(type, values)):
        return True
    reals = [each for each in values if type(each) is float]
    return _FINITE.issuperset(map(type, values)) and not any(map(math.isinf, reals))


def _boolean(value: SQLiteValue, sent: JSON) -> JSON:
    return value == 1 if isinstance(value, int) and value in (0, 1) else sent


def _json(value: SQLiteValue, sent: JSON) -> JSON:
    if not isinstance(value, str):
        return sent
    try:
        return decode(value)
    except BadJson:
        return sent


def _legible_value(value: SQLiteValue) -> SQLiteValue:
    return legible(value) if isinstance(value, str) else value


def legible(text: str) -> str:
    """Replace the bytes that are not UTF-8, which ``surrogateescape`` keeps as lone surrogates, by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
