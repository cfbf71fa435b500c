"""A server killed at any system call that changes a file, in whatever it does: nothing acknowledged is lost or doubled.

CI kills at a few places; ``CRASH_PLACES=40 pytest tests/e2e/faults/test_every_write.py`` at so many of each call.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from tests.e2e.live import PROGRAM, Client, Live, serving, sql, token
from tests.e2e.server_process import PATIENCE_S, ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

#: The calls by which a server changes files.
CALLS = ("pwrite64", "write", "fdatasync", "fsync", "ftruncate", "rename", "unlink")
#: The call among each thread's own at which CI kills it; where it is asked for, all up to a number.
PLACES = (("pwrite64", 1), ("pwrite64", 9), ("fdatasync", 3), ("pwrite64", 60), ("unlink", 1))
ALL = int(os.environ.get("CRASH_PLACES", "0"))
#: Messages after which a server that is still alive is stopped in order, and may be killed at that.
ENOUGH = 40
#: So few rows are kept that the outbox is trimmed all the time.
OPTIONS = ("--retention-rows", "1000", "--retention-s", "20")


@dataclass
class Oracle:
    """What was acknowledged, and what a client that always resumes was sent, by number."""

    db: Path
    key: str
    acknowledged: dict[int, int] = field(default_factory=dict)
    committed: int = 0
    messages: list[tuple[int, int]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    since: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: The message that is to be sent next, or again.
    number: int = 1

    def send(self, client: Client, *, until: int) -> None:
        """Send messages, each again with the same key until it is acknowledged. Raises as the client does."""
        while self.number <= until:
            sent = client.done("new-message", topic="kept", message=self.number, key=f"message {self.number}")
            self.acknowledged[self.number] = sent["EventId"]
            self.number += 1

    def follow(self, client: Client) -> None:
        """Go on from where it was."""
        for topic in ("kept", "t"):
            reply = client.ask("subscribe", topic=topic, **self.since.get(topic, {}))
            assert reply["EventType"] == "response", (reply, self.since)
            assert ("recovered" in reply["EventData"]) == (topic in self.since)
            self.since.setdefault(topic, {"since": reply["EventData"]["EventId"], "epoch": reply["EventData"]["epoch"]})

    def take(self, event: dict[str, Any]) -> None:
        if "EventId" not in event:
            return
        self.since[event["ObjectType"]]["since"] = event["EventId"]
        if event["ObjectType"] == "kept":
            self.messages.append((event["EventId"], event["EventData"]))
        else:
            self.rows.append(event["EventData"]["id"])

    def write(self) -> None:
        """Commit a row as another program does."""
        with closing(sqlite3.connect(self.db, timeout=PATIENCE_S, isolation_level=None)) as db:
            db.execute("INSERT INTO t VALUES(?, hex(randomblob(3000)))", (self.committed + 1,))
        self.committed += 1

    def compare(self) -> None:
        """Everything acknowledged came once, in order, and is in the file as far as it is kept."""
        assert self.messages == sorted((position, number) for number, position in self.acknowledged.items())
        assert [number for _, number in self.messages] == list(range(1, self.number))
        assert self.rows == list(range(1, self.committed + 1))
        with closing(sqlite3.connect(self.db)) as db:
            kept = db.execute("SELECT id, v2 FROM _appliance_outbox WHERE op = 4 ORDER BY id").fetchall()
            assert db.execute("SELECT count(*) FROM t").fetchone() == (self.committed,)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        newest = [(position, int(body)) for position, body in kept]
        assert newest == self.messages[len(self.messages) - len(newest) :]


@contextmanager
def doomed(db: Path, call: str, place: int) -> Iterator[Live | None]:
    """Start a server that is killed at one of its calls; ``None``: that was before it was ready."""
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    inject = ["-e", f"inject={call}:signal=KILL:when={place}"]
    log = db.with_suffix(".log")
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [*strace, *inject, *PROGRAM, "serve", "--db", str(db), "--port", "0", *OPTIONS],
            stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL, cwd=ROOT,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        greeting = b""
        while b"try it:" not in greeting and (line := process.stdout.readline()):
            greeting += line
        found = re.search(rb"live: +ws://[^:]+:(\d+)/live", greeting)
        yield Live(process, int(found[1]), log, db, greeting.decode()) if found else None
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_S)
        process.stdout.close()


def live_until_killed(oracle: Oracle, live: Live) -> bool:
    """Write until the server dies, or is stopped after enough; whether it was killed."""
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.02):
            oracle.write()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with live.client(oracle.key, close_timeout=1) as sender, live.client(oracle.key, close_timeout=1) as follower:
            oracle.follow(follower)
            try:
                oracle.send(sender, until=oracle.number + ENOUGH)
                os.kill(live.pid, signal.SIGTERM)
            except (OSError, WebSocketException):
                pass
            try:
                while True:
                    oracle.take(follower.event())
            except (OSError, WebSocketException):
                pass
    except (OSError, WebSocketException):
        pass  # it did not live as long as to answer
    finally:
        stop.set()
        writer.join()
    return live.process.wait(PATIENCE_S) != 0


def recover(oracle: Oracle) -> None:
    """Start again, send what was not acknowledged, and read everything that is to come."""
    with serving(oracle.db, *OPTIONS) as live, live.client(oracle.key) as sender, live.client(oracle.key) as follower:
        oracle.follow(follower)
        oracle.write()
        oracle.send(sender, until=oracle.number)
        while (oracle.messages or [(0, 0)])[-1][1] < oracle.number - 1 or len(oracle.rows) < oracle.committed:
            oracle.take(follower.event())


def traceable() -> bool:
    done = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return done.returncode == 0


def test_whatever_call_the_server_is_killed_at_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    if shutil.which("strace") is None or not traceable():
        pytest.skip("strace is not installed, or may not trace here")
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    oracle = Oracle(db, token(db))
    with serving(db, *OPTIONS) as live, live.client(oracle.key) as client:
        client.done("create-topic", name="kept")
        oracle.follow(client)
    killed = Counter[str]()
    for call, place in product(CALLS, range(1, ALL + 1)) if ALL else PLACES:
        with doomed(db, call, place) as live:
            killed[call] += live is None or live_until_killed(oracle, live)
        recover(oracle)
        oracle.compare()
    print(f"killed at {dict(killed)}; {oracle.number - 1} messages, {oracle.committed} rows")
    assert killed["pwrite64"] >= min(3, ALL or 3)
