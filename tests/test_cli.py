"""What a command says to who calls it wrongly, or for something that is not there."""

from __future__ import annotations

import itertools
import shlex
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner, Result

from appliance import cli
from appliance.cli import commands, serving
from appliance.errors import CommandError, StoreLocked, Unauthorized, first_of
from appliance.store import offline
from appliance.store.access import accounts
from appliance.store.tables import standard


def call(*words: str | Path, given: str | None = None) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(commands, [*map(str, words)], env={"LIVE_APPLIANCE_DB": None}, input=given)


def a_file(folder: Path, statements: str = "CREATE TABLE orders(id INTEGER PRIMARY KEY)") -> Path:
    """Make a database that live-appliance has never seen."""
    with closing(sqlite3.connect(folder / "shop.db")) as db:
        db.executescript(statements)
    return folder / "shop.db"


# --- tail and publish -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("tail", "t"), ("publish", "t", "1")], ids=" ".join)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give a token"),
        (["--token", "x", "--cafile", "none.pem", "--url", "wss://localhost/live"], "none.pem cannot be read"),
        (["--token", "x", "--cafile", __file__, "--url", "wss://localhost/live"], "is no certificate in PEM"),
        (["--token", "x", "--url", "http://localhost/live"], "wss:// for TLS"),
        (["--token", "x", "--url", "ws://[::1/live"], "wss:// for TLS"),
        (["--token", "x", "--url", "ws://localhost:99999/live"], "wss:// for TLS"),
        (["--token", "x", "--url", "ws:///live"], "wss:// for TLS"),
        (["--token", " "], "give a token"),
        (["--token", "[info] token_created\nx"], "the token is none"),
    ],
)
def test_a_client_that_is_called_wrongly_ends_with_2(command: tuple[str, ...], options: list[str], words: str) -> None:
    done = call(*command, *options)

    assert (done.exit_code, words in done.output) == (2, True), done.output


def test_a_position_that_is_longer_than_any_is_refused() -> None:
    done = call("tail", "t", "--token", "x", "--since", f"e.{'9' * 5000}")

    assert (done.exit_code, "EPOCH.ID" in done.output) == (2, True)


@pytest.mark.parametrize("command", [("tail", "orders"), ("publish", "orders", "1")], ids=" ".join)
def test_a_client_leaves_a_file_alone_that_was_never_served(command: tuple[str, ...], tmp_path: Path) -> None:
    file = a_file(tmp_path)
    before = file.read_bytes()

    done = call(*command, "--db", file)

    assert done.exception is not None
    assert "is not served yet; start `live-appliance serve --db" in str(first_of(done.exception))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", ["5", "0h", "h", "", "-1h", "1.5h", "9" * 5000 + "d", "1w"])
def test_a_token_lives_for_a_number_with_a_unit(ttl: str, tmp_path: Path) -> None:
    done = call("token", "create", "--admin", "--ttl", ttl, "--db", a_file(tmp_path))

    assert (done.exit_code, "--ttl must be" in done.output) == (2, True), done.output


def test_no_token_is_made_that_the_server_would_not_take(tmp_path: Path) -> None:
    db, settings = a_file(tmp_path), tmp_path / "settings.toml"
    settings.write_text("token_lifetime_s = 7200\ntoken_ttl_s = 60\n")

    for ttl, most, options in (
        ("367d", "366d", []),
        ("999999999999d", "366d", []),
        ("3h", "2h", ["--config", settings]),
    ):
        refused = call("token", "create", "--admin", "--ttl", ttl, "--db", db, *options)
        assert (refused.exit_code, f"--ttl may be {most} at most" in refused.output) == (2, True), refused.output
    for ttl, options in (("366d", []), ("2h", ["--config", settings])):
        made = call("token", "create", "--admin", "--ttl", ttl, "--db", db, *options).stdout.splitlines()[-1]
        checked = call("token", "check", made, "--db", db, *options)
        assert (checked.exit_code, "valid: administrator" in checked.output) == (0, True), checked.output


def test_no_token_is_made_for_a_subject_that_is_somebody_else(tmp_path: Path) -> None:
    db = of_ann(tmp_path)
    with closing(sqlite3.connect(db)) as opened:
        ((ann,),) = opened.execute("SELECT reference_id FROM user_account").fetchall()

    for subject, more, why in (
        ("guest", [], "taken for the server"),
        ("system", ["--admin"], "taken for the server"),
        ("database", [], "taken for the server"),
        ("administrator", [], "taken for the server"),
        (ann, ["--admin"], "an account's"),
    ):
        refused = call("token", "create", "--subject", subject, *more, "--db", db)
        assert (refused.exit_code, why in refused.output) == (2, True), refused.output
    for subject, more in (("administrator", ["--admin"]), (ann, []), ("ext-7", ["--admin"])):
        assert call("token", "create", "--subject", subject, *more, "--db", db).exit_code == 0


