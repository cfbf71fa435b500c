"""A new configuration changes all that can change at once, or nothing."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from appliance.config import Config, settings
from appliance.errors import BadConfiguration
from appliance.ops.notify import ServiceManager
from appliance.serve import _reappeared
from appliance.signals import Reload, obey


class Said:
    """A configuration file, and a part of a server that takes it up."""

    def __init__(self) -> None:
        self.config = Config()
        self.taken: list[Config] = []

    def read(self) -> Config:
        return self.config

    def part(self, config: Config) -> Callable[[], None]:
        if config.connections == 13:
            raise BadConfiguration("thirteen are not served")
        return lambda: self.taken.append(config)


def test_what_can_change_changes_and_what_cannot_is_named() -> None:
    said = Said()
    reload = Reload(Config(), said.read)
    said.config = Config(connections=5, port=99)

    with capture_logs() as logged, reload.concerning(said.part):
        reload()

    assert said.taken == [Config(connections=5)]
    assert reload.config == Config(connections=5)
    assert [(line["event"], line["settings"]) for line in logged] == [
        ("reloaded", ["connections"]),
        ("restart_needed", ["port"]),
    ]


def test_what_needs_a_restart_is_said_once_and_what_was_fixed_stays() -> None:
    said = Said()
    reload = Reload(Config(port=0), said.read)
    reload.fix(port=4711)
    said.config = Config(port=0, log_level="debug")

    with capture_logs() as logged:
        reload()
        reload()

    assert reload.config == Config(port=4711, log_level="debug")
    assert [line["event"] for line in logged] == ["reloaded", "reloaded"]


def test_if_one_part_refuses_none_changes() -> None:
    said = Said()
    reload = Reload(Config(), said.read)
    said.config = Config(connections=13, log_level="debug")
    other = Said()

    with capture_logs() as logged, reload.concerning(other.part), reload.concerning(said.part):
        reload()
        said.config = replace(said.config, connections=14)
        reload()

    assert [config.connections for config in other.taken] == [14]
    assert logged[0] == {"event": "not_reloaded", "log_level": "error", "reason": "thirteen are not served"}
    assert logged[1]["settings"] == ["connections", "log_level"]


def test_a_configuration_that_cannot_be_read_changes_nothing() -> None:
    def read() -> Config:
        raise BadConfiguration("it is not TOML")

    reload = Reload(Config(), read)

    with capture_logs() as logged:
        reload()

    assert reload.config == Config()
    assert [line["event"] for line in logged] == ["not_reloaded"]


def test_a_part_that_has_ended_is_asked_no_more() -> None:
    said = Said()
    reload = Reload(Config(), said.read)
    with reload.concerning(said.part):
        pass

    reload()

    assert said.taken == []


def test_a_reload_that_is_asked_for_during_the_start_is_done_after_it() -> None:
    said = Said()
    reload = Reload(Config(), said.read)
    said.config = Config(connections=5)

    assert reload.waits
    reload.later()
    assert said.taken == []
    with capture_logs() as logged, reload.concerning(said.part):
        assert not reload.waits

    assert said.taken == [Config(connections=5)]
    assert [line["event"] for line in logged] == ["reloaded"]


async def test_of_a_reload_during_the_start_no_manager_hears_that_the_server_is_ready(tmp_path: Path) -> None:
    async def signals() -> AsyncIterator[int]:
        yield signal.SIGHUP

    said = Said()
    reload = Reload(Config(), said.read)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})

        await obey(signals(), trio.Event(), reload, manager)
        with pytest.raises(BlockingIOError):
            heard.recv(1024)
        with reload.concerning(said.part):
            await obey(signals(), trio.Event(), reload, manager)

        assert heard.recv(1024).startswith(b"RELOADING=1\n")
        assert heard.recv(1024) == b"READY=1"


async def test_who_is_told_to_stop_waits_for_no_file_that_was_taken_away(tmp_path: Path) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_reappeared, Config(db=tmp_path / "gone.db"), stop)
        await trio.testing.wait_all_tasks_blocked()
        stop.set()


def test_every_setting_says_whether_it_can_change() -> None:
    assert all(isinstance(each.metadata["live"], bool) for each in settings())
