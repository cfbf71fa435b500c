"""The seed's requests, played by clients and writers that know nothing of us.

A client program plays the requests, says "ready" on the topic ``stage``, and at the end tells on ``transcript`` what
it got. The tables are made by the ``sqlite3`` shell.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import orm

from tests.e2e.live import Client, Live, serving, sql, until
from tests.e2e.server_process import PATIENCE_S, ROOT

pytestmark = pytest.mark.e2e
CLIENTS = Path(__file__).parent / "clients"
#: The release of ``ws`` that is tried.
WS = "ws@8.18.3"
TABLES = """
CREATE TABLE user_account(reference_id TEXT PRIMARY KEY, name TEXT, email TEXT, password TEXT,
    confirmed BOOLEAN DEFAULT 0, version INTEGER DEFAULT 1);
CREATE TABLE orders(id INTEGER PRIMARY KEY, item TEXT, total REAL, paid BOOLEAN DEFAULT 0);
"""

# -- writers ----------------------------------------------------------------------------------------------


def write_with_the_shell(db: Path) -> None:
    for statement in (
        "INSERT INTO user_account(reference_id, name, email, password) VALUES('r1', 'asdf', 'asdf@asfd.cm', 'canary')",
        "UPDATE user_account SET version = 2, confirmed = 1",
        "BEGIN; INSERT INTO orders(item, total) VALUES('never', 1); ROLLBACK",
        "BEGIN; INSERT INTO orders(id, item, total) VALUES(1, 'chair ü', 49.5); UPDATE orders SET paid = 1; COMMIT",
        "DELETE FROM orders",
    ):
        sql(db, statement)


def write_with_perl(db: Path) -> None:
    asked = ["perl", "-MDBD::SQLite", "-e", "1"]
    if shutil.which("perl") is None or subprocess.run(asked, check=False, capture_output=True).returncode:
        pytest.skip("there is no Perl with DBD::SQLite (Debian: libdbd-sqlite3-perl)")
    subprocess.run(["perl", CLIENTS / "write.pl", db], check=True, timeout=PATIENCE_S)


class Model(orm.DeclarativeBase):
    pass


class UserAccount(Model):
    __tablename__ = "user_account"
    reference_id: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]
    email: orm.Mapped[str]
    password: orm.Mapped[str]
    confirmed: orm.Mapped[bool] = orm.mapped_column(default=False)
    version: orm.Mapped[int] = orm.mapped_column(default=1)


class Order(Model):
    __tablename__ = "orders"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    item: orm.Mapped[str]
    total: orm.Mapped[float]
    paid: orm.Mapped[bool] = orm.mapped_column(default=False)


def write_with_sqlalchemy(db: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{db}", connect_args={"timeout": 10})
    with orm.Session(engine) as session:
        user = UserAccount(reference_id="r1", name="asdf", email="asdf@asfd.cm", password="canary")
        session.add(user)
        session.commit()
        user.version, user.confirmed = 2, True
        session.commit()
        session.add(Order(item="never", total=1))
        session.flush()
        session.rollback()
        order = Order(id=1, item="chair ü", total=49.5)
        session.add(order)
        session.flush()
        order.paid = True
        session.commit()
        session.delete(order)
        session.commit()
    engine.dispose()


WRITERS: dict[str, Callable[[Path], None]] = {
    "sqlite3": write_with_the_shell,
    "Perl's DBI": write_with_perl,
    "SQLAlchemy's ORM": write_with_sqlalchemy,
}

# -- clients ----------------------------------------------------------------------------------------------


@contextmanager
def program(*command: str | Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Run a client that must end with 0 by itself."""
    process = subprocess.Popen([*map(str, command)], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
    try:
        yield
        assert process.wait(PATIENCE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _node(least: int) -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no Node.js")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v").split(".")[0]) < least:
        pytest.skip(f"Node.js {version.strip()} is older than {least}")
    return found


