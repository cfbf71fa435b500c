"""What a client is sent: one JSON text for one reply, event or notice, in the seed's envelope and key order.

The functions give the text of a WebSocket frame. One event's text is shared by all who get it.
"""

from __future__ import annotations

from appliance.errors import RequestError
from appliance.model import JSON, Change, Image, Message, Op
from appliance.protocol.json import encode
from appliance.protocol.values import ValueOptions, key, legible, row

#: What each operation on a row is called on the wire.
EVENT_TYPES: dict[Op, str] = {Op.CREATE: "create", Op.UPDATE: "update", Op.DELETE: "delete"}

_ROW_HEADS = {
    op: f'{{"MessageSource":"database","EventType":"{name}","ObjectType":'.encode() for op, name in EVENT_TYPES.items()
}


def response(object_type: str, data: JSON, id: str | int | float | None = None) -> bytes:  # noqa: A002
    """Answer a request that was done; ``data`` is its ``EventData``."""
    return _reply("response", object_type, data, id)


def error(error: RequestError, object_type: str | None, id: str | int | float | None = None) -> bytes:  # noqa: A002
    """Answer a request that was refused; ``object_type`` is ``None`` when the frame had no method."""
    return _reply("error", object_type, {"code": error.code, "message": error.message, **error.detail}, id)


def change(change: Change, options: ValueOptions) -> bytes:
    """Tell of one changed row: as it now is, or as it was for a delete.

    ``Key`` is left out where ``values.key`` gives none. ``OldKey`` is there when an update changed the key.
    """
    image = _image(change)
    parts = [
        _ROW_HEADS[change.op],
        encode(legible(change.shape.table)),
        b',"EventData":',
        row(image, change.shape, options),
        b',"EventId":%d' % change.id,
    ]
    now = key(image, change.shape, options)
    if now is not None:
        parts += (b',"Key":', now)
    if change.op is Op.UPDATE and change.old is not None:
        before = key(change.old, change.shape, options)
        if before is not None and before != now:
            parts += (b',"OldKey":', before)
    parts.append(b"}")
    return b"".join(parts)


def message(message: Message) -> bytes:
    """Tell of one message of a user topic. Its body is JSON of our own encoding and goes in as it is."""
    parts = [
        b'{"MessageSource":',
        encode(message.sender),
        b',"EventType":"new-message","ObjectType":',
        encode(message.topic),
        b',"EventData":',
        message.body,
    ]
    if message.id is not None:
        parts.append(b',"EventId":%d' % message.id)
    parts.append(b"}")
    return b"".join(parts)


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


def _image(change: Change) -> Image:
    image = change.old if change.op is Op.DELETE else change.new
    if image is None:
        raise ValueError(f"a {change.op.name} without its image, at event {change.id}")
    return image