def of_ann(folder: Path) -> Path:
    """Make a store with an account."""
    db = a_file(folder)
    assert call("user", "add", "ann@example.com", "--password-stdin", "--db", db, given="correct horse").exit_code == 0
    return db


def test_a_token_that_is_made_right_after_others_were_ended_is_good(tmp_path: Path) -> None:
    db = of_ann(tmp_path)
    with closing(sqlite3.connect(db)) as opened, opened:  # by a clock that is a little ahead of this one
        opened.execute("INSERT INTO _appliance_account SELECT reference_id, unixepoch() + 3 FROM user_account")

    made = call("token", "create", "--user", "ann@example.com", "--db", db).stdout.splitlines()[-1]

    checked = call("token", "check", made, "--db", db)
    assert "valid: " in checked.output, checked.output


def test_what_ends_an_accounts_tokens_while_one_is_made_ends_that_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended_behind(db: sqlite3.Connection, email: str) -> accounts.Account:
        found = known(db, email)
        accounts.end_tokens(db, found.reference_id)
        return found

    db, known = of_ann(tmp_path), accounts.known
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(accounts, "known", ended_behind)
        meanwhile.setattr(time, "time", itertools.count(time.time(), 1.5).__next__)
        made = call("token", "create", "--user", "ann@example.com", "--db", db).stdout.splitlines()[-1]

    checked = call("token", "check", made, "--db", db)
    assert "not valid any more" in checked.output, checked.output


def test_a_token_is_revoked_for_as_long_as_it_says_that_it_lives(tmp_path: Path) -> None:
    db, settings = a_file(tmp_path), tmp_path / "settings.toml"
    settings.write_text("token_lifetime_s = 86400000")
    made = call("token", "create", "--admin", "--ttl", "900d", "--db", db, "--config", settings).stdout.splitlines()[-1]

    assert call("token", "revoke", made, "--db", db).exit_code == 0
    with closing(sqlite3.connect(db)) as store:
        (until,) = store.execute("SELECT expires_at FROM _appliance_revoked").fetchone()
    assert until == jwt.decode(made, options={"verify_signature": False})["exp"]


def test_of_a_jti_alone_nobody_knows_for_how_long_it_is_to_be_revoked(tmp_path: Path) -> None:
    db, settings = a_file(tmp_path), tmp_path / "settings.toml"
    settings.write_text("token_lifetime_s = 60\ntoken_ttl_s = 60")
    made = [call("token", "create", "--admin", "--ttl", "360d", "--db", db).stdout.splitlines()[-1] for _ in range(2)]
    ids = [jwt.decode(each, options={"verify_signature": False})["jti"] for each in made]

    assert call("token", "revoke", made[0], "--db", db).exit_code == 0
    for each in ids:
        assert call("token", "revoke", each, "--db", db, "--config", settings).exit_code == 0
    with closing(sqlite3.connect(db)) as store:
        assert store.execute("SELECT DISTINCT expires_at FROM _appliance_revoked").fetchall() == [(1 << 53,)]


def test_a_slip_is_no_token_that_is_revoked(tmp_path: Path) -> None:
    db = a_file(tmp_path)
    made = call("token", "create", "--admin", "--db", db).stdout.splitlines()[-1]

    for slip in ("nope", made[:-50].replace(".", ""), made.partition(".")[2], "a.b.c", f"{made}."):
        refused = call("token", "revoke", slip, "--db", db).exception
        assert isinstance(refused, CommandError)
        assert slip not in str(refused)
    assert call("token", "revoke", made, "--db", db).exit_code == 0
    assert call("token", "revoke", "5f0c3bd2-8a4e-4c43-9a4b-0d7f6f2b8f11", "--db", db).exit_code == 0
    assert "revoked" in call("token", "check", made, "--db", db).output


# --- accounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [("user", "remove"), ("group", "leave", "administrators")], ids=" ".join)
def test_who_takes_the_last_administrator_away_is_told_and_no_link_of_before_is_good_again(
    last: tuple[str, ...], tmp_path: Path
) -> None:
    db = a_file(tmp_path)
    with offline.open_store(db) as store:
        standard.prepare(store)
        link = accounts.setup_code(store)
    for name in ("ann", "bob"):
        added = call(
            "user", "add", f"{name}@example.com", "--admin", "--password-stdin", "--db", db, given="correct horse"
        )
        assert added.exit_code == 0
    assert "no administrator" not in call(*last, "ann@example.com", "--db", db).output
    assert "no administrator is left" in call(*last, "bob@example.com", "--db", db).output
    with offline.open_store(db) as store, pytest.raises(Unauthorized):
        accounts.redeem(store, str(link), "eve@example.com", "$2b$")


