"""What whoever operates the server does and looks at, with the real program."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

from tests.e2e.live import FROZEN, Live, run, serving, sql, token, until
from tests.e2e.server_process import PATIENCE_S
from tests.ops.test_monitoring import queries

pytestmark = pytest.mark.e2e


def scraped(text: str) -> dict[str, float]:
    """Give every sample, by its name and labels as they are written."""
    return {
        each.name + "".join(f",{name}={value}" for name, value in sorted(each.labels.items())): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def logged(live: Live, event: str) -> list[dict[str, object]]:
    """Give the lines of the log with this event; the server logs as JSON."""
    lines = [json.loads(line) for line in live.log() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_the_metrics_tell_what_has_happened(tmp_path: Path) -> None:
    db = tmp_path / "shop.db"
    sql(db, "CREATE TABLE orders(id INTEGER PRIMARY KEY, item TEXT)")
    with serving(db, "--log-format", "json", "--metrics-listen", "127.0.0.1:0") as live:
        (listening,) = logged(live, "metrics_listening")
        inside = f"http://{listening['address']}/metrics"
        outside = f"http://127.0.0.1:{live.port}/metrics"

        assert httpx.get(outside).status_code == 401
        with live.client() as client:
            client.done("subscribe", topic="orders")
            sql(db, "INSERT INTO orders(item) VALUES('chair'), ('table'); UPDATE orders SET item='desk' WHERE id=1;")
            client.events(3)
            client.refused("subscribe", topic="nowhere")
            client.refused("whatever-somebody-writes")
            now = scraped(httpx.get(inside).text)
            with_token = httpx.get(outside, headers={"Authorization": f"Bearer {live.token}"})
            user = token(db, "--subject", "alice")
            refused = httpx.get(outside, headers={"Authorization": f"Bearer {user}"})
        until(lambda: logged(live, "disconnected"), "the end of the connection is logged")
        after = scraped(httpx.get(inside).text)

        assert (with_token.status_code, refused.status_code) == (200, 403)
        assert scraped(with_token.text).keys() >= now.keys()
    prefix = "live_appliance_"
    assert now[prefix + "websockets"] == now[prefix + "subscriptions"] == now[prefix + "ready"] == 1
    assert now[prefix + "changes_total,kind=create,table=orders"] == 2
    assert now[prefix + "changes_total,kind=update,table=orders"] == 1
    assert now[prefix + "events_delivered_total,kind=create"] == 2
    assert now[prefix + "requests_total,code=unknown-topic,method=subscribe"] == 1
    assert now[prefix + "requests_total,code=unknown-method,method=other"] == 1
    assert now[prefix + "auth_failures_total"] == 1
    assert now[prefix + "tail_lag_rows"] == 0
    assert now[prefix + "delivery_seconds_count"] >= 1
    assert now[prefix + "wal_bytes"] > 0
    assert now["process_open_fds"] > 5
    assert after[prefix + "websockets"] == after[prefix + "subscriptions"] == 0
    assert after[prefix + "websockets_closed_total,code=1000"] == 1
    (line,) = logged(live, "disconnected")
    assert line["code"] == 1000
    assert line["batches"] == after[prefix + "batches_sent_total"] in (1, 2)  # each commit, or both, at one stroke
    assert line["bytes_out"] == after[prefix + "sent_bytes_total"] > 500


@pytest.mark.skipif(bool(FROZEN), reason="how the program is packed makes no difference to Prometheus")
@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed: apt install prometheus")
def test_the_dashboard_shows_each_metric_of_a_server_that_prometheus_scrapes(tmp_path: Path) -> None:
    db = tmp_path / "shop.db"
    sql(db, "CREATE TABLE orders(id INTEGER PRIMARY KEY)")
    # The age of what is kept is known once it has been looked at twice, a tenth of that time apart.
    with serving(db, "--retention-s", "10") as live, live.client() as client:
        client.done("subscribe", topic="orders")
        client.done("create-topic", name="lobby")
        (tmp_path / "token").write_text(live.token)
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {
                    "job_name": "live-appliance",
                    "authorization": {"credentials_file": str(tmp_path / "token")},
                    "static_configs": [{"targets": [f"127.0.0.1:{live.port}"]}],
                }
            ],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        with prometheus(tmp_path) as url:

            def ask(query: str) -> list[Any]:
                answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
                assert answer["status"] == "success", answer
                return list(answer["data"]["result"])

            written = iter(range(10**6))
            missing = list(queries())

            def shown() -> bool:
                # Something of every kind again and again, so that there are rates.
                sql(db, f"INSERT INTO orders VALUES({next(written)})")
                client.done("new-message", topic="lobby", message=1)
                with pytest.raises(InvalidStatus), live.client("bad"):
                    pass
                with live.client() as other:
                    other.done("ping")
                missing[:] = [query for query in missing if not ask(query)]
                return not missing

            until(shown, "every query of the dashboard has an answer")


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """Run Prometheus on the configuration in ``folder`` until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address={address}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder)
    try:

        def ready() -> bool:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            try:
                return httpx.get(f"http://{address}/-/ready").status_code == 200
            except httpx.TransportError:
                return False

        until(ready, "Prometheus is ready")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def test_a_reload_changes_what_it_can_and_disconnects_nobody(tmp_path: Path) -> None:
    db, file = tmp_path / "shop.db", tmp_path / "live.toml"
    sql(db, "CREATE TABLE orders(id INTEGER PRIMARY KEY)")
    file.write_text('log_format = "json"\nsubscriptions = 1\n')

    def reloaded(text: str, event: str) -> dict[str, object]:
        before = len(logged(live, event))
        file.write_text(text)
        live.process.send_signal(signal.SIGHUP)
        until(lambda: len(logged(live, event)) > before, f"the log says {event}")
        return logged(live, event)[-1]

    with serving(db, "--config", str(file)) as live, live.client() as client:
        client.done("subscribe", topic="orders")
        client.done("create-topic", name="lobby")
        assert client.refused("subscribe", topic="lobby") == "too-many-subscriptions"
        page = "https://shop.example.com"
        with pytest.raises(InvalidStatus), live.client(origin=page):
            pass

        line = reloaded(
            'log_format = "json"\nsubscriptions = 2\nretention_rows = 5000\nallowed_origins = ["https://shop.example.com"]\n',
            "reloaded",
        )
        assert line["settings"] == ["allowed_origins", "subscriptions"]
        until(lambda: bool(logged(live, "restart_needed")), "the log names what takes a restart")
        assert logged(live, "restart_needed")[-1]["settings"] == ["retention_rows"]
        client.done("subscribe", topic="lobby")
        with live.client(origin=page) as other:
            other.done("ping")

        line = reloaded("subscriptions = none\n", "not_reloaded")
        assert "TOML" in str(line["reason"])
        sql(db, "INSERT INTO orders VALUES(1)")
        assert client.event()["EventData"]["id"] == 1


