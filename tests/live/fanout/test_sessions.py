from __future__ import annotations

from typing import Any, cast

import trio.testing

from appliance.errors import CloseCode
from appliance.live.fanout.sessions import Session, Sessions


class Ended:
    """A session that keeps with which code it was ended."""

    def __init__(self) -> None:
        self.codes: list[CloseCode] = []

    def end(self, code: CloseCode, reason: str) -> None:
        self.codes.append(code)


def session() -> Any:
    return cast(Session, Ended())


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
