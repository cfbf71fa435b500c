"""Accounts, groups, grants and tokens by command, beside a server that runs; and no secret in anything it emits."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.store.tables.standard import ADMINISTRATORS, USERS, join_table
from tests.e2e.live import PROGRAM, ROOT, Live, run, serving, sql, token, until

pytestmark = pytest.mark.e2e

PASSWORD = "canary-of-a-password"
MEMBERS = join_table("user_account")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    db = tmp_path_factory.mktemp("commands") / "shop.db"
    sql(db, "CREATE TABLE orders(id INTEGER PRIMARY KEY, user_id TEXT, item TEXT)")
    with serving(db, "--log-format", "json") as server:
        yield server


def done(*arguments: str | Path, written: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed."""
    command = [*PROGRAM, *map(str, arguments)]
    made = subprocess.run(command, input=written, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    return made


def add_user(db: Path, email: str, *options: str) -> str:
    made = done("user", "add", email, "--db", db, "--password-stdin", *options, written=f"{PASSWORD}\n")
    assert PASSWORD not in made.stdout + made.stderr
    return made.stdout.strip()


def test_accounts_and_groups_are_events_of_their_tables(live: Live) -> None:
    with live.client() as admin:
        for table in ("user_account", "usergroup", MEMBERS):
            admin.done("subscribe", topic=table)
        ann = add_user(live.db, "Ann@example.com", "--name", "Ann")
        events = admin.all_until_now()
        told = [(event["EventType"], event["ObjectType"]) for event in events]
        assert told == [("create", "user_account"), ("create", MEMBERS)]
        account, member = (event["EventData"] for event in events)
        assert (account["reference_id"], account["email"], account["name"]) == (ann, "ann@example.com", "Ann")
        assert account["confirmed"] is True
        assert {"id", "password"}.isdisjoint(account)
        assert events[0]["Key"] == [ann]
        assert (member["user_account_id"], member["usergroup_id"], member["permission"]) == (ann, USERS, 16289)
        editors = done("group", "add", "editors", "--db", live.db).stdout.strip()
        done("group", "join", "editors", "ann@example.com", "--db", live.db)
        assert f"ann@example.com  {ann}  editors, users" in done("user", "list", "--db", live.db).stdout
        done("group", "leave", "EDITORS", "ANN@example.com", "--db", live.db)
        done("group", "remove", editors, "--db", live.db)
        told = [(event["EventType"], event["ObjectType"]) for event in admin.all_until_now()]
        assert told == [("create", "usergroup"), ("create", MEMBERS), ("delete", MEMBERS), ("delete", "usergroup")]
        assert run("user", "add", "bob@example.com", "--db", live.db).returncode == 2  # nobody to ask
        done("user", "remove", "ann@example.com", "--db", live.db)
        assert [event["EventType"] for event in admin.all_until_now()] == ["delete", "delete"]


def test_a_standard_table_is_made_beside_the_server_and_filled_by_sql(live: Live) -> None:
    done("table", "create", "todo", "title:text:required", "done:boolean", "--db", live.db)
    with live.client() as admin:
        until(lambda: "todo" in admin.done("list-topic")["topics"], "the new table is a topic")
        admin.done("subscribe", topic="todo")
        sql(live.db, "INSERT INTO todo(title, done) VALUES('milk', 0)")
        event = admin.event()
        row = event["EventData"]
        assert list(row) == [
            "__type", "reference_id", "version", "created_at", "updated_at", "permission", "user_account_id", "title",
            "done",
        ]  # fmt: skip
        assert (row["version"], row["permission"], row["user_account_id"], row["done"]) == (1, 2097057, None, False)
        assert event["Key"] == [row["reference_id"]]
        sql(live.db, "REPLACE INTO todo(reference_id, title) SELECT reference_id, 'bread' FROM todo")
        event = admin.event()
        assert (event["EventType"], event["Key"], event["EventData"]["title"]) == (
            "update",
            [row["reference_id"]],
            "bread",
        )


def test_who_may_what_is_granted_and_said(live: Live) -> None:
    done("table", "grant", "orders", "--to", "users", "--can", "read", "--db", live.db)
    words = done(
        "table", "grant", "orders", "--to", "owner", "--owner-column", "USER_ID", "--can", "update", "--db", live.db
    )
    assert words.stdout.splitlines() == ["group users: peek, read", "a row's owner (user_id): update"]
    assert "  may: group users: peek, read\n" in done("table", "list", "--db", live.db).stdout
    refused = run("table", "grant", "orders", "--to", "users", "--can", "reed", "--db", live.db)
    assert (refused.returncode, "did you mean" in refused.stderr) == (1, True)
    done("table", "revoke", "orders", "--from", "owner", "--db", live.db)
    assert done("table", "revoke", "orders", "--from", "users", "--db", live.db).stdout == "administrators only\n"


def test_tokens_are_checked_revoked_and_rotated(live: Live) -> None:
    ann = add_user(live.db, "tokens@example.com")

    def check(text: str) -> tuple[int, str]:
        made = run("token", "check", text, "--db", live.db)
        return made.returncode, made.stdout

    first, second = (token(live.db, "--user", "tokens@example.com") for _ in range(2))
    done("token", "rotate", "--db", live.db)
    words = done("token", "check", "-", "--db", live.db, written=f"{first}\n").stdout
    assert words.startswith(f"valid: {ann} of live-appliance, a user, until 20")
    done("token", "revoke", first, "--db", live.db)
    assert check(first) == (1, "refused: the token was revoked; get a new one\n")
    done("user", "password", "tokens@example.com", "--password-stdin", "--db", live.db, written="another password")
    assert check(second)[0] == 1
    third = token(live.db, "--user", "tokens@example.com")
    assert check(third)[0] == 0
    done("user", "remove", "tokens@example.com", "--db", live.db)
    assert check(third) == (1, "refused: the account of this token is not there any more\n")
    assert run("token", "create", "--user", "tokens@example.com", "--db", live.db).returncode == 1


def test_an_administrator_is_made_by_command(live: Live) -> None:
    root = add_user(live.db, "root@example.com", "--admin")
    members = sql(live.db, f"SELECT user_account_id FROM {MEMBERS} WHERE usergroup_id = '{ADMINISTRATORS}'")
    assert members.split() == [root]
    key = token(live.db, "--user", "root@example.com")
    assert "an administrator" in run("token", "check", key, "--db", live.db).stdout


def test_no_secret_is_in_the_outbox_or_in_anything_that_the_program_emits(live: Live) -> None:
    add_user(live.db, "canary@example.com")
    key = token(live.db, "--user", "canary@example.com")
    done("user", "password", "canary@example.com", "--password-stdin", "--db", live.db, written=f"{PASSWORD} too")
    said = []
    with live.client() as admin:
        for table in ("user_account", MEMBERS, "world"):
            admin.done("subscribe", topic=table)
        add_user(live.db, "second@example.com")
        sql(live.db, "UPDATE user_account SET name = name || '!', password = password || 'x'")
        sql(live.db, "DELETE FROM user_account WHERE email = 'second@example.com'")
        said += [json.dumps(event) for event in admin.all_until_now()]
        for filters in ({"password": PASSWORD}, {"Password": {"startswith": "$2b$"}}):
            said.append(json.dumps(admin.ask("unsubscribe", topic="user_account")))
            refused = admin.ask("subscribe", topic="user_account", filters=filters)
            assert refused["EventData"]["code"] == "bad-filter"
            said.append(json.dumps(refused["EventData"]).replace(PASSWORD, ""))  # what the client sent itself
    with closing(sqlite3.connect(live.db)) as db:
        hashes = [row[0] for row in db.execute("SELECT password FROM user_account").fetchall()]
        (secret,) = db.execute("SELECT value FROM _appliance_meta WHERE name = 'secret'").fetchone()
        kept = [
            db.execute(f"SELECT * FROM {table}").fetchall() for table in ("_appliance_outbox", "_appliance_scratch")
        ]
    canaries = [PASSWORD, "$2b$", secret, key, key.rpartition(".")[2], *hashes]
    emitted = [*said, *live.log(), live.greeting, str(kept)]
    assert len(hashes) > 0
    assert [each for each in canaries if any(each in text for text in emitted)] == []
