"""Who gets in: tokens, origins, TLS, and that no token is ever logged."""

from __future__ import annotations

import json
import os
import pty
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import jwt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from appliance.web.admission import FIRST_BYTES
from tests.e2e.live import PROGRAM, Client, Live, run, serving, sql, token, trusting
from tests.e2e.server_process import PATIENCE_S, ROOT

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    db = tmp_path_factory.mktemp("admission") / "a.db"
    sql(db, "CREATE TABLE t(a)")
    with serving(db, "--allowed-origins", "https://app.example") as server:
        yield server
        log = "\n".join(server.log())
        assert server.token not in log
        assert server.token.split(".")[1] not in log


def secret(live: Live) -> str:
    return sql(live.db, "SELECT value FROM _appliance_meta WHERE name='secret'").strip()


def signed(live: Live, key: str | None = None, algorithm: str = "HS256", **claims: object) -> str:
    now = int(time.time())
    full = {"sub": "s", "iss": "live-appliance", "iat": now, "nbf": now, "exp": now + 60, "admin": True, **claims}
    present = {name: value for name, value in full.items() if value is not None}
    # As text, because PyJWT refuses to make what it refuses to read.
    return jwt.PyJWS().encode(json.dumps(present).encode(), key if key is not None else secret(live), algorithm)


def refusal(url: str, **options: object) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as refused, connect(url, **options):  # type: ignore[arg-type]
        pass
    response = refused.value.response
    body = json.loads(response.body or b"")
    assert response.headers.get("WWW-Authenticate") == ("Bearer" if response.status_code == 401 else None)
    return response.status_code, body["error"]["code"]


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1}, {"exp": None}, {"exp": "9999999999"}, {"sub": None}, {"sub": 7}, {"sub": ""}, {"iss": "other"},
        {"iss": None}, {"nbf": 9999999999},
    ],
    ids=str,
)  # fmt: skip
def test_a_token_with_wrong_claims_is_refused(live: Live, claims: dict[str, object]) -> None:
    made = signed(live, **claims)
    assert refusal(f"{live.url}?token={made}") == (401, "unauthorized")


def test_a_token_of_another_key_or_algorithm_or_none_is_refused(live: Live) -> None:
    for made in (
        signed(live, key="x" * 64),
        signed(live, algorithm="HS512"),
        signed(live, key="", algorithm="none"),
        "nonsense",
        "a.b.c",
        "",
        live.token[:-2],
    ):
        assert refusal(f"{live.url}?token={made}") == (401, "unauthorized")
    assert refusal(live.url) == (401, "unauthorized")
    assert refusal(live.url, additional_headers={"Authorization": "Basic eDp5"}) == (401, "unauthorized")


def test_a_token_may_come_in_the_header_or_in_the_first_frame(live: Live) -> None:
    with connect(live.url, additional_headers={"Authorization": f"Bearer {live.token}"}) as connection:
        assert Client(connection).topics() == ["t"]
    with connect(f"{live.url}?auth=frame") as connection:
        client = Client(connection)
        expires = client.done("authenticate", token=live.token)["expires_at"]
        assert expires > time.time()
        assert client.topics() == ["t"]
    with connect(f"{live.url}?auth=frame") as connection:
        client = Client(connection)
        assert client.refused("authenticate", token="wrong") == "unauthorized"
        assert client.close_code() == 4401
    with connect(f"{live.url}?auth=frame") as connection:
        client = Client(connection)
        client.send({"method": "list-topic"})
        assert client.close_code() == 4401


def test_who_has_no_token_yet_sends_no_long_frame(live: Live) -> None:
    with connect(f"{live.url}?auth=frame") as connection:
        connection.send("x" * (FIRST_BYTES + 1))
        assert Client(connection).close_code() == 1009
    with connect(f"{live.url}?auth=frame") as connection:
        client = Client(connection)
        client.done("authenticate", token=live.token)
        assert client.refused("ping", filler="x" * FIRST_BYTES) == "bad-request"


