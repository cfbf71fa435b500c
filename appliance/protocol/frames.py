"""What a client is sent: one JSON text for one reply, event or notice, in the seed's envelope and key order.

The functions give the text of a WebSocket frame. One event's text is shared by all who get it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from appliance.errors import RequestError
from appliance.model import JSON, Change, Image, Message, Op, Shape
from appliance.protocol.json import encode
from appliance.protocol.values import ValueOptions, changes, key, row, table

#: What each operation on a row is called on the wire.
EVENT_TYPES: dict[Op, str] = {Op.CREATE: "create", Op.UPDATE: "update", Op.DELETE: "delete"}

_ROW_HEADS = {
    op: f'{{"MessageSource":"database","EventType":"{name}","ObjectType":'.encode() for op, name in EVENT_TYPES.items()
}


def response(object_type: str, data: JSON, id: str | int | float | None = None) -> bytes:  # noqa: A002
    """Answer a request that was done; ``data`` is its ``EventData``."""
    return _reply("response", object_type, data, id)


def passed(topic: str, id: str | int | float | None = None) -> bytes:  # noqa: A002
    """Answer a ``new-message`` of a topic that is not durable: what ``response`` would give, in a fifth of the time."""
    head = _passed_head(topic)
    return head + b"}" if id is None else b'%b,"id":%b}' % (head, encode(id))


@functools.lru_cache(256)  # many messages have the same
def _passed_head(topic: str) -> bytes:
    return response("new-message", {"topic": topic, "EventId": None})[:-1]


def error(error: RequestError, object_type: str | None, id: str | int | float | None = None) -> bytes:  # noqa: A002
    """Answer a request that was refused; ``object_type`` is ``None`` when the frame had no method."""
    return _reply("error", object_type, {"code": error.code, "message": error.message, **error.detail}, id)


@dataclass(frozen=True, eq=False, slots=True)
class Form:
    """How one change is told: as which event, and with what of the row as it was. Few, compared by identity.

    ``old_key``: an update that changed the key may say which it was. ``old_data``: it says what the columns that
    changed were. An update may be told as a create or a delete, to whom the row enters or leaves. ``data``: more of a
    row than its key.
    """

    op: Op
    old_key: bool = True
    old_data: bool = False
    data: bool = True


def change(change: Change, options: ValueOptions, form: Form | None = None) -> bytes:
    """Tell of one changed row: as it now is, or as it was for a delete; by default as what it is.

    ``Key`` is left out where ``values.key`` gives none. ``OldKey`` is there when an update changed the key.
    """
    form = form or Form(change.op)
    image = _image(change, form.op)
    shape = change.shape
    now = key(image, shape, options)
    rest = b"}" if now is None else b',"Key":%b}' % now
    if form.op is Op.UPDATE and change.old is not None:
        before = key(change.old, shape, options) if form.old_key else None
        if before is not None and before != now:
            rest = b'%b,"OldKey":%b}' % (rest[:-1], before)
        if form.old_data:
            rest = b'%b,"OldData":%b}' % (rest[:-1], changes(change.old, image, shape, options))
    data = row(image, shape, options) if form.data else b'{"__type":%b}' % table(shape)
    return b'%b%b,"EventData":%b,"EventId":%d%b' % (_ROW_HEADS[form.op], table(shape), data, change.id, rest)


def snapshot(image: Image, shape: Shape, options: ValueOptions) -> bytes:
    """Tell of one row that is there."""
    parts = [_SNAPSHOT_HEAD, table(shape), b',"EventData":', row(image, shape, options)]
    named = key(image, shape, options)
    if named is not None:
        parts += (b',"Key":', named)
    parts.append(b"}")
    return b"".join(parts)


def gone(topic: str, key: JSON, event_id: int) -> bytes:
    """Tell that a row has left a live set, of which nothing but the key may be told."""
    return encode(
        {
            "MessageSource": "database",
            "EventType": "delete",
            "ObjectType": topic,
            "EventData": {"__type": topic},
            "EventId": event_id,
            "Key": key,
        }
    )


_SNAPSHOT_HEAD = b'{"MessageSource":"database","EventType":"snapshot","ObjectType":'


def message(message: Message) -> bytes:
    """Tell of one message of a user topic. Its body is JSON of our own encoding and goes in as it is."""
    head = _message_head(message.sender, message.topic)
    if message.id is None:
        return head + message.body + b"}"
    return b'%b%b,"EventId":%d}' % (head, message.body, message.id)


@functools.lru_cache(256)  # many messages have the same
def _message_head(sender: str, topic: str) -> bytes:
    return b'{"MessageSource":%b,"EventType":"new-message","ObjectType":%b,"EventData":' % (
        encode(sender),
        encode(topic),
    )


def notice(event_type: str, topic: str, data: JSON) -> bytes:
    """Tell a subscriber something about its topic: ``resync``, ``topic-destroyed``, ``table-dropped``, …"""
    return encode({"MessageSource": "system", "EventType": event_type, "ObjectType": topic, "EventData": data})


def _reply(event_type: str, object_type: str | None, data: JSON, id: str | int | float | None) -> bytes:  # noqa: A002
    envelope: dict[str, JSON] = {
        "MessageSource": "system",
        "EventType": event_type,
        "ObjectType": object_type,
        "EventData": data,
    }
    if id is not None:
        envelope["id"] = id
    return encode(envelope)


def _image(change: Change, op: Op) -> Image:
    image = change.old if op is Op.DELETE else change.new
    if image is None:
        raise ValueError(f"a {change.op.name} without its image, at event {change.id}")
    return image
