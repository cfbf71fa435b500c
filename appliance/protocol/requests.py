"""What a client may ask: the text of one frame in, one frozen struct out.

The table ``METHODS`` is the whole grammar: a new method is one row. What a struct holds has been checked and is
trusted from there on.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from appliance.errors import BadJson, BadRequest, RequestError, UnknownMethod
from appliance.model import JSON, ascii_fold
from appliance.protocol import permissions, quick
from appliance.protocol.json import decode, encode, identity
from appliance.protocol.quick import ID_LIMIT
from appliance.protocol.wording import kind, nearest, quote, unknown

TOPIC_NAME_LIMIT = 128  # characters
KEY_LIMIT = 255  # characters of an idempotency key
RESERVED_PREFIX = "_appliance"  # folded; internal tables begin with it

RequestId: TypeAlias = "str | int | float | None"


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What every request has: the ``id`` to echo (``None``: it had none) and the ``ObjectType`` of its reply."""

    id: RequestId = None
    object_type: str


class ListTopic(_Asked, frozen=True):
    """Which topics are there?"""


class CreateTopic(_Asked, frozen=True):
    """Make a user topic. ``name`` is one that a topic may have."""

    name: str
    durable: bool = True
    permission: int | None = None


class DestroyTopic(_Asked, frozen=True):
    """End a user topic."""

    name: str


class Subscribe(_Asked, frozen=True):
    """Send the events of a topic. ``filters`` are not checked here: what they mean depends on the topic.

    ``since`` and ``epoch`` come together: everything after that position first. ``snapshot``: the rows first, and a
    live set from then on. ``old``: the former values of what an update changed.
    """

    topic: str
    filters: dict[str, JSON] = {}
    since: int | None = None
    epoch: str = ""
    snapshot: bool = False
    old: bool = False


class Unsubscribe(_Asked, frozen=True):
    """Send no more events of a topic."""

    topic: str


class NewMessage(_Asked, frozen=True):
    """Send ``message``, any value as canonical JSON (UTF-8), to the subscribers of a user topic."""

    topic: str
    message: bytes
    key: str | None = None


class Authenticate(_Asked, frozen=True):
    """Go on with this token."""

    token: str


class Ping(_Asked, frozen=True):
    """How far has this connection been told?"""


Request: TypeAlias = ListTopic | CreateTopic | DestroyTopic | Subscribe | Unsubscribe | NewMessage | Authenticate | Ping


class Refused(Exception):
    """A frame that is no request: the error to answer with, and what could be read of the frame."""

    def __init__(self, error: RequestError, object_type: str | None = None, id: RequestId = None) -> None:  # noqa: A002
        super().__init__(error.message)
        self.error = error
        self.object_type = object_type
        self.id = id


def parse(text: str | bytes) -> Request:
    """Read one frame.

    Raises ``Refused`` and nothing else; its ``error`` is ``BadJson``, ``BadRequest`` or ``UnknownMethod``.
    """
    sent = quick.sent(text)
    if sent is not None:
        topic, message, id_ = sent
        return NewMessage(id=id_, object_type="new-message", topic=topic, message=message)
    try:
        frame = decode(text)
    except BadJson as error:
        raise _of_whom(text, error) from None
    object_type, id_ = None, None
    try:
        if not isinstance(frame, dict):
            raise BadRequest(f"a request is one JSON object, this is {kind(frame)}")
        object_type, method = _kind_of(frame)
        if "id" in frame:
            id_ = _id(frame["id"])
        if method is None:
            raise _no_method(frame)
        return method.read(frame, id_)
    except RequestError as error:
        raise Refused(error, object_type, id_) from None


def _kind_of(frame: dict[str, Any]) -> tuple[str | None, Method | None]:
    """Give what a frame's answer says that it is of, and its method, where it names one."""
    name = frame.get("method")
    if not isinstance(name, str):
        return None, None
    method = METHODS.get(name)
    if method is not None:
        return method.object_type, method
    return (name if len(name) <= TOPIC_NAME_LIMIT else None), None


