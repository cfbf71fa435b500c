"""The course of a soak: the server is killed, stopped and started again, and everything is compared now and then."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.live import PROGRAM, token
from tests.e2e.server_process import ROOT
from tests.soak.clients import PATIENCE_S, Barrier, Client, Editor, Publisher
from tests.soak.followers import Again, Follower, Log, Messages, Passing, Rows
from tests.soak.restoring import TORN, Restoring
from tests.soak.world import WIDTH, WRITERS, World

#: So few rows, seconds and bytes are kept that slow clients now and then lose their place, and that a flood of so many
#: rows is now and then more than all that is kept.
RETENTION = (
    ("--retention-rows", "60000"),
    ("--retention-rows", "5000"),
    ("--retention-rows", "60000", "--retention-s", "8"),
    ("--retention-rows", "60000", "--retention-bytes", "1000000"),
)
FLOODS = (500, 2000, 4000)
#: How often each thing happens, beside the others.
WEIGHTS = {
    "kill": 4,
    "stop": 2,
    "pause": 1,
    "reshape": 2,
    "vacuum": 1,
    "flood": 2,
    "checkpoint": 1,
    "hold the lock": 1,
    "hold a snapshot": 1,
    "compare": 3,
    "back up": 1,
    "restore": 1,
    "copy over": 1,
}
START_S = 60.0
#: Log lines of the server that nothing in a soak explains.
NEVER = ("error", "Traceback", "Error")
#: But for these: a stop does not wait for long for writers that leave each other no gap.
EXPLAINED = ("store_not_marked_clean",)


class Server:
    """The program on one port, killed and started again."""

    def __init__(self, db: Path, log: Path, options: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._log = log
        self._command = [*PROGRAM, "serve", "--db", str(db), "--host", "127.0.0.1", "--port", str(self.port), *options]
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT
            )
        assert self.process.stdout is not None
        while b"try it:" not in (line := self.process.stdout.readline()):
            assert line, f"serve did not start: {self._log.read_text()}"

    def fail_to_start(self, seconds: float) -> None:
        """Begin to start, and be killed meanwhile."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT
            )
        time.sleep(seconds)
        process.kill()
        process.wait(START_S)

    def pause(self, seconds: float) -> None:
        """Stand still for a while."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        status = self.process.wait(START_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def followers(chance: random.Random) -> Iterator[list[Follower]]:
    """Give what each client follows."""
    wishes: list[tuple[dict[str, Any], str]] = [
        ({}, "1"),
        ({"room": 1}, "room IS 1"),
        ({"room": [0, "3"], "n": {"gte": 4}}, "room IN (0, 3) AND n >= 4"),
        ({"name": {"startswith": "n1"}}, "name GLOB 'n1*'"),
        ({"name": {"null": True}}, "name IS NULL"),
        ({"n": {"in": [1, 2, 3, 5, 8]}, "name": {"null": False}}, "n IN (1, 2, 3, 5, 8) AND name IS NOT NULL"),
    ]
    for number, (filters, where) in enumerate(wishes):
        pair = ({"p": "x"}, "p = 'x'") if number % 2 else ({}, "1")
        yield [
            Log("log"),
            Rows("item", filters, where=where, old=chance.random() < 0.5),
            Rows("pair", pair[0], where=pair[1], old=chance.random() < 0.5),
            Messages("news"),
            Passing("fleeting"),
        ]
    yield [Log("log"), Rows("item", events=True), Rows("pair", events=True), Rows("shape")]
    yield [Rows("shape", events=True), Rows("item", {"room": 2}, where="room IS 2")]
    yield [Log("log")]
    yield [Rows("parent"), Rows("child", {"v": [0, 2]}, where="v IN (0, 2)", old=True), Rows("bare"), Rows("note")]
    yield [Rows("wide", {f"c{WIDTH - 1}": {"startswith": "n"}}, where=f"c{WIDTH - 1} GLOB 'n*'", old=True),
           Rows("child", events=True), Rows("note", {"n": {"lt": 5}}, where="n < 5")]  # fmt: skip
    yield [
        Again("item", {"EventType": ["create", "delete"], "room": [1, 2]}, chance=chance),
        Again("wide", {f"c{WIDTH - 1}": {"ne": "n7"}, "EventType": "update"}, chance=chance),
        Again("pair", {"p": ["x", "z"]}, chance=chance),
        Again("parent", {"EventType": "delete"}, chance=chance),
        Again("log", chance=chance),
        Again("news", chance=chance),
        Again("note", chance=chance),
    ]


@contextmanager
def threads(*targets: Any) -> Iterator[None]:
    started = [threading.Thread(target=target, daemon=True) for target in targets]
    for each in started:
        each.start()
    yield
    for each in started:
        each.join(PATIENCE_S)
        assert not each.is_alive(), f"{each} does not end"


def soak(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Soak for about ``seconds``; ``failures`` in the report are what must not be."""
    chance = random.Random(seed)
    world = World(folder / "soak.db", seed)
    world.make()
    options = [*RETENTION[seed % len(RETENTION)], "--unsent-bytes", "65536", "--requests-per-s", "100000"]
    options += ["--write-s", "6"] if seed % 3 == 0 else []
    server = Server(world.db, folder / "soak.log", options)
    key = token(world.db)

    def url() -> str:
        return f"ws://127.0.0.1:{server.port}/live?token={key}"

    _make_topics(url())
    publisher, editor = Publisher(world, url), Editor(world, lambda: server.port, key)
    clients = [
        Client(world, number, url, follows, slow=number % 3 == 2)
        for number, follows in enumerate(followers(chance))
    ]  # fmt: skip
    restoring = Restoring(world, publisher, editor, lambda: server.port, key)
    happened: Counter[str] = Counter()
    until = time.monotonic() + seconds
    writers = [lambda number=number: world.write(number) for number in range(WRITERS)]
    with threads(publisher.run, editor.run, *writers, *[client.run for client in clients]):
        try:
            while time.monotonic() < until and not world.stop.is_set():
                world.stop.wait(chance.random() * min(6.0, seconds / 8))
                happened[_step(chance, world, server, restoring, clients)] += 1
            if not world.stop.is_set():
                _compare(world, publisher, editor, clients)
                happened["compared"] += 1
        finally:
            world.stop.set()
    if server.end(signal.SIGTERM) != 0:
        world.failures.append("the server did not end in order")
    log = (folder / "soak.log").read_text()
    explained = (*EXPLAINED, TORN) if world.torn else EXPLAINED
    unexplained = [line for line in log.splitlines() if not any(word in line for word in explained)]
    world.failures += [line for line in unexplained if any(word in line for word in NEVER)][:10]
    return {
        "seed": seed,
        "options": options,
        "happened": dict(happened),
        "commits": world.commits,
        "messages": publisher.durable,
        "edits": dict(editor.seen),
        "clients": dict(sum((client.seen for client in clients), Counter())),
        "events": dict(sum((each.seen for client in clients for each in client.followers), Counter())),
        "failures": world.failures,
    }


