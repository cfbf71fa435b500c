"""Peers that vanish or do not read: they are ended or caught up with, and nobody else notices."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.e2e.live import Client, Live, serving, sql, until
from tests.e2e.server_process import PATIENCE_S

pytestmark = pytest.mark.e2e

TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"
READERS = 40
#: What is sent to a stopped reader: far more than may wait for it.
ROWS, ROW_BYTES = 400, 50_000
#: Options under which little waits for a reader, and whoever sends may send fast.
DROPPING = ("--unsent-bytes", "65536", "--requests-per-s", "100000", "--request-burst", "100000")


@contextmanager
def stopped(live: Live) -> Iterator[Client]:
    """Connect a client that reads only what it is asked to, and whose socket holds little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(PATIENCE_S)
    sock.connect(("127.0.0.1", live.port))
    with connect(
        f"{live.url}?token={live.token}", sock=sock, max_queue=1, max_size=None, compression=None, close_timeout=1
    ) as connection:
        yield Client(connection)


def test_a_stopped_reader_costs_little_holds_up_nobody_and_gets_everything_later(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLE)
    with serving(db, "--write-s", "60") as live, ExitStack() as others, stopped(live) as slow:
        clients = [others.enter_context(live.client(compression=None)) for _ in range(READERS)]
        for client in (*clients, slow):
            client.done("subscribe", topic="t", filters={"v": {"null": False}})
        before = live.memory()
        for first in range(1, ROWS, 50):
            sql(db, "BEGIN; WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 49) "
                    f"INSERT INTO t SELECT {first} + i, printf('%.*c', {ROW_BYTES}, 'x') FROM n; COMMIT")  # fmt: skip
            for client in clients:
                assert [event["EventData"]["id"] for event in client.events(50)] == list(range(first, first + 50))
        grown = live.memory() - before
        print(f"grown by {grown / 2**20:.1f} MiB beside a stopped reader of {ROWS * ROW_BYTES / 2**20:.0f} MiB")
        assert grown < 128 << 20
        assert [event["EventData"]["id"] for event in slow.events(ROWS)] == list(range(1, ROWS + 1))
        sql(db, f"INSERT INTO t VALUES({ROWS + 1}, 1)")
        assert slow.event()["EventData"]["id"] == ROWS + 1


def test_what_is_not_durable_is_dropped_for_a_stopped_reader_and_counted(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db", *DROPPING) as live, live.client() as sender, stopped(live) as slow:
        sender.done("create-topic", name="fleeting", durable=False)
        slow.done("subscribe", topic="fleeting")
        for number in range(ROWS):
            sender.done("new-message", topic="fleeting", message={"number": number, "filling": "x" * ROW_BYTES})
        came, dropped = 0, 0
        while came + dropped < ROWS:
            event: dict[str, Any] = slow.event()
            if event["EventType"] == "dropped":
                dropped += event["EventData"]["count"]
            else:
                assert event["EventData"]["number"] == came + dropped
                came += 1
        assert dropped > 0
        sender.done("new-message", topic="fleeting", message={"number": ROWS})
        assert slow.event()["EventData"]["number"] == ROWS


def test_who_takes_nothing_for_too_long_is_closed_with_4408(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLE)
    with serving(db, "--write-s", "1") as live, live.client() as other, stopped(live) as slow:
        for client in (other, slow):
            client.done("subscribe", topic="t")
        sql(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) "
                f"INSERT INTO t SELECT i, printf('%.*c', {ROW_BYTES}, 'x') FROM n")  # fmt: skip
        assert [event["EventData"]["id"] for event in other.events(200)] == list(range(1, 201))
        until(lambda: any("disconnected" in line and "code=4408" in line for line in live.log()), "it is closed")
        sql(db, "INSERT INTO t VALUES(201, 0)")
        assert other.event()["EventData"]["id"] == 201


def test_a_peer_that_has_vanished_is_noticed_by_its_silence(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLE)
    with serving(db, "--ping-every-s", "1", "--pong-within-s", "1") as live, live.client() as other:
        other.done("subscribe", topic="t")
        with socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE_S) as vanished:
            # A peer whose machine lost its power answers neither data nor pings, and its end never comes.
            vanished.sendall(
                f"GET /live?token={live.token} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            got = b""
            while data := vanished.recv(65536):
                got += data
            assert b"101 Switching Protocols" in got
            assert (4408).to_bytes(2, "big") in got
        sql(db, "INSERT INTO t VALUES(1, 0)")
        assert other.event()["EventData"]["id"] == 1
