"""A server killed at each of its writes round a commit: what it acknowledged is there, and comes once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.live import Client, serving, sql
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