def test_tokens_are_signed_with_a_secret_of_ones_own(tmp_path: Path) -> None:
    db, file = tmp_path / "shop.db", tmp_path / "secret"
    former, secret = "0123456789abcdef" * 4, "fedcba9876543210" * 4
    file.write_text(former)
    with serving(db, "--secret-file", str(file)) as live:
        first = token(db, "--admin", "--secret-file", str(file))
        assert run("token", "create", "--admin", "--db", db).returncode == 1
        assert run("token", "rotate", "--db", db).returncode == 1
        with live.client(first) as old:
            file.write_text(secret + "\n" + former)
            reload(live)
            second = token(db, "--admin", "--secret-file", str(file))
            with live.client(second) as new:
                assert old.done("ping") == new.done("ping")
                file.write_text(secret)
                reload(live)
                assert old.close_code() == 4401
                assert new.done("ping")
        file.write_text("short")
        reload(live, "not_reloaded")
        made = {"email": "ann@example.com", "password": "a good one", "passwordConfirm": "a good one", "name": "Ann"}
        signed_up = httpx.post(f"http://127.0.0.1:{live.port}/action/user_account/signup", json={"attributes": made})
        assert signed_up.status_code == 200, signed_up.text
    assert secret not in "".join(live.log())
    stored = db.read_bytes()
    assert former.encode() not in stored
    assert secret.encode() not in stored
    refused = run("serve", "--db", db, "--port", "0", "--secret-file", file)
    assert refused.returncode == 78


def reload(live: Live, event: str = "reloaded") -> None:
    before = sum(event in line for line in live.log())
    live.process.send_signal(signal.SIGHUP)
    until(lambda: sum(event in line for line in live.log()) > before, f"the log says {event}")


def test_without_the_systems_word_commits_are_found_by_looking(tmp_path: Path) -> None:
    db = tmp_path / "shop.db"
    sql(db, "CREATE TABLE orders(id INTEGER PRIMARY KEY)")
    with serving(db, "--no-inotify") as live, live.client() as client:
        client.done("subscribe", topic="orders")
        client.done("create-topic", name="lobby")
        client.done("subscribe", topic="lobby")
        for number in range(3):
            sql(db, f"INSERT INTO orders VALUES({number})")
            assert client.event()["EventData"]["id"] == number
            client.done("new-message", topic="lobby", message=number)
            assert client.event()["EventData"] == number
