"""How a message to a client puts things: somebody else's words quoted, types named, the nearest known name found."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable

from appliance.model import ascii_fold

QUOTE_LIMIT = 64  # characters of somebody else's text inside a message of ours
_NAME_LIMIT = 128  # characters that are looked at for the nearest name: difflib is quadratic


def quote(text: str) -> str:
    """Put somebody else's text into a message: quoted, on one line, at most ``QUOTE_LIMIT`` characters of it."""
    printable = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:QUOTE_LIMIT])
    return json.dumps(printable + ("…" if len(text) > QUOTE_LIMIT else ""), ensure_ascii=False)


def kind(value: object) -> str:
    """Name a value's JSON type: ``a string``, ``null``, …"""
    return _KINDS[type(value)]


_KINDS = {
    type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array",
    dict: "an object",
}  # fmt: skip


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Give the known name that somebody who wrote ``name`` most likely meant; ``None`` when none is near."""
    spelled = {ascii_fold(each): each for each in known}
    near = difflib.get_close_matches(ascii_fold(name[:_NAME_LIMIT]), spelled, n=1)
    return spelled[near[0]] if near else None


def unknown(name: str, what: str, known: Iterable[str]) -> str:
    """Say that ``name`` is not ``what``, and which known name is meant or, if none is near, which there are."""
    known = tuple(known)
    near = nearest(name, known)
    if near is not None:
        return f"{quote(name)} is not {what}; did you mean {quote(near)}?"
    if not known:
        return f"{quote(name)} is not {what}: there are none"
    listed = ", ".join(map(quote, known[:_LIST_LIMIT])) + (", …" if len(known) > _LIST_LIMIT else "")
    return f"{quote(name)} is not {what}; there are {listed}"


_LIST_LIMIT = 12  # names in one message