def test_of_two_tokens_the_one_in_the_query_counts_and_no_other_mends_it(live: Live) -> None:
    bearer = {"Authorization": f"Bearer {live.token}"}
    for bad in ("wrong", "", signed(live, key="x" * 64)):
        assert refusal(f"{live.url}?token={bad}", additional_headers=bearer) == (401, "unauthorized")
        assert refusal(f"{live.url}?token={bad}&auth=frame", additional_headers=bearer) == (401, "unauthorized")
        asked = urllib.request.Request(f"http://localhost:{live.port}/api/world?token={bad}", headers=bearer)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(asked)
    for other in ("Bearer wrong", "Basic eDp5"):  # as a proxy in front may send
        with connect(f"{live.url}?token={live.token}", additional_headers={"Authorization": other}) as connection:
            assert Client(connection).topics() == ["t"]


def test_two_tokens_in_one_place_are_refused(live: Live) -> None:
    assert refusal(f"{live.url}?token={live.token}&token={live.token}") == (401, "unauthorized")
    both = [("Authorization", f"Bearer {live.token}")] * 2
    assert refusal(live.url, additional_headers=both) == (401, "unauthorized")


def test_an_expired_token_ends_the_open_connection_and_a_fresh_one_extends_it(live: Live) -> None:
    short = signed(live, exp=int(time.time()) + 2)
    with live.client(short) as one, live.client(short) as two:
        later = two.done("authenticate", token=signed(live))["expires_at"]
        assert later > time.time() + 30
        assert two.refused("authenticate", token=signed(live, sub="another")) == "unauthorized"
        assert one.close_code() == 4401
        two.done("ping")


def test_once_a_token_has_ended_its_connection_is_told_nothing_and_asks_for_nothing(live: Live) -> None:
    end = int(time.time()) + 2
    with live.client(signed(live, exp=end)) as fed, live.client(signed(live, exp=end)) as asking:
        fed.done("subscribe", topic="t")
        while time.time() < end:
            time.sleep(0.01)
        asking.send({"method": "create-topic", "attributes": {"name": "too late"}})
        sql(live.db, "INSERT INTO t VALUES(1)")
        for each in (fed, asking):
            with pytest.raises(ConnectionClosed, match="4401"):
                each.receive()
    with live.client() as another:
        assert "too late" not in another.topics()


def test_pages_of_other_sites_are_refused(live: Live) -> None:
    url = f"{live.url}?token={live.token}"
    for origin in ("http://evil.example", "null", f"https://localhost:{live.port}", "http://localhost", "garbage"):
        assert refusal(url, origin=origin) == (403, "forbidden")
    for origin in (f"http://localhost:{live.port}", "https://app.example"):
        with connect(url, origin=origin) as connection:  # type: ignore[arg-type]
            Client(connection).done("ping")


def test_http_paths(live: Live) -> None:
    base = f"http://localhost:{live.port}"
    for path in ("/healthz", "/readyz"):
        with urllib.request.urlopen(base + path) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(base + "/nothing?token=x")
    message = json.loads(missing.value.read())["error"]["message"]
    assert "/live" in message
    assert "/readyz" in message
    missing.value.close()


def test_a_kept_alive_connection_upgrades_after_plain_requests(live: Live) -> None:
    with socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE_S) as sock:
        for _ in range(2):
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        sock.sendall(b"GET /live?token=bad HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")  # fmt: skip
        assert sock.recv(4096).startswith(b"HTTP/1.1 401")
        sock.sendall(f"GET /live?token={live.token} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                     "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())  # fmt: skip
        assert sock.recv(4096).startswith(b"HTTP/1.1 101")


