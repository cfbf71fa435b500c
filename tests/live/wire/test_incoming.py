"""Long messages that have come in part have room together, each client's a share of it."""

from __future__ import annotations

from appliance.errors import CloseCode
from appliance.live.wire.frames import FrameGate
from appliance.live.wire.incoming import SHORT, Incoming
from tests.e2e.hostile import BINARY, TEXT, frame
from tests.live.wire.test_frame_gate import through

LONG = SHORT + 1


def gate_of(incoming: Incoming, remote: str = "192.0.2.1") -> FrameGate:
    gate = FrameGate()
    gate.count_in(incoming, remote)
    return gate


def begun(incoming: Incoming, remote: str = "192.0.2.1") -> CloseCode | None:
    """Begin a long message on a new connection, and leave it so; give why that is refused."""
    return through(gate_of(incoming, remote), frame(BINARY, announce=LONG)[:14])[1]


def test_all_clients_share_what_there_is_and_each_has_a_part_of_it() -> None:
    incoming = Incoming(most=8 * LONG)
    addresses = [f"192.0.2.{number}" for number in range(5)]

    found = {each: [begun(incoming, each) for _ in range(3)] for each in addresses}

    fits = [None, None, CloseCode.TOO_MANY]
    assert found == dict.fromkeys(addresses[:4], fits) | {addresses[4]: [CloseCode.TOO_MANY] * 3}


def test_addresses_of_one_network_are_one_client() -> None:
    incoming = Incoming(most=4 * LONG)
    assert [begun(incoming, f"2001:db8::{number}") for number in (1, 2)] == [None, CloseCode.TOO_MANY]


def test_a_message_has_its_room_until_its_end_and_a_short_one_needs_none() -> None:
    incoming = Incoming(most=4 * LONG)
    gate = gate_of(incoming)
    half = LONG // 2 + 1
    parts = (frame(TEXT, bytes(half), fin=False), frame(0, bytes(LONG - half)))

    for _ in range(3):
        assert through(gate, parts[0])[1] is None
        assert begun(Incoming(most=4 * SHORT)) is CloseCode.TOO_MANY
        assert through(gate_of(incoming), frame(BINARY, bytes(SHORT)))[1] is None
        assert through(gate, frame(0, announce=LONG - half)[:14])[1] is None
        assert begun(incoming) is CloseCode.TOO_MANY
        assert through(gate, bytes(LONG - half))[1] is None
    assert begun(incoming) is None


def test_who_goes_leaves_the_room_to_others() -> None:
    incoming = Incoming(most=4 * LONG)
    gate = gate_of(incoming)
    assert through(gate, frame(BINARY, announce=LONG)[:14])[1] is None

    gate.let_go()
    gate.let_go()

    assert [begun(incoming), begun(incoming)] == [None, CloseCode.TOO_MANY]
