"""A clock that is set an hour ahead and an hour back while the server runs: tokens go by it, and nothing else does."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.live import Live, serving, sql, token, until

pytestmark = pytest.mark.e2e

HOUR_S = 3600
#: Put before the C library: the time of day, so many seconds later than it is.
SHIM = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
    static volatile long *at;
    if (!at) at = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, open(getenv("CLOCK_SHIFT"), O_RDONLY), 0);
    return *at;
}

int clock_gettime(clockid_t id, struct timespec *t) {
    int failed = syscall(SYS_clock_gettime, id, t);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """The clock of a server that is started with ``environment``."""

    def __init__(self, folder: Path) -> None:
        source, library, self._shift = folder / "shim.c", folder / "shim.so", folder / "shift"
        source.write_text(SHIM)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
        self._shift.write_bytes(struct.pack("l", 0))
        self.environment = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self._shift)}

    def set(self, ahead_s: int) -> None:
        with self._shift.open("r+b") as file:
            file.write(struct.pack("l", ahead_s))


def status(live: Live, key: str) -> int:
    """Connect, and say with which HTTP status it is answered."""
    try:
        with connect(f"{live.url}?token={key}"):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def marks(db: Path) -> list[float]:
    """Give when the server has noted how far the outbox had come."""
    return [float(each) for each in sql(db, "SELECT at FROM _appliance_mark ORDER BY id").split()]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_clock_that_jumps_ends_tokens_and_changes_nothing_else(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY)")
    clock = Clock(tmp_path)
    options = ("--ping-every-s", "1", "--pong-within-s", "1", "--retention-s", "60")
    with serving(db, *options, environment=clock.environment) as live:
        long, short = live.token, token(db, "--admin", "--ttl", "30m")
        with live.client(long) as client, live.client(short) as brief:
            client.done("create-topic", name="kept")
            begun = client.done("subscribe", topic="t")
            once = {"topic": "kept", "message": 1, "key": "once"}
            sent = client.done("new-message", **once)["EventId"]
            for number, ahead_s in enumerate((HOUR_S, -HOUR_S), 1):
                clock.set(ahead_s)
                before = len(marks(db))
                sql(db, f"INSERT INTO t VALUES({number})")
                assert client.event()["EventData"]["id"] == number  # pings were answered meanwhile, too
                assert client.done("new-message", **once)["EventId"] == sent
                until(lambda before=before: len(marks(db)) > before, "the keeper has had its turn")
                if ahead_s > 0:
                    assert brief.close_code() == 4401
                    assert (status(live, long), status(live, short)) == (101, 401)
                else:  # issued an hour in the future, so not valid yet
                    assert (status(live, long), status(live, short)) == (401, 401)
            clock.set(0)
            assert (status(live, long), status(live, short)) == (101, 101)
            with live.client(long) as again:
                place = {"since": begun["EventId"], "epoch": begun["epoch"]}
                assert again.done("subscribe", topic="t", **place)["recovered"] is True
                assert [event["EventData"]["id"] for event in again.events(2)] == [1, 2]
            sql(db, "INSERT INTO t VALUES(3)")
            assert client.event()["EventData"]["id"] == 3
    noted = marks(db)
    assert noted == sorted(noted)
    assert noted[-1] - noted[0] < HOUR_S / 2
