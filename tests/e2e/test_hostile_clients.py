"""Containment, against the real program: after every attack a neighbour's subscription goes on as if nothing were."""

from __future__ import annotations

import contextlib
import gc
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e import hostile, live
from tests.e2e.attacks import ATTACKS, MIB, VIOLATIONS, Attack
from tests.e2e.hostile import CLOSE, PING, TEXT, Stranger, close, frame
from tests.e2e.live import Live, serving, sql, trusting, until

pytestmark = pytest.mark.e2e
#: What one attack may leave behind: the allocator keeps some of what it was given, and the newest events (28 MiB) stay.
MEMORY_LEFT = (24 + 28) * MIB
#: What an attack may leave in the log, all of it below "warning".
EXPECTED_LINES = frozenset({"connected", "disconnected", "refused"})
#: The echo server's own: it floods whoever connects. Here ``test_a_subscriber_that_never_reads…`` is its place.
ECHO_ONLY = {"events_that_nobody_reads"}


#: SQLite keeps the descriptor of the connection that moved the WAL, and gives it to the next one (POSIX locks end with
#: any descriptor of their file that is closed): whenever that is first done, there is one more. And the second
#: connection for readers, with its file and its WAL, is opened when two first read at a time.
SET_ASIDE = 3


class Scene:
    """A server, and a neighbour who is subscribed to a table and must not notice anything."""

    def __init__(self, server: Live, neighbour: live.Client, writer: sqlite3.Connection) -> None:
        self.server = server
        self.neighbour = neighbour
        self.writer = writer
        self._written = 0

    def still_works(self) -> None:
        """Write a row; exactly its event must reach the neighbour."""
        self._written += 1
        self.writer.execute("INSERT INTO seen VALUES(?)", (self._written,))
        self.writer.commit()
        event = self.neighbour.event()
        assert event["ObjectType"] == "seen"
        assert event["EventData"]["n"] == self._written

    def stranger(self) -> Stranger:
        return Stranger(self.server.connect(), self.server.token)

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        """Attack in this block; afterwards all must be as before."""
        gc.collect()  # no client of ours may wait to be closed
        descriptors, memory, lines = self.server.descriptors(), self.server.memory(), len(self.server.log())
        yield
        self.still_works()
        self.server.wait_for_descriptors(descriptors + SET_ASIDE)
        assert self.server.memory() - memory < MEMORY_LEFT
        fresh = [json.loads(line) for line in self.server.log()[lines:]]
        assert [line for line in fresh if line["event"] not in EXPECTED_LINES or line["level"] != "info"] == []
        assert self.server.alive


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    db = Path(tmp_path_factory.mktemp("hostile"), "shop.db")
    sql(db, "CREATE TABLE seen(n INT); CREATE TABLE much(id INTEGER PRIMARY KEY, words TEXT)")
    with (
        serving(db, "--head-s", "1", "--write-s", "5", "--log-format", "json") as server,
        contextlib.closing(sqlite3.connect(db, timeout=30)) as writer,
        server.client() as neighbour,
    ):
        neighbour.done("subscribe", topic="seen")
        made = Scene(server, neighbour, writer)
        made.still_works()
        for _ in range(3):  # what is made once is made now
            with contextlib.closing(made.stranger()) as client:
                client.open().ask(client.long_request(MIB - 100))
        yield made
        assert server.token not in "\n".join(server.log())


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ECHO_ONLY])
def test_a_hostile_client_hurts_nobody(scene: Scene, name: str) -> None:
    with scene.unharmed(), contextlib.closing(scene.stranger()) as client:
        ATTACKS[name](client)


# -- hostile requests -------------------------------------------------------------------------------------

