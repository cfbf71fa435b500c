"""What is long, as messages that are not answered yet, has room together, and each client's a share of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import CloseCode
from appliance.live.wire.frames import FrameGate
from appliance.live.wire.room import SHORT, Room
from tests.e2e.hostile import BINARY, TEXT, frame
from tests.live.wire.test_frame_gate import through

LONG = SHORT + 1


def gate_of(room: Room, remote: str = "192.0.2.1") -> FrameGate:
    gate = FrameGate()
    gate.share(room, remote)
    return gate


def begun(room: Room, remote: str = "192.0.2.1") -> CloseCode | None:
    """Begin a long message on a new connection, and leave it so; give why that is refused."""
    return through(gate_of(room, remote), frame(BINARY, announce=LONG)[:14])[1]


def test_all_clients_share_what_there_is_and_each_has_a_part_of_it() -> None:
    room = Room(most=8 * LONG)
    addresses = [f"192.0.2.{number}" for number in range(5)]

    found = {each: [begun(room, each) for _ in range(3)] for each in addresses}

    fits = [None, None, CloseCode.TOO_MANY]
    assert found == dict.fromkeys(addresses[:4], fits) | {addresses[4]: [CloseCode.TOO_MANY] * 3}


def test_addresses_of_one_network_are_one_client() -> None:
    room = Room(most=4 * LONG)
    assert [begun(room, f"2001:db8::{number}") for number in (1, 2)] == [None, CloseCode.TOO_MANY]


def test_a_message_has_its_room_until_it_is_answered_and_a_short_one_needs_none() -> None:
    room = Room(most=4 * LONG)
    gate = gate_of(room)
    half = LONG // 2 + 1
    parts = (frame(TEXT, bytes(half), fin=False), frame(0, bytes(LONG - half)))

    for _ in range(3):
        assert through(gate, parts[0])[1] is None
        assert through(gate_of(room), frame(BINARY, bytes(SHORT)))[1] is None
        assert through(gate, frame(0, announce=LONG - half)[:14])[1] is None
        assert begun(room) is CloseCode.TOO_MANY
        assert through(gate, bytes(LONG - half))[1] is None
        assert begun(room) is CloseCode.TOO_MANY
        gate.answered()
        assert room.taken == 0
    assert begun(room) is None


def test_what_has_come_of_the_next_message_keeps_its_room_when_those_before_are_answered() -> None:
    room = Room(most=12 * LONG)
    gate, other = gate_of(room), gate_of(room)
    assert through(other, frame(BINARY, announce=LONG)[:14])[1] is None

    assert through(gate, frame(BINARY, bytes(LONG)) + frame(BINARY, announce=LONG)[:14])[1] is None
    assert begun(room) is CloseCode.TOO_MANY
    gate.answered()
    assert room.taken == 2 * LONG
    assert through(gate, bytes(LONG))[1] is None
    gate.answered()
    assert room.taken == LONG


def test_who_goes_leaves_the_room_to_others() -> None:
    room = Room(most=4 * LONG)
    gate = gate_of(room)
    assert through(gate, frame(BINARY, announce=LONG)[:14])[1] is None

    gate.let_go()
    gate.let_go()

    assert [begun(room), begun(room)] == [None, CloseCode.TOO_MANY]


def test_what_is_the_only_one_has_room_however_long_it_is_and_whoever_comes_then_has_none() -> None:
    room = Room(most=400)
    assert room.take("alone", 101, "192.0.2.1")  # of its client, and then of all
    assert room.take("alone", 1000, "192.0.2.1")
    assert not room.take("other", 1, "192.0.2.2")
    assert room.take("alone", 300, "192.0.2.1")
    assert [room.take("other", 100, address) for address in ("192.0.2.1", "192.0.2.2")] == [False, True]


def test_what_grows_counts_with_all_of_its_length() -> None:
    room = Room(most=400)
    assert [room.take(each, size, "192.0.2.1") for each, size in (("a", 50), ("b", 51), ("b", 50))] == [
        True, False, True,
    ]  # fmt: skip
    assert not room.take("a", 51, "192.0.2.1")
    room.let_go("b")
    assert room.take("a", 100, "192.0.2.1")


steps = st.tuples(st.integers(0, 5), st.integers(0, 500), st.integers(0, 2))


@given(st.lists(steps, max_size=60))
def test_all_take_no_more_than_there_is_and_what_is_let_go_is_there_again(course: list[tuple[int, int, int]]) -> None:
    room = Room(most=400)
    held: dict[int, tuple[int, int]] = {}
    for what, size, client in course:
        if not size:
            room.let_go(what)
            held.pop(what, None)
            continue
        client = held[what][0] if what in held else client
        others = [each for other, each in held.items() if other != what]
        for of, most in ((others, 400), ([each for each in others if each[0] == client], 100)):
            if of and sum(taken for _, taken in of) + size > most:
                assert not room.take(what, size, f"192.0.2.{client}")
                break
        else:
            assert room.take(what, size, f"192.0.2.{client}")
            held[what] = client, size
        assert room.taken == sum(taken for _, taken in held.values())
    for what in held:
        room.let_go(what)
    assert (room.taken, room._by_client) == (0, {})