@contextmanager
def node_ws(url: str, folder: Path) -> Iterator[None]:
    node, npm = _node(18), shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm to install ws with")
    got = subprocess.run(
        [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts", WS],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if got.returncode:
        pytest.skip(f"npm cannot install {WS}: {got.stderr.strip().splitlines()[-1]}")
    with program(node, CLIENTS / "node.js", url, folder / "node_modules" / "ws"):
        yield


@contextmanager
def node_itself(url: str, folder: Path) -> Iterator[None]:
    with program(_node(20), "--experimental-websocket", "--no-warnings", CLIENTS / "node.js", url):
        yield


@contextmanager
def python_sync(url: str, folder: Path) -> Iterator[None]:
    with program(sys.executable, "-m", "tests.e2e.clients.play_sync", url):
        yield


@contextmanager
def python_asyncio(url: str, folder: Path) -> Iterator[None]:
    with program(sys.executable, "-m", "tests.e2e.clients.play_asyncio", url):
        yield


PLAYERS = [python_sync, python_asyncio, node_ws, node_itself]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def site() -> Iterator[str]:
    """Serve the folder of clients as a web site of its own; gives its origin."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(CLIENTS))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def browser(page: str, folder: Path) -> Iterator[None]:
    """Open a page in a headless Chromium for as long as the block lasts."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium (Debian: chromium)")
    process = subprocess.Popen(
        [
            found, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={folder / 'chromium'}", page,
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# -- the play ---------------------------------------------------------------------------------------------


@contextmanager
def audience(live: Live) -> Iterator[Client]:
    with live.client() as client:
        for topic in ("stage", "transcript"):
            client.done("create-topic", name=topic)
            client.done("subscribe", topic=topic)
        yield client


def check(transcript: list[str]) -> None:
    """Compare what a client got with what the seed says it gets."""
    frames: list[dict[str, Any]] = [json.loads(text) for text in transcript]
    replies = [frame for frame in frames if frame["EventType"] == "response"]
    assert [frame["ObjectType"] for frame in replies] == [
        "topic-list", "create-topic", "subscribe", "unsubscribe", "subscribe", "subscribe", "subscribe", "new-message",
        "new-message", "destroy-topic",
    ]  # fmt: skip
    assert replies[0]["EventData"] == {"topics": ["orders", "user_account", "stage", "transcript"]}
    events = [frame for frame in frames if frame not in replies]
    account = {
        "__type": "user_account", "reference_id": "r1", "name": "asdf", "email": "asdf@asfd.cm", "confirmed": True,
        "version": 2,
    }  # fmt: skip
    order = {"__type": "orders", "id": 1, "item": "chair ü", "total": 49.5, "paid": False}
    parts = ("MessageSource", "EventType", "ObjectType", "EventData")
    assert [tuple(event[part] for part in parts) for event in events] == [
        ("administrator", "new-message", "test", {"hello": "world"}),
        ("database", "update", "user_account", account),
        ("database", "create", "orders", order),
        ("database", "update", "orders", order | {"paid": True}),
        ("database", "delete", "orders", order | {"paid": True}),
        ("system", "topic-destroyed", "test", {"reason": "destroyed"}),
    ]  # fmt: skip
    ids = [event["EventId"] for event in events if "EventId" in event]
    assert ids == sorted(set(ids))
    assert "canary" not in "".join(transcript)


@pytest.mark.parametrize("play", PLAYERS, ids=lambda player: player.__name__)
def test_a_stock_client_plays_the_seed(tmp_path: Path, play: Callable[[str, Path], Any]) -> None:
    sql(tmp_path / "shop.db", TABLES)
    with (
        serving(tmp_path / "shop.db", "--no-accounts") as live,
        audience(live) as client,
        play(f"{live.url}?token={live.token}", tmp_path),
    ):
        assert client.event()["EventData"] == "ready"
        write_with_the_shell(live.db)
        check(client.event()["EventData"])


@pytest.mark.parametrize("writer", WRITERS)
def test_the_seed_with_another_writer(tmp_path: Path, writer: str) -> None:
    sql(tmp_path / "shop.db", TABLES)
    with (
        serving(tmp_path / "shop.db", "--no-accounts") as live,
        audience(live) as client,
        python_sync(f"{live.url}?token={live.token}", tmp_path),
    ):
        assert client.event()["EventData"] == "ready"
        WRITERS[writer](live.db)
        check(client.event()["EventData"])


def test_a_browser_plays_the_seed_from_an_origin_that_is_allowed(tmp_path: Path) -> None:
    sql(tmp_path / "shop.db", TABLES)
    with (
        site() as origin,
        serving(tmp_path / "shop.db", "--no-accounts", "--allowed-origins", origin) as live,
        audience(live) as client,
        browser(f"{origin}/page.html#{live.url}?token={live.token}", tmp_path),
    ):
        assert client.event()["EventData"] == "ready"
        write_with_the_shell(live.db)
        check(client.event()["EventData"])


def test_a_browser_is_refused_from_an_origin_that_is_not_allowed(tmp_path: Path) -> None:
    sql(tmp_path / "shop.db", TABLES)
    allowed = ("--allowed-origins", "https://shop.example.com")
    with site() as origin, serving(tmp_path / "shop.db", "--no-accounts", *allowed) as live:
        with browser(f"{origin}/page.html#{live.url}?token={live.token}", tmp_path):
            until(lambda: any("refused" in line for line in live.log()), "the page is refused")
        assert any("forbidden" in line for line in live.log())
        assert not any("connected" in line for line in live.log())
