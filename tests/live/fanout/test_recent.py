"""The newest events in memory: what comes after a position is all there, or it is said that it is not."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from appliance.live.fanout.recent import Recent
from appliance.live.matching.telling import Told
from appliance.model import Message


@given(
    stretches=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 50)), max_size=60),
    most=st.integers(1, 12),
    size=st.integers(1, 300),
)
def test_what_comes_after_any_position_is_given_whole_or_refused(
    stretches: list[tuple[int, int, int]], most: int, size: int
) -> None:
    recent = Recent(10, events=most, size=size)
    there: list[int] = []
    end = 10
    for count, quiet, length in stretches:
        ids = list(range(end + 1, end + 1 + count))
        end += count + quiet
        recent.add([Told(Message(each, "t", "", b"")) for each in ids], end, length)
        there += ids
        for position in range(recent.after - 2, end + 1):
            counted = recent.count_after(position)
            if position < recent.after:
                assert counted is None
                continue
            after = [each for each in there if each > position]
            assert [told.id for told in recent.events_after(position)] == after
            assert [told.id for told in islice(recent.events_after(position), 2)] == after[:2]
            assert counted is not None
            assert len(after) <= counted <= len(after) + 5
        assert sum(each > recent.after for each in there) <= most
    recent.forget(end + 7)
    assert (recent.count_after(end), recent.count_after(end + 7)) == (None, 0)
    assert list(recent.events_after(end + 7)) == []
