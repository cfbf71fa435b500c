"""``tail`` and ``publish``: clients of a running server, over its WebSocket like any other."""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from appliance import reach
from appliance.errors import (
    BadRequest,
    CloseCode,
    CommandError,
    Gap,
    StoreUnusable,
    Unavailable,
    UnknownTopic,
    first_of,
)
from appliance.model import Position
from appliance.reach import Lost

#: The largest event is 1 MiB of row and a little around it; bytes.
MESSAGE_LIMIT: Final = 8 << 20
#: How often ``tail --wait`` asks whether its topic is there, seconds.
WAIT_STEP_S: Final = 0.2
#: A ``tail`` that has lost its server tries again after a random time up to the first, then twice as much, up to the
#: last; from the first again once a connection has held for the third. Seconds. (Full jitter: servers that come back
#: are not stormed: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.)
BACKOFF_S: Final = (0.5, 30.0)
STEADY_S: Final = 5.0
#: After so long a silence ``tail`` asks whether the server is still there, and for how far it has come; seconds.
PING_AFTER_S: Final = 20.0
#: Time for it to answer, seconds: to this, to a request, or to the handshake.
PONG_WITHIN_S: Final = 10.0
#: Time for the closing handshake, seconds.
CLOSE_S: Final = 2.0
#: Close codes after which trying again may help, beside those from 4400 to 4499.
TRANSIENT: Final = frozenset((None, 1000, 1001, 1005, 1006, 1011, 1012, 1013))
#: HTTP statuses after which it may: too many requests, and a server or proxy that is not ready.
TRANSIENT_STATUS: Final = frozenset((429, 502, 503, 504))
_PING: Final = "ping"


@dataclass(frozen=True, slots=True)
class Wish:
    """What to follow. ``since``: from this position on. ``snapshot``: the rows that are there, then their changes."""

    topic: str
    filters: dict[str, Any] = field(default_factory=dict)
    since: Position | None = None
    snapshot: bool = False
    old: bool = False


class Tail:
    """Follows a topic over any number of connections.

    Args:
      url: where the server is, a ws or wss URL.
      trust: which certificates are taken with wss; unless given, those that the system trusts.
      token: gives the token for each new connection.
      renews: whether it gives another one then, so that the end of one is no end.
      show: is given every frame that concerns the topic, a JSON text; what it raises must be a ``CommandError``.
      note: is told, in a line for a person, what happens to the connection.

    ``position`` is where to go on from: everything up to it has been shown. ``None``: there is none yet.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[], str],
        wish: Wish,
        show: Callable[[str], None],
        note: Callable[[str], None],
        *,
        trust: ssl.SSLContext | None = None,
        renews: bool = False,
    ) -> None:
        self.position = wish.since
        self._url = url
        self._token = token
        self._wish = wish
        self._show = show
        self._note = note
        self._trust = trust
        self._renews = renews
        self._shown = 0
        self._epoch = ""
        #: Whether all that was shown up to now is the state at some position, so that one can go on from it.
        self._whole = False

    async def run(self, *, count: int | None, wait: bool) -> None:
        """Show events until ``count`` were shown; connect again whenever the connection is lost.

        With ``wait`` a topic that is not there yet is waited for. Raises ``CommandError``: the first connection fails,
        the server refuses, the topic ends, or events are missing and no snapshot was asked for.
        """
        failures, begun = 0, False
        while True:
            since = trio.current_time()
            try:
                async with _connected(self._url, self._token(), self._trust, renews=self._renews) as connection:
                    await self._subscribe(connection, wait=wait, again=begun)
                    begun = True
                    await self._follow(connection, count)
                    return
            except (Lost, StoreUnusable) as lost:  # the store that gives the token may be locked just now, or restored
                if not begun:
                    raise
                failures = 1 if trio.current_time() - since > STEADY_S else failures + 1
                pause = random.random() * min(BACKOFF_S[1], BACKOFF_S[0] * 2 ** min(failures - 1, 10))  # noqa: S311
                self._note(f"{lost} – trying again in {pause:.1f} s")
                await trio.sleep(pause)

    async def _subscribe(self, connection: WebSocketConnection, *, wait: bool, again: bool) -> None:
        attributes: dict[str, Any] = {"topic": self._wish.topic, "filters": self._wish.filters}
        attributes |= {name: True for name in ("snapshot", "old") if getattr(self._wish, name)}
        if self.position is not None:
            attributes |= {"since": self.position.id, "epoch": self.position.epoch}
        while True:
            try:
                reply = await _request(connection, "subscribe", attributes)
                break
            except _Refusal as refusal:
                if refusal.code == UnknownTopic.code and wait:
                    await trio.sleep(WAIT_STEP_S)
                elif refusal.code == BadRequest.code and again and attributes.pop("since", None) is not None:
                    del attributes["epoch"]  # nothing of this topic is kept
                    self._note("messages may be missing here: the topic is not durable")
                elif refusal.code == Unavailable.code:
                    raise Lost(str(refusal)) from None
                elif refusal.code == Gap.code:
                    self.position = None
                    raise CommandError(
                        f"events are missing: {refusal}; --snapshot begins with the rows, no --since with what comes"
                    ) from None
                else:
                    raise
        self._epoch = reply["epoch"]
        recovered = reply.get("recovered")
        if recovered is False or (again and self._wish.snapshot and recovered is None):
            # Who reads what is shown is to know, too, that rows it has may be gone.
            anew = {"MessageSource": "system", "EventType": "response", "ObjectType": "subscribe"}
            self._show(json.dumps({**anew, "EventData": {**reply, "recovered": False}}, separators=(",", ":")))
            self._note("what came before is not kept any more: all rows come anew")
        self._whole = not self._wish.snapshot or recovered is True
        self.position = Position(self._epoch, reply["EventId"]) if self._whole else None

    async def _follow(self, connection: WebSocketConnection, count: int | None) -> None:
        asked = False
        while count is None or self._shown < count:
            text = ""
            with trio.move_on_after(PONG_WITHIN_S if asked else PING_AFTER_S):
                text = str(await connection.get_message())
            if not text and asked:
                raise Lost("the server does not answer")
            if not text:
                with _answering():
                    await connection.send_message(json.dumps({"method": "ping", "id": _PING}))
                asked = True
                continue
            asked = False
            self._take(text)

    def _take(self, text: str) -> None:
        event = json.loads(text)
        data = event["EventData"]
        if event.get("id") == _PING:
            self._passed(data.get("EventId"))
            return
        self._show(text)
        if event["MessageSource"] != "system":
            self._shown += 1
            self._passed(event.get("EventId"))
        elif event["EventType"] == "live":
            self._whole = True
            self._passed(data["EventId"])
        elif event["EventType"] in ("topic-destroyed", "table-dropped"):
            self.position = None
            raise CommandError(f'the topic "{self._wish.topic}" has ended')

    def _passed(self, event_id: int | None) -> None:
        if self._whole and event_id is not None:
            self.position = Position(self._epoch, event_id)


async def publish(
    url: str, token: str, topic: str, message: object, trust: ssl.SSLContext | None = None
) -> dict[str, Any]:
    """Send a message to a user topic and give the reply's data. Raises ``CommandError``."""
    async with _connected(url, token, trust) as connection:
        return await _request(connection, "new-message", {"topic": topic, "message": message})


