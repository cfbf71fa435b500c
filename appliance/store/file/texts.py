"""TEXT that is not UTF-8: SQLite stores and compares any bytes, so none is lost here."""

from __future__ import annotations

from appliance.model import SQLiteValue


def text(raw: bytes) -> str:
    """Decode TEXT so that no byte is lost: what is not UTF-8 becomes lone surrogates (PEP 383)."""
    return raw.decode("utf-8", "surrogateescape")


def is_utf_8(raw: str) -> bool:
    """Whether what ``text`` gave was UTF-8: no name of anything can be said in SQL that was not."""
    try:
        raw.encode()
    except UnicodeEncodeError:
        return False
    return True


def placeholder(value: SQLiteValue) -> tuple[str, SQLiteValue]:
    """Give a placeholder and what is bound to it; text that is not UTF-8 can only be bound as its bytes."""
    if isinstance(value, str) and not is_utf_8(value):
        return "CAST(? AS TEXT)", value.encode("utf-8", "surrogateescape")
    return "?", value


def said(error: Exception) -> str:
    """Give what an error says, but not the value of a row that could not be decoded, which it has at its end."""
    return str(error).partition(" with text ")[0] or type(error).__name__
