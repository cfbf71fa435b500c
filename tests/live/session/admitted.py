"""Sessions over real sockets in this process, whose hub and tail the test can look at and hold."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from appliance.config import SECRET_COLUMNS, Config
from appliance.live.fanout.hub import Hub
from appliance.live.fanout.sessions import Sessions
from appliance.live.matching.access import Access
from appliance.live.session.session import Backend, Session, SessionLimits
from appliance.live.tail.rights import Rights
from appliance.live.tail.tail import Tail
from appliance.live.tail.waking import Waking
from appliance.live.wire.unsent import Unsent
from appliance.protocol import tokens
from appliance.protocol.values import ValueOptions
from appliance.store.file.bridge import open_bridge
from appliance.store.store import StoreSettings, open_store
from appliance.store.tables.secrecy import Secrecy
from appliance.web.admission import Admission
from tests.e2e.hostile import TEXT, frame, head
from tests.live.replay.test_reading import decoded
from tests.web.doors import Client, Open, open_door

FAR = 4_000_000_000.0


class Asking:
    """A client made of bytes, and its session."""

    def __init__(self, client: Client, session: Session) -> None:
        self.client, self.session = client, session

    async def send(self, *requests: dict[str, Any]) -> None:
        """Send requests in one packet."""
        await self.client.send(b"".join(frame(TEXT, json.dumps(each).encode()) for each in requests))

    async def receive(self) -> dict[str, Any]:
        """Give the next text frame."""
        begin = await self.client.exactly(2)
        assert begin[0] & 0x0F == TEXT, begin
        size = begin[1]
        if size >= 126:
            begin += await self.client.exactly(2 if size == 126 else 8)
            size = int.from_bytes(begin[2:], "big")
        (found,) = decoded(begin + await self.client.exactly(size))
        return found

    async def ask(self, method: str, **attributes: Any) -> dict[str, Any]:
        """Send a request and give what comes next, which is to be its reply."""
        await self.send({"method": method, "attributes": attributes})
        return await self.receive()


class Admitted:
    """A store, its hub and tail, and a door for clients."""

    def __init__(self, backend: Backend, opened: Open, secret: str) -> None:
        self.backend, self.opened, self._secret = backend, opened, secret
        self.hub, self.store, self.tail = backend.hub, backend.store, backend.tail

    def token(self, subject: str, *, admin: bool = False) -> str:
        return tokens.issue(self._secret, subject=subject, admin=admin, now=0, ttl_s=FAR, token_id="t")

    @asynccontextmanager
    async def connected(
        self, subject: str = "root", *, admin: bool = True, receives: int | None = None
    ) -> AsyncIterator[Asking]:
        """Connect a client, whose system ``receives`` so many bytes at most that it has not read."""
        before = set(self.backend.sessions.all())
        end = trio.socket.socket()
        if receives is not None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        await end.connect(("127.0.0.1", self.opened.port))
        client = Client(trio.SocketStream(end))
        async with client.stream:
            await client.send(head(f"/live?token={self.token(subject, admin=admin)}"))
            assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            while not (come := [each for each in self.backend.sessions.all() if each not in before]):
                await trio.lowlevel.checkpoint()
            (session,) = come
            assert isinstance(session, Session)
            yield Asking(client, session)


@asynccontextmanager
async def admitted(path: Path, *works: Any, accounts: bool = False, **limits: float) -> AsyncIterator[Admitted]:
    """Serve a file on which these works were done."""
    settings = StoreSettings(path, Secrecy(SECRET_COLUMNS, ()), accounts=accounts)
    async with open_bridge(), open_store(settings) as store:
        for work in works:
            await store.commit_alone(work)
        catalog = await store.synchronise()
        access = Access(store)
        access.configure(external=(), lifetime_s=2 * FAR, guests=False)
        await access.read_keys()
        await access.read_grants()
        hub = Hub(catalog, await store.position(), ValueOptions(), access)
        secret = await store.read(store.secrets.signing)
        sessions = Sessions()
        rights = Rights(access, hub, sessions)
        tail = Tail(store, hub, rights, catalog, Waking(announced=True))
        store.on_commit(tail.waking.wake)
        backend = Backend(store, hub, sessions, Config().part(SessionLimits), Unsent(1 << 28), rights, tail)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tail.run)
            async with open_door(websocket=Admission(backend, allowed_origins=()), **limits) as opened:
                yield Admitted(backend, opened, secret)
            nursery.cancel_scope.cancel()
