"""A disk that is full or fails, and a lock that others hold: the server stays up, says so, and heals."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from bisect import bisect_right
from collections import defaultdict
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
    """``LOCK_S=30 pytest …`` holds it for 30 s, under the busy timeout that is the default."""
    db = tmp_path / "a.db"
    sql(db, TABLE)
    held_s = float(os.environ.get("LOCK_S", "0"))
    with serving(db, "--busy-timeout-s", "5" if held_s else "0.2") as live, live.client() as client:
        client.done("create-topic", name="kept")
        client.done("subscribe", topic="kept")
        client.done("subscribe", topic="t")
        with closing(sqlite3.connect(db, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO t VALUES(1, 'held')")
            begun = time.monotonic()
            assert client.refused("new-message", topic="kept", message=1) == "unavailable"
            while time.monotonic() - begun < held_s:
                assert client.refused("new-message", topic="kept", message=1) == "unavailable"
            until(lambda: ready(live)[0] == 503, "the probe says that nothing can be written")
            assert client.done("ping")["EventId"] >= 0  # who only reads notices nothing
            other.execute("COMMIT")
        until(lambda: ready(live)[0] == 200, "the server is ready again")
        client.done("new-message", topic="kept", message=2)
        came = client.all_until_now()
        assert [event["EventData"] for event in came if event["ObjectType"] == "kept"] == [2]
        assert [event["EventData"]["id"] for event in came if event["ObjectType"] == "t"] == [1]


@contextmanager
def traced(live: Live, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have strace look at a running server, until the block ends."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    tracer = subprocess.Popen(
        ["strace", "-o", str(log), "-e", "trace=pread64", *options], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert tracer.stderr is not None
    try:
        if b"attached" not in tracer.stderr.readline():
            pytest.skip("strace may not attach here")
        yield tracer
    finally:
        tracer.terminate()
        tracer.communicate()


COMMITS = 20
MANY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) "


def threads_of_the_tail(live: Live, client: Client, log: Path) -> list[str]:
    """Find the threads that read what others commit: one for what is little, one for what is much.

    Others read, too, now and then: who sees whether the file is still ours. The tail reads at each commit.
    """
    begun = []
    with traced(live, log, "-ttt", "-f", "-p", str(live.pid)):
        for _ in range(COMMITS):
            begun.append(time.time())
            sql(
                live.db,
                f"{MANY} INSERT INTO other(v) SELECT hex(randomblob(100)) FROM n; INSERT INTO other(v) VALUES(0)",
            )
            client.events(501)
    reads: dict[str, set[int]] = defaultdict(set)
    for line in log.read_text().splitlines():
        if "pread64(" in line:
            thread, at = line.split()[:2]
            reads[thread].add(bisect_right(begun, float(at)))
    return [thread for thread, commits in reads.items() if commits >= set(range(1, COMMITS + 1))]


@pytest.mark.parametrize("everywhere", [True, False])
def test_reads_that_fail_make_the_tail_wait_and_lose_nothing(tmp_path: Path, everywhere: bool) -> None:
    db, log = tmp_path / "a.db", tmp_path / "strace.log"
    sql(db, f"{TABLE}; CREATE TABLE other(id INTEGER PRIMARY KEY, v)")
    with serving(db) as live, live.client() as client:
        client.done("create-topic", name="kept")
        client.done("subscribe", topic="t")
        who = ["-f", "-p", str(live.pid)]
        if not everywhere:
            client.done("subscribe", topic="other")
            who = [option for thread in threads_of_the_tail(live, client, log) for option in ("-p", thread)]
            client.done("unsubscribe", topic="other")
        sql(db, "INSERT INTO t VALUES(1, 'before')")
        assert client.event()["EventData"]["id"] == 1
        number = 1
        with traced(live, log, "-e", "inject=pread64:error=EIO", *who):
            deadline = time.monotonic() + PATIENCE_S
            while ready(live)[0] == 200:
                number += 1
                sql(db, f"INSERT INTO t VALUES({number}, hex(randomblob(50000)))")  # pages that nobody has read yet
                assert time.monotonic() < deadline
            assert "cannot be read" in ready(live)[1]
            if not everywhere:  # the others write and read as before
                assert client.done("new-message", topic="kept", message=1)["EventId"] > 0
        until(lambda: ready(live)[0] == 200, "the server is ready again")
        sql(db, f"INSERT INTO t VALUES({number + 1}, 'after')")
        keys = []
        while not keys or keys[-1] != number + 1:
            keys.append(client.event()["EventData"]["id"])
        assert keys == list(range(2, number + 2))
        assert any("store_unreadable" in line for line in live.log())
