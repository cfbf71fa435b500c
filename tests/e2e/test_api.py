"""The HTTP API of the real program: its writes are events, and it is what its own description says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.live import Live, serving, sql
from tests.e2e.server_process import ROOT

pytestmark = pytest.mark.e2e

MEDIA = "application/vnd.api+json"
JSON = {"Content-Type": "application/json"}
TABLES = (
    "CREATE TABLE item(k INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL, done BOOLEAN, extra JSON, data BLOB);"
    "CREATE TABLE pair(a TEXT, b INTEGER, v, PRIMARY KEY(a, b)) WITHOUT ROWID;"
    "CREATE TABLE note(text TEXT COLLATE NOCASE, item REFERENCES item(k));"
    'CREATE TABLE [odd one]("a b" INTEGER, ["\'] TEXT, [select] REAL, "ü[x]" BLOB, [a,b] TEXT NOT NULL DEFAULT \'\', '
    'secret TEXT UNIQUE, twice GENERATED ALWAYS AS ("a b" * 2) STORED, PRIMARY KEY("a b", ["\'])) WITHOUT ROWID;'
    "CREATE TABLE strictly(k INTEGER PRIMARY KEY, n INTEGER, x REAL, t TEXT, v ANY) STRICT;"
)
#: Tables that are called and held against their description: each kind there is.
PATHS = (
    "item", "note", "odd%20one", "strictly", "todo", "todo_todo_id_has_usergroup_usergroup_id",
    "user_account", "usergroup", "world",
)  # fmt: skip


def api(live: Live, key: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key or live.token}", "Content-Type": MEDIA}
    return httpx.Client(base_url=f"http://localhost:{live.port}", headers=headers)


def document(kind: str, row_id: str | None = None, **attributes: Any) -> dict[str, Any]:
    return {"data": {"type": kind, "attributes": attributes} | ({} if row_id is None else {"id": row_id})}


def test_what_is_written_by_http_and_by_sql_arrives_in_one_order(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db) as live, live.client() as client, api(live) as http:
        client.done("subscribe", topic="item")
        made = http.post("/api/item", json=document("item", name="a", extra={"x": [1]}))
        sql(db, "UPDATE item SET price = 0.1")
        http.patch("/api/item/1", json=document("item", "1", name="b"))
        http.delete("/api/item/1")
        events = client.events(4)

        assert made.status_code == 201
        assert [event["EventType"] for event in events] == ["create", "update", "update", "delete"]
        sent = made.json()["data"]["attributes"]
        assert {"__type": "item", **sent} == events[0]["EventData"]
        assert events[-1]["EventData"]["name"] == "b"


def test_a_table_that_is_made_by_http_is_a_topic_with_its_users(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db") as live, live.client() as client, api(live) as http:
        columns = [{"name": "title", "type": "text"}]
        made = http.post("/api/world", json=document("world", table_name="todo", columns=columns))
        client.done("subscribe", topic="todo")
        row = http.post("/api/todo", json=document("todo", title="t")).json()["data"]

        assert made.status_code == 201
        assert client.event()["EventData"] == {"__type": "todo", **row["attributes"]}


def test_what_is_committed_when_a_request_comes_counts_for_it(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db") as live, api(live) as http:
        user = {"email": "a@example.com", "password": "correct horse"}
        http.post("/action/user_account/signup", json={"attributes": user}, headers=JSON)
        key = http.post("/action/user_account/signin", json={"attributes": user}, headers=JSON).json()
        with live.client() as client, live.client(key[0]["Attributes"]["value"]) as reader:
            for number in range(6):
                name = f"made{number}"
                made = http.post("/api/world", json=document("world", table_name=name, columns=[]))
                client.done("subscribe", topic=name)
                assert reader.refused("subscribe", topic=name) == "unknown-topic"
                granted = document("world", made.json()["data"]["id"], permission=1)
                assert http.patch(made.headers["Location"], json=granted).status_code == 200
                reader.done("subscribe", topic=name)
                reader.done("unsubscribe", topic=name)
                granted["data"]["attributes"]["permission"] = 0
                assert http.patch(made.headers["Location"], json=granted).status_code == 200
                assert reader.refused("subscribe", topic=name, snapshot=True) == "unknown-topic"
                sql(live.db, f"CREATE TABLE raw{number}(k INTEGER PRIMARY KEY)")
                if number % 2:
                    assert f"raw{number}" in client.done("list-topic")["topics"]
                client.done("subscribe", topic=f"raw{number}")


def test_the_printed_link_makes_the_first_administrator(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db"):
        pass
    with serving(tmp_path / "a.db", "--no-accounts") as live:
        assert "setup:" not in live.greeting
    with serving(tmp_path / "a.db") as live:
        (link,) = re.findall(r"setup: +(\S+)", live.greeting)
        code = link.partition("code=")[2]
        given = {"code": code, "attributes": {"email": "root@example.com", "password": "correct horse"}}
        answer = httpx.post(link.partition("?")[0], json=given)
        key = next(each["Attributes"]["value"] for each in answer.json() if each["ResponseType"] == "client.store.set")

        with live.client(key) as client, api(live, key) as http:
            assert client.done("ping")["epoch"]
            assert http.get("/api/world").status_code == 200
        assert code not in "\n".join(live.log())
        assert "correct horse" not in "\n".join(live.log())
    with serving(tmp_path / "a.db") as live:
        assert "setup:" not in live.greeting


def test_schemathesis_finds_nothing_that_the_description_does_not_say(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, TABLES)
    with serving(db) as live:
        with api(live) as http:
            columns = [{"name": "title", "type": "text"}, {"name": "done", "type": "boolean"},
                       {"name": "for_id", "type": "user_account"}, {"name": "part_of", "type": "todo"}]  # fmt: skip
            made = http.post("/api/world", json=document("world", table_name="todo", columns=columns))
            assert made.status_code == 201
        command = [
            Path(sys.executable).with_name("schemathesis"), "run", f"http://127.0.0.1:{live.port}/openapi.json",
            "--header", f"Authorization: Bearer {live.token}", "--checks", "all", "--max-examples", "1",
            "--include-path-regex", f"^/(api/({'|'.join(PATHS)})(/|$)|live)", "--seed", "1", "--no-color",
        ]  # fmt: skip
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "tests.e2e.clients.schemathesis_hooks", "PYTHONPATH": str(ROOT), "COLUMNS": "160",
        }  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=360, check=False
        )

        assert done.returncode == 0, done.stdout + done.stderr
        assert int(re.findall(r"(\d+) generated", done.stdout)[0]) > 300
        assert not [line for line in live.log() if "error" in line.split(" ")[1:2] or "failed" in line]
