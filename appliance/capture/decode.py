"""Rows of the outbox to changes and messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from appliance.capture.outbox import LONG_TEXT, WIDTH, parts
from appliance.model import Affinity, Change, Image, Message, Op, Shape

#: ``id, shape, op, cut, v0 …``
_ID, _SHAPE, _OP, _CUT, _VALUES = 0, 1, 2, 3, 4
_WHOLE: frozenset[int] = frozenset()

#: As plain numbers: they are compared for each row.
_MORE, _CREATE, _UPDATE, _DELETE = int(Op.MORE), int(Op.CREATE), int(Op.UPDATE), int(Op.DELETE)
_MESSAGE, _BREAK, _GRANTS = int(Op.MESSAGE), int(Op.BREAK), int(Op.GRANTS)
_KINDS = (_CREATE, _UPDATE, _DELETE, _GRANTS)


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that says nothing. ``unknown_shape``: it might, once the shapes are read again."""

    id: int
    reason: str
    unknown_shape: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """What rows say. ``consumed`` rows are done with; an event whose rest is still to be read is not among them."""

    events: list[Change | Message] = field(default_factory=list)
    consumed: int = 0
    faults: list[Fault] = field(default_factory=list)


class _Layout(NamedTuple):
    """Where the values of one shape's images stand: ``span`` rows an image, and the last one's end if that is one.

    ``texts`` are the places of those that ``outbox.LONG_TEXT`` may stand for.
    """

    shape: Shape
    span: int
    end: int
    texts: frozenset[int]

    @classmethod
    def of(cls, shape: Shape) -> _Layout:
        width = shape.width
        texts = (place for place, each in enumerate(shape.columns) if each.affinity is Affinity.TEXT)
        return cls(shape, parts(width), _VALUES + width, frozenset(place + shape.rowid for place in texts))


def decode(rows: Sequence[tuple[Any, ...]], shapes: Mapping[int, Shape], *, more: bool) -> Decoded:
    """Decode rows as ``outbox.select_after`` selects them, in order.

    ``more``: there may be further rows, so that an event may be incomplete at the end. What cannot be decoded is a
    fault and stops nothing. Pure; about 1 µs an event.
    """
    events: list[Change | Message] = []
    faults: list[Fault] = []
    layouts: dict[Any, _Layout] = {}
    place, count = 0, len(rows)
    while place < count:
        row = rows[place]
        op = row[_OP]
        if op == _MESSAGE:
            message = _message(row)
            if message is None:
                faults.append(Fault(row[_ID], "it is no message: not a topic, a sender and JSON"))
            else:
                events.append(message)
            place += 1
            continue
        if op == _BREAK:
            place += 1
            continue
        layout = layouts.get(row[_SHAPE])
        if layout is None and (known := shapes.get(row[_SHAPE])) is not None:
            layout = layouts[row[_SHAPE]] = _Layout.of(known)
        if layout is None or op not in _KINDS:
            reason = f"there is no shape {row[_SHAPE]!r}" if layout is None else f"its op is {op!r}"
            faults.append(Fault(row[_ID], reason, layout is None))
            place += 1
            continue
        shape, span = layout.shape, layout.span
        joins: tuple[tuple[str, int], ...] = ()
        begin = place
        if op == _GRANTS:
            after = next((at for at in range(place, count) if rows[at][_OP] != _GRANTS), count)
            if after == count and more:
                break
            if after == count or rows[after][_OP] != _DELETE or rows[after][_SHAPE] != row[_SHAPE]:
                faults.append(Fault(rows[after - 1][_ID], "the delete that its groups belong to is missing"))
                place = after
                continue
            joins, place, op = _joins(rows[place:after]), after, _DELETE
        last = place + (2 * span if op == _UPDATE else span)
        if last > place + 1:
            broken = next((at for at in range(place + 1, min(last, count)) if rows[at][_OP] != _MORE), None)
            # The new image of a row that an insert has replaced is written as any inserted row is.
            if broken == place + span and op == _UPDATE and rows[broken][_SHAPE:_CUT] == (row[_SHAPE], _CREATE):
                broken = next((at for at in range(broken + 1, min(last, count)) if rows[at][_OP] != _MORE), None)
            if broken is not None or (last > count and not more):
                end = count if broken is None else broken
                faults.append(Fault(rows[end - 1][_ID], "its continuation is missing"))
                place = end
                continue
            if last > count:
                place = begin
                break
        event_id = rows[last - 1][_ID]
        if op == _CREATE:
            change = Change(event_id, Op.CREATE, shape, _image(rows, place, layout), None)
        elif op == _DELETE:
            change = Change(event_id, Op.DELETE, shape, None, _image(rows, place, layout), joins)
        else:
            old, new = _image(rows, place, layout), _image(rows, place + span, layout)
            if _same(old, new):  # a REPLACE by the very same values; the triggers tell no other such update
                place = last
                continue
            change = Change(event_id, Op.UPDATE, shape, new, old)
        events.append(change)
        place = last
    return Decoded(events, place, faults)


