"""Clients: each a connection that is made again and again, with a few followers on it; and those that write."""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.soak.followers import Follower, Passing, Wrong
from tests.soak.world import World

#: Within this everything must have come that is to come, seconds.
PATIENCE_S = 90.0
#: Closes by the server that are right beside a soak: gone, restarted, too slow, position lost.
CODES = (1001, 1006, 1011, 1012, 4408, 4410)


@dataclass
class Barrier:
    """A moment at which nobody writes: everything up to ``position`` is to come, then all is compared."""

    position: int
    passing: int
    arrived: set[int] = field(default_factory=set)


@dataclass
class Client:
    """One client. ``slow``: it often does not read for a while, and its socket holds little."""

    world: World
    number: int
    url: Callable[[], str]
    followers: Sequence[Follower]
    slow: bool = False
    seen: Counter[str] = field(default_factory=Counter)
    barrier: Barrier | None = None
    #: What was asked and came last, in short: where to look when something is wrong.
    trail: deque[str] = field(default_factory=lambda: deque(maxlen=60))
    _asked: int = 0
    _epoch: str = ""

    def run(self) -> None:
        """Follow until the world ends; whatever is wrong is among its failures."""
        chance = random.Random(f"{self.world.seed} client {self.number}")
        while not self.world.stop.is_set():
            try:
                self._connection(chance)
                self._stay_away(chance)
            except (OSError, TimeoutError, WebSocketException) as error:
                self._ended(error)
                self.world.stop.wait(0.05 + chance.random() * 0.2)
            except Wrong as wrong:
                if self._epoch in self.world.torn:
                    # Until the server has seen it, what it reads is of two files; then all are told to begin anew.
                    self.seen["torn"] += 1
                    for follower in self.followers:
                        follower.anew()
                    continue
                self.world.failures += [f"client {self.number}: {wrong}", *self.trail]
                self.world.stop.set()
            except Exception as error:
                self.world.failures.append(f"client {self.number}: {error!r}")
                self.world.stop.set()
                raise

    def _stay_away(self, chance: random.Random) -> None:
        """Be gone for a while, now and then so long that the server has what came meanwhile in no memory any more."""
        if chance.random() < 0.3:
            self.seen["away"] += 1
            back = time.monotonic() + chance.choice((1, 4, 12))
            while self.barrier is None and time.monotonic() < back and not self.world.stop.wait(0.05):
                pass

    def _ended(self, error: Exception) -> None:
        received = getattr(error, "rcvd", None)
        code = received.code if received is not None else 1006
        self.seen[f"closed {code}"] += 1
        self.trail.append(f"closed {code}")
        if code not in CODES:
            self.world.failures.append(f"client {self.number}: closed with {code} {received.reason}")

    def _connection(self, chance: random.Random) -> None:
        options: dict[str, Any] = {"max_size": None, "open_timeout": 10, "compression": None, "close_timeout": 1}
        if self.slow:
            url = self.url()
            port = int(url.split(":")[2].split("/")[0])
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(10)
            sock.connect(("127.0.0.1", port))
            options |= {"sock": sock, "max_queue": 1}
        with connect(self.url(), **options) as connection:
            self.seen["connections"] += 1
            for follower in self.followers:
                self._subscribe(connection, follower)
            leave = time.monotonic() + chance.choice((0.05, 0.5, 2, 5, 20))
            while not self.world.stop.is_set():
                if self.barrier is not None:
                    self._settle(connection, self.barrier)
                    self.barrier = None
                if time.monotonic() > leave:
                    if chance.random() < 0.5:
                        connection.socket.shutdown(socket.SHUT_RDWR)
                    return
                self._some(connection, chance)

    def _some(self, connection: ClientConnection, chance: random.Random) -> None:
        if self.slow and chance.random() < 0.3:
            self.world.stop.wait(chance.choice((0.1, 0.5, 3, 8)))
        for _ in range(chance.randrange(1, 400)):
            try:
                self._take(json.loads(connection.recv(timeout=0.05)))
            except TimeoutError:
                break
        for follower in self.followers:
            if follower.stale:
                self._ask(connection, "unsubscribe", {"topic": follower.topic})
                self._subscribe(connection, follower)
        if chance.random() < 0.1:
            self._ping(connection)
        elif chance.random() < 0.1:
            follower = chance.choice(self.followers)
            self._ask(connection, "unsubscribe", {"topic": follower.topic})
            self._subscribe(connection, follower)

    def _settle(self, connection: ClientConnection, barrier: Barrier) -> None:
        """Read until everything has come that is to come, and compare."""
        deadline = time.monotonic() + PATIENCE_S
        while self._ping(connection) < barrier.position or any(each.stale for each in self.followers):
            if self.world.stop.is_set():
                return
            self._some(connection, random.Random(0))
            if time.monotonic() > deadline:
                raise Wrong(f"what was committed up to {barrier.position} does not come: {self.followers}")
        with self.world.open() as db:
            for follower in self.followers:
                follower.check(db)
                if isinstance(follower, Passing):
                    follower.settled(barrier.passing)
        barrier.arrived.add(self.number)

    def _take(self, event: dict[str, Any]) -> None:
        place = event.get("EventId") or event["EventData"]
        self.trail.append(f"{event['EventType']} {event['ObjectType']} {place}"[:120])
        if "id" in event:
            raise Wrong(f"a reply that nobody waits for: {event}")
        for follower in self.followers:
            if follower.topic == event["ObjectType"]:
                follower.take(event)
                return
        raise Wrong(f"an event of a topic without a subscription: {event}")

    def _ping(self, connection: ClientConnection) -> int:
        data = self._ask(connection, "ping", {})["EventData"]
        for follower in self.followers:
            follower.passed(data["EventId"], data["epoch"])
        return int(data["EventId"])

    def _subscribe(self, connection: ClientConnection, follower: Follower) -> None:
        wish = follower.wish()
        epoch = wish.get("epoch")
        dead = epoch in self.world.dead
        reply = self._ask(connection, "subscribe", wish, follower)
        if dead and reply["EventData"].get("recovered"):
            raise Wrong(f"resumed in an epoch that has ended: {reply} for {wish}")
        if reply["EventType"] == "error":
            oldest = reply["EventData"].get("oldest")
            ended = epoch in self.world.ending and reply["EventData"].get("epoch") != epoch
            if reply["EventData"]["code"] != "gap" or (wish.get("since", oldest) >= oldest and not ended):
                raise Wrong(f"refused: {reply} for {wish}")
            follower.gap()
            reply = self._ask(connection, "subscribe", follower.wish(), follower)
            if reply["EventType"] == "error":
                raise Wrong(f"refused: {reply} for {follower.wish()}")

    def _ask(
        self, connection: ClientConnection, method: str, attributes: dict[str, Any], begins: Follower | None = None
    ) -> dict[str, Any]:
        self._asked += 1
        connection.send(json.dumps({"method": method, "attributes": attributes, "id": self._asked}))
        while True:
            frame: dict[str, Any] = json.loads(connection.recv(timeout=PATIENCE_S))
            if frame.get("id") != self._asked:
                self._take(frame)
                continue
            self.trail.append(f"{method} {attributes}: {frame['EventType']} {frame['EventData']}"[:400])
            self._epoch = frame["EventData"].get("epoch", self._epoch)
            if begins is not None and frame["EventType"] == "response":
                begins.begun(frame["EventData"])
            return frame


