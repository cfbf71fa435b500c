"""A server killed at its writes round a commit, or stopped under load: what it acknowledged is there, each once."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.live import Client, Live, serving, sql
from tests.e2e.server_process import PATIENCE_S

pytestmark = pytest.mark.e2e

#: The write among all those of the server at which it is killed.
WRITES = (1, 2, 5, 9)


def send(client: Client, number: int) -> int | None:
    """Send a message, known by its number, and give the position if it is acknowledged."""
    try:
        return client.done("new-message", topic="kept", message=number, key=f"message {number}")["EventId"]  # type: ignore[no-any-return]
    except ConnectionClosed:
        return None


def messages(events: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [
        (each["EventId"], each["EventData"]) for each in events if each["ObjectType"] == "kept" and "EventId" in each
    ]


def test_whatever_write_the_server_is_killed_at_each_message_is_there_once(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY)")
    seen: list[tuple[int, int]] = []
    acknowledged: dict[int, int] = {}
    place: dict[str, Any] = {}
    number = killed = 0
    for when in WRITES:
        with serving(db) as live, live.client() as sender, live.client() as follower:
            if not place:
                sender.done("create-topic", name="kept")
            reply = follower.done("subscribe", topic="kept", **place)
            place = place or {"since": reply["EventId"], "epoch": reply["epoch"]}
            inject = f"inject=pwrite64:signal=KILL:when={when}"
            tracer = subprocess.Popen(
                [strace, "-f", "-o", str(tmp_path / "strace.log"), "-e", "trace=pwrite64", "-e", inject,
                 "-p", str(live.pid)],
                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert tracer.stderr is not None
            try:
                if b"attached" not in tracer.stderr.readline():
                    pytest.skip("strace may not attach here")
                while live.alive and number < 1000:
                    number += 1
                    position = send(sender, number)
                    if position is None:
                        break
                    acknowledged[number] = position
                live.process.wait(PATIENCE_S)
                killed += live.process.returncode != 0
            finally:
                tracer.terminate()
                tracer.communicate()
            try:
                while True:
                    seen += messages([follower.event()])
            except ConnectionClosed:
                pass
        place["since"] = seen[-1][0] if seen else place["since"]
        # Whoever was not answered sends again, with the same key.
        with serving(db) as live, live.client() as again, live.client() as follower:
            assert follower.done("subscribe", topic="kept", **place)["recovered"] is True
            acknowledged[number] = again.done(
                "new-message", topic="kept", message=number, key=f"message {number}"
            )["EventId"]  # fmt: skip
            while not seen or seen[-1][1] != number:
                seen += messages([follower.event()])
        place["since"] = seen[-1][0]
    assert killed == len(WRITES)
    assert seen == sorted((position, each) for each, position in acknowledged.items())
    assert [each for _, each in seen] == list(range(1, number + 1))
    assert int(sql(db, "SELECT count(*) FROM _appliance_outbox WHERE op = 4")) == number


SENDERS = 3
#: Messages that are acknowledged before the server is stopped.
ENOUGH = 300


def test_a_stop_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY)")
    acknowledged: dict[str, int] = {}
    written, stop = 0, threading.Event()
    seen: list[tuple[int, str, Any]] = []

    def send(live: Live, sender: int) -> None:
        number = 0
        with contextlib.suppress(ConnectionClosed), live.client(live.token) as client:
            while True:
                number += 1
                text = f"{sender} {number}"
                acknowledged[text] = client.done("new-message", topic="kept", message=text)["EventId"]

    def write() -> None:
        nonlocal written
        with contextlib.closing(sqlite3.connect(db, timeout=PATIENCE_S, isolation_level=None)) as other:
            while not stop.wait(0.001):
                other.execute("INSERT INTO t VALUES(?)", (written + 1,))
                written += 1

    def take(event: dict[str, Any]) -> None:
        if event["EventType"] != "live" and "EventId" in event:
            data = event["EventData"]
            seen.append((event["EventId"], event["ObjectType"], data["id"] if event["ObjectType"] == "t" else data))

    with serving(db) as live, live.client() as follower:
        follower.done("create-topic", name="kept")
        place = {topic: follower.done("subscribe", topic=topic) for topic in ("kept", "t")}
        threads = [threading.Thread(target=send, args=(live, sender)) for sender in range(SENDERS)]
        threads.append(threading.Thread(target=write))
        for each in threads:
            each.start()
        while len(acknowledged) < ENOUGH:
            take(follower.event())
        assert live.stop() == 0
        with contextlib.suppress(ConnectionClosed):
            while True:
                take(follower.event())
        for each in threads[:SENDERS]:
            each.join(PATIENCE_S)
    with serving(db) as live, live.client() as follower:
        stop.set()
        threads[-1].join(PATIENCE_S)
        for topic, begun in place.items():
            since = max((each for each, of, _ in seen if of == topic), default=begun["EventId"])
            assert follower.done("subscribe", topic=topic, since=since, epoch=begun["epoch"])["recovered"] is True
        lives = 0
        while lives < len(place):  # each topic is read for by itself, and done at its own time
            event = follower.event()
            lives += event["EventType"] == "live"
            take(event)
        for event in follower.all_until_now():
            take(event)
    kept = [(position, message) for position, of, message in seen if of == "kept"]
    stored = sql(db, "SELECT id || '|' || CAST(v2 AS TEXT) FROM _appliance_outbox WHERE op = 4 AND v0 = 'kept'")
    in_file = [(int(line.partition("|")[0]), json.loads(line.partition("|")[2])) for line in stored.splitlines()]
    assert kept == in_file  # each once, in order
    assert len({message for _, message in kept}) == len(kept)
    assert acknowledged.items() <= {message: position for position, message in kept}.items()
    assert [row for _, of, row in seen if of == "t"] == list(range(1, written + 1))