# --- topics and tables ------------------------------------------------------------------------------------------------


def test_a_table_is_no_topic_to_destroy(tmp_path: Path) -> None:
    done = call("topic", "destroy", "Orders", "--db", a_file(tmp_path))

    assert '"Orders" is a table' in str(done.exception)
    assert "live-appliance table unwatch Orders --db" in str(done.exception)


def test_who_makes_a_table_is_told_how_users_come_to_add_rows(tmp_path: Path) -> None:
    db = a_file(tmp_path)
    made = call("table", "create", "note", "text:text", "--db", db)
    line = next(line for line in made.output.splitlines() if "table grant" in line)

    words = shlex.split(line.partition("live-appliance ")[2])
    assert call(*words).exit_code == 0
    assert "group users: peek, create" in call("table", "list", "--db", db).output


@pytest.mark.parametrize("command", ["table list", "topic list", "user list", "group list"])
def test_to_look_at_a_file_that_was_never_served_makes_no_store_of_it(command: str, tmp_path: Path) -> None:
    file = a_file(tmp_path)
    before = file.read_bytes()

    done = call(*command.split(), "--db", file)

    assert (done.exit_code, done.exception) == (0, None)
    assert done.output == (
        "orders: watched from the next serve; key id\n  may: administrators only\n" if "table" in command else ""
    )
    assert (file.read_bytes(), list(tmp_path.iterdir())) == (before, [file])


@pytest.mark.parametrize(
    "command",
    ["table list", "topic list", "user list", "group list", "history orders 1", "token check x", "backup to.db"],
)
def test_who_only_looks_waits_for_nobodys_write(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "BUSY_TIMEOUT_S", 0.0)
    monkeypatch.chdir(tmp_path)
    db = a_file(tmp_path)
    with offline.open_store(db) as store:
        standard.prepare(store)
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("BEGIN IMMEDIATE")
        done = call(*command.split(), "--db", db)

    assert not isinstance(done.exception, StoreLocked)


@pytest.mark.parametrize("command", [("history", "orders", "1"), ("token", "check", "x.y.z")], ids=" ".join)
def test_what_only_a_store_can_say_is_refused_of_another_file(command: tuple[str, ...], tmp_path: Path) -> None:
    file = a_file(tmp_path)
    before = file.read_bytes()

    assert "is not served yet" in str(call(*command, "--db", file).exception)
    assert file.read_bytes() == before


# --- serve ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("called", "named"),
    [
        ("live-appliance", "live-appliance"),
        ("/opt/app/appliance/__main__.py", f"{sys.executable} -m appliance"),
        ("bin/live-appliance", f"{Path.cwd()}/bin/live-appliance"),
        ("./live-appliance", f"{Path.cwd()}/live-appliance"),
        ("/a b/live-appliance", "'/a b/live-appliance'"),
    ],
)
def test_a_line_to_paste_names_the_program_as_any_folder_finds_it(
    called: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert serving._program() == named


def test_the_help_of_serve_writes_a_default_as_one_would() -> None:
    said = " ".join(call("serve", "--help").output.split())

    assert "[default: 259200]" in said
    assert ".0]" not in said.replace("127.0.0.1", "")


# --- what no command expects ------------------------------------------------------------------------------------------

#: A path that cannot be looked at, whoever asks.
TOO_LONG = "n" * 300


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("backup", TOO_LONG), "File name too long"),
        (("restore", TOO_LONG), "File name too long"),
        (("user", "remove", "\udcff"), "not UTF-8"),
        (("topic", "destroy", "\udcff"), "not UTF-8"),
    ],
    ids=["backup", "restore", "user", "topic"],
)
def test_what_the_system_refuses_is_one_line(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["live-appliance", *words, "--db", str(a_file(tmp_path))])

    status = cli._run()

    (line,) = capsys.readouterr().err.splitlines()
    assert status == 1
    assert said in line


def test_a_store_that_cannot_be_looked_at_is_unusable_and_no_fault_of_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["live-appliance", "check", "--socket", "--db", TOO_LONG])

    assert cli._run() == 78
    assert "cannot be looked at (File name too long)" in capsys.readouterr().out
