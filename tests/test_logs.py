"""A log line is one line, whatever is in it, and what is logged can be changed while the program runs."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Iterator

import pytest
import structlog

from appliance import logs


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def test_json_lines_hold_event_level_time_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")

    structlog.get_logger().info("connected", remote="127.0.0.1", subject=None, code=1000)

    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "connected", "level": "info", "remote": "127.0.0.1", "subject": None, "code": 1000}


def test_text_lines_hold_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info")

    structlog.get_logger().warning("refused", remote="::1", code="unauthorized")

    assert capsys.readouterr().err.endswith("Z [warning ] refused remote=::1 code=unauthorized\n")


@pytest.mark.parametrize("format_", ["text", "json"])
def test_no_value_can_make_a_line_of_its_own(capsys: pytest.CaptureFixture[str], format_: str) -> None:
    logs.configure(format_, "info")

    structlog.get_logger().info("x", subject="a\n2026 [error] faked\x1b[31m\u2028b", other="a=b c", nothing="")

    line, end = capsys.readouterr().err.split("\n")
    assert end == ""
    assert "\x1b" not in line
    if format_ == "text":
        assert line.endswith("other='a=b c' nothing=''")


def test_level_and_format_change_for_loggers_that_have_been_used(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "warning")
    log = structlog.get_logger()
    log.info("first")
    log.warning("second")

    logs.configure("json", "debug")
    log.debug("third")
    logs.configure("text", "error")
    log.warning("fourth")

    found = capsys.readouterr().err.splitlines()
    assert len(found) == 2
    assert "second" in found[0]
    assert json.loads(found[1])["event"] == "third"


class Full(io.StringIO):
    """A log for which there is no room."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        self.write("")


def test_a_log_for_which_there_is_no_room_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    logs.configure("text", "info")

    structlog.get_logger().info("connected")


def test_a_path_that_is_no_text_is_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")

    structlog.get_logger().warning("store_away", path=os.fsdecode(b"caf\xe9.db"))

    assert json.loads(capsys.readouterr().err)["path"].encode(errors="surrogateescape") == b"caf\xe9.db"
