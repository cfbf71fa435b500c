"""``POST /live/topics/<topic>/messages``: a message of a user topic, by HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from appliance.errors import BadRequest, NotFound, SystemTopic, UnknownTopic, UnsupportedMedia
from appliance.live.fanout.hub import Hub
from appliance.live.matching.access import Reader
from appliance.live.session import durable
from appliance.live.session.methods import REFUSALS, bounded
from appliance.live.tail.tail import Tail
from appliance.model import JSON, Message, Topic
from appliance.protocol.json import encode
from appliance.protocol.permissions import Verb
from appliance.protocol.requests import idempotency_key
from appliance.protocol.wording import quote
from appliance.store.store import Store
from appliance.web.api.caller import segments
from appliance.web.api.entrance import Entrance
from appliance.web.api.headers import decoded

_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Messages:
    """Takes messages for user topics. ``message_bytes``: how long one may be, as on the WebSocket."""

    store: Store
    hub: Hub
    tail: Tail
    entrance: Entrance
    message_bytes: int

    async def publish(self, request: Request) -> Response:
        """Send the body to the topic: 201 once it is committed. Raises ``RequestError``."""
        name = _name(request)
        principal = await self.entrance.principal(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
            raise UnsupportedMedia(f"a message is any JSON value, with Content-Type: {_JSON}")
        given = await request.body()
        bounded(given, self.message_bytes)
        body, key = encode(await decoded(given)), _key(request)
        bounded(body, self.message_bytes)
        try:
            topic = self._topic(await self.hub.access.reader(principal), name)
        except REFUSALS:  # another process may have made the topic, or given the right, a moment ago
            await self.tail.caught_up(however_much=True)
            topic = self._topic(await self.hub.access.reader(principal), name)
        if topic.durable:
            sent = await self.store.sent(self.store.send(durable.message(topic.name, principal, body, key)))
            return _sent(topic, sent.event_id, replayed=sent.replayed)
        if key is not None:
            raise BadRequest(f"{quote(topic.name)} is not durable, so nothing remembers an Idempotency-Key")
        await self.tail.caught_up()  # nothing looks at rights again before it is delivered
        topic = self._topic(await self.hub.access.reader(principal), name)
        self.hub.broadcast(Message(None, topic.name, principal.sender, body))
        self.hub.flush()
        return _sent(topic, None)

    def _topic(self, reader: Reader, name: str) -> Topic:
        rights = self.hub.access
        table = self.hub.table(name)
        if table is not None and rights.may_know(reader, table):
            raise SystemTopic(f"{quote(table.table)} is a table and takes no messages: change its rows instead")
        topic = self.hub.topic(name)
        if table is not None or topic is None or not rights.may_on_topic(reader, Verb.PEEK, topic):
            raise UnknownTopic(f"there is no topic {quote(name)}; create-topic on the WebSocket makes one")
        durable.demand(reader, topic)
        return topic


def _name(request: Request) -> str:
    """Give the topic's name, which stands between two slashes. Raises ``NotFound`` for a path that only looks alike."""
    match segments(request):
        case ["live", "topics", name, "messages"] if name:
            return name
    raise NotFound("there is nothing at this path; messages go to /live/topics/<topic>/messages")


def _key(request: Request) -> str | None:
    """Give the idempotency key; in quotation marks (draft-ietf-httpapi-idempotency-key-header) or bare.

    Raises ``BadRequest`` for what is not ASCII: a header does not say which encoding that would be.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if key is None:
        return None
    if not key.isascii():
        raise BadRequest("an Idempotency-Key has only ASCII characters", header="Idempotency-Key")
    return idempotency_key(key, "Idempotency-Key")


def _sent(topic: Topic, event_id: int | None, *, replayed: bool = False) -> Response:
    data: dict[str, JSON] = {"topic": topic.name, "EventId": event_id}
    headers = {"Idempotency-Replayed": "true"} if replayed else {}
    return Response(encode(data), 201, headers, _JSON)
