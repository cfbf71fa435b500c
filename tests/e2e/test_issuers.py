"""Tokens of another issuer: taken by their keys, and gone with them, on open connections too."""

from __future__ import annotations

import base64
import json
import signal
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.e2e.live import Client, Live, run, serving, sql, token, until

pytestmark = pytest.mark.e2e

ISSUER = "https://issuer.example"
FIRST, SECOND = (rsa.generate_private_key(65537, 2048) for _ in range(2))


def number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()


def publish(path: Path, **keys: rsa.RSAPrivateKey) -> None:
    """Write a JWKS file, as an issuer's."""
    found = [
        {"kty": "RSA", "kid": kid, "alg": "RS256", "n": number(each.n), "e": number(each.e)}
        for kid, key in keys.items()
        for each in [key.public_key().public_numbers()]
    ]
    path.write_text(json.dumps({"keys": found}))


def signed(key: Any, kid: str, algorithm: str = "RS256", **claims: Any) -> str:
    made = {"sub": "ann", "iss": ISSUER, "exp": time.time() + 600, **claims}
    return jwt.encode(made, key, algorithm, headers={"kid": kid})


def status(live: Live, key: str) -> int:
    try:
        with connect(f"{live.url}?token={key}"):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def reload(live: Live) -> None:
    seen = sum("reloaded" in line for line in live.log())
    live.process.send_signal(signal.SIGHUP)
    until(lambda: sum("reloaded" in line for line in live.log()) > seen, "the keys are read again")


def test_keys_overlap_and_one_that_is_taken_away_takes_its_connections_with_it(tmp_path: Path) -> None:
    db, jwks = tmp_path / "shop.db", tmp_path / "jwks.json"
    publish(jwks, one=FIRST)
    sql(db, "CREATE TABLE notes(id INTEGER PRIMARY KEY, who TEXT, text TEXT)")
    granted = run("table", "grant", "notes", "--to", "owner", "--owner-column", "who", "--can", "read", "--db", db)
    assert granted.returncode == 0, granted.stderr
    with serving(db, "--jwt-keys", str(jwks), "--jwt-issuer", ISSUER) as live:
        old, new = signed(FIRST, "one"), signed(SECOND, "two")
        assert [status(live, key) for key in (old, new)] == [101, 401]
        publish(jwks, one=FIRST, two=SECOND)
        reload(live)
        with live.client(old) as before, live.client(new) as after:
            for client in (before, after):
                client.done("subscribe", topic="notes")
            sql(db, "INSERT INTO notes(who, text) VALUES('bob', 'not for her'), ('ann', 'for both')")
            assert [client.event()["EventData"]["text"] for client in (before, after)] == ["for both"] * 2
            publish(jwks, two=SECOND)
            reload(live)
            sql(db, "INSERT INTO notes(who, text) VALUES('ann', 'for one')")
            assert after.event()["EventData"]["text"] == "for one"
            assert before.close_code() == 4401
        assert [status(live, key) for key in (old, new)] == [401, 101]
        jwks.write_text("nonsense")  # what cannot be read changes nothing
        live.process.send_signal(signal.SIGHUP)
        until(lambda: any("not_reloaded" in line for line in live.log()), "the file is refused")
        assert status(live, new) == 101


def notes_of_editors(tmp_path: Path) -> tuple[Path, Path]:
    """Make a database whose notes the group of editors may read, and a file with the issuer's one key."""
    db, jwks = tmp_path / "shop.db", tmp_path / "jwks.json"
    publish(jwks, one=FIRST)
    sql(db, "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT)")
    for command in (("group", "add", "editors"), ("table", "grant", "notes", "--to", "editors", "--can", "read")):
        assert run(*command, "--db", db).returncode == 0
    return db, jwks


