"""What each method of the protocol does: one function a method, one row in ``ANSWERS``.

A function gives the ``EventData`` of the reply or raises a ``RequestError``. What it does to the hub it does after its
last await, so that the reply, sent at once, stands in the right place among the events.

All is decided on what anybody had committed when the request came: topics, tables and rights (``_decide``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import trio

from appliance.errors import (
    AlreadySubscribed,
    BadRequest,
    Forbidden,
    Gap,
    NotSubscribed,
    RateLimited,
    SystemTopic,
    TooLarge,
    TooManySubscriptions,
    TopicExists,
    Unauthorized,
    UnknownTopic,
)
from appliance.live.matching import access
from appliance.live.matching.audience import Wish
from appliance.live.replay import lapse
from appliance.live.replay.lapse import changed_since
from appliance.live.replay.reading import Reading
from appliance.live.session import durable
from appliance.live.session.exchange import Answer, AtOnce, Later
from appliance.live.session.session import Backend, Session
from appliance.model import JSON, Message, Principal, Shape, Topic, ascii_fold
from appliance.protocol import frames
from appliance.protocol.permissions import TOPIC_DEFAULT, Verb
from appliance.protocol.requests import (
    Authenticate,
    CreateTopic,
    DestroyTopic,
    ListTopic,
    NewMessage,
    Ping,
    Subscribe,
    Unsubscribe,
)
from appliance.protocol.wording import quote
from appliance.store.file import schema
from appliance.store.outbox import replay, topics
from appliance.store.tables import snapshot

T = TypeVar("T")
#: What refuses a request for what there is, or for who may.
REFUSALS: Final = (UnknownTopic, SystemTopic, TopicExists, Forbidden)
#: Of a name that means nothing, an error gives so much back, characters.
ECHO_LIMIT: Final = 1024


async def list_topic(session: Session, asked: ListTopic) -> JSON:
    """Name the topics that the principal may know of: tables, then user topics, each by name."""
    await session.backend.tail.caught_up()
    hub = session.backend.hub
    rights, reader = hub.access, session.reader
    tables = [shape.table for shape in hub.tables() if rights.may_know(reader, shape)]
    topics = [topic.name for topic in hub.topics() if rights.may_on_topic(reader, Verb.PEEK, topic)]
    return {"topics": [*sorted(tables), *sorted(topics)]}


async def create_topic(session: Session, asked: CreateTopic) -> JSON:
    """Make a user topic that the principal owns."""
    if session.principal.guest:
        raise Forbidden("guests make no topics; sign in first")
    await _decide(session, lambda: _may_create(session, asked.name))
    permission = TOPIC_DEFAULT if asked.permission is None else asked.permission
    topic, principal = Topic(asked.name, asked.durable, permission, session.principal.subject), session.principal

    def work(db: sqlite3.Connection) -> tuple[Topic, int]:
        durable.sender(db, principal)
        return topics.create(db, topic)

    session.backend.hub.add_topic(*await session.backend.store.commit(work))
    return {"name": topic.name, "durable": topic.durable}


def _may_create(session: Session, name: str) -> None:
    hub, owner = session.backend.hub, session.principal.subject
    if hub.table(name) is not None or hub.topic(name) is not None:
        raise TopicExists(f'there is a topic or table "{name}" already; choose another name', topic=name)
    if sum(each.owner == owner for each in hub.topics()) >= session.backend.limits.user_topics:
        raise Forbidden(f"you own {session.backend.limits.user_topics} topics, the most one may; destroy one first")


async def destroy_topic(session: Session, asked: DestroyTopic) -> JSON:
    """End a user topic; its subscribers are told, behind all of its messages."""

    def decide() -> Topic:
        topic = _user_topic(session, asked.name, "cannot be destroyed here: drop the table instead")
        durable.demand(session.reader, topic, Verb.DELETE)
        return topic

    topic, principal = await _decide(session, decide), session.principal

    def work(db: sqlite3.Connection) -> tuple[int, int]:
        durable.demand(durable.sender(db, principal), topics.topic(db, topic.name), Verb.DELETE)
        return topics.destroy(db, topic.name)

    generation, position = await session.backend.store.commit(work)
    session.backend.hub.end_topic(topic.name, generation, position)
    await session.backend.hub.reached(position)
    return {"name": topic.name}


async def subscribe(session: Session, asked: Subscribe) -> JSON:
    """Begin to deliver a topic's events, from the position in the reply on.

    On the topics and rights of what is committed by now: a table that was made or granted a moment ago is there, and
    what was taken away is not replayed.
    """
    hub, name = session.backend.hub, await _decide(session, lambda: _known_topic(session, asked.topic))
    folded = ascii_fold(name)
    if folded in session.subscriptions:
        raise AlreadySubscribed(f'there is a subscription to "{name}" already; unsubscribe first', topic=name)
    limit = session.backend.limits.subscriptions
    if len(session.subscriptions) >= limit:
        raise TooManySubscriptions(f"a connection may have {limit} subscriptions; unsubscribe from one first")
    shape, topic = hub.table(name), hub.topic(name)
    if shape is None and topic is not None and not hub.access.may_on_topic(session.reader, Verb.READ, topic):
        raise Forbidden(f'you may not read "{name}"', topic=name)
    if asked.snapshot and shape is not None and snapshot.is_doubtful(shape):
        await session.backend.store.read(partial(snapshot.check, shape=shape))
    recovered = await _recovered(session, asked) if asked.since is not None else None
    if folded in session.subscriptions:  # a connection's requests are answered one by one, but it may have ended
        raise AlreadySubscribed(f'there is a subscription to "{name}" already; unsubscribe first', topic=name)
    await trio.lowlevel.checkpoint_if_cancelled()  # who was ended at this very moment is fed nothing
    begun = hub.subscribe(session, name, _wish(asked))
    session.subscriptions[folded] = begun
    reply: dict[str, JSON] = {"topic": begun.topic, "EventId": hub.position.id, "epoch": hub.position.epoch}
    if recovered is not None:
        reply["recovered"] = recovered
    hub.counters.replays += bool(recovered)
    hub.counters.snapshots += asked.snapshot and not recovered
    if recovered:
        begun.position = reply["EventId"] = asked.since
        session.read_for(Reading(hub, session.backend.store, session, [begun], asked.since or 0, announce=True))
    elif asked.snapshot:
        reading = Reading(hub, session.backend.store, session, [begun], hub.position.id, announce=True, scan=True)
        session.read_for(reading)
    else:
        hub.attach(begun)
    return reply


async def _recovered(session: Session, asked: Subscribe) -> bool:
    """Say whether everything after ``since`` can be read. Raises ``Gap`` unless a snapshot can stand in for it."""
    hub, store, since = session.backend.hub, session.backend.store, asked.since or 0
    topic = hub.topic(asked.topic)
    if topic is not None and hub.table(asked.topic) is None and not topic.durable:
        raise BadRequest(f'"since" is for what is kept, and "{topic.name}" is not durable')
    why, oldest, newest = "", 0, hub.position.id
    if asked.epoch != hub.position.epoch:
        why = "the position is of another epoch: the store was restored or replaced since"
    elif since < hub.recent.after or since > newest:
        oldest, newest = await store.read(lambda db: (schema.oldest(db), schema.highest(db)))
        if since < oldest:
            why = "what came after the position is not kept any more"
        elif since > newest:
            why = "the position lies ahead of all that has happened"
        else:
            await hub.reached(since)
    # What a live set held by rights that its holder has no more, no event of a row says.
    if not why and asked.snapshot and await changed_since(hub, store, session.reader, since):
        return False
    complete = store.breaks.get(ascii_fold(asked.topic), 0)  # as of now: it moves while something is awaited
    if not why and since < complete:
        why = "the table's shape or triggers changed after the position, and changes may have been missed"
    topic = hub.topic(asked.topic)
    if not why and topic is not None and since < topic.begun:
        complete = await store.read(lambda db: replay.last_message(db, topic.name, since, topic.begun))
        if since < complete or hub.topic(asked.topic) != topic:  # as it may be since
            why = "the topic is another one than it was at the position"
    if not why:
        return True
    if asked.snapshot:
        return False
    hub.counters.gaps += 1
    oldest, epoch = max(complete, oldest or await store.read(schema.oldest)), hub.position.epoch
    raise Gap(f"{why}; load the state anew and go on from its position", oldest=oldest, newest=newest, epoch=epoch)


async def unsubscribe(session: Session, asked: Unsubscribe) -> JSON:
    """Deliver no more of a topic's events."""
    subscription = session.part_with(ascii_fold(asked.topic))
    if subscription is None:
        await _decide(session, lambda: _known_topic(session, asked.topic))
        raise NotSubscribed(f"there is no subscription to {quote(asked.topic)}", topic=asked.topic[:ECHO_LIMIT])
    session.backend.hub.unsubscribe(subscription)
    return {"topic": subscription.topic}


