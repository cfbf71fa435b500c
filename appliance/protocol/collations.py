"""What SQLite's collations make of a column's text: what is equal, and what is before what."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from appliance.model import UTF_8, Column, SQLiteValue
from appliance.protocol.coercion import text_bytes

COLLATIONS = frozenset(("BINARY", "NOCASE", "RTRIM"))  # SQLite's own, the only ones whose order we know


def equality_key(column: Column) -> Callable[[SQLiteValue], Hashable]:
    """Give the function under which two values of a column are equal in SQL exactly when their keys are equal."""
    return {"NOCASE": _nocase, "RTRIM": _rtrim}.get(column.collation.upper(), itself)


def text_order(column: Column) -> Callable[[str], Any]:
    """Give the function whose results are in the order of the column's texts.

    NOCASE and RTRIM compare UTF-8 in any file. BINARY compares the bytes as they are stored: of UTF-16le that is an
    order of its own, and in both UTF-16 what is beyond U+FFFF is before U+E000.
    """
    collation, encoding = column.collation.upper(), column.encoding
    if collation == "NOCASE":
        return _nocase
    if collation == "RTRIM":
        return lambda text: text_bytes(text).rstrip(b" ")
    if encoding == UTF_8:
        return text_bytes
    # A half of a surrogate pair was read as if it were UTF-8.
    return lambda text: text_bytes(text).decode("utf-8", "surrogatepass").encode(encoding, "surrogatepass")


def itself(value: SQLiteValue) -> Hashable:
    """Give the value: what BINARY makes of it."""
    return value


def _rtrim(value: SQLiteValue) -> Hashable:
    return value.rstrip(" ") if isinstance(value, str) else value


def _nocase(value: SQLiteValue) -> Any:
    """SQLite's NOCASE: A–Z folded, compared up to the first NUL, then by length in bytes (sqlite3StrNICmp)."""
    if not isinstance(value, str):
        return value
    folded = value.encode("utf-8", "surrogateescape").lower()
    end = folded.find(0)
    return (folded if end < 0 else folded[: end + 1], len(folded))
