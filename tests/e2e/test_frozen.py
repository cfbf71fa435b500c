"""The one-file program as its users get it: alone on a machine, killed, without room, under a service manager."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.e2e.live import FROZEN, PROGRAM, run, serving, sql, until
from tests.e2e.server_process import PATIENCE_S

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not FROZEN, reason="set LIVE_APPLIANCE_TEST_PROGRAM=dist/live-appliance after building it"),
]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and changes the root directory: needs root")

#: The C library of Debian 12.
OLDEST_GLIBC = (2, 36)
SOUND_SQLITE = (3, 51, 3)


@pytest.fixture
def unpack_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for the program to unpack itself in."""
    folder = tmp_path / "unpack"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_it_says_what_it_is_made_of() -> None:
    found = re.fullmatch(
        r"live-appliance \S+ \(Python [\d.]+, SQLite ([\d.]+), commit [0-9a-f]{12}(-changed)?\)\n",
        run("version").stdout,
    )
    assert found is not None
    assert tuple(map(int, found[1].split("."))) >= SOUND_SQLITE


def test_beside_it_are_its_digest_its_contents_and_the_licences() -> None:
    folder = Path(PROGRAM[0]).parent
    assert subprocess.run(["sha256sum", "-c", "live-appliance.sha256"], cwd=folder, check=False).returncode == 0
    bill = json.loads((folder / "live-appliance.cdx.json").read_text())
    names = {component["name"]: component for component in bill["components"]}
    from_pypi = {name for name, component in names.items() if component["purl"].startswith("pkg:pypi/")}
    licences = (folder / "live-appliance.licences.txt").read_text()

    assert bill["bomFormat"] == "CycloneDX"
    assert {"trio", "trio-websocket", "aiosqlite", "pyjwt", "cryptography", "pyinstaller"} <= from_pypi
    # Python, the libraries, and what wheels and the bootloader have compiled in.
    assert {"python", "sqlite", "openssl", "pyo3", "libffi", "zlib"} <= names.keys()
    system = [component for component in bill["components"] if component["purl"].startswith("pkg:deb/")]
    assert {re.match("[a-z]+", component["name"])[0] for component in system} >= {
        "python",
        "libssl",
        "libexpat",
        "libffi",
    }  # type: ignore[index]
    assert [each["name"] for each in bill["components"] if each not in system and not each.get("licenses")] == []
    digest = hashlib.sha256(Path(PROGRAM[0]).read_bytes()).hexdigest()
    assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert "pytest" not in names
    assert names["trio"]["purl"] == f"pkg:pypi/trio@{names['trio']['version']}"
    assert all(f"\n{name} {component.get('version', '–')}" in licences for name, component in names.items())
    # No wheel brings the texts of what is compiled into it, of which each author's own is asked for.
    authors = "Alex Gaynor", "Jonathan Creekmore", "Alex Crichton", "Vincent Prouillet", "Anthony Green", "Unicode, Inc"
    assert [author for author in authors if author not in licences] == []


# --- alone ------------------------------------------------------------------------------------------------------------


def c_library(program: str) -> set[str]:
    """Give the files of the C library: what ``program`` needs, and all that comes with it."""
    needed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libc = Path(re.search(r"=> (\S+/libc\.so\.6) ", needed)[1])  # type: ignore[index]
    loader = re.search(r"^\s*(/\S+/ld-linux\S+) ", needed, re.MULTILINE)[1]  # type: ignore[index]
    others = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2")
    return {loader, *(str(libc.with_name(name)) for name in others if libc.with_name(name).exists())}


@pytest.fixture
def empty_root(tmp_path: Path) -> Path:
    """A root file system that holds the C library and the program, and nothing else: no /tmp, no /proc, no shell."""
    root = tmp_path / "root"
    for file in c_library(PROGRAM[0]):
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    shutil.copy(PROGRAM[0], root / "live-appliance")
    return root


def inside(root: Path, *arguments: str) -> list[str]:
    return [str(shutil.which("chroot")), str(root), "/live-appliance", *arguments]


