"""Canaries in every kind of secret column, put there in every way: none sings in anything that the program emits."""

from __future__ import annotations

import base64
import json
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.live import Client, Live, run, serving, sql, until
from tests.e2e.test_api import api, document
from tests.e2e.test_commands import done

pytestmark = pytest.mark.e2e

#: Each canary begins so; what follows says where it was put, so that one that sings says from where.
CANARY = "canary"
TABLES = """
CREATE TABLE vault(k INTEGER PRIMARY KEY, name TEXT, api_key TEXT UNIQUE, pin_secret TEXT NOT NULL DEFAULT 'canary0'
    CHECK(length(pin_secret) > 6), raw_token BLOB, room TEXT);
CREATE TABLE pairs(a TEXT, b TEXT, passwd TEXT, PRIMARY KEY(a, b)) WITHOUT ROWID;
CREATE TABLE strictly(k INTEGER PRIMARY KEY, otp_seed INTEGER, user_hash TEXT) STRICT;
CREATE TABLE bare(text, secret);
CREATE TRIGGER refuses BEFORE UPDATE OF name ON vault WHEN NEW.name = 'refused'
    BEGIN SELECT RAISE(ABORT, 'not this name'); END;
"""
DEVICE = [{"name": "name", "type": "text"}, {"name": "serial_secret", "type": "text", "unique": True}]
USE = [{"name": "device_id", "type": "device"}, {"name": "text", "type": "text"}]


