"""A WebSocket client made of bytes, so that it can send what no library would."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, NamedTuple

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def head(path: str | bytes = "/live", **changes: bytes | None) -> bytes:
    """Give the head of an upgrade request; a change replaces a header (``_`` for ``-``), ``None`` leaves it out."""
    target = path.encode() if isinstance(path, str) else path
    headers: dict[str, bytes | None] = {
        "Host": b"localhost",
        "Connection": b"Upgrade",
        "Upgrade": b"websocket",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": b"13",
    }
    for name, value in changes.items():
        headers[name.replace("_", "-")] = value
    lines = [b"%b: %b" % (name.encode(), value) for name, value in headers.items() if value is not None]
    return b"GET %b HTTP/1.1\r\n%b\r\n\r\n" % (target, b"\r\n".join(lines))


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True, announce: int | None = None
) -> bytes:
    """Give one frame with the mask 0; ``announce`` is the length it claims."""
    size = len(payload) if announce is None else announce
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    flag = 0x80 if mask else 0
    if size < 126:
        header = struct.pack("!BB", first, flag | size)
    elif size < 1 << 16:
        header = struct.pack("!BBH", first, flag | 126, size)
    else:
        header = struct.pack("!BBQ", first, flag | 127, size)
    return header + (b"\0\0\0\0" if mask else b"") + payload


def close(code: int = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


class Frame(NamedTuple):
    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big")


class Client:
    """A client on a blocking socket, for the echo server; what another server wants otherwise, a subclass says."""

    #: A path whose WebSocket the server closes with 4401 at the first message.
    closing_path = "/live?close=4401"
    #: A path that the server refuses with 401.
    refused_path = "/live?reject=401"
    wrong_method_status = b"404"

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answer = b""
        self._buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def head(self, path: str | bytes = "/live", **changes: bytes | None) -> bytes:
        """Give the head of an upgrade request that this server accepts but for the changes."""
        return head(path, **changes)

    def open(self, path: str = "/live") -> Client:
        """Do the handshake; the status line and headers are in ``answer``."""
        self.send(self.head(path))
        self.read_head()
        assert self.answer.startswith(b"HTTP/1.1 101 "), self.answer
        return self

    def read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            data = self.sock.recv(65536)
            assert data, f"the connection ended within a head: {self._buffer!r}"
            self._buffer += data
        self.answer, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return self.answer

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self) -> Frame | None:
        """Give the next frame, ``None`` at the end of the connection."""
        first = self._exactly(2)
        if first is None:
            return None
        size = first[1]
        assert not size & 0x80, "a server's frame must not be masked"
        if size >= 126:
            extended = self._exactly(2 if size == 126 else 8)
            assert extended is not None
            size = int.from_bytes(extended, "big")
        payload = self._exactly(size)
        assert payload is not None
        return Frame(first[0] & 0x0F, payload)

    def first_but(self, *opcodes: int) -> Frame | None:
        """Give the next frame that has none of these opcodes, ``None`` at the end of the connection."""
        while (received := self.receive()) is not None and received.opcode in opcodes:
            pass
        return received

    def _exactly(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            data = self.sock.recv(65536)
            if not data:
                assert not self._buffer, "the connection ended within a frame"
                return None
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def close_code(self) -> int:
        """Read up to the Close frame and the end of the connection; a reset instead is an error."""
        while (received := self.receive()) is not None:
            if received.opcode == CLOSE:
                code = received.code
                assert self.receive() is None
                return code
        raise AssertionError("the connection ended without a Close frame")

    def long_request(self, size: int) -> bytes:
        """Give a message of about so many bytes that the server answers with as many."""
        return b"\xc3\xa9" * (size // 2)

    def answers(self, request: bytes, answer: bytes) -> bool:
        """Whether ``answer`` is what the server says to a long request."""
        return answer == request

    def echoes(self, words: bytes = b"are you there") -> bool:
        self.send(frame(TEXT, words))
        return self.receive() == Frame(TEXT, words)

    def reset(self) -> None:
        """Close with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def rest(self) -> bytes:
        """Read to the end of the connection, however it ends."""
        data = self._buffer
        try:
            while more := self.sock.recv(65536):
                data += more
        except ConnectionResetError:
            pass
        return data


class Stranger(Client):
    """A client of the real program, with a token."""

    closing_path = "/live?auth=frame"
    refused_path = "/live?token=nonsense"
    wrong_method_status = b"405"

    def __init__(self, sock: socket.socket, token: str) -> None:
        super().__init__(sock)
        self.token = token

    def head(self, path: str | bytes = "/live", **changes: bytes | None) -> bytes:
        if path != self.closing_path:
            changes.setdefault("Authorization", b"Bearer " + self.token.encode())
        return head(path, **changes)

    def long_request(self, size: int) -> bytes:
        return b'{"method":"ping","id":"%b"}' % ("é" * (size // 2)).encode()

    def answers(self, request: bytes, answer: bytes) -> bool:
        return bool(json.loads(answer)["EventType"] == "error")  # an id has at most 128 characters

    def echoes(self, words: bytes = b"") -> bool:
        return self.ask({"method": "ping"})["EventType"] == "response"

    def ask(self, request: object) -> Any:
        text = request if isinstance(request, bytes) else json.dumps(request).encode()
        self.send(frame(TEXT, text))
        received = self.receive()
        assert received is not None
        assert received.opcode == TEXT, received
        return json.loads(received.payload)