#: Texts that are no request, and what each must be answered.
NONSENSE: dict[str, tuple[bytes, str]] = {
    "a megabyte of brackets": (b"[" * (MIB - 100), "bad-json"),
    "a megabyte of braces": (b'{"a":' * (MIB // 5 - 100), "bad-json"),
    "nesting of 33": (
        b'{"method":"new-message","attributes":{"topic":"t","message":' + b"[" * 33 + b"]" * 33 + b"}}", "bad-json",
    ),
    "duplicate keys": (b'{"method":"ping","method":"ping"}', "bad-json"),
    "duplicate keys by way of an escape": (b'{"method":"ping","\\u006dethod":"ping"}', "bad-json"),
    "duplicate keys deep inside": (
        b'{"method":"new-message","attributes":{"topic":"t","message":[{"a":1,"a":2}]}}', "bad-json",
    ),
    "100,000 digits": (b'{"method":"ping","id":' + b"9" * 100_000 + b"}", "bad-json"),
    "100,000 digits behind a point": (b'{"method":"ping","attributes":{"x":0.' + b"1" * 100_000 + b"}}", "bad-request"),
    "an exponent of 100,000 digits": (b'{"method":"ping","id":1e' + b"9" * 100_000 + b"}", "bad-json"),
    "2 to the 63": (b'{"method":"ping","id":9223372036854775808}', "bad-json"),
    "not a number": (b'{"method":"ping","id":NaN}', "bad-json"),
    "a lone surrogate": (b'{"method":"ping","id":"\\ud800"}', "bad-json"),
    "no object": (b'["ping"]', "bad-request"),
    "nothing": (b"", "bad-json"),
    "a BOM": (b"\xef\xbb\xbf{}", "bad-json"),
    "no method": (b"{}", "bad-request"),
    "a method that is a list": (b'{"method":["ping"]}', "bad-request"),
    "a method of a megabyte": (b'{"method":"' + b"m" * (MIB - 100) + b'"}', "unknown-method"),
    "an id that is an object": (b'{"method":"ping","id":{}}', "bad-request"),
    "attributes that are a list": (b'{"method":"list-topic","attributes":[]}', "bad-request"),
    "100,000 attributes": (
        b'{"method":"ping","attributes":{' + b",".join(b'"k%d":1' % n for n in range(80_000)) + b"}}", "bad-request",
    ),
    "a topic of a megabyte": (
        b'{"method":"subscribe","attributes":{"topic":"' + b"t" * (MIB - 100) + b'"}}', "unknown-topic",
    ),
    "a topic with a NUL": (b'{"method":"create-topic","attributes":{"name":"a\\u0000b"}}', "bad-request"),
    "an injected name": (
        b'{"method":"subscribe","attributes":{"topic":"seen\\"; DROP TABLE seen; --"}}', "unknown-topic",
    ),
    "an outbox": (b'{"method":"subscribe","attributes":{"topic":"_appliance_outbox"}}', "unknown-topic"),
    "the schema": (b'{"method":"subscribe","attributes":{"topic":"sqlite_schema"}}', "unknown-topic"),
    "33 filters": (
        b'{"method":"subscribe","attributes":{"topic":"much","filters":{'
        + b",".join(b'"k%d":1' % n for n in range(33)) + b"}}}", "bad-filter",
    ),
    "257 values": (
        b'{"method":"subscribe","attributes":{"topic":"much","filters":{"id":[' + b"1," * 256 + b"1]}}}", "bad-filter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_answered_with_one_error_that_is_short(scene: Scene, name: str) -> None:
    text, code = NONSENSE[name]
    with scene.unharmed(), contextlib.closing(scene.stranger()) as client:
        reply = client.open().ask(text)
        assert reply["EventType"] == "error"
        assert reply["EventData"]["code"] == code
        assert len(json.dumps(reply)) < 8192
        assert client.echoes()


def test_thousands_of_topics_are_bounded_for_each_user(scene: Scene) -> None:
    key = live.token(scene.server.db, "--subject", "greedy")
    with scene.unharmed(), scene.server.client(key) as client:
        for number in range(2000):
            client.send({"method": "create-topic", "attributes": {"name": f"topic {number} " + "x" * 100}})
        codes = [client.receive()["EventData"].get("code") for _ in range(2000)]
        assert codes.count(None) == 1000
        assert set(codes) <= {None, "forbidden", "rate-limited"}


def test_a_thousand_subscriptions_are_not_had(scene: Scene) -> None:
    tables = [f"table {number}" for number in range(200)]
    for name in tables:
        scene.writer.execute(f'CREATE TABLE "{name}"(a)')
    scene.writer.commit()
    with scene.server.client() as client:
        until(lambda: set(tables) <= set(client.done("list-topic")["topics"]), "the tables are topics")
    with scene.unharmed(), scene.server.client() as client:
        replies = [client.ask("subscribe", topic=tables[number % 200]) for number in range(1000)]
        codes = [reply["EventData"].get("code") for reply in replies]
        assert codes.count(None) == 128
        assert set(codes) == {None, "too-many-subscriptions", "already-subscribed", "rate-limited"} - (
            set() if "rate-limited" in codes else {"rate-limited"}
        )


def test_requests_without_end_are_limited_and_their_unread_replies_bounded(scene: Scene) -> None:
    with scene.unharmed(), contextlib.closing(scene.stranger()) as client:
        client.open().sock.settimeout(0.5)
        requests, sent = frame(TEXT, b'{"method":"list-topic"}') * 1000, 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < 64 * MIB:
                sent += client.sock.send(requests)
        assert sent < 32 * MIB
        client.reset()


def test_connections_of_one_user_are_bounded(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db", "--connections-per-user", "5") as server, contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(server.client())
        with contextlib.closing(Stranger(server.connect(), server.token)) as sixth:
            sixth.send(sixth.head())
            assert sixth.read_head().split()[1] == b"429"


# -- slow readers -----------------------------------------------------------------------------------------


def test_a_subscriber_that_never_reads_is_closed_and_the_others_get_everything(scene: Scene) -> None:
    rows = 100_000
    found: list[int] = []

    def follow(client: live.Client) -> None:
        found.extend(client.event()["EventData"]["id"] for _ in range(rows))

    with scene.unharmed(), contextlib.closing(scene.stranger()) as sluggard, scene.server.client() as follower:
        reply = sluggard.open().ask({"method": "subscribe", "attributes": {"topic": "much"}})
        assert reply["EventType"] == "response"
        follower.done("subscribe", topic="much")
        reader = threading.Thread(target=follow, args=(follower,))
        reader.start()
        lines = len(scene.server.log())
        for start in range(0, rows, 1000):
            scene.writer.executemany(
                "INSERT INTO much(id, words) VALUES(?, ?)", [(start + n, "w" * 100) for n in range(1000)]
            )
            scene.writer.commit()
        reader.join(60)
        assert not reader.is_alive()
        assert found == list(range(rows))
        until(lambda: any('"code":4408' in line for line in scene.server.log()[lines:]), "the slow one is closed")
        scene.still_works()


def test_a_slow_reader_that_wakes_up_reads_whole_events_and_then_why(scene: Scene) -> None:
    with contextlib.closing(scene.stranger()) as sluggard:
        sluggard.open().ask({"method": "subscribe", "attributes": {"topic": "much"}})
        lines = len(scene.server.log())
        scene.writer.execute("UPDATE much SET words = words || 'x'")
        scene.writer.commit()
        until(lambda: any('"code":4408' in line for line in scene.server.log()[lines:]), "the slow one is closed")
        ids = []
        with contextlib.suppress(ConnectionResetError, AssertionError):  # it may end within an event
            while (received := sluggard.receive()) is not None and received.opcode != CLOSE:
                if received.opcode != PING:  # it was silent for long
                    ids.append(json.loads(received.payload)["EventId"])
        assert ids == sorted(set(ids))
        assert received is None or received.opcode != CLOSE or received.code == 4408
    scene.still_works()


# -- TLS --------------------------------------------------------------------------------------------------


def test_tls_that_is_silent_or_nonsense_is_left_and_violations_are_told(
    tmp_path: Path, certificate_files: tuple[str, str]
) -> None:
    chain, key = certificate_files
    context = trusting(chain)
    options = ("--tls-cert", chain, "--tls-key", key, "--log-level", "warning")
    with serving(tmp_path / "a.db", *options) as server, server.client(ssl=context) as neighbour:
        neighbour.done("ping")
        descriptors = server.descriptors()
        silent, nonsense = server.connect(), server.connect()
        nonsense.sendall(b"GET / HTTP/1.1\r\n\r\n")
        reset = Stranger(server.connect(), server.token)
        reset.send(b"\x16\x03\x01\x02\x00\x01\x00")
        reset.reset()
        for name in VIOLATIONS:
            violate: Attack | Callable[[Stranger], None] = ATTACKS[name]
            with context.wrap_socket(server.connect(), server_hostname="localhost") as connection:
                violate(Stranger(connection, server.token))
        neighbour.done("ping")
        server.wait_for_descriptors(descriptors + SET_ASIDE)
        assert silent.recv(100) == b""
        for sock in (silent, nonsense):
            sock.close()
        of_this_machine = ("old_sqlite", "few_descriptors")
        assert [line for line in server.log() if not any(word in line for word in of_this_machine)] == []


def test_a_token_is_in_no_log_wherever_it_is_sent(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db", "--log-level", "debug") as server:
        key = server.token
        with server.client() as client:
            client.done("authenticate", token=key)
            client.refused("authenticate", token=key + "x")
            client.refused("subscribe", topic=key)
            client.refused("no-such", token=key)
        for head in (
            hostile.head(f"/live?token={key}x"),
            hostile.head(f"/{key}"),
            hostile.head(f"/live?auth=frame&x={key}", Sec_WebSocket_Version=b"7"),
            hostile.head("/live", Authorization=b"Basic " + key.encode()),
            hostile.head("/live", Origin=b"https://" + key.encode()),
        ):
            with contextlib.closing(hostile.Client(server.connect())) as stranger:
                stranger.send(head)
                stranger.read_head()
        with contextlib.closing(hostile.Client(server.connect())) as stranger:
            stranger.open("/live?auth=frame").send(
                frame(TEXT, b'{"method":"authenticate","attributes":{"token":"%bx"}}' % key.encode()) + close()
            )
            stranger.rest()
        with contextlib.suppress(ConnectionClosed), server.client(key) as client:
            client.connection.send(key.encode())
            client.receive()
        signature = key.rpartition(".")[2]
        assert signature not in "\n".join(server.log())