@dataclass
class Publisher:
    """Sends numbered messages, again with the same key until they are acknowledged."""

    world: World
    url: Callable[[], str]
    durable: int = 0
    passing: int = 0
    pen: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        chance = random.Random(f"{self.world.seed} publisher")
        while not self.world.stop.is_set():
            try:
                with connect(self.url(), open_timeout=10, compression=None, close_timeout=1) as connection:
                    while not self.world.stop.is_set():
                        with self.pen:
                            if not self.world.stop.is_set():
                                self._send(connection)
                        self.world.stop.wait(chance.random() ** 3 * 0.1)
            except (OSError, TimeoutError, WebSocketException):
                self.world.stop.wait(0.1)

    def _send(self, connection: ClientConnection) -> None:
        body = {"number": self.durable + 1, "filling": "x" * 500}
        message = {"topic": "news", "message": body, "key": f"key {self.durable + 1}"}
        self._ask(connection, message)
        self.durable += 1
        for _ in range(20):
            self.passing += 1  # before it is sent: what was sent and not acknowledged may have arrived
            self._ask(connection, {"topic": "fleeting", "message": {"number": self.passing, "filling": "x" * 2000}})

    def _ask(self, connection: ClientConnection, attributes: dict[str, Any]) -> None:
        connection.send(json.dumps({"method": "new-message", "attributes": attributes, "id": 1}))
        reply = json.loads(connection.recv(timeout=PATIENCE_S))
        if reply["EventType"] == "error" and reply["EventData"]["code"] == "unavailable":
            raise TimeoutError("somebody holds the lock for long")
        if reply["EventType"] != "response":
            self.world.failures.append(f"publisher: {reply}")
            self.world.stop.set()


