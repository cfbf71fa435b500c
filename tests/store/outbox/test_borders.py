"""Where transactions end: what was noted is found again, from any event, and at the next start."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.capture.contents import KINDS
from appliance.store.file import incarnation, live_file, schema
from appliance.store.file.connections import open_file
from appliance.store.file.live_file import BLOCK
from appliance.store.outbox import borders
from appliance.store.outbox.borders import Borders


@given(st.lists(st.integers(1, 9000), min_size=1, unique=True), st.integers(1, 9000), st.integers(0, 500))
def test_the_nearest_on_both_sides_is_found(noted: list[int], event: int, beyond: int) -> None:
    found, newest = Borders(), max(event, *noted) + beyond
    for each in noted:
        found.note(each)
    assert found.before(event) == max((each for each in noted if each < event), default=0)
    assert found.end(event, newest) == min((each for each in noted if each >= event), default=newest)
    assert found.is_one(event) == (event in noted)


@given(st.sets(st.integers(1, 300), min_size=1), st.sets(st.integers(1, 300), min_size=1))
def test_stretches_are_whole_transactions_and_hold_the_events(noted: set[int], events: set[int]) -> None:
    found, newest = Borders(), max(noted | events)
    for each in sorted(noted):
        found.note(each)
    stretches = found.stretches(sorted(events), newest)
    ids = {each for after, end in stretches for each in range(after + 1, end + 1)}
    ends = {0, newest, *noted}
    assert {each for stretch in stretches for each in stretch} <= ends
    wanted = {
        each for each in range(1, newest + 1) if (found.before(each), found.end(each, newest)) in
        {(found.before(event), found.end(event, newest)) for event in events}
    }  # fmt: skip
    assert ids == wanted
    assert all(end < after for (_, end), (after, _) in pairwise(stretches))


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_file, "BLOCKS", 3)
    found = Borders()
    for each in range(0, 10 * BLOCK, 100):
        found.note(each)
    assert found.before(7 * BLOCK) == 0
    assert found.before(9 * BLOCK) == 9200
    assert not found.is_one(100)


@pytest.mark.parametrize("kept", [True, False])
def test_what_was_noted_is_known_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    monkeypatch.setattr(live_file, "BLOCKS", 3)
    path = tmp_path / "a.db"
    db = open_file(path, busy_timeout_s=1)
    schema.prepare(db)
    db.execute("INSERT INTO _appliance_outbox(id, op) VALUES(?, 4)", (6 * BLOCK,))
    for noted in ((1, BLOCK, 2 * BLOCK + 5, 2 * BLOCK + 3), (2 * BLOCK + 9, 3 * BLOCK, 5 * BLOCK - 1)):
        with live_file.hold(path) as live:
            incarnation.begin(db, live, schema.highest(db))
            known = borders.known(live)
            for each in noted:
                known.note(each)
    if not kept:
        schema.put(db, "incarnation", "another")
    with live_file.hold(path) as live:
        incarnation.begin(db, live, schema.highest(db))
        known = borders.known(live)
    db.close()
    found = [each for each in range(6 * BLOCK) if known.is_one(each)]
    assert found == ([2 * BLOCK + 3, 2 * BLOCK + 5, 2 * BLOCK + 9, 3 * BLOCK, 5 * BLOCK - 1] if kept else [])


def test_what_an_earlier_build_left_behind_the_record_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Path(f"{path}-live").write_bytes(b"{}".ljust(live_file.SIZE) + bytes(range(1, 256)) * 9)
    with live_file.hold(path) as live:
        borders.known(live).note(7)
        assert [each for each in range(9000) if borders.known(live).is_one(each)] == [7]


def test_of_which_kinds_the_rows_of_blocks_are_is_known_at_the_next_start_unless_it_was_cut_short(
    tmp_path: Path,
) -> None:
    path, kinds = tmp_path / "a.db", bytes(range(7, 7 + KINDS))
    with closing(open_file(path, busy_timeout_s=1)) as db:
        schema.prepare(db)
        with live_file.hold(path) as live:
            incarnation.begin(db, live, 0)
            assert live.contents() == {}
            live.note_contents(1, kinds)
            live.note_borders(1, 5)
            live.note_borders(3, 9)
            live.note_contents(live_file.BLOCKS + 2, kinds)
            live.note_borders(0, 1)
            assert live.contents() == {1: kinds, live_file.BLOCKS + 2: kinds}
            live.note_contents(2, kinds[::-1])  # it has the other's place
            live.stop(goes_on=True)
        with live_file.hold(path) as live:
            incarnation.begin(db, live, schema.highest(db))
            assert (live.contents(), live.borders()) == ({1: kinds, 2: kinds[::-1]}, {0: 1, 1: 5, 3: 9})
            beside = Path(f"{path}-live")
            written = beside.read_bytes()
            cut = written.index(kinds[::-1]) + 5
            with beside.open("r+b") as file:  # a kill in the midst of a write, over what another block had here
                file.seek(cut)
                file.write(bytes(9))
            assert (live.contents(), live.borders()) == ({1: kinds}, {0: 1, 1: 5, 3: 9})
            schema.put(db, "incarnation", "another")
            incarnation.begin(db, live, schema.highest(db))
            assert (live.contents(), live.borders()) == ({}, {})
