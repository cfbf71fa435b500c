from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from appliance.live.tail.state import TailState
from appliance.ops.notify import ServiceManager, watchdog_s


class Words:
    """What a service manager hears, datagram by datagram."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(address)

    def all(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def words(tmp_path: Path) -> Iterator[Words]:
    made = Words(str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.fixture
def environment(tmp_path: Path, words: Words) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}


def test_ready_reloading_and_stopping_are_told(words: Words, environment: dict[str, str]) -> None:
    manager = ServiceManager(environment)
    manager.ready()
    manager.reloading()
    manager.stopping()

    ready, reloading, stopping = words.all()
    assert ready == "READY=1"
    state, time = reloading.split("\n")
    assert state == "RELOADING=1"
    assert time.removeprefix("MONOTONIC_USEC=").isdecimal()
    assert stopping == "STOPPING=1\nSTATUS=stopping"


def test_an_abstract_address_is_one() -> None:
    heard = Words("\0live-appliance-test")
    ServiceManager({"NOTIFY_SOCKET": "@live-appliance-test"}).ready()

    assert heard.all() == ["READY=1"]
    heard.close()


def test_nothing_is_told_where_nobody_waits() -> None:
    manager = ServiceManager({})
    manager.ready()

    assert not manager.waits


def test_a_manager_that_is_gone_hurts_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    manager.ready()
    manager.ready()

    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("not_notified") == 1


async def fed(
    words: Words, environment: dict[str, str], state: TailState, move: Callable[[int], None], status: str = "fine"
) -> list[str]:
    """Let a minute pass; ``move`` is called before each second of it. Give what was told."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ServiceManager(environment).keep_told, state, lambda: status)
        for second in range(1, 61):
            move(second)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    return words.all()


async def test_the_watchdog_is_fed_while_the_tail_looks(
    words: Words, environment: dict[str, str], autojump_clock: trio.testing.MockClock
) -> None:
    state = TailState()

    told = await fed(words, environment, state, lambda second: setattr(state, "last_look", float(second)))

    assert told.count("WATCHDOG=1") >= 60 / 30 * 2
    assert told.count("STATUS=fine") == 1


async def test_a_tail_that_tries_in_vain_feeds_it_too(
    words: Words, environment: dict[str, str], autojump_clock: trio.testing.MockClock
) -> None:
    state = TailState(failing="database is locked")

    told = await fed(words, environment, state, lambda second: setattr(state, "last_turn", float(second)))

    assert told.count("WATCHDOG=1") >= 60 / 30 * 2


async def test_a_tail_that_is_stuck_feeds_it_no_more(
    words: Words, environment: dict[str, str], autojump_clock: trio.testing.MockClock
) -> None:
    state = TailState(last_look=17.0, last_turn=17.0)

    told = await fed(words, environment, state, lambda second: None)

    assert told.count("WATCHDOG=1") == 1  # for the look that there was
    assert "STATUS=fine" in told


@pytest.mark.parametrize(
    ("process", "watched"),
    [("", True), (str(os.getpid()), True), (str(os.getppid()), True), ("1999999999", False)],
)
def test_the_watchdog_is_for_this_process_or_for_the_one_that_unpacked_it(process: str, watched: bool) -> None:
    assert watchdog_s({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": process}) == (1.5 if watched else 0)


@pytest.mark.parametrize("interval", ["", "soon", "-1"])
def test_no_interval_is_no_watchdog(interval: str) -> None:
    assert watchdog_s({"WATCHDOG_USEC": interval}) == 0
