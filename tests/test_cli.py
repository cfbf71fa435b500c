"""What a command says to who calls it wrongly, or for something that is not there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from appliance.cli import commands
from appliance.errors import first_of


def call(*words: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(commands, [*map(str, words)], env={"LIVE_APPLIANCE_DB": None})


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
    ],
)
def test_a_client_that_is_called_wrongly_ends_with_2(command: tuple[str, ...], options: list[str], words: str) -> None:
    done = call(*command, *options)

    assert (done.exit_code, words in done.output) == (2, True), done.output


@pytest.mark.parametrize("command", [("tail", "orders"), ("publish", "orders", "1")], ids=" ".join)
def test_a_client_leaves_a_file_alone_that_was_never_served(command: tuple[str, ...], tmp_path: Path) -> None:
    file = a_file(tmp_path)
    before = file.read_bytes()

    done = call(*command, "--db", file)

    assert done.exception is not None
    assert "is not served yet; start `live-appliance serve --db" in str(first_of(done.exception))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
