"""What whoever operates the server does and looks at, with the real program."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.live import Live, serving, sql, token, until

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
    assert now[prefix + "auth_failures_total"] == 1
    assert now[prefix + "frames_sent_total"] == 5
    assert now[prefix + "tail_lag_rows"] == 0
    assert now[prefix + "delivery_seconds_count"] >= 1
    assert now[prefix + "wal_bytes"] > 0
    assert now["process_open_fds"] > 5
    assert after[prefix + "websockets"] == after[prefix + "subscriptions"] == 0
    assert after[prefix + "frames_sent_total"] == 5
    assert after[prefix + "websockets_closed_total,code=1000"] == 1
    (line,) = logged(live, "disconnected")
    assert line["code"] == 1000
    assert line["frames"] == 5
    assert line["bytes_out"] == after[prefix + "sent_bytes_total"] > 500