@asynccontextmanager
async def _connected(
    url: str, token: str, trust: ssl.SSLContext | None, *, renews: bool = False
) -> AsyncIterator[WebSocketConnection]:
    """Connect. Raises ``Lost`` when the connection is lost or cannot be made just now, else ``CommandError``."""
    headers = [(b"Authorization", b"Bearer " + token.encode())]
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            with _answering():
                stream = await reach.open_stream(url, trust)
            try:
                parts = urlsplit(url)
                with _answering():
                    await reach.secure(stream, url)
                    connection = await wrap_client_stream(
                        nursery,
                        reach.Answering(stream, url),  # type: ignore[arg-type]  # any stream will do
                        parts.netloc,
                        parts._replace(scheme="", netloc="").geturl() or "/",
                        extra_headers=headers,
                        max_message_size=MESSAGE_LIMIT,
                    )
                try:
                    yield connection
                finally:
                    with trio.move_on_after(CLOSE_S, shield=True):
                        await connection.aclose()
            finally:
                await trio.aclose_forcefully(stream)  # or the library's reader would wait for a server that is silent
    except* CommandError as group:
        failure = first_of(group)
    except* ConnectionRejected as group:
        failure = _rejected(url, first_of(group))
    except* ConnectionClosed as group:
        failure = _closed(first_of(group), renews)
    except* (HandshakeError, OSError, ValueError, trio.TooSlowError) as group:
        failure = Lost(f"{url} cannot be reached ({reach.cause(group)}); is the server running there?")
    if failure is not None:
        raise failure


def _rejected(url: str, error: BaseException) -> CommandError:
    assert isinstance(error, ConnectionRejected)  # noqa: S101
    kind = Lost if error.status_code in TRANSIENT_STATUS else CommandError
    return kind(f"{url} refused the connection: {_reason(error)}")


def _closed(error: BaseException, renews: bool) -> CommandError:
    assert isinstance(error, ConnectionClosed)  # noqa: S101
    reason = error.reason
    code = reason.code if reason is not None else None
    why = f"{code} {reason.reason or reason.name}" if reason is not None else "lost"
    transient = code in TRANSIENT or (code is not None and 4400 <= code < 4500)
    if code == CloseCode.TOKEN_EXPIRED and not renews:
        transient = False
    return (Lost if transient else CommandError)(f"the connection has ended ({why})")


def _reason(rejected: ConnectionRejected) -> str:
    try:
        return str(json.loads(rejected.body or b"")["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {rejected.status_code}"


class _Refusal(CommandError):
    """The server's error reply."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


@contextmanager
def _answering() -> Iterator[None]:
    """Raise ``Lost`` when the block takes so long that nobody answers."""
    try:
        with trio.fail_after(PONG_WITHIN_S):
            yield
    except trio.TooSlowError:
        raise Lost("the server does not answer") from None


async def _request(connection: WebSocketConnection, method: str, attributes: dict[str, Any]) -> dict[str, Any]:
    with _answering():
        await connection.send_message(json.dumps({"method": method, "attributes": attributes, "id": 1}))
    while True:
        with _answering():
            reply = json.loads(await connection.get_message())
        if reply.get("id") == 1:
            break
    data: dict[str, Any] = reply["EventData"]
    if reply["EventType"] == "error":
        raise _Refusal(data["code"], data["message"])
    return data
