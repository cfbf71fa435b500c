"""The servers that are measured: ours, the physical limit, and the peers that are on this machine."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.model import Message
from appliance.protocol import frames, tokens
from tests.bench.tools import BUILD, HERE, PAYLOAD, SERVER_CORE, Missing, Result, load, pinned
from tests.e2e.live import Live, run, serving

WS = "ws@8.18.3"
PEERS = ("websockets", "ws", "trio-websocket")
OURS = "live-appliance"
#: Two user topics: one is durable, one is not.
KEPT, PASSING = "kept", "passing"
#: What the load generator is not to be stopped by.
OPTIONS = (
    "--requests-per-s", "1e9", "--request-burst", "1000000000", "--connections", "100000",
    "--connections-per-user", "100000", "--log-level", "warning",
)  # fmt: skip
#: What is sent, for the load generator to find in what it is told.
MESSAGE = '{"seq":"S:{seq}","t":"T:{ts_ns}","pad":"{pad}"}'
_START_S = 20.0


@dataclass(frozen=True)
class Target:
    """A server to publish to, and how: its process, where it is, and what its subscribers send first."""

    name: str
    pid: int
    url: str
    setup: Sequence[str] = ()
    publish: str = MESSAGE
    payload: int = PAYLOAD

    def fan_out(self, connections: int, **options: object) -> Result:
        """Publish to so many subscribers; options as of ``tools.load``."""
        return load(
            self.url, connections, self.setup, publish=self.publish, expect_setup=len(self.setup),
            **{"payload": self.payload, "warmup": 3, **options},
        )  # fmt: skip


def subscribe(topic: str, **attributes: str) -> str:
    """Give the request to subscribe; attributes are JSON texts."""
    more = "".join(f',"{name}":{text}' for name, text in attributes.items())
    return f'{{"method":"subscribe","attributes":{{"topic":"{topic}"{more}}}}}'


@contextmanager
def ours(folder: Path, *options: str, tables: str = "") -> Iterator[Live]:
    """Run live-appliance on a new file with these tables, and with the user topics ``KEPT`` and ``PASSING``."""
    db = folder / f"bench-{time.monotonic_ns()}.db"
    with sqlite3.connect(db) as made:
        made.executescript(f"PRAGMA journal_mode=WAL; {tables}")
    made.close()
    for topic, durability in ((KEPT, "--durable"), (PASSING, "--no-durable")):
        done = run("topic", "create", topic, durability, "--db", db)
        assert done.returncode == 0, done.stderr
    with pinned(SERVER_CORE):
        running = serving(db, *OPTIONS, *options)
        live = running.__enter__()
    try:
        yield live
    finally:
        running.__exit__(None, None, None)


def address(live: Live, token: str = "") -> str:
    """Give the URL for the load generator, which knows addresses and no names."""
    scheme = "wss" if live.secure else "ws"
    return f"{scheme}://127.0.0.1:{live.port}/live?token={token or live.token}"


def topic(live: Live, name: str) -> Target:
    """Give a user topic, ``KEPT`` or ``PASSING``, as a target."""
    return Target(OURS, live.process.pid, address(live), (subscribe(name),), _request(name))


def _request(topic: str) -> str:
    return f'{{"method":"new-message","attributes":{{"topic":"{topic}","message":{MESSAGE}}}}}'


def write_tokens(live: Live, count: int, path: Path, subject: str = "user-{}") -> None:
    """Write tokens of so many users, one a line; ``subject`` is what they are called, with a place for the number."""
    db = sqlite3.connect(live.db)
    (secret,) = db.execute("SELECT value FROM _appliance_meta WHERE name='secret'").fetchone()
    db.close()
    now = time.time()
    lines = [
        tokens.issue(secret, subject=subject.format(number), admin=False, now=now, ttl_s=3600, token_id=str(number))
        for number in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")


@contextmanager
def limit(mode: str) -> Iterator[Target]:
    """Run the limit server, ``each`` or ``batch``."""
    with _listening(f"limit {mode}", [str(BUILD / "limit_server"), "{port}", mode]) as target:
        yield target


def framed(limit: Target) -> Target:
    """Give the limit server as one that is sent, and so sends, the frames that ours sends for ``PASSING``.

    The load generator is the other core's whole work in a burst, and looks for its marks in each byte that it gets: so
    what the servers can do is seen only where both send the same.
    """
    event = frames.message(Message(None, PASSING, tokens.ADMINISTRATOR, MESSAGE.encode())).decode()
    payload = PAYLOAD + len(event) - len(_request(PASSING))
    return replace(limit, name=f"{limit.name}, our frames", publish=event, payload=payload)


@contextmanager
def peer(name: str) -> Iterator[Target]:
    """Run one of ``PEERS``. Raises ``Missing``."""
    if name == "ws":
        command = [_node(), str(_install_ws()), "{port}"]
    else:
        script = {"websockets": "websockets_server.py", "trio-websocket": "trio_websocket_server.py"}[name]
        command = [sys.executable, str(HERE / "peers" / script), "{port}"]
    with _listening(name, command) as target:
        yield target


def _node() -> str:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise Missing("ws needs node and npm")
    return node


def _install_ws() -> Path:
    """Install ws from npm, once, and give the script that uses it."""
    folder = BUILD / "node"
    if not (folder / "node_modules" / "ws").exists():
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", WS]
        got = subprocess.run(command, capture_output=True, text=True, check=False)
        if got.returncode:
            raise Missing(f"npm cannot install {WS}")
    script = folder / "ws_server.js"
    shutil.copy(HERE / "peers" / "ws_server.js", script)
    return script


@contextmanager
def _listening(name: str, command: list[str]) -> Iterator[Target]:
    """Run a server on a free port until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pinned(SERVER_CORE):
        process = subprocess.Popen([part.format(port=port) for part in command], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Missing(f"{name} does not start") from error
                time.sleep(0.05)
        yield Target(name, process.pid, f"ws://127.0.0.1:{port}/")
    finally:
        process.kill()
        process.wait()