def _joins(rows: Sequence[tuple[Any, ...]]) -> tuple[tuple[str, int], ...]:
    """Give the groups and permissions of ``GRANTS`` rows; what is no group or no permission grants nothing."""
    pairs = [row[_VALUES : _VALUES + 2] for row in rows]
    return tuple((group, bits) for group, bits in pairs if isinstance(group, str) and isinstance(bits, int))


def _same(one: Image, other: Image) -> bool:
    """Whether two images are one to the bit. 1 and 1.0 are equal to Python; of a cut value nothing is known."""
    if one.values != other.values or one.rowid != other.rowid or one.cut or other.cut:
        return False
    return all(type(left) is type(right) for left, right in zip(one.values, other.values, strict=True))


def _message(row: tuple[Any, ...]) -> Message | None:
    """Give a message; ``None``: it is none. Ours have their body as bytes; text is of who writes here by hand."""
    topic, sender, body = row[_VALUES : _VALUES + 3]
    if not (isinstance(topic, str) and isinstance(sender, str)):
        return None
    if not isinstance(body, bytes) or not sender.isascii():
        try:
            sender.encode()
            if not isinstance(body, bytes):
                json.loads(body, parse_constant=_refuse)
                body = body.encode()
        except (TypeError, ValueError, RecursionError):
            return None
    return Message(row[_ID], topic, sender, body)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _image(rows: Sequence[tuple[Any, ...]], place: int, layout: _Layout) -> Image:
    shape, span, end, texts = layout
    cut = _WHOLE
    if span == 1:
        row = rows[place]
        values = row[_VALUES:end]
        if row[_CUT] or (texts and LONG_TEXT in values):
            values, cut = _cut([row], values, texts)
    else:
        own = rows[place : place + span]
        values = sum((row[_VALUES : _VALUES + WIDTH] for row in own), ())[: shape.width]
        if any(row[_CUT] for row in own) or (texts and LONG_TEXT in values):
            values, cut = _cut(own, values, texts)
    if not shape.rowid:
        return Image(values, None, cut)
    return Image(values[1:], cast(int, values[0]), frozenset(position - 1 for position in cut) if cut else _WHOLE)


def _cut(
    rows: Sequence[tuple[Any, ...]], values: tuple[Any, ...], texts: frozenset[int]
) -> tuple[tuple[Any, ...], frozenset[int]]:
    """Take out the values that were too long: a number stands for them, or an empty blob in a row that has any."""
    cut = frozenset(
        place
        for place, value in enumerate(values)
        if (value == LONG_TEXT and place in texts) or (value == b"" and rows[place // WIDTH][_CUT])
    )
    return tuple(None if place in cut else value for place, value in enumerate(values)), cut