async def new_message(session: Session, asked: NewMessage) -> JSON | Later:
    """Send a message: acknowledged once it is committed, or at once when its topic is not durable."""
    store = session.backend.store
    try:
        topic = _sends_to(session, asked)
    except REFUSALS:
        topic = await _decide(session, lambda: _sends_to(session, asked))
    if not topic.durable:
        if not session.up_to_date:
            await session.catch_up()
            topic = _sends_to(session, asked)
        _broadcast(session, topic, asked)
        return {"topic": topic.name, "EventId": None}
    work = durable.message(topic.name, session.principal, asked.message, asked.key, lapse.known(session.backend.hub))
    message = store.send(work)

    async def committed() -> JSON:
        return {"topic": topic.name, "EventId": (await store.sent(message)).event_id}

    return Later(committed)


def new_message_at_once(session: Session, asked: NewMessage) -> bytes | None:
    """Send a message of a topic that is not durable, and give the reply; ``None``: of another, or it may be refused.

    To be asked only when all that is committed has been taken up.
    """
    try:
        topic = _sends_to(session, asked)
    except REFUSALS:
        return None
    if topic.durable:
        return None
    _broadcast(session, topic, asked)
    return frames.passed(topic.name, asked.id)


def _broadcast(session: Session, topic: Topic, asked: NewMessage) -> None:
    if asked.key is not None:
        raise BadRequest(f'"{topic.name}" is not durable, so nothing remembers a "key"')
    session.backend.hub.broadcast(Message(None, topic.name, session.reader.principal.sender, asked.message))


