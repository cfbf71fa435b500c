"""What is wrong with the machine is found before a server fails of it, with advice."""

from __future__ import annotations

import datetime
import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.ops import machine
from appliance.ops.machine import Setup
from tests.e2e.certificates import write_certificate

DEFAULT = Setup(
    database=Path("x.db"),
    addresses=(),
    chain=None,
    key=None,
    secret=None,
    connections=1,
    inotify=False,
    served=False,
)


@pytest.fixture
def setup(tmp_path: Path) -> Callable[..., Setup]:
    def make(**values: object) -> Setup:
        database = tmp_path / "x.db"
        database.touch(0o600)
        return Setup(**{**{name: getattr(DEFAULT, name) for name in Setup.__slots__}, "database": database, **values})

    return make


def found(setup: Setup) -> list[tuple[str, str]]:
    return [(each.grade, each.words) for each in machine.examine(setup)]


def only(setup: Setup) -> tuple[str, str]:
    (finding,) = found(setup)
    return finding


def test_a_machine_that_is_well_gives_no_complaint(setup: Callable[..., Setup], tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    findings = found(setup(addresses=[("127.0.0.1", port)], inotify=True))

    assert findings == [("ok", f"port {port} on 127.0.0.1 is free")]


def test_a_secret_that_is_no_good_or_that_others_may_read_is_found(setup: Callable[..., Setup], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("short\n")
    secret.chmod(0o600)
    grade, words = only(setup(secret=secret))
    assert (grade, "at least 32 bytes" in words) == ("unusable", True)
    secret.write_text("secret--" * 4)
    secret.chmod(0o644)
    grade, words = only(setup(secret=secret))
    assert (grade, f"may read {secret}" in words) == ("warning", True)


@pytest.mark.parametrize(("mode", "word"), [(0o644, "read"), (0o602, "write")])
@pytest.mark.parametrize("suffix", ["", "-wal", "-live"])
def test_files_that_everybody_may_read_are_named(
    setup: Callable[..., Setup], suffix: str, mode: int, word: str
) -> None:
    made = setup()
    file = Path(f"{made.database}{suffix}")
    file.touch()
    file.chmod(mode)

    grade, words = only(made)

    assert grade == "warning"
    assert words == f"every user of this machine may {word} {file}; run: chmod o-rwx {file}"


def test_a_key_that_everybody_may_read_is_named(setup: Callable[..., Setup], tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "localhost")
    key.chmod(0o644)

    assert any(grade == "warning" and str(key) in words for grade, words in found(setup(chain=chain, key=key)))


def test_a_port_in_use_is_named_with_who_has_it(setup: Callable[..., Setup]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        grade, words = only(setup(addresses=[("127.0.0.1", port)]))

        assert grade == "problem"
        assert f"(process {os.getpid()})" in words
        assert found(setup(addresses=[("127.0.0.1", port)], served=True)) == []


@pytest.mark.parametrize(("code", "grade"), [(socket.EAI_NONAME, "unusable"), (socket.EAI_AGAIN, "problem")])
def test_a_name_that_is_nobodys_is_what_serve_says_it_is(
    code: int, grade: str, setup: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "no")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    assert only(setup(addresses=[("name.invalid", 6336)]))[0] == grade


@pytest.mark.parametrize("name", ["x..invalid", "ü..invalid"])
def test_what_can_be_no_name_is_nobodys(setup: Callable[..., Setup], name: str) -> None:
    grade, words = only(setup(addresses=[(name, 6336)]))

    assert (grade, "there is no such address" in words) == ("unusable", True)


def test_an_address_of_another_machine_is_a_problem(setup: Callable[..., Setup]) -> None:
    grade, words = only(setup(addresses=[("192.0.2.1", 6336)]))

    assert (grade, words.partition(" cannot")[0]) == ("problem", "192.0.2.1")


@pytest.mark.parametrize(
    ("days", "grade", "words"),
    [
        (-1, "problem", "ended on"),
        (3, "warning", "ends in 2 days"),
        (90, "ok", "is good until"),
    ],
)
def test_the_end_of_a_certificate_is_told_in_time(
    setup: Callable[..., Setup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, grade: str, words: str
) -> None:
    chain, key = write_certificate(tmp_path, "localhost", days=days)
    key.chmod(0o600)

    told, said = only(setup(chain=chain, key=key))

    assert told == grade
    assert words in said


def test_a_certificate_that_has_not_begun_is_a_problem_and_with_another_key_no_server_begins(
    setup: Callable[..., Setup], tmp_path: Path
) -> None:
    chain, _ = write_certificate(tmp_path, "late", days=90, begins=10)
    _, key = write_certificate(tmp_path, "other")
    key.chmod(0o600)

    findings = found(setup(chain=chain, key=key))

    assert [grade for grade, _ in findings] == ["unusable", "problem"]
    assert "is not the key" in findings[0][1]
    assert "begins on" in findings[1][1]


@pytest.mark.parametrize("wrong", ["absent", "nonsense", "encrypted"])
def test_with_a_certificate_that_cannot_be_read_no_server_begins(
    setup: Callable[..., Setup], tmp_path: Path, wrong: str
) -> None:
    chain, key = write_certificate(tmp_path, "localhost", password=b"x" if wrong == "encrypted" else None)
    key.chmod(0o600)
    if wrong == "absent":
        chain.unlink()
    if wrong == "nonsense":
        chain.write_text("hello")

    grade, words = only(setup(chain=chain, key=key))

    assert grade == "unusable"
    assert "cannot be read as certificate and key" in words


def test_a_clock_that_was_set_back_is_noticed(setup: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    made = setup()
    os.utime(made.database, (time.time() + 3600, time.time() + 3600))
    assert "changed 60 minutes from now" in only(made)[1]

    monkeypatch.setattr(time, "time", lambda: 86400.0)
    assert only(made)[0] == "problem"


def test_too_few_descriptors_are_told_with_what_to_do(setup: Callable[..., Setup]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    grade, words = only(setup(connections=hard))

    assert grade == "warning"
    assert "LimitNOFILE" in words
    assert f"set connections to {hard - 128}" in words


def test_a_log_that_has_grown_is_told(setup: Callable[..., Setup]) -> None:
    made = setup()
    with Path(f"{made.database}-wal").open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(300 << 20)

    assert "300 MiB" in only(made)[1]


def test_the_first_day_is_in_the_past() -> None:
    assert datetime.datetime.now(datetime.UTC).timestamp() > machine.FIRST_DAY