def _of_whom(text: str | bytes, error: BadJson) -> Refused:
    """Refuse what is not JSON as it is taken here, with the method and ``id`` that other readers of JSON find in it."""
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        return Refused(error)
    header = {key: _taken(frame[key]) for key in ("method", "id") if isinstance(frame, dict) and key in frame}
    object_type, _ = _kind_of(header)
    try:
        return Refused(error, object_type, _id(header.get("id")))
    except BadRequest:
        return Refused(error, object_type)


def _taken(value: Any) -> JSON:
    """Give a value if it is JSON as it is taken here."""
    try:
        return decode(json.dumps(value))
    except (BadJson, RecursionError):
        return None


def topic_name(name: str, what: str = "name") -> str:
    """Give ``name`` back if a new user topic may have it. Raises ``BadRequest``, in which it is called ``what``."""
    if not 1 <= len(name) <= TOPIC_NAME_LIMIT:
        raise BadRequest(f'"{what}" must have 1 to {TOPIC_NAME_LIMIT} characters, this has {len(name)}')
    # Surrogates: an argument of a command that is not UTF-8; a frame cannot hold them.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise BadRequest(f'"{what}" must not hold control characters or bytes that are not UTF-8')
    if ascii_fold(name).startswith(RESERVED_PREFIX):
        raise BadRequest(f'"{what}" must not begin with "{RESERVED_PREFIX}": such names are the server\'s own')
    return name


#: (attribute's name, value) -> the value as it goes into the struct
Check: TypeAlias = Callable[[str, JSON], Any]


def _string(name: str, value: JSON) -> JSON:
    if not isinstance(value, str):
        raise BadRequest(f'"{name}" must be a string, this is {kind(value)}')
    return value


def _boolean(name: str, value: JSON) -> JSON:
    if not isinstance(value, bool):
        raise BadRequest(f'"{name}" must be true or false, this is {kind(value)}')
    return value


def _object(name: str, value: JSON) -> JSON:
    if not isinstance(value, dict):
        raise BadRequest(f'"{name}" must be an object, this is {kind(value)}')
    return value


def _message(name: str, value: JSON) -> bytes:
    return encode(value)


def _new_name(name: str, value: JSON) -> JSON:
    return topic_name(str(_string(name, value)), name)


def _position(name: str, value: JSON) -> JSON:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequest(f'"{name}" must be an EventId, a whole number from 0 on; this is {kind(value)}')
    return value


def _permission(name: str, value: JSON) -> JSON:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= permissions.MOST:
        raise BadRequest(f'"{name}" must be permission bits, a whole number from 0 to {permissions.MOST}')
    return value


def _key(name: str, value: JSON) -> JSON:
    return idempotency_key(str(_string(name, value)), name)


def idempotency_key(key: str, what: str) -> str:
    """Give ``key`` back if it is one. Raises ``BadRequest``, in which it is called ``what``."""
    if not 1 <= len(key) <= KEY_LIMIT or not key.isprintable():
        raise BadRequest(f'"{what}" must have 1 to {KEY_LIMIT} printable characters, new for each message')
    return key


