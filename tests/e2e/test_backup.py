"""A store is backed up while it is served and written, and restored: what clients are told then."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.live import run, serving, sql

pytestmark = pytest.mark.e2e


def test_a_backup_of_a_served_store_is_restored_under_a_new_epoch(tmp_path: Path) -> None:
    db, copy = tmp_path / "shop.db", tmp_path / "monday.db"
    sql(db, "CREATE TABLE orders(id INTEGER PRIMARY KEY, item TEXT)")
    with serving(db) as live, live.client() as client:
        client.done("create-topic", name="lobby")
        reply = client.done("subscribe", topic="orders")
        sql(db, "INSERT INTO orders(item) VALUES('chair')")
        position = client.event()["EventId"]

        made = run("backup", copy, "--db", db)
        assert (made.returncode, made.stderr) == (0, "")
        assert f"verified, up to event {position}" in made.stdout
        assert run("backup", copy, "--db", db).returncode == 1
        assert run("backup", copy, "--db", db, "--force").returncode == 0

        sql(db, "INSERT INTO orders(item) VALUES('table')")
        assert client.event()["EventData"]["item"] == "table"
        refused = run("restore", copy, "--db", db)
        assert refused.returncode == 75
        assert "serves" in refused.stderr
    restored = run("restore", copy, "--db", db)
    assert (restored.returncode, restored.stderr) == (0, "")
    (kept,) = tmp_path.glob("shop.db.before-restore-*")
    assert str(kept) in restored.stdout
    assert sql(kept, "SELECT item FROM orders") == "chair\ntable\n"
    with serving(db) as live, live.client() as client:
        assert "lobby" in client.done("list-topic")["topics"]
        error = client.ask("subscribe", topic="orders", since=position, epoch=reply["epoch"])["EventData"]
        assert error["code"] == "gap"
        assert error["epoch"] != reply["epoch"]
        client.done("subscribe", topic="orders")
        sql(db, "INSERT INTO orders(item) VALUES('desk')")
        assert client.event()["EventData"] == {"__type": "orders", "id": 2, "item": "desk"}