class Emitted:
    """All that the program has said, however it said it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def heard(self, response: httpx.Response) -> None:
        response.read()
        self.said += [str(response.status_code), str(response.headers.multi_items()), response.text]

    def run(self, *arguments: str | int | Path, written: str | None = None) -> None:
        given = [each if isinstance(each, Path) else str(each) for each in arguments]
        made = run(*given) if written is None else done(*given, written=written)
        self.said.append(made.stdout + made.stderr)

    def singing(self, *secrets: str) -> list[str]:
        """Give where a secret stands: as it is, percent-encoded, or inside Base64."""
        found = []
        for text in self.said:
            words = re.findall(r"[A-Za-z0-9_-]{8,}", text.replace("+", "-").replace("/", "_"))
            decoded = [
                base64.urlsafe_b64decode(each[: len(each) // 4 * 4]).decode("utf-8", "replace") for each in words
            ]
            shown = [text, unquote(text), *decoded]
            found += [text[:300] for secret in secrets if any(secret.lower() in each.lower() for each in shown)]
        return found


@pytest.fixture(scope="module")
def emitted() -> Emitted:
    return Emitted()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("secrets")
    settings = folder / "live-appliance.toml"
    settings.write_text('log_format = "text"\nlog_level = "debug"\n')
    db = folder / "shop.db"
    sql(db, TABLES)
    with serving(db, "--config", str(settings)) as served:
        yield served


def listening(live: Live, emitted: Emitted, **wish: Any) -> None:
    """Subscribe to everything, take all that is kept or there by now, and keep it."""
    with live.client() as client:
        begun = 0
        for topic in client.done("list-topic")["topics"]:
            reply = client.ask("subscribe", topic=topic, **wish)
            begun += reply["EventType"] == "response"
            emitted.said.append(json.dumps(reply))
        while begun:
            event = client.event()
            begun -= event["EventType"] == "live"
            emitted.said.append(json.dumps(event))


def by_api(live: Live, emitted: Emitted) -> None:
    """Write and read secrets by HTTP, in every way that is refused, too."""
    with api(live) as http:
        http.event_hooks["response"].append(emitted.heard)
        for name, columns in (("device", DEVICE), ("use", USE)):
            assert http.post("/api/world", json=document("world", table_name=name, columns=columns)).status_code == 201
        device = http.post("/api/device", json=document("device", name="d", serial_secret="canary-a1"))
        reference = device.json()["data"]["id"]
        assert device.status_code == 201
        http.post("/api/device", json=document("device", serial_secret="canary-a1"))
        http.patch(f"/api/device/{reference}", json=document("device", reference, serial_secret="canary-a2"))
        http.post("/api/use", json=document("use", device_id=reference))
        assert http.get("/api/use?include=device").json()["included"][0]["id"] == reference
        vault = {"api_key": "canary-a3", "pin_secret": "canary-a4", "raw_token": {"$blob": blob("canary-a5")}}
        made = http.post("/api/vault", json=document("vault", name="v", **vault))
        row = made.json()["data"]["id"]
        assert http.post("/api/vault", json=document("vault", **vault)).status_code == 409
        assert http.post("/api/vault", json=document("vault", pin_secret="canary")).status_code == 422
        assert http.post("/api/vault", json=document("vault", pin_secret=None, api_key="canary-a6")).status_code == 422
        assert http.patch(f"/api/vault/{row}", json=document("vault", row, name="refused", pin_secret="canary-a7")) \
            .status_code == 422  # fmt: skip
        assert http.post("/api/strictly", json=document("strictly", otp_seed="canary-a8")).status_code == 422
        assert http.post("/api/strictly", json=document("strictly", user_hash="canary-a9")).status_code == 201
        assert http.post("/api/pairs", json=document("pairs", a="a", b="b", passwd="canary-a10")).status_code == 201
        assert http.post("/api/pairs", json=document("pairs", a="a", b="b", passwd="canary-a11")).status_code == 409
        http.post("/api/bare", json=document("bare", text="t", secret={"$blob": blob("canary-a12")}))
        http.post("/api/vault", json={"data": {"type": "vault", "attributes": {"api_key": ["canary-a13"]}}})
        http.post("/api/vault", content=b'{"data":{"attributes":{"api_key":"canary-a14"')
        for table, column in (("vault", "api_key"), ("device", "serial_secret"), ("user_account", "password"),
                              ("pairs", "passwd"), ("bare", "secret")):  # fmt: skip
            for query in (f"filter[{column}]=canary", f"filter[{column}][startswith]=canary", f"sort={column}",
                          f'filter={{"{column}":{{"gt":"canary"}}}}', f"fields[{table}]={column}",
                          f"include={column}", f"filter[{column}][in]=canary,x"):  # fmt: skip
                assert http.get(f"/api/{table}?{query}").status_code == 400
        person = {"email": "a@example.com", "password": "canary-a15"}
        action = {"headers": {"Content-Type": "application/json"}}
        for given, path in ((person, "signup"), (person, "signup"), (person | {"password": "canary-no"}, "signin"),
                            (person | {"password": ["canary-no"]}, "signin"), ({"password": "canary-no"}, "signin"),
                            (person | {"passwordConfirm": "canary-no"}, "signup")):  # fmt: skip
            http.post(f"/action/user_account/{path}", json={"attributes": given}, **action)
        user = http.get("/api/user_account?filter[email]=a@example.com").json()["data"][0]["id"]
        http.patch(f"/api/user_account/{user}", json=document("user_account", user, password="canary-a16"))
        http.patch(f"/api/user_account/{user}", json=document("user_account", user, password=f"canary{'x' * 80}"))
        http.patch(f"/api/user_account/{user}", json=document("user_account", user, password={"$blob": "canary=="}))
        http.post("/api/user_account", json=document("user_account", email="a@example.com", password="canary-a17"))
        http.post("/setup", json={"code": "code-a18", "attributes": person}, **action)
        http.post("/setup", data={"code": "code-a19", **person}, headers={"Content-Type": FORM})
        http.get("/api/vault", headers={"Authorization": "Bearer canary-a20"})
        http.get("/api/vault?token=canary-a21")


FORM = "application/x-www-form-urlencoded"


def blob(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def by_sql(live: Live) -> None:
    """Write secrets as any other program would: into new rows and old, and by what displaces rows."""
    sql(
        live.db,
        "UPDATE vault SET name = 'w', api_key = 'canary-s1', pin_secret = 'canary-s2';"
        "REPLACE INTO vault(k, api_key, raw_token) VALUES(77, 'canary-s1', 'canary-s3');"
        "INSERT INTO vault(k, api_key) VALUES(77, 'canary-s4') ON CONFLICT DO UPDATE SET api_key = 'canary-s5', k = 78;"
        "INSERT OR IGNORE INTO vault(k, api_key) VALUES(78, 'canary-s6');"
        "UPDATE pairs SET passwd = 'canary-s7', b = 'c'; DELETE FROM pairs;"
        "UPDATE bare SET text = 'u', secret = 'canary-s8'; DELETE FROM bare;"
        "UPDATE device SET serial_secret = 'canary-s9', name = 'e';"
        "INSERT INTO device(reference_id, serial_secret) VALUES('r', 'canary-s10');"
        "REPLACE INTO device(reference_id, serial_secret) VALUES('r', 'canary-s11');"
        "REPLACE INTO device(reference_id, serial_secret) VALUES('s', 'canary-s11'); DELETE FROM device;"
        "INSERT INTO user_account(reference_id, email, password) VALUES('p', 'p@example.com', 'canary-s12');"
        "REPLACE INTO user_account(reference_id, email, password) VALUES('p', 'p@example.com', 'canary-s13');"
        "UPDATE user_account SET password = 'canary-s14', name = 'q' WHERE reference_id = 'p';"
        "ALTER TABLE strictly ADD COLUMN new_token TEXT DEFAULT 'canary-s15'; UPDATE strictly SET user_hash = NULL;",
    )


def by_command(live: Live, emitted: Emitted, begun: dict[str, Any]) -> None:
    """Write secrets, and ask for them, with the commands."""
    at = ("--db", live.db)
    emitted.run("user", "add", "c@example.com", "--password-stdin", *at, written="canary-c1")
    emitted.run("user", "password", "c@example.com", "--password-stdin", *at, written="canary-c2")
    emitted.run("table", "grant", "vault", "--to", "users", "--can", "all", *at)
    for command in (("table", "list"), ("user", "list"), ("group", "list"), ("topic", "list"), ("check",)):
        emitted.run(*command, *at)
    for table, key in (("vault", "78"), ("pairs", '["a","b"]'), ("user_account", "p"), ("device", "s")):
        before = len(emitted.said)
        emitted.run("history", table, key, *at)
        assert f'"ObjectType":"{table}"' in "".join(emitted.said[before:]), emitted.said[before:]
    url = ("--url", live.url)
    since = f"{begun['epoch']}.{begun['EventId']}"
    for options in (
        ("--snapshot", "--count", 1),
        ("--since", since, "--count", 4, "--old"),
        ("--filter", "api_key=canary-c5"),
        ("--filter", 'api_key={"gt":"canary-c6"}'),
        ("--token", "canary.c7.c8"),
    ):
        emitted.run("tail", "vault", *options, *url, *(() if options[0] == "--token" else at))
    emitted.run("publish", "vault", '"x"', *url, "--token", "canary.c9.c10")
    emitted.run("token", "check", "canary.c3.c4", *at)
    emitted.run("table", "grant", "vault", "--to", "owner", "--owner-column", "api_key", "--can", "read", *at)


def by_bad_tokens(live: Live, emitted: Emitted) -> None:
    """Bring tokens that are none, in each of the ways there are for it on the WebSocket."""
    bearer = {"additional_headers": {"Authorization": "Bearer canary-t2"}}
    for query, options in (("?token=canary-t1", {}), ("", bearer), ("?token=canary-t3", bearer)):
        with pytest.raises(InvalidStatus) as refused:
            connect(live.url + query, **options).__enter__()
        response = refused.value.response
        emitted.said += [str(response.headers), (response.body or b"").decode()]
    with connect(f"{live.url}?auth=frame") as connection:
        client = Client(connection)
        emitted.said.append(json.dumps(client.ask("authenticate", token="canary-t4")))
    with live.client() as client:
        for token in ("canary-t5", ["canary-t6"], {"canary-t7": 1}):
            emitted.said.append(json.dumps(client.ask("authenticate", token=token)))
        for text in (
            '{"method":"authenticate","attributes":{"token":"canary-t8"',
            '{"method":"authenticate","token":"canary-t9"}',
        ):
            client.send(text)
            emitted.said.append(json.dumps(client.receive()))


def test_no_secret_is_in_anything_that_the_program_emits(live: Live, emitted: Emitted) -> None:
    # It is not asked what it was sent until all has been written, but answers pings, however long that takes.
    with live.client(ping_interval=None, max_queue=None) as client:
        begun = client.done("ping")
        for topic in client.done("list-topic")["topics"]:
            client.done("subscribe", topic=topic, old=True)
        by_api(live, emitted)
        by_sql(live)
        by_command(live, emitted, begun)
        by_bad_tokens(live, emitted)
        for topic, column in (("vault", "api_key"), ("user_account", "password"), ("bare", "secret")):
            client.ask("unsubscribe", topic=topic)
            for filters in ({column: "canary-w1"}, {column.upper(): {"startswith": "canary-w2"}}):
                refused = client.ask("subscribe", topic=topic, filters=filters)
                assert refused["EventData"]["code"] == "bad-filter"
                emitted.said.append(json.dumps(refused))
        emitted.said += [json.dumps(event) for event in client.all_until_now()]
    # What is kept, and what is there.
    listening(live, emitted, since=begun["EventId"], epoch=begun["epoch"], old=True)
    listening(live, emitted, snapshot=True)
    for event_type, least in (("create", 10), ("update", 10), ("delete", 6), ("snapshot", 10)):
        assert sum(f'"EventType": "{event_type}"' in each for each in emitted.said) >= least, event_type
    with api(live) as http:
        http.event_hooks["response"].append(emitted.heard)
        for path in ("/openapi.json", "/metrics", "/healthz", "/readyz", "/nowhere", "/", "/setup?code=h1"):
            http.get(path)
        for table in ("vault", "device", "use", "pairs", "strictly", "bare", "user_account", "world", "usergroup"):
            for row in http.get(f"/api/{table}?page[size]=2&page[total]=true").json()["data"]:
                assert http.get(row["links"]["self"]).status_code == 200
    # The log in its other format.
    settings = live.db.with_name("live-appliance.toml")
    settings.write_text('log_format = "json"\nlog_level = "debug"\n')
    live.process.send_signal(signal.SIGHUP)
    until(lambda: any(line.startswith("{") for line in live.log()), "the log is JSON")
    with api(live) as http:
        http.event_hooks["response"].append(emitted.heard)
        person = {"email": "p@example.com", "password": "canary-j1"}
        for path in ("signin", "signup"):
            http.post(f"/action/user_account/{path}", json={"attributes": person},
                      headers={"Content-Type": "application/json"})  # fmt: skip
        http.post("/api/vault", json=document("vault", pin_secret="canary"))
    sql(live.db, "UPDATE vault SET api_key = 'canary-j2'")
    emitted.said += [*live.log(), live.greeting]

    with closing(sqlite3.connect(live.db)) as db:
        hashes = [row[0] for row in db.execute("SELECT password FROM user_account").fetchall() if row[0]]
        (signing,) = db.execute("SELECT value FROM _appliance_meta WHERE name = 'secret'").fetchone()
        for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            if name.startswith("_appliance_"):
                rows = db.execute(f"SELECT * FROM {name}" + " WHERE name <> 'secret'" * (name == "_appliance_meta"))
                emitted.said.append(repr(rows.fetchall()))
        assert db.execute("SELECT count(*) FROM vault WHERE api_key LIKE 'canary%'").fetchone()[0] > 0
        assert any(each.startswith("canary") for each in hashes)
    assert len(emitted.said) > 300
    assert emitted.singing("canary", "$2b$", signing, live.token.rpartition(".")[2], *hashes) == []


def test_what_looks_for_canaries_finds_them() -> None:
    told = Emitted()
    told.said = [f"a {CANARY} b", blob("xxcanary-1"), "%63anary", json.dumps({"$blob": blob("canary")}), "nothing"]
    assert told.singing(CANARY) == told.said[:4]
