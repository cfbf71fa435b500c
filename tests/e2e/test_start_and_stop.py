"""Starting, refusing, stopping: what the program does with a file, and what it leaves behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from appliance.store.file import schema
from tests.e2e.certificates import write_certificate
from tests.e2e.hostile import head
from tests.e2e.live import PROGRAM, run, serving, sql, until
from tests.e2e.server_process import PATIENCE_S, ROOT

pytestmark = pytest.mark.e2e


def pasted(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line that a person is to paste, in a folder of his own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False, cwd=folder, env=environment
    )


def test_the_line_to_paste_trusts_a_certificate_that_signs_itself(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    db = Path(os.path.relpath(tmp_path / "new.db", ROOT))  # serve is called elsewhere than the line is pasted
    certificate = ("--tls-cert", os.path.relpath(tmp_path / "localhost.crt", ROOT))
    with serving(db, *certificate, "--tls-key", str(tmp_path / "localhost.key")) as live:
        (line,) = [line for line in live.greeting.splitlines() if "try it:" in line]
        shown = pasted(line.partition("try it:")[2].strip(), tmp_path)
        assert '"text":"world"' in shown.stdout, shown


def test_a_new_store_is_made_and_the_line_to_paste_shows_a_change(tmp_path: Path) -> None:
    with serving(tmp_path / "new.db") as live:
        (line,) = [line for line in live.greeting.splitlines() if "try it:" in line]
        command = line.partition("try it:")[2].strip()
        assert "token" not in live.greeting  # not on a terminal
        shown = pasted(command, tmp_path)
        assert '"EventType":"create"' in shown.stdout, shown
        assert '"text":"world"' in shown.stdout


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "</dev/null >/dev/full 2>/dev/full"])
def test_a_server_needs_nobody_who_reads_what_it_says(tmp_path: Path, streams: str) -> None:
    db = tmp_path / "a.db"
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = shlex.join([*PROGRAM, "serve", "--db", str(db), "--port", str(port)])
    process = subprocess.Popen(["bash", "-c", f"exec {command} {streams}"], cwd=ROOT)
    try:
        until(lambda: answers(port), "the server is ready")
        with closing(socket.create_connection(("127.0.0.1", port))) as refused:  # a line in the log
            refused.sendall(head())
            refused.recv(1024)
        assert answers(port)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


def test_a_server_with_few_descriptors_is_full_and_says_so(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = shlex.join([*PROGRAM, "serve", "--db", str(tmp_path / "a.db"), "--port", str(port), "--head-s", "60"])
    silent = subprocess.DEVNULL
    process = subprocess.Popen(["bash", "-c", f"ulimit -n 300; exec {command}"], cwd=ROOT, stdout=silent, stderr=silent)
    try:
        until(lambda: answers(port), "the server is ready")
        with ExitStack() as opened:
            for _ in range(290):
                opened.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
            until(lambda: answers(port), "one of those beyond the limit is answered")
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    """Whether a server is ready."""
    with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 3.0)) as probe:
        probe.sendall(head("/readyz", Connection=b"close", Upgrade=None))
        return b" 200 " in probe.recv(64)
    return False


def test_sigterm_closes_with_1012_and_ends_with_0(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db") as live, live.client() as client:
        client.done("ping")
        live.process.send_signal(signal.SIGTERM)
        assert client.close_code() == 1012
        assert live.process.wait(PATIENCE_S) == 0


def test_a_websocket_whose_handshake_comes_to_its_end_once_the_server_stops_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db") as live, live.client() as other:
        asked = head(Authorization=b"Bearer " + live.token.encode())
        socks = [live.connect() for _ in range(8)]
        for number, sock in enumerate(socks):
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")  # so the server has it
            sock.sendall(asked[: number * 20])
        live.process.send_signal(signal.SIGTERM)
        until(lambda: any("stopping" in line for line in live.log()), "the server stops")
        assert other.close_code() == 1012
        for number, sock in enumerate(socks):
            with sock, sock.makefile("rb") as answer:
                with suppress(ConnectionError):  # the one that had said nothing is closed already
                    sock.sendall(asked[number * 20 :])
                if number:
                    answered, _, body = answer.read().partition(b"\r\n\r\n")
                    assert answered.startswith(b"HTTP/1.1 503 "), answered
                    assert b"connection: close" in answered.lower()
                    assert json.loads(body)["error"]["code"] == "unavailable"
        assert live.process.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db") as live:
        sock = live.connect()  # a body that does not come keeps the orderly way waiting
        sock.sendall(
            b"POST /action/user_account/signin HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        )
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        live.process.send_signal(signal.SIGTERM)
        until(lambda: any("stopping" in line for line in live.log()), "the first signal is obeyed")
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(PATIENCE_S) in (0, 128 + signal.SIGTERM)
        sock.close()


def test_a_second_server_on_the_file_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db") as live:
        for port in (0, live.port):  # that the port is taken, too, is not the trouble
            second = run("serve", "--db", tmp_path / "a.db", "--port", str(port))
            assert second.returncode == 75
            assert len(second.stderr.strip().splitlines()) == 1
            assert "stop it first" in second.stderr


def test_a_file_with_two_names_is_not_served_by_either(tmp_path: Path) -> None:
    real, other = tmp_path / "a.db", tmp_path / "b.db"
    with serving(real):
        other.hardlink_to(real)
        for command in (("serve", "--port", "0"), ("token", "create", "--admin")):
            refused = run(*command, "--db", other)
            assert refused.returncode == 75
            assert "another name (a hard link)" in refused.stderr
    assert run("serve", "--db", real, "--port", "0").returncode == 75
    other.unlink()
    with serving(real):
        pass


def test_a_file_behind_a_link_is_one_file_with_one_server_and_its_commits_are_announced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "a.db", tmp_path / "link.db"
    sql(real, "CREATE TABLE t(id INTEGER PRIMARY KEY)")
    link.symlink_to(real)
    with serving(link) as live:
        assert run("serve", "--db", real, "--port", "0").returncode == 75
        with live.client() as client:
            client.done("subscribe", topic="t")
            sql(real, "INSERT INTO t VALUES(1)")
            assert client.event()["EventData"]["id"] == 1
        assert not any("polling" in line for line in live.log())
    with serving(real):
        assert run("serve", "--db", link, "--port", "0").returncode == 75
    assert run("table", "unwatch", "--all", "--db", link).returncode == 0
    assert sorted(each.name for each in real.parent.iterdir()) == ["a.db", "a.log"]


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db") as live:
        second = run("serve", "--db", tmp_path / "b.db", "--port", str(live.port))
        assert second.returncode == 1
        (line,) = [line for line in second.stderr.splitlines() if line.startswith("live-appliance:")]
        assert str(live.port) in line


@pytest.mark.parametrize(
    "kind", ["text", "corrupt", "folder", "no folder", "future", "another's table", "another's view"]
)
def test_a_file_that_cannot_serve_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    db = tmp_path / "x.db"
    if kind == "text":
        db.write_text("this is not a database\n" * 100)
    elif kind == "corrupt":
        with closing(sqlite3.connect(db)) as made:
            made.execute("CREATE TABLE t(a PRIMARY KEY)")
            made.executemany("INSERT INTO t VALUES(?)", [("x" * 500 + str(number),) for number in range(200)])
            made.commit()
        image = bytearray(db.read_bytes())
        image[4096 * 3 : 4096 * 9] = b"\xff" * 4096 * 6
        db.write_bytes(image)
    elif kind == "folder":
        db.mkdir()
    elif kind == "no folder":
        db = tmp_path / "missing" / "x.db"
    elif kind.startswith("another's"):
        made = {"table": "TABLE usergroup(x)", "view": "VIEW world AS SELECT 1"}[kind.rpartition(" ")[2]]
        sql(db, f"CREATE TABLE orders(id INTEGER PRIMARY KEY); CREATE {made}")
    else:
        sql(db, "CREATE TABLE _appliance_meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
                "INSERT INTO _appliance_meta VALUES('format', 99), ('program', '7.8.9')")  # fmt: skip
    before = db.read_bytes() if db.is_file() else b""
    refused = run("serve", "--db", db, "--port", "0")
    assert refused.returncode == 78, refused
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    words = {"no folder": str(db.parent), "future": "live-appliance 7.8.9"}
    assert words.get(kind, "of another shape" if "another" in kind else str(db)) in refused.stderr
    assert (db.read_bytes() if db.is_file() else b"") == before
    assert [each for each in tmp_path.iterdir() if each != db] == []


@pytest.mark.parametrize("former", range(1, schema.FORMAT))
def test_a_store_of_every_earlier_format_is_served_and_a_copy_of_it_kept(tmp_path: Path, former: int) -> None:
    db = tmp_path / "old.db"
    with closing(sqlite3.connect(db)) as made:
        made.executescript((ROOT / f"tests/store/file/format_{former}.sql").read_text())
    before = sql(db, "SELECT * FROM orders")
    with serving(db, "--retention-s", "1e9") as live, live.client() as client:  # its events are of 2026
        assert {"orders", "lobby"} <= set(client.topics())
        position = client.done("subscribe", topic="orders")["EventId"]
        sql(db, "UPDATE orders SET total = 50 WHERE id = 1")
        event = client.event()
        assert (event["EventType"], event["EventData"]["total"]) == ("update", 50)
        assert event["EventId"] > position >= 4  # ids go on from where they were
        told = [json.loads(line)["EventData"] for line in run("history", "orders", "1", "--db", db).stdout.splitlines()]
        assert [(each["total"], each["paid"]) for each in told] == [(49.5, True), (50, True)]
    assert sql(Path(f"{db}.before-format-{schema.FORMAT}"), "SELECT * FROM orders") == before
    assert run("check", "--db", db, env={**os.environ, "LIVE_APPLIANCE_PORT": "0"}).returncode == 0


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_locked_file_is_refused_with_the_reason(tmp_path: Path, mode: str) -> None:
    db = tmp_path / "x.db"
    sql(db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(a)")
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        refused = run("serve", "--db", db, "--port", "0", "--busy-timeout-s", "0.2")
    assert refused.returncode == 75  # a service manager tries again after 75
    assert "locked" in refused.stderr


def test_a_lock_that_comes_in_the_midst_of_a_start_is_as_temporary(tmp_path: Path) -> None:
    tables = "".join(f"CREATE TABLE t{number}(a UNIQUE);" for number in range(200))
    for attempt in range(10):
        db, begun = tmp_path / f"{attempt}.db", tmp_path / f"{attempt}.db-live"
        sql(db, f"PRAGMA journal_mode=wal; {tables}")
        command = [*PROGRAM, "serve", "--db", str(db), "--port", "0", "--busy-timeout-s", "0.2"]
        with (
            closing(sqlite3.connect(db, isolation_level=None, timeout=20)) as other,
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server,
        ):
            assert server.stdout is not None
            try:
                # Its lock is written when the store has been prepared; what then takes long is to look at the tables.
                until(lambda begun=begun: begun.exists() and begun.stat().st_size > 0, "it begins")
                other.execute("BEGIN IMMEDIATE")
                if server.stdout.readline():  # it serves: on a busy machine the lock can come behind the start
                    continue
                _, said = server.communicate(timeout=PATIENCE_S)
            finally:
                server.kill()
        assert server.returncode == 75
        assert "locked by another program" in said
        return
    pytest.fail("the lock has come behind the start each time")


def test_a_killed_server_keeps_the_epoch_and_a_restored_file_gets_a_new_one(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(a)")
    with serving(db) as live:
        with live.client() as client:
            first = client.done("ping")
            client.done("create-topic", name="x")
            client.done("new-message", topic="x", message=1)
        live.kill()
    with serving(db, "--retention-s", "1e9") as live, live.client() as client:  # its events are of 2026
        assert client.done("ping")["epoch"] == first["epoch"]
        with closing(sqlite3.connect(db)) as source, closing(sqlite3.connect(tmp_path / "backup.db")) as target:
            source.backup(target)
        client.done("new-message", topic="x", message=2)
    for rest in ("-wal", "-shm"):
        Path(f"{db}{rest}").unlink(missing_ok=True)
    db.write_bytes((tmp_path / "backup.db").read_bytes())
    with serving(db, "--retention-s", "1e9") as live, live.client() as client:  # its events are of 2026
        assert client.done("ping")["epoch"] != first["epoch"]


def test_a_file_that_is_replaced_while_served_is_served_anew(tmp_path: Path) -> None:
    db, other = tmp_path / "a.db", tmp_path / "b.db"
    sql(db, "CREATE TABLE one(a)")
    sql(other, "CREATE TABLE two(a)")
    with serving(db) as live:
        with live.client() as client:
            epoch = client.done("subscribe", topic="one")["epoch"]
            os.replace(other, db)
            assert client.close_code() == 1012
        live._token = None
        until(lambda: any("store_replaced" in line for line in live.log()), "the replacement is noticed")
        until(lambda: _answers(live), "it serves again")
        with live.client() as client:
            assert client.topics() == ["two"]
            assert client.done("ping")["epoch"] != epoch


def _answers(live: object) -> bool:
    try:
        live.connect().close()  # type: ignore[attr-defined]
    except OSError:
        return False
    return True


def test_unwatch_all_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT UNIQUE); CREATE INDEX i ON t(a);"
            "INSERT INTO t VALUES(1, 'x'); CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;"
            "CREATE VIEW v AS SELECT * FROM t;"
            "CREATE TRIGGER mine AFTER INSERT ON t BEGIN DELETE FROM w; END;")  # fmt: skip
    dump = ".dump --nosys"
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name <> 'sqlite_sequence'"
    before = sql(db, dump), sql(db, schema), sql(db, "PRAGMA journal_mode")
    with serving(db) as live, live.client() as client:
        client.done("subscribe", topic="t")
        sql(db, "INSERT INTO t VALUES(2, 'y')")
        client.event()
        refused = run("table", "unwatch", "--all", "--db", db)
        assert refused.returncode == 75
        sql(db, "DELETE FROM t WHERE id=2")
    Path(f"{db}-live.new").touch()  # of a start that was killed
    assert run("table", "unwatch", "--all", "--db", db).returncode == 0
    assert (sql(db, dump), sql(db, schema), sql(db, "PRAGMA journal_mode")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "a.log"]


def test_unwatch_all_says_what_stays_and_how_to_drop_it(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE orders(id INTEGER PRIMARY KEY)")
    run("table", "create", "note", "text:text", "--db", db)
    said = run("table", "unwatch", "--all", "--db", db)
    assert said.returncode == 0
    stays, line = said.stdout.splitlines()
    assert stays.startswith("accounts, groups and who may what stay in the file")
    assert subprocess.run(["bash", "-c", line.replace("sqlite3", "sqlite3 -bail", 1)], check=False).returncode == 0
    assert sql(db, "SELECT name FROM sqlite_schema WHERE type = 'table'").split() == ["orders", "note"]
    sql(db, "PRAGMA foreign_keys=ON; INSERT INTO note(text) VALUES('as in any table')")


def test_a_table_is_unwatched_and_watched_while_the_server_runs(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(a); CREATE TABLE u(a)")
    with serving(db) as live, live.client() as client:
        client.done("subscribe", topic="t")
        assert run("table", "unwatch", "T", "--db", db).returncode == 0
        assert client.event()["EventType"] == "table-dropped"
        assert client.topics() == ["u"]
        assert "t: not watched" in run("table", "list", "--db", db).stdout
        sql(db, "ALTER TABLE t ADD COLUMN b; ALTER TABLE t DROP COLUMN a")
        assert run("table", "watch", "t", "--db", db).returncode == 0
        until(lambda: "t" in client.done("list-topic")["topics"], "t is watched again")
        client.done("subscribe", topic="t")
        sql(db, "INSERT INTO t VALUES('b')")
        assert client.event()["EventData"] == {"__type": "t", "b": "b"}
        assert run("table", "unwatch", "nope", "--db", db).returncode == 1


def test_topics_made_and_ended_by_commands_reach_a_running_server(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    with serving(db) as live, live.client() as client:
        assert run("topic", "create", "news", "--db", db).returncode == 0
        until(lambda: "news" in client.done("list-topic")["topics"], "the topic is known")
        client.done("subscribe", topic="news")
        published = run("publish", "news", '{"n": 1}', "--db", db, "--url", live.url)
        event = client.event()
        assert (event["EventData"], int(published.stdout)) == ({"n": 1}, event["EventId"])
        assert run("topic", "list", "--db", db).stdout == "news\n"
        assert run("topic", "destroy", "news", "--db", db).returncode == 0
        assert client.event()["EventType"] == "topic-destroyed"
        assert run("topic", "destroy", "news", "--db", db).returncode == 1


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    assert run("check", "--db", tmp_path / "no" / "folder.db").returncode == 78
    sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE UNIQUE INDEX e ON t(lower(b))")
    elsewhere = {
        **os.environ,
        "LIVE_APPLIANCE_PORT": "0",
    }  # who has the default port is no fault here
    new = run("check", "--db", tmp_path / "new.db", env=elsewhere)  # which a first start will make
    assert (new.returncode, "serve makes one" in new.stdout) == (0, True)
    assert list(tmp_path.iterdir()) == [db]
    assert run("check", "--db", db, env=elsewhere).returncode == 0
    with serving(db):
        healthy = run("check", "--db", db)
        assert healthy.returncode == 0, healthy
        assert "a server has it open" in healthy.stdout
        assert "REPLACE" in healthy.stdout
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        port = elsewhere | {"LIVE_APPLIANCE_HOST": "127.0.0.1", "LIVE_APPLIANCE_PORT": address.partition(":")[2]}
        assert run("check", "--db", db, env=port).returncode == 1
        assert run("check", "--socket", "--db", db, env=port).returncode == 0
        metrics = elsewhere | {"LIVE_APPLIANCE_METRICS_LISTEN": address}
        assert run("check", "--socket", "--db", db, env=metrics).returncode == 1
    for name, value in (("METRICS_LISTEN", "nowhere"), ("JWT_KEYS", "RS256:/nowhere"), ("TRUSTED_PROXIES", "nobody")):
        refused = run("check", "--db", db, env=elsewhere | {f"LIVE_APPLIANCE_{name}": value})
        assert (refused.returncode, "unusable: " in refused.stdout) == (78, True)
    db.write_text("no database" * 100)
    broken = run("check", "--db", db)
    assert broken.returncode == 78
    assert "is not a SQLite database" in broken.stdout


def test_rules_of_secrecy_that_say_nothing_are_in_the_log(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE orders(id INTEGER PRIMARY KEY, pin)")
    none = {**os.environ, "LIVE_APPLIANCE_SECRET_COLUMNS": ""}
    with serving(db, "--reveal", "x.password", "--reveal", "orders.pin", environment=none) as live:
        warned = [line for line in live.log() if "no_such_column" in line or "nothing_secret" in line]
    assert [line.partition("]")[2].split() for line in warned] == [
        ["nothing_secret"],
        ["no_such_column", "column=x.password"],
    ]


def test_history_says_what_happened_to_a_row(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, password)")
    with serving(db, "--no-accounts") as live, live.client() as client:
        sql(db, "INSERT INTO t VALUES(-7, 'x', 'hush'); UPDATE t SET a = 'y'")
        client.all_until_now()
        found = run("history", "t", "-7", "--db", db)
    assert found.stdout.splitlines() == [
        '{"MessageSource":"database","EventType":"create","ObjectType":"t",'
        '"EventData":{"__type":"t","id":-7,"a":"x"},"EventId":1,"Key":[-7]}',
        '{"MessageSource":"database","EventType":"update","ObjectType":"t",'
        '"EventData":{"__type":"t","id":-7,"a":"y"},"EventId":3,"Key":[-7],"OldData":{"a":"x"}}',
    ]
    assert "kept from EventId 1 on" in found.stderr
    refused = run("history", "nope", "1", "--db", db)
    assert (refused.returncode, refused.stdout) == (1, "")
