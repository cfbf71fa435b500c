"""The application over a store in this process, and a client for it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx

from appliance.config import SECRET_COLUMNS
from appliance.live.access import Authority
from appliance.live.hub import Hub
from appliance.live.tail import Tail
from appliance.ops.health import Health
from appliance.ops.metrics import Metrics
from appliance.protocol import tokens
from appliance.protocol.values import ValueOptions
from appliance.store.bridge import open_bridge
from appliance.store.secrecy import Secrecy
from appliance.store.store import Store, StoreSettings, open_store
from appliance.web.api.messages import Messages
from appliance.web.metrics import MetricsPage
from appliance.web.routes import application
from tests.ops.figures import sources

NOW = 4_000_000_000.0  # tokens are issued in the year 2096, so that they are valid whenever the tests run


class Served:
    """A store, its hub, and a client of the application over them."""

    def __init__(self, store: Store, hub: Hub, secret: str, client: httpx.AsyncClient) -> None:
        self.store = store
        self.hub = hub
        self.client = client
        self._secret = secret

    def token(self, subject: str = "administrator", *, admin: bool = False) -> str:
        return tokens.issue(self._secret, subject=subject, admin=admin, now=0, ttl_s=NOW, token_id="t")

    def sql(self, statement: str, *parameters: Any) -> list[Any]:
        """Run a statement as another program of the machine."""
        with closing(sqlite3.connect(self.store.path, isolation_level=None)) as db:
            return db.execute(statement, parameters).fetchall()

    async def ask(self, method: str, path: str, subject: str | None = None, **options: Any) -> httpx.Response:
        """Send a request, as an administrator unless a subject is named."""
        token = self.token(admin=True) if subject is None else self.token(subject)
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **options)


@asynccontextmanager
async def served(path: Path, *statements: str) -> AsyncIterator[Served]:
    """Serve the file that ``statements`` have made."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)
    async with open_bridge(), open_store(StoreSettings(path, Secrecy(SECRET_COLUMNS, ()))) as store:
        catalog = await store.synchronise()
        hub = Hub(catalog, await store.position(), ValueOptions())
        secret = await store.signing_secret()
        tail = Tail(store, hub, catalog, announced=False)
        authority = Authority(secret)
        metrics = MetricsPage(Metrics(sources(path.parent)), authority)
        app = application(Health(tail.state), Messages(store, hub, authority), metrics)
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://live") as client:
            yield Served(store, hub, secret, client)
