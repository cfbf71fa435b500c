"""The recipes for proxies, run: the files in ``packaging``, with ports, names and certificates of the test."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Opcode
from websockets.sync.client import connect

from tests.e2e.live import Client, Live, serving, sql, trusting, until
from tests.e2e.server_process import PATIENCE_S, ROOT

pytestmark = pytest.mark.e2e
#: Where programs of the system are, also for a user whose PATH is without it.
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def changed(recipe: str, *replacements: tuple[str, str]) -> str:
    """Give a recipe with what is the test's own; each thing that is replaced must be there."""
    for old, new in replacements:
        assert old in recipe, old
        recipe = recipe.replace(old, new)
    return recipe


@contextmanager
def proxy(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a proxy in the foreground until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            env={"HOME": str(log.parent), "PATH": SYSTEM},
        )  # fmt: skip
    try:

        def listens() -> bool:
            assert process.poll() is None, log.read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(listens, "the proxy listens")
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def nginx(folder: Path, server: int, files: tuple[str, str], *more: tuple[str, str]) -> Iterator[int]:
    """Run nginx with its recipe before the server on that port; give nginx's."""
    port = free_port()
    recipe = changed(
        (ROOT / "packaging/nginx/live-appliance.conf").read_text(),
        ("127.0.0.1:6336", f"127.0.0.1:{server}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("live.example.com;", "localhost;"),
        ("/etc/ssl/live.example.com.pem", files[0]),
        ("/etc/ssl/live.example.com.key", files[1]),
        ("/var/log/nginx/live-appliance.log", f"{folder}/access.log"),
        *more,
    )
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ client_body_temp_path {folder}/body; {temporary}\n{recipe}\n}}"
    )
    command = [str(shutil.which("nginx", path=SYSTEM)), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with proxy(command, port, folder / "nginx.log"):
        yield port


@contextmanager
def caddy(folder: Path, server: int, files: tuple[str, str]) -> Iterator[int]:
    """Run Caddy with its recipe before the server on that port; give Caddy's."""
    port = free_port()
    recipe = changed(
        (ROOT / "packaging/caddy/Caddyfile").read_text(),
        ("127.0.0.1:6336", f"127.0.0.1:{server}"),
        ("\n{\n", "\n{\n\tadmin off\n\tauto_https off\n"),
        ("\nlive.example.com {",
         f"\nhttps://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {files[0]} {files[1]}"),
    )  # fmt: skip
    (folder / "Caddyfile").write_text(recipe)
    command = [str(shutil.which("caddy", path=SYSTEM)), "run", "--config", str(folder / "Caddyfile")]
    with proxy([*command, "--adapter", "caddyfile"], port, folder / "caddy.log"):
        yield port


PROXIES = [
    pytest.param(each, id=each.__name__, marks=pytest.mark.skipif(
        not shutil.which(each.__name__, path=SYSTEM), reason=f"{each.__name__} is not installed: apt install it"))
    for each in (nginx, caddy)
]  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that believes this machine's proxies and pings every second."""
    db = tmp_path_factory.mktemp("live") / "shop.db"
    sql(db, "CREATE TABLE orders(id INTEGER PRIMARY KEY, item TEXT)")
    options = ("--log-format", "json", "--metrics-listen", "127.0.0.1:0", "--ping-every-s", "1")
    with serving(db, *options, "--trusted-proxies", "127.0.0.1") as running:
        yield running


def logged(live: Live, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in live.log() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def accepted(live: Live) -> int:
    """Give how many connections the server has accepted on its main port."""
    (listening,) = logged(live, "metrics_listening")
    text = httpx.get(f"http://{listening['address']}/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("live_appliance_connections_accepted_total ")]
    return int(float(line.split()[1]))


@pytest.mark.parametrize("run", PROXIES)
def test_a_websocket_through_the_proxy(
    run: object, live: Live, tmp_path: Path, certificate_files: tuple[str, str]
) -> None:
    context = trusting(certificate_files[0])
    with run(tmp_path, live.port, certificate_files) as port:  # type: ignore[operator]
        url = f"wss://localhost:{port}/live?token={live.token}"
        spoofed = {"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "http", "Forwarded": "for=198.51.100.1"}
        origin = f"https://localhost:{port}"
        own = ("127.0.0.2", 0)  # the proxy's is 127.0.0.1
        with connect(
            url, ssl=context, origin=origin, additional_headers=spoofed, source_address=own, open_timeout=PATIENCE_S
        ) as socket_:
            client = Client(socket_)
            client.done("subscribe", topic="orders")
            sql(live.db, "INSERT INTO orders(item) VALUES('chair')")
            assert client.event()["EventData"]["item"] == "chair"
            assert logged(live, "connected")[-1]["remote"] == "127.0.0.2"
        with pytest.raises(InvalidStatus) as refused, connect(url, ssl=context, origin=f"http://localhost:{port}"):
            pass
        assert refused.value.response.status_code == 403
        with pytest.raises(InvalidStatus) as unauthorised, connect(url.partition("?")[0], ssl=context):
            pass
        assert unauthorised.value.response.status_code == 401
        assert json.loads(unauthorised.value.response.body)["error"]["code"] == "unauthorized"
    assert_no_token_is_logged(tmp_path, live.token)


def assert_no_token_is_logged(folder: Path, token: str) -> None:
    for log in folder.glob("*.log"):
        assert token.rpartition(".")[2] not in log.read_text(), log


@pytest.mark.parametrize("run", PROXIES)
def test_no_token_is_logged_when_the_server_is_down(
    run: object, tmp_path: Path, certificate_files: tuple[str, str]
) -> None:
    context = trusting(certificate_files[0])
    db = tmp_path / "db" / "shop.db"
    db.parent.mkdir()
    with serving(db, "--trusted-proxies", "127.0.0.1") as live:
        token = live.token
        with run(tmp_path, live.port, certificate_files) as port:  # type: ignore[operator]
            url = f"wss://localhost:{port}/live?token={token}"
            with connect(url, ssl=context, open_timeout=PATIENCE_S) as socket_:
                Client(socket_).done("ping")
                assert live.stop(signal.SIGKILL) == -signal.SIGKILL
                assert Client(socket_).close_code() != 1000
            with pytest.raises(InvalidStatus) as refused, connect(url, ssl=context):
                pass
            assert refused.value.response.status_code == 502
            assert httpx.get(f"https://localhost:{port}/api/world?token={token}", verify=context).status_code == 502
        assert_no_token_is_logged(tmp_path, token)


@pytest.mark.parametrize("run", PROXIES)
def test_connections_to_the_server_are_kept_and_can_still_upgrade(
    run: object, live: Live, tmp_path: Path, certificate_files: tuple[str, str]
) -> None:
    context = trusting(certificate_files[0])
    with run(tmp_path, live.port, certificate_files) as port:  # type: ignore[operator]
        url = f"https://localhost:{port}"
        with httpx.Client(verify=context) as browser:
            assert browser.get(f"{url}/readyz").status_code == 200
            before = accepted(live)
            for _ in range(5):
                assert browser.get(f"{url}/healthz").status_code == 200
            assert browser.get(f"{url}/nothing").status_code == 404
            assert accepted(live) == before
            with connect(f"wss://localhost:{port}/live?token={live.token}", ssl=context) as socket_:
                Client(socket_).done("ping")
            assert accepted(live) <= before + 1


@pytest.mark.skipif(not shutil.which("nginx", path=SYSTEM), reason="nginx is not installed")
def test_pings_keep_a_silent_connection_through_nginx(
    live: Live, tmp_path: Path, certificate_files: tuple[str, str]
) -> None:
    pings = 0

    shorter = [(f"proxy_{what}_timeout 60s", f"proxy_{what}_timeout 3s") for what in ("read", "send")]
    with nginx(tmp_path, live.port, certificate_files, *shorter) as port:
        context = trusting(certificate_files[0])
        with connect(f"wss://localhost:{port}/live?token={live.token}", ssl=context) as socket_:
            client = Client(socket_)
            client.done("subscribe", topic="orders")
            deliver = socket_.protocol.recv_frame

            def counted(frame: object) -> None:
                nonlocal pings
                pings += frame.opcode is Opcode.PING  # type: ignore[attr-defined]
                deliver(frame)  # type: ignore[arg-type]

            socket_.protocol.recv_frame = counted  # type: ignore[assignment]
            until(lambda: pings >= 5, "the server has pinged for longer than nginx waits")
            sql(live.db, "INSERT INTO orders(item) VALUES('late')")
            assert client.event()["EventData"]["item"] == "late"
