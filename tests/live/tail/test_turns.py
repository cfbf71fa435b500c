"""Who waits for a turn of the tail."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from appliance.live.tail.turns import Turns


async def test_who_is_stopped_at_the_moment_at_which_a_turn_ends_does_not_go_on() -> None:
    turns, scope, went_on = Turns(), trio.CancelScope(), []

    async def wait() -> None:
        with scope:
            await turns.next()
            went_on.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        turns.begin()
        turns.end()
        scope.cancel()
    assert not went_on
