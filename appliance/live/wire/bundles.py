"""Requests are answered where they are received, or reach the WebSocket library together, as one message.

trio-websocket and wsproto take some 60 µs for each message, most of it for switching between tasks; a request is read
and answered in 20. So what need not wait for anything is answered at once, and of the rest what came together is one
message: what the library costs, it costs a message.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from appliance.live.wire.frames import FRAGMENT_LIMIT, MESSAGE_LIMIT, FrameGate

#: What is made one message, bytes: as much as is answered in some milliseconds, before others have their turn. (Its
#: length is written in two bytes.)
BUNDLE: Final = 64 << 10
#: Stands between two requests: no JSON has this character, and a frame that has it is not bundled.
_BETWEEN: Final = 0x1E
_TEXT_FINAL, _MASKED, _LENGTH = 0x81, 0x80, 0x7F
_NO_MASK: Final = bytes(4)
#: What a mask is multiplied with to be that of as many words of four bytes as a request can have.
_WORDS: Final = BUNDLE // 4
_EACH_WORD: Final = int.from_bytes(b"\1\0\0\0" * _WORDS, "little")


class BundlingGate(FrameGate):
    """A frame gate for requests: whole, short text frames that stand one behind the other.

    They are put to ``answer`` first, if it is set: it says how many of them, from the first on, it has answered. The
    others are made one message; whoever receives the messages gives each of them, in order, to ``apart``. All that is
    for ASCII only, so that text that is not UTF-8 is found by the WebSocket library as ever, behind all that came
    before it.

    What is held may be ``BUNDLE`` bytes more than in a frame gate: the first part of such a request.
    """

    __slots__ = ("_bundles", "_received")

    def __init__(
        self, message_limit: int = MESSAGE_LIMIT, fragment_limit: int = FRAGMENT_LIMIT, first_limit: int | None = None
    ) -> None:
        super().__init__(message_limit, fragment_limit, first_limit)
        self._received = 0
        self._bundles: deque[int] | None = None  # which messages are bundles, counted from 1

    def apart(self, message: str | bytes) -> list[str] | list[bytes]:
        """Give what the client sent as this message, or as the several that it was made of."""
        self._received += 1
        if isinstance(message, bytes):
            return [message]
        if not self._bundles or self._bundles[0] != self._received:
            return [message]
        self._bundles.popleft()
        return message.split(chr(_BETWEEN))

    def take(self) -> bytes:
        """Give the next bytes for the WebSocket library, as ``FrameGate.take`` does, or a bundle."""
        while self._held and not (self._left or self._fragments or self.closing):
            # One alone, with nothing behind it, is read here only if it can be answered here.
            requests, ends = self._together(least=1 if self.answer is not None else 2)
            if not requests:
                if self._begun():
                    return b""
                break
            answered = self.answer(requests) if self.answer is not None else 0
            if answered:
                del self._held[: ends[answered - 1]]
                continue
            if len(requests) == 1:
                break
            del self._held[: ends[-1]]
            self.messages += 1
            if self._bundles is None:
                self._bundles = deque()
            self._bundles.append(self.messages)
            return _masked_frame(bytes((_BETWEEN,)).join(requests))
        return super().take() if self._held else b""

    def _begun(self) -> bool:
        """Whether what is held is the first part of a request that is to be bundled.

        It is kept until the rest has come: once a part of it were let through, all that comes with its rest would
        follow it frame by frame, and in a burst there is such a part at the end of every read.
        """
        held, size = self._held, len(self._held)
        if size < 6 or held[0] != _TEXT_FINAL or not held[1] & _MASKED:
            return False
        length, start = held[1] & _LENGTH, 6
        if length == 126:
            length, start = held[2] << 8 | held[3], 8
            if length < 126:
                return False
        elif length == 127:
            return False
        return size < start + length < min(BUNDLE, self._message_limit)

    def _together(self, least: int) -> tuple[list[bytes], list[int]]:
        """Give the payloads of the frames at the front that can be one message, and where each ends.

        None, where it is clear from the first that there are not ``least`` of them.
        """
        held, size = self._held, len(self._held)
        room = min(BUNDLE, self._message_limit)
        found: list[bytes] = []
        ends: list[int] = []
        at = 0
        while size - at >= 6 and held[at] == _TEXT_FINAL and held[at + 1] & _MASKED:
            length, start = held[at + 1] & _LENGTH, at + 6
            if length == 126:
                length, start = held[at + 2] << 8 | held[at + 3], at + 8
                if length < 126:
                    break
            elif length == 127:
                break
            end = start + length
            if end > size or length >= room or (least > 1 and not found and size - end < 6):
                break
            payload = _unmasked(held[start:end], held[start - 4 : start])
            if not payload.isascii() or _BETWEEN in payload:
                break
            found.append(payload)
            ends.append(end)
            room -= length + 1
            at = end
        return found, ends


def _unmasked(payload: bytearray, mask: bytearray) -> bytes:
    size = len(payload)
    words = (size + 3) // 4
    key = int.from_bytes(mask, "little") * (_EACH_WORD >> 32 * (_WORDS - words))
    return (int.from_bytes(payload, "little") ^ key).to_bytes(4 * words, "little")[:size]


def _masked_frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((_TEXT_FINAL, _MASKED | size)) + _NO_MASK + payload
    return bytes((_TEXT_FINAL, _MASKED | 126)) + size.to_bytes(2, "big") + _NO_MASK + payload
