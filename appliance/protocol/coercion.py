"""What SQLite makes of a filter's operand, asked of SQLite itself.

A column's affinity changes what it is compared with: ``"42"`` becomes 42 beside an INTEGER column, 1e20 becomes
``'1.0e+20'`` beside a TEXT column (https://sqlite.org/datatype3.html, section 4.2). The rules for white space, digits
and rounding differ from Python's, and between versions of SQLite; the linked library cannot differ from itself.
The questions are put to an empty database in memory: no file, no state but the answer.
"""

from __future__ import annotations

import atexit
import functools
import sqlite3
import threading

from appliance.model import UTF_8, SQLiteValue

_lock = threading.Lock()  # an answer takes two statements


def as_number(text: str) -> int | float | None:
    """Give the number that a numeric column sees in ``text``; ``None`` when it stays text. 7 µs."""
    with _lock:
        connection = _scratch()
        connection.execute("UPDATE operand SET number = ?", (text,))
        (stored,) = connection.execute("SELECT number FROM operand").fetchone()
    return stored if isinstance(stored, (int, float)) else None


def as_text(number: float) -> str:
    """Give the text that a TEXT column, or ``instr``, sees in a number. 2 µs."""
    with _lock:
        (text,) = _scratch().execute("SELECT CAST(? AS TEXT)", (number,)).fetchone()
    return str(text)


def instr(blob: bytes, text: str, encoding: str) -> int:
    """Say where ``instr`` finds a text in a blob: it reads that as text in the file's encoding. 5 µs."""
    with _lock:
        connection = _scratch(encoding)
        connection.execute("UPDATE operand SET number = ?", (blob,))
        (found,) = connection.execute("SELECT instr(number, ?) FROM operand", (text,)).fetchone()
    return int(found)


def text_bytes(value: SQLiteValue) -> bytes:
    """Give the bytes that ``instr`` searches in a value that is not NULL, in a file that is UTF-8."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, int):
        return b"%d" % value
    return as_text(value).encode() if value is not None else b""


@functools.cache
def _scratch(encoding: str = UTF_8) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA encoding='{encoding}'")
    connection.execute("CREATE TABLE operand (number NUMERIC)")
    connection.execute("INSERT INTO operand VALUES (NULL)")
    atexit.register(connection.close)
    return connection