def test_a_message_that_grows_on_its_way_is_too_large(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db", "--message-bytes", "2000") as live, live.client() as client:
        for name, durable in (("kept", True), ("passing", False)):
            client.done("create-topic", name=name, durable=durable)
            message = ",".join(["1e15"] * 300)
            client.send(f'{{"method":"new-message","id":"m","attributes":{{"topic":"{name}","message":[{message}]}}}}')
            reply = client.receive()
            assert (reply["id"], reply["EventData"]["code"]) == ("m", "too-large")
            client.done("new-message", topic=name, message="x" * 1800)


def test_tls_on_the_same_code_path(tmp_path: Path, certificate_files: tuple[str, str]) -> None:
    chain, key = certificate_files
    with serving(tmp_path / "a.db", "--tls-cert", chain, "--tls-key", key) as live:
        assert live.url.startswith("wss://")
        with live.client(ssl=trusting(chain)) as client:
            client.done("create-topic", name="x")
            client.done("subscribe", topic="x")
            client.done("new-message", topic="x", message="y" * 100_000)
            assert len(client.event()["EventData"]) == 100_000
        sent = run("publish", "x", "1", "--db", live.db, "--url", live.url, "--cafile", chain)
        assert sent.returncode == 0, sent.stderr
        live.process.send_signal(1)  # SIGHUP: certificates are read again, no connection is dropped
        with live.client(ssl=trusting(chain)) as client:
            client.done("ping")


def test_a_silent_client_is_pinged_and_then_left(tmp_path: Path) -> None:
    options = ("--ping-every-s", "1", "--pong-within-s", "1")
    with serving(tmp_path / "a.db", *options) as live, live.client() as answering, live.connect() as mute:
        mute.sendall(f"GET /live?token={live.token} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())  # fmt: skip
        received = b""
        while chunk := mute.recv(4096):
            received += chunk
        frames = received.partition(b"\r\n\r\n")[2]
        assert frames.startswith(b"\x89\x00")
        assert frames[2:4] == bytes((0x88, len(frames) - 4))
        assert int.from_bytes(frames[4:6], "big") == 4408
        answering.done("ping")


def test_frames_that_are_no_requests_count_as_requests_and_one_too_many_makes_up_for_none(tmp_path: Path) -> None:
    options = ("--requests-per-s", "0.1", "--request-burst", "11")
    with serving(tmp_path / "a.db", *options) as live, live.client() as client:
        client.send("nonsense " * 4096)  # as long as nine others
        assert client.receive()["EventData"]["code"] == "bad-json"
        client.done("ping")
        for _ in range(10):
            assert client.refused("ping") == "rate-limited"
            client.send("nonsense")
        assert client.close_code() == 1008


def test_limits_of_requests_subscriptions_and_connections(tmp_path: Path) -> None:
    options = ("--requests-per-s", "0.1", "--request-burst", "5", "--subscriptions", "1", "--connections-per-user", "2")
    sql(tmp_path / "a.db", "CREATE TABLE t(a); CREATE TABLE u(a)")
    with serving(tmp_path / "a.db", *options) as live, live.client() as client:
        client.done("subscribe", topic="t")
        assert client.refused("subscribe", topic="u") == "too-many-subscriptions"
        for _ in range(3):
            client.done("ping")
        assert client.refused("ping") == "rate-limited"
        with live.client():
            assert refusal(f"{live.url}?token={live.token}") == (429, "rate-limited")


def test_a_token_is_shown_on_a_terminal_and_only_there(tmp_path: Path) -> None:

    leader, follower = pty.openpty()

    with Popen(
        [*PROGRAM, "serve", "--db", str(tmp_path / "a.db"), "--port", "0"], stdout=follower, stderr=PIPE, cwd=ROOT
    ) as process:
        os.close(follower)
        shown = b""
        while b"token:" not in shown:
            shown += os.read(leader, 4096)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        assert b"eyJ" not in process.stderr.read()
    os.close(leader)
    key = shown.partition(b"token:")[2].split()[0].decode()
    assert key.count(".") == 2


def test_token_create_prints_a_token_and_nothing_else(tmp_path: Path) -> None:
    sql(tmp_path / "a.db", "CREATE TABLE t(a)")
    made = jwt.decode(token(tmp_path / "a.db", "--subject", "me", "--ttl", "30m"), options={"verify_signature": False})
    assert (made["sub"], "admin" in made, made["exp"] - made["iat"]) == ("me", False, 1800)
    assert run("token", "create", "--db", tmp_path / "a.db").returncode == 2
    assert run("token", "create", "--db", tmp_path / "no.db", "--admin").returncode == 78
