"""``tail`` over the end of its server: it connects again, goes on where it was, and says where that is."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.e2e.live import PROGRAM, run, serving, sql
from tests.e2e.server_process import PATIENCE_S, ROOT

pytestmark = pytest.mark.e2e


class Tail:
    """A running ``live-appliance tail``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, self.process.communicate(timeout=PATIENCE_S)
        return json.loads(text)  # type: ignore[no-any-return]

    def interrupt(self, number: int = signal.SIGINT) -> str:
        """End it as Ctrl-C does, and give what it says then."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 128 + number, said
        return said


@contextmanager
def tailing(*arguments: str | Path, stdout: int | IO[bytes] = subprocess.PIPE) -> Iterator[Tail]:
    process = subprocess.Popen(
        [*PROGRAM, "tail", *map(str, arguments)],
        stdout=stdout, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        yield Tail(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_tail_goes_on_after_a_kill_and_ctrl_c_says_where_from(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 'a')")
    with serving(db) as live:
        url, port = live.url, str(live.port)
        with tailing("t", "--db", db, "--url", url, "--snapshot", "--old") as tail:
            assert (tail.line()["EventType"], tail.line()["EventType"]) == ("snapshot", "live")
            live.kill()
            sql(db, "UPDATE t SET v = 'b'; INSERT INTO t VALUES(2, 'x')")
            with serving(db, "--port", port):
                changed, made, again = tail.line(), tail.line(), tail.line()
                assert (changed["EventType"], changed["OldData"]) == ("update", {"v": "a"})
                assert (made["EventType"], made["Key"]) == ("create", [2])
                assert again["EventType"] == "live"
                said = tail.interrupt()
                assert "trying again in" in said
                place = said.partition("to go on from here: ")[2].splitlines()[0].split()
                assert place[0] == "--since"
                assert place[1].endswith(f".{made['EventId']}")
                sql(db, "DELETE FROM t WHERE id = 2")
                pasted = run("tail", "t", "--db", db, "--url", url, *place, "--count", "1")
                assert pasted.returncode == 0, pasted
                assert json.loads(pasted.stdout.splitlines()[0])["EventType"] == "delete"


def test_a_position_that_is_not_kept_ends_tail_or_begins_a_snapshot_as_asked(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES(1)")
    with serving(db) as live:
        options = ("--db", db, "--url", live.url, "--since", "0123456789abcdef.7", "--count", "1")
        ended = run("tail", "t", *options)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "events are missing" in ended.stderr
        anew = run("tail", "t", "--snapshot", *options)
        assert anew.returncode == 0, anew
        reply, row = map(json.loads, anew.stdout.splitlines())
        assert (reply["ObjectType"], reply["EventData"]["recovered"]) == ("subscribe", False)
        assert row["EventType"] == "snapshot"
        assert "rows come anew" in anew.stderr
        misspelt = run("tail", "t", "--db", db, "--url", live.url, "--since", "7")
        assert misspelt.returncode == 2
        assert "EPOCH.ID" in misspelt.stderr


def test_tail_ends_in_silence_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY)")
    with serving(db) as live, tailing("t", "--db", db, "--url", live.url, "--snapshot") as tail:
        tail.line()  # live
        assert tail.process.stdout is not None
        tail.process.stdout.close()
        sql(db, "INSERT INTO t VALUES(1)")
        assert tail.process.wait(PATIENCE_S) == 1
        assert tail.process.stderr is not None
        assert tail.process.stderr.read() == ""


def test_tail_ends_where_there_is_no_room_for_what_it_prints_and_says_where_from_to_go_on(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY)")
    with serving(db) as live, open("/dev/full", "wb") as full:
        with tailing("t", "--db", db, "--url", live.url, stdout=full) as tail:
            while tail.process.poll() is None:  # from when on it has subscribed, nobody tells
                sql(db, "INSERT INTO t DEFAULT VALUES")
            assert tail.process.stderr is not None
            said = tail.process.stderr.read()
        assert tail.process.returncode == 1
        place, why = said.splitlines()
        assert "No space left" in why
        since = place.partition("to go on from here: ")[2].split()
        again = run("tail", "t", "--db", db, "--url", live.url, *since, "--count", "1")
        assert json.loads(again.stdout.splitlines()[0])["EventType"] == "create"


def test_sigterm_and_a_refusal_for_good_say_where_from_to_go_on_as_ctrl_c_does(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY)")
    with serving(db) as live:
        with tailing("t", "--db", db, "--url", live.url, "--snapshot") as tail:
            tail.line()
            assert "to go on from here: --since" in tail.interrupt(signal.SIGTERM)
        token = run("token", "create", "--admin", "--db", db).stdout.strip()
        with tailing("t", "--token", token, "--url", live.url, "--snapshot") as tail:
            tail.line()
            run("token", "revoke", token, "--db", db)
            _, said = tail.process.communicate(timeout=PATIENCE_S)
            assert tail.process.returncode == 1
            assert "to go on from here: --since" in said
