from __future__ import annotations

import math
import socket
import time
from typing import Any, cast

import pytest
import trio.testing

from appliance.errors import CloseCode
from appliance.live.fanout.sessions import Session, Sessions
from appliance.model import Principal


class Ended:
    """A session that keeps with which code it was ended."""

    def __init__(self, expires_at: float = math.inf) -> None:
        self.codes: list[CloseCode] = []
        self.principal = Principal("issuer", "subject", admin=False, expires_at=expires_at)

    def end(self, code: CloseCode, reason: str) -> None:
        self.codes.append(code)


def session(expires_at: float = math.inf) -> Any:
    return cast(Session, Ended(expires_at))


async def test_a_session_that_is_made_once_all_are_ended_is_ended_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sessions, first, second, late, later = Sessions(), session(), session(), session(), session()
    sessions.add(first, None)
    sessions.add(second, ("issuer", "subject"))
    assert (first.codes, second.codes) == ([], [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.end_all)
        await trio.testing.wait_all_tasks_blocked()
        sessions.add(late, None)
        assert late.codes == [CloseCode.RESTART]
    sessions.add(later, ("issuer", "subject"))
    assert first.codes == second.codes == late.codes == later.codes == [CloseCode.RESTART]


class Heard(Ended):
    """A session that hears one byte, and keeps whether it had when it was looked at."""

    def __init__(self, raw: socket.socket) -> None:
        super().__init__()
        self.heard, self.when_looked_at = False, list[bool]()
        self._raw = raw

    async def hear(self) -> None:
        await trio.lowlevel.wait_readable(self._raw)
        self.heard = True

    def check(self, now: float, ping_every_s: float, pong_within_s: float) -> None:
        self.when_looked_at.append(self.heard)


async def test_what_has_come_while_the_machine_stood_still_is_heard_before_anybody_counts_as_silent(
    mock_clock: trio.testing.MockClock,
) -> None:
    sessions, pairs = Sessions(), [socket.socketpair() for _ in range(50)]
    heard = [Heard(raw) for raw, _ in pairs]
    async with trio.open_nursery() as nursery:
        for each in heard:
            sessions.add(cast(Session, each), None)
            nursery.start_soon(each.hear)
        nursery.start_soon(sessions.keep)
        await trio.testing.wait_all_tasks_blocked()
        for _, peer in pairs:
            peer.send(b"x")
        mock_clock.jump(30)  # trio finds both together, the bytes and that it is time
        await trio.testing.wait_all_tasks_blocked()
        assert [each.when_looked_at for each in heard] == [[True]] * len(heard)
        nursery.cancel_scope.cancel()
    for ends in pairs:
        for end in ends:
            end.close()


def test_a_session_whose_token_has_ended_is_ended_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, soon, later, unknown = Sessions(), session(20), session(30), session(10)
    sessions.add(unknown, None)
    for each in (later, soon):
        sessions.expires(each.principal.expires_at)
        sessions.add(each, ("issuer", "subject"))
    for now, ended in ((19.9, ([], [])), (20.0, ([CloseCode.TOKEN_EXPIRED], [])), (29.9, ([], []))):
        monkeypatch.setattr(time, "time", lambda at=now: at)
        sessions.end_expired()
        assert (soon.codes, later.codes) == ended
        soon.codes.clear()
    monkeypatch.setattr(time, "time", lambda: 30.0)
    sessions.end_expired()
    assert (later.codes, unknown.codes) == ([CloseCode.TOKEN_EXPIRED], [])
