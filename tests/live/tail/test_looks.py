"""When the tail looks: a commit is announced a little before it can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.live.replay.test_reading import served


class OneWord:
    """An announcement, and no other."""

    over = False

    def __init__(self) -> None:
        self._there = True

    def is_there(self) -> bool:
        return self._there

    async def word(self) -> bool:
        if not self._there:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        self._there = False
        return True


async def test_a_commit_that_is_announced_with_another_is_found_though_it_is_seen_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "a.db") as live, trio.open_nursery() as nursery:
        await live.write("INSERT INTO t VALUES(0, 'before')")
        await wait_all_tasks_blocked()
        look = live.store.look

        async def looking(*given: Any) -> Any:
            found = await look(*given)
            if found is None and live.hub.position.id == 2:
                monkeypatch.undo()
                live.file.writer.execute("INSERT INTO t VALUES(2, 'seen later')")
            return found

        live.file.writer.execute("INSERT INTO t VALUES(1, 'seen at once')")
        monkeypatch.setattr(live.store, "look", looking)
        nursery.start_soon(live.tail.waking.listen, OneWord())
        with trio.fail_after(5):
            await live.hub.reached(3)
        nursery.cancel_scope.cancel()