def _position_is_whole(fields: dict[str, JSON]) -> None:
    if ("since" in fields) != ("epoch" in fields):
        raise BadRequest('"since" and "epoch" belong together: send both, as a reply or a live notice gave them')


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the grammar.

    ``required`` and ``optional`` are attributes that become the struct's fields; ``whole`` checks what they must be
    together.
    """

    struct: Callable[..., Request]
    name: str
    object_type: str
    required: dict[str, Check] = field(default_factory=dict)
    optional: dict[str, Check] = field(default_factory=dict)
    whole: Callable[[dict[str, JSON]], None] | None = None

    @property
    def attributes(self) -> tuple[str, ...]:
        """Every attribute that the protocol knows for it, as an error lists them."""
        return (*self.required, *self.optional)

    def read(self, frame: dict[str, Any], id: RequestId) -> Request:  # noqa: A002
        """Build the request from a frame whose ``method`` names this one. Raises ``BadRequest``."""
        attributes = _attributes(frame, self.name)
        fields: dict[str, Any] = {}
        for name, value in attributes.items():
            check = self.required.get(name) or self.optional.get(name)
            if check is not None:
                fields[name] = check(name, value)
            else:
                raise BadRequest(unknown(name, f"an attribute of {self.name}", self.attributes))
        for name in self.required:
            if name not in fields:
                raise BadRequest(f'{self.name} needs the attribute "{name}"')
        if self.whole is not None:
            self.whole(fields)
        return self.struct(id=id, object_type=self.object_type, **fields)


_ROWS = (
    Method(ListTopic, "list-topic", "topic-list"),
    Method(
        CreateTopic, "create-topic", "create-topic",
        required={"name": _new_name}, optional={"durable": _boolean, "permission": _permission},
    ),
    Method(DestroyTopic, "destroy-topic", "destroy-topic", required={"name": _string}),
    Method(
        Subscribe, "subscribe", "subscribe",
        required={"topic": _string},
        optional={
            "filters": _object, "since": _position, "epoch": _string, "snapshot": _boolean, "old": _boolean,
        },
        whole=_position_is_whole,
    ),
    Method(Unsubscribe, "unsubscribe", "unsubscribe", required={"topic": _string}),
    Method(
        NewMessage, "new-message", "new-message",
        required={"topic": _string, "message": _message}, optional={"key": _key},
    ),
    Method(Authenticate, "authenticate", "authenticate", required={"token": _string}),
    Method(Ping, "ping", "ping"),
)  # fmt: skip

#: The methods by name, in the order in which the reference and error messages list them.
METHODS: dict[str, Method] = {row.name: row for row in _ROWS}

_KEYS = frozenset(("method", "attributes", "payload", "type", "id"))
_SHORT_FORM = frozenset(("method", "attributes", "id"))  # a frame with no other keys needs no reconciling


def _id(value: JSON) -> RequestId:
    if isinstance(value, str):
        if len(value) > ID_LIMIT:
            raise BadRequest(f'"id" must have at most {ID_LIMIT} characters, this has {len(value)}')
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise BadRequest(f'"id" must be a string or a number, this is {kind(value)}')


def _attributes(frame: dict[str, Any], method: str) -> dict[str, Any]:
    """Give a frame's attributes, whichever of the seed's two spellings it uses."""
    attributes = frame.get("attributes")
    if not (frame.keys() <= _SHORT_FORM):
        for key in frame:
            if key not in _KEYS:
                raise BadRequest(unknown(key, "a key of a request", sorted(_KEYS)))
        if "payload" in frame:
            payload = _object("payload", frame["payload"])
            if "attributes" in frame and identity(payload) != identity(attributes):
                raise BadRequest(
                    '"payload" and "attributes" are the same thing, and here they differ; send one of them'
                )
            attributes = payload
    if attributes is None:
        if "attributes" in frame:
            _object("attributes", None)
        attributes = {}
    elif not isinstance(attributes, dict):
        _object("attributes", attributes)
    if "type" in frame:
        type_ = _string("type", frame["type"])
        if method == "subscribe":
            attributes = _with_topic(attributes, str(type_))
    return attributes


def _with_topic(attributes: dict[str, Any], type_: str) -> dict[str, Any]:
    topic = attributes.get("topic", type_)
    if isinstance(topic, str) and ascii_fold(topic) != ascii_fold(type_):
        raise BadRequest('"type" and the attribute "topic" are the same thing, and here they differ; send one of them')
    return {"topic": topic, **attributes}


def _no_method(frame: dict[str, Any]) -> RequestError:
    listed = ", ".join(METHODS)
    if "method" not in frame:
        return BadRequest(f'a request needs "method", one of: {listed}')
    name = frame["method"]
    if not isinstance(name, str):
        return BadRequest(f'"method" must be a string, this is {kind(name)}')
    near = nearest(name, METHODS)
    hint = f'; did you mean "{near}"?' if near else "."
    return UnknownMethod(f"there is no method {quote(name)}{hint} The methods are: {listed}")
