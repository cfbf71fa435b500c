"""Random histories by several programs at a time: what clients make of the events is what the file holds."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.clients import write_at_random
from tests.e2e.hostile import CLOSE, PING, TEXT, Stranger, frame
from tests.e2e.live import Client, Live, run, serving, sql, until
from tests.e2e.server_process import PATIENCE_S, ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]
TABLES = """
CREATE TABLE a(k INTEGER PRIMARY KEY, u TEXT UNIQUE, v);
CREATE TABLE b(p TEXT, q INT, v, PRIMARY KEY(p, q)) WITHOUT ROWID;
"""
COLUMNS = {"a": ["k", "u", "v"], "b": ["p", "q", "v"]}
#: Transactions that keep a writer busy for longer than a test lasts.
BUSY = 20_000
WRITER = [sys.executable, "-m", "tests.e2e.clients.write_at_random"]


class Replica:
    """What a client holds of the tables that it follows, by the events alone. Every event must fit what it holds."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, tuple[Any, ...]], dict[str, Any]] = {}
        self.position = 0
        #: Rows that no event has brought anew since the table's shape changed.
        self.stale: set[tuple[str, tuple[Any, ...]]] = set()
        self.resyncs = 0

    def take(self, event: dict[str, Any]) -> None:
        if event["EventType"] == "resync":
            self.resyncs += 1
            self.stale |= {held for held in self.rows if held[0] == event["ObjectType"]}
            return
        assert event["MessageSource"] == "database", event
        assert event["EventId"] > self.position, event
        self.position = event["EventId"]
        held = event["ObjectType"], tuple(event["Key"])
        before = event["ObjectType"], tuple(event.get("OldKey", event["Key"]))
        if event["EventType"] == "create":
            assert held not in self.rows, event
        else:
            del self.rows[before]
        self.stale.discard(before)
        if event["EventType"] != "delete":
            assert held not in self.rows, event
            self.rows[held] = {name: value for name, value in event["EventData"].items() if name != "__type"}

    def equals(self, db: Path, table: str, condition: str = "1") -> None:
        with closing(sqlite3.connect(db)) as reader:
            reader.row_factory = sqlite3.Row
            held = {key: row for (name, key), row in self.rows.items() if name == table}
            for row in reader.execute(f"SELECT * FROM {table} WHERE {condition}"):
                key = (row["k"],) if table == "a" else (row["p"], row["q"])
                copy = held.pop(key)
                for name in COLUMNS[table] if (table, key) in self.stale else row.keys():
                    assert _same(row[name], copy[name]), (table, key, name)
            assert held == {}


def _same(value: object, sent: object) -> bool:
    if isinstance(value, bytes):
        return isinstance(sent, dict) and list(sent) == ["$blob"]
    return value == sent


