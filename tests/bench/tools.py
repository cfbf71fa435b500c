"""What measures: the two C programs, the processes' own clocks, and which core each runs on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUILD = HERE / "build"
SERVER_CORE, CLIENT_CORE = 0, 1
#: All but messages come 200 bytes long, as in the figures that this is compared with.
PAYLOAD = 200  # bytes

Result = dict[str, Any]


class Missing(Exception):
    """Something that a comparison needs is not on this machine; the message says what."""


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Start processes on one core: what is started inside inherits it. With one core there is nothing to choose."""
    before = os.sched_getaffinity(0)
    if core in before:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def build() -> None:
    """Compile the C programs; the load generator with TLS where OpenSSL's headers are."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Missing("a C compiler is needed (gcc)")
    BUILD.mkdir(exist_ok=True)
    _compile(compiler, "limit_server")
    if has_tls():
        _compile(compiler, "wsload", "-DWITH_TLS", "-lssl", "-lcrypto")
    else:
        _compile(compiler, "wsload")


def has_tls() -> bool:
    """Whether the load generator can speak TLS."""
    return Path("/usr/include/openssl/ssl.h").exists()


def _compile(compiler: str, name: str, *options: str) -> None:
    source, made = HERE / f"{name}.c", BUILD / name
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        subprocess.run([compiler, "-O2", "-Wall", "-o", made, source, *options], check=True)


class Load:
    """A running load generator. Options are those of ``wsload.c``, with ``_`` for ``-``."""

    def __init__(self, url: str, connections: int, send: Sequence[str] = (), **options: Any) -> None:
        command = [str(BUILD / "wsload"), "--url", url, "--connections", str(connections)]
        for request in send:
            command += ["--send", request]
        for name, value in options.items():
            flag = "--" + name.replace("_", "-")
            command += [flag] if value is True else [flag, str(value)]
        with pinned(CLIENT_CORE):
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

    def ready(self) -> None:
        """Wait until all subscribers are; needs the option ``wait_stdin``."""
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if not line.startswith("READY"):
            raise RuntimeError(f"the load generator failed: {line}{self._process.stderr.read()}")

    def go(self) -> None:
        """Let the messages begin, after ``ready``."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def stand_still(self, seconds: float) -> None:
        """Have it do nothing for a while, as on a machine that has nothing left for it."""
        if seconds:
            self._process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            self._process.send_signal(signal.SIGCONT)

    def end(self) -> Result:
        """Wait for its end and give what it found."""
        out, err = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"the load generator failed: {err.strip()}")
        return dict(json.loads(out))

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def load(url: str, connections: int, send: Sequence[str] = (), **options: Any) -> Result:
    """Run the load generator to its end."""
    with Load(url, connections, send, **options) as running:
        return running.end()


def most_connections() -> int:
    """Give how many connections a process may have here, with some descriptors left for other things."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200


def cpu_s(pid: int) -> float:
    """Give the processor time that a process has used, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Give the resident memory of a process, bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