def alone(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(inside(root, *arguments), env={}, capture_output=True, text=True, timeout=60, check=False)


@needs_root
def test_it_runs_alone_in_an_empty_root_file_system(empty_root: Path) -> None:
    refused = alone(empty_root, "version")
    assert (refused.returncode, refused.stdout) == (78, "")
    assert refused.stderr.startswith("live-appliance: none of TMPDIR, /tmp, /var/tmp is a folder")

    (empty_root / "tmp").mkdir()
    assert "serve" in alone(empty_root, "--help").stdout
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = inside(empty_root, "serve", "--db", "/shop.db", "--port", str(port), "--host", "127.0.0.1")
    with subprocess.Popen(command, env={}, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(port), "it serves")
            made = alone(empty_root, "token", "create", "--admin", "--db", "/shop.db")
            assert made.returncode == 0, made.stderr
            assert "a server has it open" in alone(empty_root, "check", "--db", "/shop.db").stdout
            sql(empty_root / "shop.db", "CREATE TABLE orders(id INTEGER PRIMARY KEY, item TEXT)")
            url = f"ws://localhost:{port}/live"  # which no file here says an address of
            tail = inside(empty_root, "tail", "orders", "--db", "/shop.db", "--url", url, "--wait", "--count", "1")
            with subprocess.Popen(tail, env={}, stdout=subprocess.PIPE) as tailing:
                assert tailing.stdout is not None
                while not select.select([tailing.stdout], [], [], 0.2)[0]:  # until it has subscribed
                    sql(empty_root / "shop.db", "INSERT INTO orders(item) VALUES('chair')")
                assert json.loads(tailing.stdout.readline())["EventData"]["item"] == "chair"
        finally:
            process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert list((empty_root / "tmp").iterdir()) == []


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("home", ["no environment", "no home", pytest.param("read-only", marks=needs_root)])
def test_no_environment_and_no_home_are_needed(tmp_path: Path, home: str) -> None:
    environment = {} if home == "no environment" else {name: os.environ[name] for name in os.environ.keys() - {"HOME"}}
    with ExitStack() as stack:
        if home == "read-only":
            environment["HOME"] = str(stack.enter_context(mounted(tmp_path / "home", "ro")))
        live = stack.enter_context(serving(tmp_path / "a.db", environment=environment))
        client = stack.enter_context(live.client())
        assert client.done("ping")
        if home == "read-only":
            assert list(Path(environment["HOME"]).iterdir()) == []


def test_it_needs_no_younger_c_library_than_debian_12(tmp_path: Path, unpack_in: Path) -> None:
    with serving(tmp_path / "a.db"):
        files = [Path(PROGRAM[0]), *(each for each in unpack_in.rglob("*") if ".so" in each.name)]
        found = {each.name: symbol_versions(each) for each in files}

    assert len(found) > 10
    assert {name: versions for name, versions in found.items() if max(versions, default=(0,)) > OLDEST_GLIBC} == {}


def symbol_versions(file: Path) -> set[tuple[int, ...]]:
    symbols = subprocess.run(["objdump", "-T", str(file)], capture_output=True, text=True, check=True).stdout
    return {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([\d.]+)", symbols)}


# --- the folder it unpacks itself in ----------------------------------------------------------------------------------


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@needs_root
def test_a_folder_that_is_mounted_noexec_is_refused_in_a_line(tmp_path: Path) -> None:
    with mounted(tmp_path / "noexec", "noexec") as folder:
        refused = run("version", env={"TMPDIR": str(folder)})
        assert refused.returncode == 78
        (line,) = refused.stderr.splitlines()
        assert line.startswith(f"live-appliance: {folder}")
        assert "set TMPDIR to a folder" in line
        assert list(folder.iterdir()) == []


@needs_root
def test_a_folder_without_room_is_refused_in_a_line(tmp_path: Path) -> None:
    with mounted(tmp_path / "full", "size=4m") as folder:
        refused = run("version", env={"TMPDIR": str(folder)})
        assert refused.returncode == 75
        (line,) = refused.stderr.splitlines()
        assert "make room there, or set TMPDIR" in line
        assert list(folder.iterdir()) == []


@needs_root
def test_no_room_for_what_only_tls_needs_is_refused_in_a_line(
    tmp_path: Path, certificate_files: tuple[str, str]
) -> None:
    chain, key = certificate_files
    serve = ("serve", "--db", tmp_path / "a.db", "--port", 0, "--tls-cert", chain, "--tls-key", key)
    with mounted(tmp_path / "small", "size=16m") as folder:
        assert run("version", env={"TMPDIR": str(folder)}).returncode == 0
        refused = run(*map(str, serve), env={"TMPDIR": str(folder)})
        assert refused.returncode == 75
        (line,) = refused.stderr.splitlines()
        assert line.startswith(f"live-appliance: cannot unpack {folder}")
        assert "make room there, or set TMPDIR" in line
        assert list(folder.iterdir()) == []


@needs_root
def test_room_that_runs_out_meanwhile_leaves_nothing_behind(tmp_path: Path) -> None:
    with mounted(tmp_path / "scarce", "size=100m,nr_inodes=12") as folder:
        refused = run("version", env={"TMPDIR": str(folder)})
        assert refused.returncode == 75
        assert refused.stderr.splitlines()[-1].startswith("live-appliance: cannot unpack itself")
        assert list(folder.iterdir()) == []


def test_a_limit_on_the_size_of_files_is_told_and_leaves_nothing_behind(unpack_in: Path) -> None:
    limited = ["bash", "-c", 'ulimit -f 2000; exec "$0" version', *PROGRAM]
    refused = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 75
    assert refused.stderr.splitlines()[-1].startswith("live-appliance: cannot unpack itself")
    assert list(unpack_in.iterdir()) == []


def test_a_signal_while_it_unpacks_leaves_nothing_behind(unpack_in: Path) -> None:
    for milliseconds in range(0, 200, 20):
        with subprocess.Popen([*PROGRAM, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(milliseconds / 1000)  # not to wait for anything: to hit another moment each time
            process.terminate()
    assert list(unpack_in.iterdir()) == []


def test_a_signal_while_it_removes_what_it_has_unpacked_leaves_nothing_behind(unpack_in: Path) -> None:
    def files() -> int:
        return sum(len(names) for _, _, names in os.walk(unpack_in))  # also while they vanish

    for _ in range(10):
        with subprocess.Popen([*PROGRAM, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            most = 0
            while process.poll() is None and (now := files()) >= most:
                most = now
            process.terminate()
        assert list(unpack_in.iterdir()) == []


@pytest.mark.parametrize("victim", ["the process that serves", "the process that unpacked it"])
def test_killing_either_process_ends_the_other_and_leaves_nothing_behind(
    tmp_path: Path, unpack_in: Path, victim: str
) -> None:
    with serving(tmp_path / "a.db") as live, live.client() as client:
        client.done("ping")
        first, second = live.process.pid, live.pid
        assert first != second
        os.kill(second if victim == "the process that serves" else first, signal.SIGKILL)
        assert live.process.wait(PATIENCE_S) == -signal.SIGKILL
        if victim != "the process that serves":
            assert client.close_code() == 1012  # it stops in order
        until(lambda: not Path(f"/proc/{second}").exists(), "no process is left")
    assert list(unpack_in.iterdir()) == []


def test_what_killing_both_has_left_is_removed_by_the_next_start(tmp_path: Path, unpack_in: Path) -> None:
    with serving(tmp_path / "a.db") as live:
        first, second = live.process.pid, live.pid
        os.kill(first, signal.SIGSTOP)  # it must not see the other one go
        os.kill(second, signal.SIGKILL)
        os.kill(first, signal.SIGKILL)
        live.process.wait(PATIENCE_S)
        until(lambda: not Path(f"/proc/{second}").exists(), "no process is left")
    assert len(list(unpack_in.iterdir())) == 1
    until(lambda: removed_by_a_start(unpack_in), "what was left is removed")


def removed_by_a_start(unpack_in: Path) -> bool:
    assert run("version").returncode == 0
    return not list(unpack_in.iterdir())


def test_what_a_kill_while_it_unpacks_has_left_is_removed_by_the_next_start(unpack_in: Path) -> None:
    for milliseconds in range(10):
        before = len(list(unpack_in.iterdir()))
        with subprocess.Popen([*PROGRAM, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            until(lambda before=before: len(list(unpack_in.iterdir())) > before, "it has begun to unpack")
            time.sleep(milliseconds / 1000)  # not to wait for anything: to hit another moment each time
            process.kill()
    assert list(unpack_in.iterdir())
    until(lambda: removed_by_a_start(unpack_in), "what was left is removed")


# --- signals and the service manager ----------------------------------------------------------------------------------


def test_a_signal_to_both_processes_is_one_signal(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db") as live, live.client() as client:
        client.done("ping")
        os.kill(live.pid, signal.SIGTERM)  # as systemd does with KillMode=control-group, and a terminal with Ctrl-C
        os.kill(live.process.pid, signal.SIGTERM)
        assert client.close_code() == 1012
        assert live.process.wait(PATIENCE_S) == 0
    assert not any("Traceback" in line for line in live.log())


def test_the_service_manager_is_told_by_the_process_that_serves(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)

        def hear(word: str) -> None:
            while word not in manager.recv(4096).decode().split("\n"):
                pass

        # systemd knows the first process; the program is the second. (The shell becomes the first.)
        script = 'export WATCHDOG_PID=$$ WATCHDOG_USEC=2000000; exec "$0" "$@"'
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        command = [PROGRAM[0], "serve", "--db", str(tmp_path / "a.db"), "--port", "0"]
        with subprocess.Popen(["sh", "-c", script, *command], env=environment, stdout=subprocess.DEVNULL) as process:
            try:
                hear("READY=1")
                hear("WATCHDOG=1")
                process.send_signal(signal.SIGHUP)
                hear("RELOADING=1")
                hear("READY=1")
                hear("WATCHDOG=1")
            finally:
                process.terminate()
            hear("STOPPING=1")
            assert process.wait(PATIENCE_S) == 0


def test_a_socket_that_the_service_manager_opened_is_served(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        number = fcntl.fcntl(listener, fcntl.F_DUPFD, 100)
        script = f'exec 3<&{number}; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" "$@"'
        command = [PROGRAM[0], "serve", "--db", str(tmp_path / "a.db")]
        with subprocess.Popen(
            ["bash", "-c", script, *command], pass_fds=[number], stdout=subprocess.PIPE
        ) as process:  # fmt: skip
            os.close(number)
            try:
                assert process.stdout is not None
                greeting = process.stdout.readline() + process.stdout.readline()
                assert f":{port}/live" in greeting.decode()
                with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
                    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            finally:
                process.terminate()
            assert process.wait(PATIENCE_S) == 0


# --- what it starts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("libraries", [None, "/nowhere"])
def test_a_command_that_it_runs_has_the_environment_that_it_was_started_with(
    tmp_path: Path, libraries: str | None
) -> None:
    sql(tmp_path / "a.db", "CREATE TABLE t(a)")
    given = {"PATH": os.environ["PATH"], "HOME": "/"} | ({} if libraries is None else {"LD_LIBRARY_PATH": libraries})
    shown = run("migrate", "--db", tmp_path / "a.db", "--", "env", "-0", env=given)
    assert shown.returncode == 0, shown
    variables = dict(each.split("=", 1) for each in shown.stdout.split("\0") if each)
    assert variables == given | {"LIVE_APPLIANCE_DB": str(tmp_path / "a.db")}


# --- what is unpacked only when it is needed --------------------------------------------------------------------------


def test_what_libraries_import_only_when_they_use_it_is_there(tmp_path: Path) -> None:
    with serving(tmp_path / "a.db") as live:
        url, bearer = f"http://127.0.0.1:{live.port}", {"Authorization": f"Bearer {live.token}"}
        assert httpx.get(f"{url}/nowhere").status_code == 404
        assert httpx.post(f"{url}/healthz").status_code == 405
        assert httpx.get(f"{url}/metrics", headers=bearer).status_code == 200
        assert httpx.get(f"{url}/openapi.json").status_code == 200
    assert not any("Traceback" in line for line in live.log())


def test_keys_of_another_issuer_are_known_though_cryptography_waits_to_be_unpacked(
    tmp_path: Path, unpack_in: Path
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    claims: dict[str, Any] = {"sub": "ann", "iss": "https://issuer.example", "exp": int(time.time()) + 60}
    theirs = jwt.encode(claims, private, "ES256")
    with serving(tmp_path / "a.db") as live:
        assert live.token
        assert list(unpack_in.rglob("_rust*")) == []
    issuer = {"LIVE_APPLIANCE_JWT_KEYS": f"ES256:{tmp_path / 'key.pem'}", "LIVE_APPLIANCE_JWT_ISSUER": claims["iss"]}
    checked = run("token", "check", theirs, "--db", tmp_path / "a.db", env={**os.environ, **issuer})
    assert (checked.returncode, "ann" in checked.stdout) == (0, True), checked
    assert list(unpack_in.iterdir()) == []


def test_openssl_waits_to_be_unpacked_until_there_is_a_certificate(
    tmp_path: Path, unpack_in: Path, certificate_files: tuple[str, str]
) -> None:
    with serving(tmp_path / "a.db") as live:
        assert httpx.get(f"http://127.0.0.1:{live.port}/readyz").status_code == 200
        assert list(unpack_in.rglob("lib*ssl*")) == list(unpack_in.rglob("libcrypto*")) == []
    with serving(tmp_path / "a.db", "--tls-cert", certificate_files[0], "--tls-key", certificate_files[1]) as live:
        assert httpx.get(f"https://localhost:{live.port}/readyz", verify=False).status_code == 200
        assert list(unpack_in.rglob("libcrypto*"))


def test_a_server_goes_on_whose_program_was_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "live-appliance"
    shutil.copy(PROGRAM[0], program)
    monkeypatch.setattr("tests.e2e.live.PROGRAM", (str(program),))
    with serving(tmp_path / "a.db") as live:
        program.unlink()
        program.write_bytes(os.urandom(1 << 20))  # what an upgrade puts there; nothing in it is where it was
        url = f"http://127.0.0.1:{live.port}"
        attributes = {"email": "ann@example.com", "password": "correct horse"}
        for action in ("signup", "signin"):  # a password is the first to need bcrypt
            answer = httpx.post(f"{url}/action/user_account/{action}", json={"attributes": attributes})
            assert answer.status_code == 200, answer.text
        assert httpx.get(f"{url}/openapi.json").status_code == 200
