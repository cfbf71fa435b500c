"""A server under test as a process of its own: where it listens, what it logs, what it holds."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
ECHO_SERVER = (sys.executable, "-W", "error", "-m", "tests.e2e.echo_server")
PATIENCE_S = 20.0  # for what must come about at all; nothing is asserted about how fast


class ServerProcess:
    """A running server. ``tls`` says whether it speaks TLS on its port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def pid(self) -> int:
        """The process that serves: of the one-file program, the second."""
        first = self.process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return int(children[0]) if children else first

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """End the process that serves, as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def log(self) -> list[str]:
        return self._log.read_text().splitlines()

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self) -> int:
        """Bytes of resident memory."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def wait_for_descriptors(self, count: int) -> None:
        """Wait until the server holds no more descriptors than ``count``."""
        deadline = time.monotonic() + PATIENCE_S
        while self.descriptors() > count:
            assert time.monotonic() < deadline, f"{self.descriptors()} descriptors are open, {count} were expected"
            time.sleep(0.01)


@contextmanager
def running(command: Sequence[str] = ECHO_SERVER, options: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """Run a server that prints ``{"port": …}`` first; end it with SIGTERM."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the server did not start: {log.read_text()}"
            yield ServerProcess(process, json.loads(line)["port"], log)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            process.stdout.close()
