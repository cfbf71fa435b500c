"""The file's place is looked at whatever the tail has to do."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from appliance.live.tail.absence import Absence
from appliance.store.outbox import look
from tests.live.replay.test_reading import FILL, served


@pytest.mark.parametrize("behind", ["many looks", "one that takes long"])
async def test_a_file_that_is_replaced_is_noticed_while_the_tail_has_much_to_catch_up_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: str
) -> None:
    if behind == "many looks":
        for name in ("LOOK_ROWS", "GLANCE_ROWS"):
            monkeypatch.setattr(look, name, 2)
    async with served(tmp_path / "a.db") as live:
        if behind != "many looks":
            monkeypatch.setattr(live.hub, "publish", partial(live.hub.publish, turn_s=0))  # one event a turn
        looked: list[int] = []

        async def note(_: Absence) -> None:
            looked.append(live.hub.position.id)

        monkeypatch.setattr(Absence, "look", note)
        with trio.fail_after(5):
            await live.write(FILL.format(first=1, last=10, value="i"))
        assert {2, 4, 6, 8} <= {*looked}
