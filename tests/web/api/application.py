"""The application over a store in this process, its users, and a client for it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import trio

from appliance.config import SECRET_COLUMNS, Config
from appliance.live.fanout.hub import Hub
from appliance.live.fanout.sessions import Sessions
from appliance.live.matching.access import Access
from appliance.live.session.accounts import Accounts
from appliance.live.tail.rights import Rights
from appliance.live.tail.tail import Tail
from appliance.live.tail.waking import Waking
from appliance.ops.health import Health
from appliance.ops.metrics import Metrics
from appliance.protocol import tokens
from appliance.protocol.permissions import ROW_DEFAULT
from appliance.protocol.values import ValueOptions
from appliance.store.file import connections, schema
from appliance.store.file.bridge import open_bridge
from appliance.store.store import Store, StoreSettings, open_store
from appliance.store.tables import making, standard
from appliance.store.tables.making import NewColumn
from appliance.store.tables.secrecy import Secrecy
from appliance.web.api.entrance import Rates
from appliance.web.api.paths import paths
from appliance.web.metrics import MetricsPage
from appliance.web.routes import application
from tests.ops.figures import sources

NOW = 4_000_000_000.0  # tokens are issued in the year 2096, so that they are valid whenever the tests run
MEDIA = "application/vnd.api+json"
#: Whose pages may use the API.
ORIGINS = ("https://app.example.com",)
#: How often one may ask, unless a test says otherwise.
USUAL = Config().part(Rates)
#: How values are sent, and how long a message may be, unless a test says otherwise.
OPTIONS = ValueOptions()
MESSAGE_BYTES = Config().message_bytes
#: The users there are; a user's reference_id is its name.
USERS = ("ann", "bob")


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
            db.execute("PRAGMA foreign_keys=ON")
            return db.execute(statement, parameters).fetchall()

    async def ask(self, method: str, path: str, subject: str | None = None, **options: Any) -> httpx.Response:
        """Send a request, as an administrator unless a subject is named."""
        token = self.token(admin=True) if subject is None else self.token(subject)
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **options)

    async def write(
        self, method: str, path: str, data: Any, subject: str | None = None, **headers: str
    ) -> httpx.Response:
        """Send a document."""
        given = {"Content-Type": MEDIA} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask(method, path, subject, json={"data": data}, headers=given)

    async def create(self, table: str, subject: str | None = None, **attributes: Any) -> httpx.Response:
        """Create a row."""
        return await self.write("POST", f"/api/{table}", {"type": table, "attributes": attributes}, subject)

    async def change(
        self, table: str, row_id: str, subject: str | None = None, if_match: str | None = None, **attributes: Any
    ) -> httpx.Response:
        """Change a row."""
        data = {"type": table, "id": row_id, "attributes": attributes}
        return await self.write(
            "PATCH", f"/api/{table}/{row_id}", data, subject, **({"If_Match": if_match} if if_match else {})
        )


def code(answer: httpx.Response) -> tuple[int, str]:
    """Give an error's status and code."""
    (error,) = answer.json()["errors"]
    assert error["status"] == str(answer.status_code)
    assert answer.headers["Content-Type"] == MEDIA
    return answer.status_code, error["code"]


def ids(answer: httpx.Response) -> list[str]:
    """Give the ids of a list."""
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["data"]]


def make_table(db: sqlite3.Connection, name: str, *columns: NewColumn, permission: int = ROW_DEFAULT) -> None:
    """Make a standard table in which every user may create rows."""
    with schema.transaction(db):
        making.create(db, name, columns, permission=permission)
        db.execute("UPDATE world SET permission = permission | 4 WHERE table_name = ?", (name,))


def _furnish(
    path: Path,
    statements: tuple[str, ...],
    tables: tuple[tuple[str, tuple[NewColumn, ...]], ...],
    *,
    accounts: bool,
) -> None:
    with closing(connections.open_file(path, busy_timeout_s=5)) as db:
        schema.prepare(db)
        if accounts:
            standard.prepare(db)
        for user in USERS if accounts else ():
            db.execute("INSERT INTO user_account(reference_id, email) VALUES(?, ?)", (user, f"{user}@example.com"))
            db.execute(
                f"INSERT INTO {standard.join_table('user_account')}(user_account_id, usergroup_id) VALUES(?, ?)",
                (user, standard.USERS),
            )
        for name, columns in tables:
            make_table(db, name, *columns)
        for statement in statements:
            db.execute(statement)


@asynccontextmanager
async def served(
    path: Path,
    *statements: str,
    tables: dict[str, tuple[NewColumn, ...]] | None = None,
    query_s: float = 5.0,
    signup: bool = True,
    guests: bool = False,
    rates: Rates = USUAL,
    options: ValueOptions = OPTIONS,
    message_bytes: int = MESSAGE_BYTES,
    accounts: bool = True,
    secret: Sequence[str] = (),
) -> AsyncIterator[Served]:
    """Serve the file that ``statements`` have made, after standard ``tables``."""
    _furnish(path, statements, tuple((tables or {}).items()), accounts=accounts)
    settings = StoreSettings(path, Secrecy((*SECRET_COLUMNS, *secret), ()), accounts=accounts)
    async with open_bridge(), open_store(settings) as store:
        catalog = await store.synchronise()
        access = Access(store)
        access.configure(external=(), lifetime_s=2 * NOW, guests=guests)
        await access.read_keys()
        await access.read_grants()
        hub = Hub(catalog, await store.position(), options, access)
        secret = await store.read(store.secrets.signing)
        tail = Tail(store, hub, Rights(access, hub, Sessions()), catalog, Waking(announced=False))
        metrics = MetricsPage(Metrics(sources(path.parent)), access)
        api = paths(
            store, hub, tail, access, Accounts(store, kept=accounts, signup=signup, ttl_s=60), options,
            query_s=query_s, message_bytes=message_bytes, rates=rates,
        )  # fmt: skip
        app = application(Health(tail.state), api, metrics, allowed_origins=ORIGINS)
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://live") as client,
            trio.open_nursery() as tasks,
        ):
            tasks.start_soon(tail.run)
            yield Served(store, hub, secret, client)
            tasks.cancel_scope.cancel()