def _make_topics(url: str) -> None:
    from websockets.sync.client import connect

    from tests.e2e.live import Client as Asking

    with connect(url) as connection:
        client = Asking(connection)
        client.done("create-topic", name="news")
        client.done("create-topic", name="fleeting", durable=False)


def _step(chance: random.Random, world: World, server: Server, restoring: Restoring, clients: list[Client]) -> str:
    steps: dict[str, Callable[[], object]] = {
        "kill": lambda: _restart(chance, world, server, signal.SIGKILL),
        "stop": lambda: _restart(chance, world, server, signal.SIGTERM),
        "pause": lambda: server.pause(chance.random() * 2),
        "reshape": lambda: world.reshape(chance),
        "vacuum": world.vacuum,
        "flood": lambda: world.flood(chance.choice(FLOODS)),
        "checkpoint": world.checkpoint,
        "hold the lock": lambda: world.hold_lock(chance.random() * 2),
        "hold a snapshot": lambda: world.hold_snapshot(chance.random() * 3),
        "compare": lambda: _compare(world, restoring.publisher, restoring.editor, clients),
        "back up": restoring.back_up,
        "restore": lambda: restoring.restored(chance, server.end, server.start),
        "copy over": lambda: restoring.copied_over(chance, server.process.pid),
    }
    (what,) = chance.choices(tuple(steps), [WEIGHTS[each] for each in steps])
    if what in ("restore", "copy over") and not restoring.backups:
        what = "back up"
    steps[what]()
    return what


def _restart(chance: random.Random, world: World, server: Server, number: signal.Signals) -> None:
    status = server.end(number)
    if number == signal.SIGTERM and status != 0:
        world.failures.append("the server did not end in order")
    if chance.random() < 0.3:
        server.fail_to_start(chance.random())
    server.start()


def _compare(world: World, publisher: Publisher, editor: Editor, clients: list[Client]) -> None:
    """Let nobody write until every client has all and holds what the file holds."""
    with publisher.pen, editor.pen, world.stillness() as db:
        editor.check({row[0]: row[1:] for row in db.execute("SELECT id, body, n FROM note").fetchall()})
        (written,) = db.execute("SELECT count(*) FROM log").fetchone()
        if written != world.written:
            world.failures.append(f"{world.written} rows of the log were acknowledged, {written} are in the file")
        (position,) = db.execute("SELECT max(id) FROM _appliance_outbox").fetchone()
        barrier = Barrier(position, publisher.passing)
        for client in clients:
            client.barrier = barrier
        deadline = time.monotonic() + 2 * PATIENCE_S
        while len(barrier.arrived) < len(clients) and not world.stop.is_set():
            world.stop.wait(0.02)
            if time.monotonic() > deadline:
                late = sorted({client.number for client in clients} - barrier.arrived)
                world.failures.append(f"clients {late} do not come to {position}")
                world.stop.set()
