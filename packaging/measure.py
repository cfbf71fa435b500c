#!/usr/bin/env python3
"""Measure the one-file program: size, start, memory and CPU when idle.

python3 packaging/measure.py [PROGRAM …]     dist/live-appliance unless given

The start is from exec to the first 200 of /readyz on a new store, with the file in the page cache; the memory is
resident, of both processes, 5 s after the start; the CPU is of both processes over a minute without a client.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

STARTS = 15
SETTLE_S = 5.0
IDLE_S = 60.0


@contextlib.contextmanager
def serving(program: list[str], *options: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Run a server; give its process and how long it took to be ready, seconds."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [*program, "serve", "--db", f"{folder}/idle.db", "--host", "127.0.0.1", "--port", str(port), *options]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                while not ready(port):
                    if process.poll() is not None:
                        sys.exit(f"{program[0]} ended with status {process.returncode}")
                    time.sleep(0.002)
                yield process, time.perf_counter() - began
            finally:
                process.terminate()


def ready(port: int) -> bool:
    """Ask /readyz."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def processes(first: int) -> list[int]:
    """Give a process and its children."""
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *map(int, children)]


def resident(pid: int) -> int:
    """Give the resident memory of a process, bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def used(pids: list[int]) -> float:
    """Give the CPU time that processes have used, seconds, by the scheduler's own count.

    The clock's number is clock_getcpuclockid(3)'s. /proc counts in ticks of 10 ms, which a process that wakes up for
    less hardly ever meets.
    """
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def idle(program: list[str], *options: str) -> tuple[int, float]:
    """Give resident memory, bytes, and the share of a core that an idle server takes."""
    with serving(program, *options) as (process, _):
        time.sleep(SETTLE_S)
        pids = processes(process.pid)
        memory = sum(map(resident, pids))
        before = used(pids)
        time.sleep(IDLE_S)
        return memory, (used(pids) - before) / IDLE_S


def main(program: list[str]) -> None:
    """Measure and print."""
    if len(program) == 1:
        print(f"size                        {Path(program[0]).stat().st_size / (1 << 20):8.1f} MiB")
    starts = []
    for _ in range(STARTS):
        with serving(program) as (_, took):
            starts.append(took)
    print(f"start to ready, median      {statistics.median(starts):8.3f} s   (best {min(starts):.3f} of {STARTS})")
    memory, share = idle(program)
    print(f"idle memory                 {memory / (1 << 20):8.1f} MiB")
    print(f"idle CPU                    {share * 100:8.2f} % of a core")
    _, share = idle(program, "--no-inotify")
    print(f"idle CPU without inotify    {share * 100:8.2f} % of a core")
    print(f"load of the machine         {os.getloadavg()[0]:8.2f}")


if __name__ == "__main__":
    main(sys.argv[1:] or [str(Path(__file__).resolve().parent.parent / "dist" / "live-appliance")])