def test_another_issuer_gives_groups_and_administrators_but_passes_for_no_account(tmp_path: Path) -> None:
    db, jwks = notes_of_editors(tmp_path)
    with serving(db, "--jwt-keys", str(jwks), "--jwt-issuer", ISSUER) as live:
        sql(db, "INSERT INTO user_account(reference_id, email) VALUES('local', 'local@example.com')")
        assert status(live, signed(FIRST, "one", sub="local")) == 401
        assert status(live, signed(FIRST, "one", iss="live-appliance", sub="local")) == 401
        public = FIRST.public_key().public_numbers()
        for forged in (signed(number(public.n), "one", "HS256"), signed(None, "one", "none"), signed(SECOND, "one")):
            assert status(live, forged) == 401
        for groups, seen in ((["editors"], True), (["users"], False), (["administrators"], False), ([], False)):
            with live.client(signed(FIRST, "one", groups=groups)) as client:
                assert ("notes" in client.done("list-topic")["topics"]) is seen, groups
        with live.client(signed(FIRST, "one", admin=True)) as client:
            assert "notes" in client.done("list-topic")["topics"]
        with live.client(signed(FIRST, "one", admin="true")) as client:
            assert "notes" not in client.done("list-topic")["topics"]
            sql(db, "INSERT INTO user_account(reference_id, email) VALUES('ann', 'ann@example.com')")
            assert client.close_code() == 4401  # now that there is an account of that name


def test_a_group_that_is_called_otherwise_is_another_one_for_tokens_that_name_it(tmp_path: Path) -> None:
    db, jwks = notes_of_editors(tmp_path)
    with (
        serving(db, "--jwt-keys", str(jwks), "--jwt-issuer", ISSUER) as live,
        live.client(signed(FIRST, "one", groups=["editors"])) as client,
    ):
        client.done("subscribe", topic="notes")
        sql(db, "UPDATE usergroup SET name='authors' WHERE name='editors'; INSERT INTO notes(text) VALUES('secret')")
        assert [each["EventType"] for each in client.all_until_now()] == ["table-dropped"]
        sql(db, "UPDATE usergroup SET name = 'editors' WHERE name = 'authors'")
        client.done("subscribe", topic="notes")


def test_who_would_be_refused_by_new_settings_is_closed_before_the_next_event(tmp_path: Path) -> None:
    db, jwks, config = tmp_path / "shop.db", tmp_path / "jwks.json", tmp_path / "live.toml"
    publish(jwks, one=FIRST)
    sql(db, "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT)")
    assert run("table", "grant", "notes", "--to", "guests", "--can", "read", "--db", db).returncode == 0
    other = "https://other.example"
    settings = f'jwt_keys = ["{jwks}"]\nguests = true\n'
    config.write_text(settings)
    with serving(db, "--config", str(config)) as live:
        for line, key in (
            ('jwt_admin_claim = "owner"', signed(FIRST, "one", admin=True)),
            (f'jwt_issuer = "{other}"', signed(FIRST, "one")),
            ('jwt_audience = "shop"', signed(FIRST, "one", iss=other)),
            ("token_lifetime_s = 60\ntoken_ttl_s = 60", token(db, "--admin", "--ttl", "10m")),
            ("guests = false", ""),
        ):
            with connect(f"{live.url}?token={key}" if key else live.url) as connection:
                client = Client(connection)
                client.done("subscribe", topic="notes")
                settings = settings.replace("guests = true\n", "" if line.startswith("guests") else "guests = true\n")
                settings += line + "\n"
                config.write_text(settings)
                reload(live)
                sql(db, "INSERT INTO notes(text) VALUES('secret')")
                with pytest.raises(ConnectionClosed) as closed:
                    client.receive()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 4401, line


def test_another_issuer_can_speak_for_accounts_of_ours(tmp_path: Path) -> None:
    db, jwks = notes_of_editors(tmp_path)
    with serving(db, "--jwt-keys", str(jwks), "--jwt-issuer", ISSUER, "--jwt-accounts") as live:
        sql(db, "INSERT INTO user_account(reference_id, email) VALUES('local', 'local@example.com')")
        assert status(live, signed(FIRST, "one", sub="nobody")) == 401
        issued = {"iat": int(time.time()) + 1}  # not before the account, in whole seconds
        with live.client(signed(FIRST, "one", sub="local", **issued)) as client:
            assert "notes" not in client.done("list-topic")["topics"]
            assert run("group", "join", "editors", "local@example.com", "--db", db).returncode == 0
            assert "notes" in client.done("list-topic")["topics"]
