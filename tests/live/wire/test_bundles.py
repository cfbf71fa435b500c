"""Bundles: what the client sent is what is answered, however it was cut, joined and mixed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, TextMessage

from appliance.live.wire.bundles import BUNDLE, BundlingGate
from tests.e2e.hostile import BINARY, CLOSE, PING, TEXT, frame

#: What a client sends, and as which messages it is to be received.
Sent = tuple[bytes, list[str | bytes]]


def received(
    gate: BundlingGate, *pieces: bytes, messages: list[str | bytes] | None = None
) -> tuple[list[str | bytes], int]:
    """Feed pieces, and read as the WebSocket library does; give the messages, and how many it took them for."""
    library = Connection(ConnectionType.SERVER)
    messages = [] if messages is None else messages
    count, parts = 0, []
    for piece in pieces:
        gate.feed(piece)
        while taken := gate.take():
            library.receive_data(taken)
            for event in library.events():
                if isinstance(event, (TextMessage, BytesMessage)):
                    parts.append(event.data)
                    if event.message_finished:
                        count += 1
                        whole = b"".join(parts) if isinstance(event, BytesMessage) else "".join(parts)
                        messages += gate.apart(whole)
                        parts = []
    return messages, count


text = st.text(max_size=200) | st.text(alphabet="ab\x1e", max_size=5) | st.just("x" * 5000)
sent: st.SearchStrategy[Sent] = st.one_of(
    st.builds(lambda words: (frame(TEXT, words.encode()), [words]), text),
    st.builds(lambda words: (frame(TEXT, words.encode()), [words]), st.text(alphabet='{}:"ab1', max_size=300)),
    st.builds(lambda data: (frame(BINARY, data), [data]), st.binary(max_size=100)),
    st.builds(lambda: (frame(PING, b"?"), [])),
    st.builds(lambda a, b: (frame(TEXT, a.encode(), fin=False) + frame(0, b.encode()), [a + b]), text, text),
)


@given(st.lists(sent, max_size=30), st.lists(st.integers(1, 3000), max_size=20))
def test_every_message_comes_apart_again_wherever_the_bytes_are_cut(stream: list[Sent], cuts: list[int]) -> None:
    rest, pieces = b"".join(part for part, _ in stream), []
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    gate = BundlingGate()
    messages, count = received(gate, *pieces, rest)
    assert messages == [message for _, those in stream for message in those]
    assert gate.messages == count


@given(st.lists(sent, max_size=30), st.lists(st.integers(1, 3000), max_size=20), st.data())
def test_what_is_answered_where_it_is_received_keeps_its_place(
    stream: list[Sent], cuts: list[int], data: st.DataObject
) -> None:
    rest, pieces = b"".join(part for part, _ in stream), []
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    gate = BundlingGate()
    found: list[str | bytes] = []

    def answer(texts: Sequence[bytes]) -> int:
        answered = data.draw(st.integers(0, len(texts)))
        found.extend(text.decode() for text in texts[:answered])
        return answered

    gate.answer = answer
    _, count = received(gate, *pieces, rest, messages=found)
    assert found == [message for _, those in stream for message in those]
    assert gate.messages == count


def test_one_request_alone_can_be_answered_where_it_is_received() -> None:
    gate = BundlingGate()
    gate.answer = len
    gate.feed(frame(TEXT, b'{"a":1}'))
    assert gate.take() == b""
    assert (gate.holds, gate.messages) == (False, 0)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 125, 126, 127, 1023, BUNDLE - 1])
@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\x80\x01\xff\x7f", b"\0\0\0\x80", b"\xff\xff\xff\xff"])
def test_every_mask_is_taken_off_to_the_last_byte(size: int, mask: bytes) -> None:
    gate, found = BundlingGate(), list[bytes]()
    gate.answer = lambda texts: found.extend(texts) or len(texts)
    payload = (b"0123456789" * (size // 10 + 1))[:size]
    whole = frame(TEXT, payload)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    gate.feed((whole[: len(whole) - size - 4] + mask + masked) * 2)
    assert gate.take() == b""
    assert found == [payload] * 2


def test_requests_that_come_together_are_one_message_for_the_library() -> None:
    assert received(BundlingGate(), frame(TEXT, b'{"a":1}') * 10) == (['{"a":1}'] * 10, 1)


def test_a_read_that_ends_within_a_request_breaks_no_bundle() -> None:
    many = frame(TEXT, b"x" * 200) * 1000
    reads = [many[at : at + 10_000] for at in range(0, len(many), 10_000)]
    messages, count = received(BundlingGate(), *reads)
    assert (len(messages), count) == (1000, len(reads))


def test_one_request_alone_is_let_through_as_it_is() -> None:
    gate, alone = BundlingGate(), frame(TEXT, b'{"a":1}')
    gate.feed(alone)
    assert gate.take() == alone


def test_a_character_that_stands_between_is_a_message_of_its_own() -> None:
    gate = BundlingGate()
    messages, count = received(gate, frame(TEXT, b"a") * 2 + frame(TEXT, b"b\x1ec") + frame(TEXT, b"d") * 2)
    assert messages == ["a", "a", "b\x1ec", "d", "d"]
    assert count > 2


def test_a_bundle_has_a_bound_and_never_more_than_a_message_may() -> None:
    many = frame(TEXT, b"x" * 1000) * 200
    messages, count = received(BundlingGate(), many)
    assert len(messages) == 200
    assert count > 200_000 // BUNDLE
    messages, count = received(BundlingGate(message_limit=2500), many)
    assert (len(messages), count) == (200, 100)


def test_a_bundle_that_would_be_one_byte_too_long_is_two() -> None:
    rest = BUNDLE - 2 * 30_000 - 3  # with what stands between, one byte less than the bound
    stream = frame(TEXT, b"x" * 30_000) * 2 + frame(TEXT, b"y" * rest)
    assert received(BundlingGate(), stream) == (["x" * 30_000] * 2 + ["y" * rest], 1)
    assert received(BundlingGate(), stream + frame(TEXT)) == (["x" * 30_000] * 2 + ["y" * rest, ""], 2)


def test_nothing_is_bundled_once_we_are_closing() -> None:
    gate = BundlingGate()
    gate.closing = True
    gate.feed(frame(TEXT, b"a") * 5 + frame(CLOSE, b"\x03\xe8"))
    assert gate.take() == frame(CLOSE, b"\x03\xe8")
