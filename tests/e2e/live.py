"""The real program as a process of its own, and a stock WebSocket client for it."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from appliance.store.tables import standard
from tests.e2e.server_process import PATIENCE_S, ROOT, ServerProcess

#: What is tested: the source, or the program that this variable names, such as dist/live-appliance. (Taken out of the
#: environment: the program would take it for a misspelt setting.) Warnings are errors in the source.
FROZEN = os.environ.pop("LIVE_APPLIANCE_TEST_PROGRAM", "")
PROGRAM = (str(ROOT / FROZEN),) if FROZEN else (sys.executable, "-W", "error", "-m", "appliance")


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the program to its end."""
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False, stdin=subprocess.DEVNULL, **options
    )


def token(db: Path, *options: str) -> str:
    """Make a token with the command line."""
    made = run("token", "create", "--db", db, *(options or ("--admin",)))
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.splitlines()) == 1
    key = made.stdout.strip()
    assert "token_created" in made.stderr  # one line for the log, which must not hold it
    assert key.rpartition(".")[2] not in made.stderr
    return key


def sql(db: Path, statement: str) -> str:
    """Run SQL with the ``sqlite3`` shell, as any other program of the machine would."""
    done = subprocess.run(
        ["sqlite3", "-cmd", ".timeout 10000", "-bail", str(db), statement],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


class Live(ServerProcess):
    """A running ``live-appliance serve``."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, db: Path, greeting: str) -> None:
        super().__init__(process, port, log)
        self.db = db
        self.greeting = greeting
        self.secure = "wss://" in greeting
        self._token: str | None = None

    @property
    def token(self) -> str:
        """An administrator's token."""
        if self._token is None:
            self._token = token(self.db)
        return self._token

    @property
    def url(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://localhost:{self.port}/live"

    @contextmanager
    def client(self, key: str | None = None, **options: Any) -> Iterator[Client]:
        """Connect a stock client, by default as an administrator."""
        with connect(f"{self.url}?token={key or self.token}", open_timeout=PATIENCE_S, **options) as connection:
            yield Client(connection)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


class Client:
    """A client that asks and waits for what must come."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        #: Events that came before the reply to a request.
        self.waiting: list[dict[str, Any]] = []
        #: The user topic whose messages mark a place in the order of events.
        self._barrier: str | None = None

    def send(self, request: object) -> None:
        self.connection.send(request if isinstance(request, str) else json.dumps(request))

    def receive(self) -> dict[str, Any]:
        return json.loads(self.connection.recv(timeout=PATIENCE_S))  # type: ignore[no-any-return]

    def ask(self, method: str, **attributes: Any) -> dict[str, Any]:
        """Send a request and give its reply, success or error."""
        self.send({"method": method, "attributes": attributes, "id": method})
        while True:
            frame = self.receive()
            if frame.get("id") == method:
                return frame
            self.waiting.append(frame)

    def done(self, method: str, **attributes: Any) -> Any:
        """Send a request that must be done, and give its data."""
        reply = self.ask(method, **attributes)
        assert reply["EventType"] == "response", reply
        return reply["EventData"]

    def refused(self, method: str, **attributes: Any) -> str:
        """Send a request that must be refused, and give the code."""
        reply = self.ask(method, **attributes)
        assert reply["EventType"] == "error", reply
        return str(reply["EventData"]["code"])

    def topics(self) -> list[str]:
        """List the topics, but for the tables that every store has."""
        return [name for name in self.done("list-topic")["topics"] if not standard.is_system(name)]

    def event(self) -> dict[str, Any]:
        return self.waiting.pop(0) if self.waiting else self.receive()

    def events(self, count: int) -> list[dict[str, Any]]:
        return [self.event() for _ in range(count)]

    def close_code(self) -> int | None:
        """Read on until the server closes, and give the code."""
        try:
            while True:
                self.connection.recv(timeout=PATIENCE_S)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else None

    def all_until_now(self) -> list[dict[str, Any]]:
        """Give every event of what is committed by now that has not been given yet.

        A durable message goes through the same one order as every change, so when it comes, all before it has come.
        """
        if self._barrier is None:
            self._barrier = f"barrier {uuid.uuid4()}"
            self.done("create-topic", name=self._barrier)
            self.done("subscribe", topic=self._barrier)
        sent = self.done("new-message", topic=self._barrier, message=None)["EventId"]
        found = []
        while (event := self.event()).get("EventId") != sent:
            found.append(event)
        return found


@contextmanager
def serving(db: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[Live]:
    """Run ``serve`` on a free port until the block ends; it must then stop with status 0 unless it has ended."""
    log = db.with_suffix(".log")
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [*PROGRAM, "serve", "--db", str(db), "--port", "0", *options],
            stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        greeting = b""
        while b"try it:" not in greeting:
            line = process.stdout.readline()
            assert line, f"serve did not start: {log.read_text()}"
            greeting += line
        found = re.search(rb"live: +wss?://[^:]+:(\d+)/live", greeting)
        assert found is not None, greeting
        live = Live(process, int(found[1]), log, db, greeting.decode())
        yield live
        if live.alive:
            assert live.stop() == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def again(live: Live) -> AbstractContextManager[Client]:
    """Connect to a server that begins anew, once it answers."""

    def answers() -> bool:
        try:
            with live.client() as client:
                client.done("ping")
        except OSError:
            return False
        return True

    live._token = None
    until(answers, "it serves again")
    return live.client()


@contextmanager
def standing_still(live: Live) -> Iterator[None]:
    """Have the server see nothing until the block ends; what is committed meanwhile it finds at one look."""
    os.kill(live.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(live.pid, signal.SIGCONT)


def until(condition: Any, what: str) -> None:
    """Wait until a condition holds; nothing is asserted about how fast."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.01)


def trusting(chain: str) -> ssl.SSLContext:
    """Make a client's TLS context that trusts one certificate."""
    context = ssl.create_default_context(cafile=chain)
    # In 1.3 a server sends tickets behind the handshake, which a blocking client's other thread reads while this one
    # writes its request; OpenSSL's connections are for one thread at a time, and once that hung for ever.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
