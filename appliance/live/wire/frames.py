"""WebSocket frames: those we write, and the gate that every frame of a client passes.

The gate holds no message. It reads frame headers (RFC 6455, section 5.2) as they come and refuses what would
cost memory before the memory is used; what it lets through is parsed once more, and in full, by wsproto.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from appliance.errors import CloseCode
from appliance.live.wire.room import SHORT, Room

MESSAGE_LIMIT: Final = 1 << 20  # bytes a message
FRAGMENT_LIMIT: Final = 1024  # frames a message
#: Payload is let through in pieces of at least this many bytes (or to a frame's end): a client that sends one
#: byte a packet would otherwise cost an object for each of them.
PIECE: Final = 4096

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = frozenset((_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG))
_FIN, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F
_FINAL_TEXT = _FIN | _TEXT
_CONTROL_LIMIT = 125  # bytes, RFC 6455 section 5.5
_MEDIUM, _LARGE = struct.Struct(">BBH"), struct.Struct(">BBQ")

#: An empty ping: it asks only whether the peer is there.
PING: Final = bytes((_FIN | _PING, 0))


def text_frame(payload: bytes) -> bytes:
    """Give one unmasked, final text frame; ``payload`` is UTF-8. It may be sent to any number of clients."""
    size = len(payload)
    if size < 126:
        return bytes((_FINAL_TEXT, size)) + payload
    if size < 1 << 16:
        return _MEDIUM.pack(_FINAL_TEXT, 126, size) + payload
    return _LARGE.pack(_FINAL_TEXT, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Give a Close frame; the reason is cut to what a control frame holds, between two characters."""
    words = reason.encode()[: _CONTROL_LIMIT - 2].decode(errors="ignore").encode()
    return bytes((_FIN | _CLOSE, 2 + len(words))) + code.to_bytes(2, "big") + words


def is_close(frame: bytes | bytearray | memoryview) -> bool:
    """Whether these bytes, one frame of a server, are a Close frame."""
    return len(frame) > 0 and frame[0] == _FIN | _CLOSE


