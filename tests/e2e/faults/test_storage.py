"""A disk that is full or fails, and a lock that others hold: the server stays up, says so, and heals."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.live import Client, Live, serving, sql, until
from tests.e2e.server_process import PATIENCE_S

pytestmark = pytest.mark.e2e

TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"


def ready(live: Live) -> tuple[int, str]:
    """Ask whether the server is ready: the HTTP status and the reasons."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{live.port}/readyz", timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def keys_until_now(client: Client, topic: str = "t") -> list[int]:
    return [event["EventData"]["id"] for event in client.all_until_now() if event["ObjectType"] == topic]


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of a few MiB."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(folder)], capture_output=True, check=False
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> None:
    """Write until there is no room. Raises ``OSError``."""
    with file.open("wb", buffering=0) as filling:
        while True:
            filling.write(b"x" * 4096)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting takes root")
def test_a_full_disk_refuses_writes_and_heals_by_itself(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        db = disk / "a.db"
        sql(db, TABLE)
        with serving(db, "--ready-free-bytes", "0") as live, live.client() as client:
            client.done("create-topic", name="kept")
            client.done("subscribe", topic="kept")
            client.done("subscribe", topic="t")
            sent = [client.done("new-message", topic="kept", message=number)["EventId"] for number in range(3)]
            filling = disk / "filling"
            with pytest.raises(OSError, match="No space"):
                fill(filling)
            refused = None
            for number in range(100):  # what SQLite has preallocated is used up first
                reply = client.ask("new-message", topic="kept", message="x" * 100_000)
                if reply["EventType"] == "error":
                    refused = reply["EventData"]["code"]
                    break
                sent.append(reply["EventData"]["EventId"])
                assert number < 99
            assert refused == "read-only"
            status, why = ready(live)
            assert status == 503
            assert "full" in why
            filling.unlink()
            until(lambda: ready(live)[0] == 200, "the server is ready again")
            sent.append(client.done("new-message", topic="kept", message="after")["EventId"])
            sql(db, "INSERT INTO t VALUES(1, 'after')")
            came = client.all_until_now()
            assert [event["EventId"] for event in came if event["ObjectType"] == "kept"] == sent
            assert [event["EventData"]["id"] for event in came if event["ObjectType"] == "t"] == [1]


def test_a_lock_that_another_program_holds_delays_and_loses_nothing(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLE)
    with serving(db, "--busy-timeout-s", "0.2") as live, live.client() as client:
        client.done("create-topic", name="kept")
        client.done("subscribe", topic="kept")
        client.done("subscribe", topic="t")
        with closing(sqlite3.connect(db, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO t VALUES(1, 'held')")
            assert client.refused("new-message", topic="kept", message=1) == "unavailable"
            until(lambda: ready(live)[0] == 503, "the probe says that nothing can be written")
            assert client.done("ping")["EventId"] >= 0  # who only reads notices nothing
            other.execute("COMMIT")
        until(lambda: ready(live)[0] == 200, "the server is ready again")
        client.done("new-message", topic="kept", message=2)
        came = client.all_until_now()
        assert [event["EventData"] for event in came if event["ObjectType"] == "kept"] == [2]
        assert [event["EventData"]["id"] for event in came if event["ObjectType"] == "t"] == [1]


def test_reads_that_fail_make_the_tail_wait_and_lose_nothing(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    db = tmp_path / "a.db"
    sql(db, TABLE)
    with serving(db) as live, live.client() as client:
        client.done("subscribe", topic="t")
        sql(db, "INSERT INTO t VALUES(1, 'before')")
        assert client.event()["EventData"]["id"] == 1
        log = tmp_path / "strace.log"
        tracer = subprocess.Popen(
            [strace, "-f", "-qq", "-o", str(log), "-e", "trace=pread64", "-e", "inject=pread64:error=EIO",
             "-p", str(live.pid)],
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + PATIENCE_S
            number = 1
            while ready(live)[0] == 200:
                if tracer.poll() is not None:
                    pytest.skip("strace may not attach here")
                number += 1
                sql(db, f"INSERT INTO t VALUES({number}, hex(randomblob(50000)))")  # pages that nobody has read yet
                assert time.monotonic() < deadline
            assert "cannot be read" in ready(live)[1]
        finally:
            tracer.terminate()
            tracer.communicate()
        until(lambda: ready(live)[0] == 200, "the server is ready again")
        sql(db, f"INSERT INTO t VALUES({number + 1}, 'after')")
        keys = []
        while not keys or keys[-1] != number + 1:
            keys.append(client.event()["EventData"]["id"])
        assert keys == list(range(2, number + 2))
        assert any("store_unreadable" in line for line in live.log())
