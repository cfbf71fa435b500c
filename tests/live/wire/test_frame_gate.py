from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import CloseCode
from appliance.live.wire.frames import PIECE, FrameGate, Violation, close_frame, is_close, text_frame
from tests.e2e.hostile import BINARY, CLOSE, PING, PONG, TEXT, frame


def through(gate: FrameGate, *pieces: bytes) -> tuple[bytes, CloseCode | None]:
    """Feed pieces, taking all there is after each; give what came through and the violation's code."""
    out = b""
    for piece in pieces:
        gate.feed(piece)
        try:
            while taken := gate.take():
                out += taken
        except Violation as violation:
            return out, violation.code
    return out, None


small = st.binary(max_size=300)
#: What a client sends, and what of it is for the WebSocket library.
messages = st.one_of(
    st.builds(lambda payload: (frame(BINARY, payload),) * 2, st.binary(max_size=3 * PIECE)),
    st.builds(lambda payload: (frame(PING, payload[:125]),) * 2, small),
    st.builds(lambda payload: (frame(PONG, payload[:125]), b""), small),
    st.builds(lambda a, b, c: (frame(TEXT, a, fin=False) + frame(PING, b[:9]) + frame(0, c),) * 2, small, small, small),
    st.builds(
        lambda a, b, c: (
            frame(TEXT, a, fin=False) + frame(PONG, b[:9]) + frame(0, c),
            frame(TEXT, a, fin=False) + frame(0, c),
        ),
        small,
        small,
        small,
    ),
)
streams = st.lists(messages, max_size=8).map(
    lambda pairs: tuple(b"".join(parts) for parts in zip(*pairs, strict=True)) or (b"", b"")
)
endings = st.sampled_from(
    [b"", frame(CLOSE, b"\x03\xe8"), frame(3), frame(TEXT, mask=False), frame(BINARY, announce=1 << 30)]
)


@given(streams, endings, st.lists(st.integers(1, 5000), max_size=20))
def test_wherever_the_bytes_are_cut_the_same_comes_through(
    stream: tuple[bytes, bytes], ending: bytes, cuts: list[int]
) -> None:
    sent, passing = stream
    pieces, rest = [], sent + ending
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    whole = through(FrameGate(), sent + ending)
    assert through(FrameGate(), *pieces, rest) == whole
    assert whole[0].startswith(passing)
    assert len(whole[0]) <= len(passing) + len(ending)


@given(st.integers(0, 20), st.integers(1, 30))
def test_fragments_are_counted_a_message(fragments: int, limit: int) -> None:
    message = frame(TEXT, fin=False) + frame(0, fin=False) * fragments + frame(0)
    expected = CloseCode.TOO_BIG if fragments + 2 > limit else None
    assert through(FrameGate(fragment_limit=limit), message, message)[1] == expected


def test_a_message_may_have_exactly_the_limit() -> None:
    gate = FrameGate(message_limit=10)
    assert through(gate, frame(BINARY, bytes(10)), frame(TEXT, bytes(4), fin=False), frame(0, bytes(6)))[1] is None
    assert through(gate, frame(TEXT, bytes(4), fin=False), frame(0, bytes(7)))[1] == CloseCode.TOO_BIG


def test_the_first_message_may_have_a_limit_of_its_own() -> None:
    whole, parts = frame(BINARY, bytes(5)), (frame(TEXT, bytes(2), fin=False), frame(0, bytes(3)))
    for pieces in ([whole], parts):
        assert through(FrameGate(10, first_limit=4), *pieces)[1] == CloseCode.TOO_BIG
        assert through(FrameGate(10, first_limit=5), *pieces, frame(BINARY, bytes(10)))[1] is None
    assert through(FrameGate(10, first_limit=99), frame(BINARY, bytes(11)))[1] == CloseCode.TOO_BIG


def test_a_size_over_the_limit_is_refused_before_its_payload_comes() -> None:
    assert through(FrameGate(), frame(BINARY, announce=1 << 40)[:10]) == (b"", CloseCode.TOO_BIG)


def test_what_came_before_a_violation_comes_through() -> None:
    assert through(FrameGate(), frame(TEXT, b"x") + frame(3)) == (frame(TEXT, b"x"), CloseCode.PROTOCOL_ERROR)


def test_each_ping_comes_through_by_itself() -> None:
    gate = FrameGate()
    parts = [frame(PING, b"1"), frame(PING, b"2"), frame(TEXT, b"x"), frame(PING, b"3"), frame(TEXT, b"y")]
    gate.feed(b"".join(parts))
    assert [gate.take() for _ in parts] == parts
    assert gate.take() == b""


def test_after_our_close_only_the_peers_close_comes_through() -> None:
    gate = FrameGate()
    gate.feed(frame(BINARY, bytes(10_000))[:6000])
    begun = gate.take()
    gate.closing = True
    rest = frame(BINARY, bytes(10_000))[6000:] + frame(PING) + frame(BINARY, bytes(3 << 20)) + frame(CLOSE, b"\x03\xe8")
    assert through(gate, rest + frame(PING) + b"junk") == (
        frame(BINARY, bytes(10_000))[len(begun) :] + frame(CLOSE, b"\x03\xe8"),
        None,
    )
    assert gate.closed
    assert not gate.holds


def test_a_payload_in_crumbs_comes_through_in_pieces() -> None:
    gate = FrameGate()
    pieces = []
    for byte in frame(BINARY, bytes(3 * PIECE)):
        gate.feed(bytes((byte,)))
        if piece := gate.take():
            pieces.append(piece)
    assert b"".join(pieces) == frame(BINARY, bytes(3 * PIECE))
    assert len(pieces) <= 4


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 1 << 20])
def test_a_text_frame_reads_as_it_was_written(size: int) -> None:
    from wsproto.frame_protocol import FrameProtocol

    reader = FrameProtocol(client=True, extensions=[])
    reader.receive_bytes(text_frame(b"x" * size))
    assert "".join(str(part.payload) for part in reader.received_frames()) == "x" * size


def test_a_close_reason_is_cut_between_characters() -> None:
    made = close_frame(1009, "é" * 100)
    assert is_close(made)
    assert len(made) == 2 + 2 + 122
    assert made[4:].decode() == "é" * 61