def bounded(message: bytes, most: int) -> None:
    """Raise ``TooLarge`` for a message that is longer than it may be; 1e15 is sent on with more digits."""
    if len(message) > most:
        raise TooLarge(f"a message may have {most} bytes (message_bytes), also as it is sent on")


def _sends_to(session: Session, asked: NewMessage) -> Topic:
    """Give the topic that a message is for. Raises what refuses it."""
    bounded(asked.message, session.backend.limits.message_bytes)
    # A topic that was changed or taken by a table is another one; so is who has other rights.
    before, topic, reader = session.sends_to, session.backend.hub.topic(asked.topic), session.reader
    if before is not None and before[0] is topic and before[1] is reader:
        return before[0]
    topic = _user_topic(session, asked.topic, "takes no messages: change the table's rows instead")
    durable.demand(reader, topic)
    session.sends_to = (topic, reader)
    return topic


async def authenticate(session: Session, asked: Authenticate) -> JSON:
    """Go on with a fresh token of the same principal."""
    rights = session.backend.hub.access
    fresh = await rights.principal(asked.token)
    if session.authenticated and not access.same_person(session.principal, fresh):
        raise Unauthorized("this token is another principal's; open another connection for it")
    before = rights.renewed
    reader = await rights.reader(fresh)
    while before != rights.renewed:  # rights have changed meanwhile, and nobody knew of this token then
        before = rights.renewed
        reader = await rights.reader(fresh)
    if not session.authenticated:
        admit(session.backend, fresh)
    session.become(reader)
    return {"expires_at": int(fresh.expires_at)}


def admit(backend: Backend, principal: Principal) -> None:
    """Raise ``RateLimited`` when a principal has as many connections as one may."""
    limits = backend.limits
    most = limits.guest_connections if principal.guest else limits.connections_per_user
    if backend.sessions.of((principal.issuer, principal.subject)) >= most:
        whose = "this address has" if principal.guest else "this user has"
        raise RateLimited(f"{whose} {most} connections open, the most one may; close one, or try again later")


async def ping(session: Session, asked: Ping) -> JSON:
    """Say up to which position everything has been sent that concerns this session's subscriptions."""
    hub = session.backend.hub
    behind = [each.position for each in session.subscriptions.values() if each.position is not None]
    # A snapshot's first page can be of a moment that the hub has not come to yet.
    return {"EventId": min([hub.position.id, *behind]), "epoch": hub.position.epoch}


ANSWERS: dict[type, Answer] = {
    ListTopic: list_topic,
    CreateTopic: create_topic,
    DestroyTopic: destroy_topic,
    Subscribe: subscribe,
    Unsubscribe: unsubscribe,
    NewMessage: new_message,
    Authenticate: authenticate,
    Ping: ping,
}
#: How requests are answered where they are received: those that have to wait for nothing. ``None``: this one has to.
AT_ONCE: dict[type, AtOnce] = {NewMessage: new_message_at_once}


def _wish(asked: Subscribe) -> Wish:
    # Most clients want all of a topic, and there may be 20,000 of them.
    every = not (asked.filters or asked.snapshot or asked.old)
    return _EVERYTHING if every else Wish(asked.filters, asked.snapshot, asked.old)


_EVERYTHING = Wish()


async def _decide(session: Session, decision: Callable[[], T]) -> T:
    """Decide on all that was committed when the request came. Raises what refuses it.

    Another process may have made a topic, or given a right, a moment ago: so whoever is refused has waited for all of
    that, however much it is.
    """
    tail = session.backend.tail
    await tail.caught_up()
    try:
        return decision()
    except REFUSALS:
        await tail.caught_up(however_much=True)
        return decision()


def _known_topic(session: Session, name: str) -> str:
    """Give the stored spelling. Raises ``UnknownTopic`` also for a table that the principal may not know of."""
    hub = session.backend.hub
    table: Shape | None = hub.table(name)
    if table is not None and hub.access.may_know(session.reader, table):
        return table.table
    topic = hub.topic(name)
    if table is not None or topic is None or not hub.access.may_on_topic(session.reader, Verb.PEEK, topic):
        raise UnknownTopic(
            f"there is no topic {quote(name)}; list-topic names those there are", topic=name[:ECHO_LIMIT]
        )
    return topic.name


def _user_topic(session: Session, name: str, why_not: str) -> Topic:
    spelled = _known_topic(session, name)
    topic = session.backend.hub.topic(spelled)
    if topic is None:
        raise SystemTopic(f'"{spelled}" is a table and {why_not}', topic=spelled)
    return topic