class Violation(Exception):
    """The client broke the protocol or a limit; its connection ends with ``code``."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameGate:
    """Lets a client's frames through, a whole header at a time, and stops what is over a limit.

    ``feed`` what was received, then ``take`` until it gives nothing. ``take`` gives each ping by itself: the
    WebSocket library answers a ping without asking whether a Close has been sent meanwhile, and fails if it has. Pongs
    end here: that anything came is all that they say (20,000 idle clients send 800 a second).
    Once ``closing`` is set (our Close is on its way, or about to be), only the peer's Close gets through.

    What is held is bounded by what one ``feed`` brings plus ``PIECE``, provided that it is emptied each time.
    A client's first message may have ``first_limit`` bytes, where that is less than any may.
    """

    __slots__ = (
        "_final",
        "_first_limit",
        "_fragment_limit",
        "_fragments",
        "_held",
        "_keep",
        "_left",
        "_message_limit",
        "_remote",
        "_room",
        "_size",
        "_waiting",
        "answer",
        "closed",
        "closing",
        "messages",
    )

    def __init__(
        self, message_limit: int = MESSAGE_LIMIT, fragment_limit: int = FRAGMENT_LIMIT, first_limit: int | None = None
    ) -> None:
        self.closing = False
        #: Answers requests before the WebSocket library has read them; asked by gates that know requests.
        self.answer: Callable[[Sequence[bytes]], int] | None = None
        self.messages = 0  # whole messages that have been let through, ever
        self.closed = False  # the peer's Close has been let through; nothing may follow it
        self._message_limit = message_limit
        self._first_limit = message_limit if first_limit is None else min(first_limit, message_limit)
        self._fragment_limit = fragment_limit
        self._room: Room | None = None
        self._remote = ""
        self._held = bytearray()
        self._left = 0  # bytes of the present data frame's payload still to come
        self._keep = True  # whether they are let through
        self._final = False  # whether the present data frame is its message's last
        self._fragments = 0  # frames of the present message, 0 between messages
        self._size = 0  # bytes of payload that they announced, until all of them have been let through
        self._waiting = 0  # bytes of long messages that have been let through and are still to be answered

    def share(self, room: Room, remote: str) -> None:
        """Have long messages need room in ``room``, as those of a client at ``remote``; ``let_go`` is to follow."""
        self._room, self._remote = room, remote

    def let_go(self) -> None:
        """Hold nothing any more of the message that has come in part, and of those that are still to be answered."""
        if self._room is not None:
            self._room.let_go(self)

    def answered(self) -> None:
        """Take note that all messages are answered that have been let through: they take nothing any more."""
        if self._waiting:
            self._waiting = 0
            self.let_go()
            self._take_room(self._size)

    @property
    def holds(self) -> bool:
        """Whether something was fed that ``take`` has not looked at or not let through yet."""
        return bool(self._held)

    def apart(self, message: str | bytes) -> list[str] | list[bytes]:
        """Give the messages of the client that one message of the WebSocket library is made of: here, itself."""
        return [message]  # type: ignore[return-value]

    def feed(self, data: bytes | bytearray) -> None:
        """Receive bytes of the client, cut anywhere."""
        if not self.closed:
            self._held += data

    def take(self) -> bytes:
        """Give the next bytes for the WebSocket library, ``b""`` when more must come first.

        Raises ``Violation``, after all that came before it has been taken.
        """
        out = bytearray()
        held = self._held
        at = 0
        while at < len(held):
            if self._left:
                size = min(self._left, len(held) - at)
                if self._keep:
                    if size < self._left and size < PIECE:
                        break
                    out += held[at : at + size]
                self._left -= size
                at += size
                if not self._left and self._keep:
                    self._passed()
                continue
            try:
                header = self._header(at)
            except Violation:
                if out:
                    break
                raise
            if header is None:
                break
            opcode, start, size, final = header
            if opcode & 0x8:  # a control frame: whole or not at all
                end = start + size
                if len(held) < end:
                    break
                if opcode == _CLOSE:
                    out += held[at:end]
                    at = len(held)
                    self.closed = True
                    break
                if self.closing or opcode == _PONG:
                    at = end
                    continue
                if not out:
                    out += held[at:end]
                    at = end
                break
            self._keep = not self.closing
            if self._keep:
                try:
                    self._count(opcode, size, final)
                except Violation:
                    if out:
                        break
                    raise
                out += held[at:start]
            self._left = size
            at = start
            if not size and self._keep:
                self._passed()
        del held[:at]
        return bytes(out)

    def _header(self, at: int) -> tuple[int, int, int, bool] | None:
        """Read the header at ``at``: opcode, where the payload starts, its size, FIN. ``None``: not all here."""
        held = self._held
        if len(held) < at + 2:
            return None
        first, second = held[at], held[at + 1]
        opcode = first & _OPCODE
        if first & _RESERVED or opcode not in _OPCODES:
            raise Violation(CloseCode.PROTOCOL_ERROR, "a reserved bit or opcode is set")
        if not second & _MASKED:
            raise Violation(CloseCode.PROTOCOL_ERROR, "a client's frame must be masked")
        size = second & _LENGTH
        if opcode & 0x8 and (size > _CONTROL_LIMIT or not first & _FIN):
            raise Violation(CloseCode.PROTOCOL_ERROR, "a control frame is one frame of at most 125 bytes")
        start = at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(held) < start + width:
                return None
            size = int.from_bytes(held[start : start + width], "big")
            if size >> 63 or size < (126 if width == 2 else 1 << 16):
                raise Violation(CloseCode.PROTOCOL_ERROR, "the length is not written in its shortest form")
            start += width
        # The mask is part of the header, but a size over the limit need not wait for it.
        if not opcode & 0x8 and not self.closing:
            self._bound(size)
        start += 4
        if len(held) < start:
            return None
        return opcode, start, size, bool(first & _FIN)

    def _count(self, opcode: int, size: int, final: bool) -> None:
        """Count a data frame into its message."""
        if (opcode == _CONTINUATION) != bool(self._fragments):
            raise Violation(CloseCode.PROTOCOL_ERROR, "a continuation without its message, or a message within another")
        if self._fragments >= self._fragment_limit:
            raise Violation(CloseCode.TOO_BIG, f"a message may have {self._fragment_limit} fragments")
        self._bound(self._size + size)
        self._take_room(self._size + size)
        self._final = final
        self._fragments = 0 if final else self._fragments + 1
        self._size += size

    def _bound(self, size: int) -> None:
        """Refuse a message of so many bytes, if they are too many."""
        most = self._message_limit if self.messages else self._first_limit
        if size > most:
            which = "a message" if most == self._message_limit else "the first message"
            raise Violation(CloseCode.TOO_BIG, f"{which} may have {most} bytes")

    def _take_room(self, size: int) -> None:
        """Refuse a message of so many bytes if there is no room for it beside the others that wait, or come in part."""
        if size > SHORT and self._room is not None and not self._room.take(self, self._waiting + size, self._remote):
            raise Violation(CloseCode.TOO_MANY, "the server holds as much as it may of long messages; try again later")

    def _passed(self) -> None:
        """Take note that the present frame has been let through."""
        if self._final:
            self.messages += 1
            if self._size > SHORT:
                self._waiting += self._size
            self._size = 0