@contextmanager
def writers(db: Path, count: int, transactions: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run random writers, every second one through the ``sqlite3`` shell."""
    processes = []
    try:
        for seed in range(count):
            if seed % 2:
                script = db.with_name(f"script-{seed}.sql")
                lines = (f"{each};\n" for each in write_at_random.history(seed, transactions))
                script.write_text(".timeout 30000\n" + "".join(lines))
                with script.open("rb") as source:
                    command: list[str] = ["sqlite3", str(db)]
                    processes.append(
                        subprocess.Popen(
                            command, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
                        )
                    )
            else:
                processes.append(
                    subprocess.Popen(
                        [*WRITER, str(db), str(seed), str(transactions)], cwd=ROOT, stderr=subprocess.DEVNULL
                    )
                )
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def test_replicas_equal_the_file_whatever_several_programs_write(tmp_path: Path) -> None:
    db = tmp_path / "shop.db"
    sql(db, TABLES)
    everything, some = Replica(), Replica()

    def follow(client: Client, replica: Replica, ends: list[BaseException]) -> None:
        try:
            while (event := client.event())["ObjectType"] != "end":
                replica.take(event)
        except BaseException as error:
            ends.append(error)

    with serving(db) as live, live.client() as one, live.client() as two, live.client() as third:
        third.done("create-topic", name="end")
        for client in (one, two):
            client.done("subscribe", topic="end")
        one.done("subscribe", topic="a")
        one.done("subscribe", topic="b")
        two.done("subscribe", topic="a", filters={"k": {"lt": 50}})
        two.done("subscribe", topic="b", filters={"p": ["x", "z"]})
        failures: list[BaseException] = []
        threads = [
            threading.Thread(target=follow, args=(client, replica, failures))
            for client, replica in ((one, everything), (two, some))
        ]
        for thread in threads:
            thread.start()
        with writers(db, 4, 400) as processes:
            for process in processes:
                process.wait(60)
            # The shell's status is that of its last statement; Python's must be 0.
            assert [process.returncode for process in processes[::2]] == [0, 0]
        # What the ALTERs of the last moment mean has been told when a table that is made now is a topic.
        sql(db, "CREATE TABLE last(a)")
        until(lambda: "last" in third.done("list-topic")["topics"], "the schema is taken up")
        third.done("new-message", topic="end", message=None)
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        assert failures == []
        assert everything.position > 500
        assert everything.resyncs > 0
        everything.equals(db, "a")
        everything.equals(db, "b")
        some.equals(db, "a", "k < 50")
        some.equals(db, "b", "p IN ('x', 'z')")
    assert run("check", "--db", db, env={**os.environ, "LIVE_APPLIANCE_PORT": "0"}).returncode == 0


class Crowd:
    """Many clients whose bytes one thread reads."""

    def __init__(self, live: Live, size: int) -> None:
        self.clients = [Stranger(live.connect(), live.token) for _ in range(size)]
        self.received = [bytearray() for _ in self.clients]
        for client in self.clients:
            client.open().send(frame(TEXT, b'{"method":"subscribe","attributes":{"topic":"a"}}'))
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for client, buffer in zip(self.clients, self.received, strict=True):
                selector.register(client.sock, selectors.EVENT_READ, buffer)
            while selector.get_map():
                for key, _ in selector.select():
                    try:
                        data = key.fileobj.recv(1 << 18)  # type: ignore[union-attr]
                    except OSError:
                        data = b""
                    key.data.extend(data)
                    if not data:
                        selector.unregister(key.fileobj)

    def codes(self) -> list[int | None]:
        """Wait for the end of every connection and give the codes of their Close frames."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "some connections have not ended"
        found: list[int | None] = []
        for client, buffer in zip(self.clients, self.received, strict=True):
            client.close()
            found.append(_close_code(bytes(buffer)))
        return found


def _close_code(data: bytes) -> int | None:
    at = 0
    while at < len(data):
        opcode, size, start = data[at] & 15, data[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, start = int.from_bytes(data[start : start + width], "big"), start + width
        if opcode == CLOSE:
            return int.from_bytes(data[start : start + 2], "big")
        assert opcode in (TEXT, PING)
        at = start + size
    return None


def test_sigterm_while_writers_and_200_clients_are_busy(tmp_path: Path) -> None:
    db = tmp_path / "shop.db"
    sql(db, TABLES)
    with serving(db) as live, writers(db, 2, BUSY) as processes:
        with live.client() as watcher:
            crowd = Crowd(live, 200)
            watcher.done("subscribe", topic="a")
            watcher.events(50)
            assert [process.poll() for process in processes] == [None, None]
            live.process.send_signal(signal.SIGTERM)
            codes = crowd.codes()
            with contextlib.suppress(ConnectionClosed):
                while True:
                    watcher.receive()
        assert live.process.wait(PATIENCE_S) == 0
        assert codes == [1012] * 200
        assert "Traceback" not in "\n".join(live.log())


def test_no_acknowledged_message_is_missing_after_a_kill(tmp_path: Path) -> None:
    db = tmp_path / "shop.db"
    sql(db, TABLES)
    acknowledged: dict[int, str] = {}
    enough = threading.Event()

    def publish(client: Client) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            while True:
                body = str(uuid.uuid4())
                reply = client.ask("new-message", topic="kept", message=body)
                if reply["EventType"] == "error":  # the writers are always first, which is their right
                    assert reply["EventData"]["code"] == "unavailable"
                    continue
                acknowledged[reply["EventData"]["EventId"]] = body
                if len(acknowledged) > 20:
                    enough.set()

    with serving(db) as live, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(live.client()) for _ in range(4)]
        clients[0].done("create-topic", name="kept")
        epoch = clients[0].done("ping")["epoch"]
        stack.enter_context(writers(db, 1, BUSY))
        threads = [threading.Thread(target=publish, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        assert enough.wait(PATIENCE_S)
        os.kill(live.process.pid, signal.SIGKILL)
        live.process.wait()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
    with serving(db) as live, live.client() as client:
        position = client.done("ping")
        assert position["epoch"] == epoch
        assert position["EventId"] >= max(acknowledged)
        with closing(sqlite3.connect(db)) as reader:
            kept = {row[0]: str(row) for row in reader.execute("SELECT * FROM _appliance_outbox")}
        for event_id, body in acknowledged.items():
            assert body in kept[event_id]
