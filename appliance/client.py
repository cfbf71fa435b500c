"""``tail`` and ``publish``: clients of a running server, over its WebSocket like any other."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    open_websocket_url,
)

from appliance.errors import CommandError, UnknownTopic, first_of

#: The largest event is 1 MiB of row and a little around it; bytes.
MESSAGE_LIMIT: Final = 8 << 20
#: How often ``tail --wait`` asks whether its topic is there, seconds.
WAIT_STEP_S: Final = 0.2


async def tail(
    url: str,
    token: str,
    topic: str,
    filters: dict[str, Any],
    show: Callable[[str], None],
    *,
    count: int | None,
    wait: bool,
    cafile: str | None,
) -> None:
    """Show every event of a topic, one JSON text each, until ``count`` were shown or the connection ends.

    With ``wait`` a topic that is not there yet is waited for. Raises ``CommandError``.
    """
    shown = 0
    async with _connected(url, token, cafile) as connection:
        await _subscribe(connection, topic, filters, wait=wait)
        while count is None or shown < count:
            text = await connection.get_message()
            show(str(text))
            event = json.loads(text)
            shown += event["MessageSource"] != "system"
            if event["EventType"] in ("topic-destroyed", "table-dropped"):
                raise CommandError(f'the topic "{topic}" has ended')


async def publish(url: str, token: str, topic: str, message: object, cafile: str | None) -> dict[str, Any]:
    """Send a message to a user topic and give the reply's data. Raises ``CommandError``."""
    async with _connected(url, token, cafile) as connection:
        return await _request(connection, "new-message", {"topic": topic, "message": message})


@asynccontextmanager
async def _connected(url: str, token: str, cafile: str | None) -> AsyncIterator[WebSocketConnection]:
    if not url.startswith(("ws://", "wss://")):
        raise CommandError(f"--url must begin with ws:// or wss://, not {url!r}")
    context = ssl.create_default_context(cafile=cafile) if url.startswith("wss:") else None
    headers = [(b"Authorization", b"Bearer " + token.encode())]
    try:
        async with open_websocket_url(
            url, context, extra_headers=headers, max_message_size=MESSAGE_LIMIT, disconnect_timeout=2
        ) as connection:
            yield connection
    except* CommandError as group:
        raise first_of(group) from None
    except* ConnectionRejected as group:
        rejected = first_of(group)
        assert isinstance(rejected, ConnectionRejected)  # noqa: S101
        raise CommandError(f"{url} refused the connection: {_reason(rejected)}") from None
    except* ConnectionClosed as group:
        closed = first_of(group)
        assert isinstance(closed, ConnectionClosed)  # noqa: S101
        why = f"{closed.reason.code} {closed.reason.reason or closed.reason.name}" if closed.reason else "lost"
        raise CommandError(f"the connection has ended ({why}); start again to go on") from None
    except* (HandshakeError, OSError, ValueError) as group:
        raise CommandError(f"{url} cannot be reached ({_root(group)}); is the server running there?") from None


def _root(error: BaseException) -> str:
    """Say what an error comes from: the innermost cause that has something to say."""
    error = first_of(error)
    inner = error.__cause__ or error.__context__
    return (_root(inner) if inner is not None else "") or str(error) or type(error).__name__


def _reason(rejected: ConnectionRejected) -> str:
    try:
        return str(json.loads(rejected.body or b"")["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {rejected.status_code}"


async def _subscribe(connection: WebSocketConnection, topic: str, filters: dict[str, Any], *, wait: bool) -> None:
    while True:
        try:
            await _request(connection, "subscribe", {"topic": topic, "filters": filters})
        except _Refusal as refusal:
            if not wait or refusal.code != UnknownTopic.code:
                raise
            await trio.sleep(WAIT_STEP_S)
        else:
            return


class _Refusal(CommandError):
    """The server's error reply."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


async def _request(connection: WebSocketConnection, method: str, attributes: dict[str, Any]) -> dict[str, Any]:
    await connection.send_message(json.dumps({"method": method, "attributes": attributes, "id": 1}))
    while True:
        reply = json.loads(await connection.get_message())
        if reply.get("id") == 1:
            break
    data: dict[str, Any] = reply["EventData"]
    if reply["EventType"] == "error":
        raise _Refusal(data["code"], data["message"])
    return data
