"""The way of a client to its server: TCP, TLS, and an answer that is HTTP; and what is said where one of them fails."""

from __future__ import annotations

import socket
import ssl
from typing import TypeAlias
from urllib.parse import urlsplit

import trio

from appliance.errors import CommandError, first_of

Carrier: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"


class Lost(CommandError):
    """There is no connection just now; trying again may help."""


async def open_stream(url: str, trust: ssl.SSLContext | None) -> Carrier:
    """Connect to a ws or wss URL; the handshake of TLS is still to be made. Raises ``OSError`` and ``ValueError``."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    stream = await _open(host, parts.port or (443 if parts.scheme == "wss" else 80))
    if parts.scheme != "wss":
        return stream
    context = trust or ssl.create_default_context()
    return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)


async def secure(stream: Carrier, url: str) -> None:
    """Make the handshake of TLS, where there is one. Raises ``CommandError`` and ``Lost``."""
    if isinstance(stream, trio.SocketStream):
        return
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        refused = error.__cause__
        if isinstance(refused, ssl.SSLCertVerificationError):
            raise CommandError(f"the certificate of {url} is not trusted ({refused.verify_message}); name it with "
                               "--cafile FILE, and the host as it stands in it") from None  # fmt: skip
        if isinstance(refused, ssl.SSLError):
            raise Lost(f"{url} does not speak TLS as it should ({refused.reason}); without TLS its URL begins with "
                       "ws://") from None  # fmt: skip
        raise Lost(f"{url} has hung up before the connection was made ({cause(error)})") from None


class Answering(trio.abc.Stream):
    """A client's stream to a server of which something must come that is HTTP.

    The WebSocket library would wait for ever for the answer of one that hangs up or says something else.
    """

    def __init__(self, stream: Carrier, url: str) -> None:
        self._stream = stream
        self._url = url
        self._heard = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive. Raises ``Lost`` when what comes first is no answer."""
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            if self._heard:
                raise
            data = b""
        if not self._heard and not data.startswith(b"H"):  # of HTTP/1.1
            hint = "; with TLS its URL begins with wss://" if self._url.startswith("ws:") else ""
            raise Lost(f"{self._url} does not answer as a WebSocket server does{hint}")
        self._heard = True
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close."""
        await self._stream.aclose()


async def _open(host: str, port: int) -> trio.SocketStream:
    try:
        return await trio.open_tcp_stream(host, port)
    except socket.gaierror:
        # Its name is certain (RFC 6761, section 6.3) also where there is no /etc/hosts to say it.
        if host != "localhost":
            raise
    try:
        return await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return await trio.open_tcp_stream("::1", port)


def cause(error: BaseException) -> str:
    """Say what an error comes from: the innermost cause that has something to say."""
    error = first_of(error)
    inner = error.__cause__ or error.__context__
    return (cause(inner) if inner is not None else "") or str(error) or type(error).__name__
