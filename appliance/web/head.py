"""The head of a request for a WebSocket, as clients write it, read at one stroke.

What is written in any other way is left to h11, which knows all the rules and what to answer; this knows only what is
beyond doubt, and h11 gives the same of it (a test compares them). It takes a tenth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

#: A request line, and fields of printable ASCII, none of them folded (RFC 9112, sections 3 and 5).
_HEAD: Final = re.compile(rb"GET (/[!-~]*) HTTP/1\.1\r\n((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[ -~]*\r\n)+)\r\n")
#: With one of these there may be a body, or something to be said before it.
_OTHERS: Final = frozenset((b"content-length", b"transfer-encoding", b"expect"))


class Request(Protocol):
    """A request's head, as h11 gives it, too: names in lower case."""

    @property
    def method(self) -> bytes:
        """The method."""

    @property
    def target(self) -> bytes:
        """What is asked for, as it was written."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Names and values."""

    @property
    def http_version(self) -> bytes:
        """``1.1``, say."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head that was read here."""

    method: bytes
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    http_version: bytes


def path_of(target: bytes) -> tuple[str, bytes, bytes]:
    """Give the path of what a request asks for, the same as it was written, and the query."""
    if not target.startswith(b"/") and b"://" in target:  # absolute form, RFC 9112 section 3.2.2
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    path, _, query = target.partition(b"?")
    return unquote_to_bytes(path).decode(errors="replace"), path, query


def read_head(data: bytes, limit: int) -> tuple[Head, int] | None:
    """Give the head at the front of ``data`` and where it ends; ``None`` when it is for h11.

    ``limit`` is how long it may be, bytes.
    """
    found = _HEAD.match(data)
    if found is None or found.end() > limit:
        return None
    headers = []
    hosts, upgrade = 0, False
    for line in found[2][:-2].split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _OTHERS:
            return None
        hosts += name == b"host"
        upgrade = upgrade or name == b"upgrade"
        headers.append((name, value.strip(b" ")))
    if hosts != 1 or not upgrade:
        return None
    return Head(b"GET", found[1], headers, b"1.1"), found.end()