@dataclass
class Editor:
    """Writes the table ``note`` by the HTTP API. ``rows``: what must be there, as far as was acknowledged.

    ``doubt``: what a row may be instead, where no answer came.
    """

    world: World
    port: Callable[[], int]
    key: str
    rows: dict[int, tuple[Any, ...] | None] = field(default_factory=dict)
    doubt: dict[int, tuple[Any, ...] | None] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    pen: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        chance = random.Random(f"{self.world.seed} editor")
        while not self.world.stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=PATIENCE_S)
            try:
                while not self.world.stop.is_set():
                    with self.pen:
                        if not self.world.stop.is_set():
                            self._write(connection, chance)
                    self.world.stop.wait(chance.random() ** 3 * 0.05)
            except (OSError, http.client.HTTPException):
                self.seen["lost"] += 1
                self.world.stop.wait(0.1)
            finally:
                connection.close()

    def _write(self, connection: http.client.HTTPConnection, chance: random.Random) -> None:
        if self.doubt:
            self._settle(connection)
        number = chance.randrange(40)
        held = self.rows.get(number)
        row = (f"text {chance.random()}", chance.randrange(9))
        if held is None:
            method, path, wanted = "POST", "/api/note", row
        elif chance.random() < 0.3:
            method, path, wanted = "DELETE", f"/api/note/{number}", None
        else:
            method, path, wanted = "PATCH", f"/api/note/{number}", row
        attributes = {"body": row[0], "n": row[1]} | ({"id": number} if method == "POST" else {})
        data = {"type": "note", "attributes": attributes} | ({"id": str(number)} if method == "PATCH" else {})
        self.doubt[number] = wanted
        status, said = self._ask(connection, method, path, {"data": data} if method != "DELETE" else None)
        if status in (503, 507):
            del self.doubt[number]
            return
        if status not in (200, 201, 204):
            self.world.failures.append(f"editor: {method} {path}: {status} {said[:300]!r}")
            self.world.stop.set()
        self.rows[number] = self.doubt.pop(number)

    def _settle(self, connection: http.client.HTTPConnection) -> None:
        """See what has become of what was not answered: it was done, or it was not."""
        for number, wanted in tuple(self.doubt.items()):
            status, said = self._ask(connection, "GET", f"/api/note/{number}", None)
            there = json.loads(said)["data"]["attributes"] if status == 200 else None
            row = None if there is None else (there["body"], there["n"])
            if row not in (wanted, self.rows.get(number)) or status not in (200, 404):
                self.world.failures.append(f"editor: note {number} is {row} ({status}), not {wanted}")
                self.world.stop.set()
            self.rows[number] = row
            del self.doubt[number]

    def _ask(self, connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/vnd.api+json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        self.seen[f"{method} {answer.status}"] += 1
        return answer.status, answer.read()

    def check(self, there: dict[int, tuple[Any, ...]]) -> None:
        """Compare what was acknowledged with what is in the file, while nobody writes."""
        for number in {*there, *self.rows, *self.doubt}:
            row, held = there.get(number), self.rows.get(number)
            if row != held and not (number in self.doubt and row == self.doubt[number]):
                self.world.failures.append(f"note {number} is {row} in the file, {held} was acknowledged")
