"""What was written while nothing was captured: nobody resumes across it without being told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.live import serving, sql

pytestmark = pytest.mark.e2e


def test_resuming_across_a_time_without_triggers_is_a_gap_and_a_live_set_begins_anew(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY)")
    with serving(db) as live, live.client() as client:
        sql(db, "INSERT INTO t VALUES(1, 1); INSERT INTO u VALUES(1)")
        client.done("subscribe", topic="t")
        client.all_until_now()
        place = client.done("ping")
    triggers = sql(db, "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 't'").split()
    sql(db, "".join(f'DROP TRIGGER "{name}";' for name in triggers) + "INSERT INTO t VALUES(2, 2)")
    since = {"since": place["EventId"], "epoch": place["epoch"]}
    with serving(db) as live, live.client() as client:
        refused = client.ask("subscribe", topic="t", **since)["EventData"]
        assert refused["code"] == "gap"
        assert place["EventId"] < refused["oldest"] <= refused["newest"]
        assert client.done("subscribe", topic="u", **since)["recovered"] is True  # its triggers were there
        assert client.done("subscribe", topic="t", snapshot=True, **since)["recovered"] is False
        rows = []
        while (event := client.event())["ObjectType"] != "t" or event["EventType"] != "live":
            rows += [event["Key"]] if event["EventType"] == "snapshot" else []
        assert rows == [[1], [2]]
