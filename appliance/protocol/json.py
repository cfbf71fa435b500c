"""JSON, read strictly and written compactly.

What two programs could read differently is refused: NaN and Infinity, numbers that overflow to infinity, duplicate
keys, lone surrogates, integers beyond signed 64 bits, nesting deeper than ``DEPTH_LIMIT`` (RFC 8259, section 9 lets a
parser set such limits; RFC 7493 names the same traps). One reader serves requests, messages and JSON columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from typing import Annotated, Any, Final, NoReturn, cast

import msgspec

from appliance.errors import BadJson
from appliance.model import JSON
from appliance.protocol.wording import quote

DEPTH_LIMIT = 32  # objects and arrays inside each other; a frame of ours never needs more
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1  # what SQLite can store

_DIGITS_SHOWN = 32  # of a number that is refused
_SAFE_DIGITS = 18  # any integer of so many characters fits 64 bits
_MOST_DIGITS = 20  # "-9223372036854775808"; checked before int() so that 10^6 digits cost nothing


def decode(text: str | bytes) -> JSON:
    """Read one JSON value.

    Raises ``BadJson`` for everything that the module's docstring refuses, and nothing else. The message names the
    place (a character, counted from 1) or the key or number at fault.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        elif not text.isascii():
            text.encode()
        value = _at_once(text)
        if value is not _UNSURE:
            return value
        value = cast(JSON, _DECODER.decode(text))
        if "\\u" in text:
            ENCODER.encode(value)  # the one way for a surrogate to come in is its escape
    except json.JSONDecodeError as error:
        message = error.msg[:1].lower() + error.msg[1:]
        raise BadJson(f"this is not JSON: {message}, at character {error.pos + 1}") from None
    except UnicodeDecodeError as error:
        raise BadJson(f"this is not UTF-8, at byte {error.start + 1}") from None
    except UnicodeEncodeError:
        raise BadJson("a string holds half of a surrogate pair") from None
    except RecursionError:
        raise _too_deep() from None
    if text.count("[") + text.count("{") > DEPTH_LIMIT:
        _check_depth(value)
    return value


def _at_once(text: str) -> JSON:
    """Read what is plainly right in a third of the time; ``_UNSURE``: it may not be, or is not.

    msgspec takes one thing that is refused here: of two equal keys it drops one. Then the value, written again, has
    fewer quotation marks than the text, which has no escapes.
    """
    if "\\" in text:
        return _UNSURE
    try:
        value: JSON = _QUICK.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return _UNSURE
    return value if ENCODER.encode(value).count(b'"') == text.count('"') else _UNSURE


def encode(value: JSON | msgspec.Struct) -> bytes:
    """Write a value, or a struct of values, as compact UTF-8.

    Numbers keep all their digits (the shortest form that reads back the same).

    Raises ``UnicodeEncodeError`` for a lone surrogate. Infinities become ``null``: whoever may hold one converts it
    first (``values``).
    """
    return ENCODER.encode(value)


def identity(value: JSON) -> Hashable:
    """Give what two values have in common exactly when they are the same JSON value.

    1 and 1.0 are the same number; ``true`` and 1 are not the same; the order of an object's keys does not count.
    """
    if value is True or value is False:
        return ("boolean", value)
    if isinstance(value, list):
        return ("array", *map(identity, value))
    if isinstance(value, dict):
        return ("object", frozenset((key, identity(item)) for key, item in value.items()))
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadJson(f"the key {quote(key)} stands twice in one object")
            seen.add(key)
    return found


def _integer(digits: str) -> int:
    if len(digits) <= _SAFE_DIGITS:
        return int(digits)
    if len(digits) > _MOST_DIGITS or not INTEGER_MIN <= (value := int(digits)) <= INTEGER_MAX:
        raise BadJson(f"the integer {_shorten(digits)} is beyond 64 bits")
    return value


def _real(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise BadJson(f"the number {_shorten(digits)} is out of range")
    return value


def _constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not JSON")


def _shorten(digits: str) -> str:
    return digits if len(digits) <= _DIGITS_SHOWN else digits[:_DIGITS_SHOWN] + "…"


def _too_deep() -> BadJson:
    return BadJson(f"objects and arrays nest deeper than {DEPTH_LIMIT}")


def _check_depth(value: JSON) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEPTH_LIMIT):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return
    raise _too_deep()


_UNSURE: Final[JSON] = cast(JSON, object())
_QUICK_DEPTH = 6  # twice as many types for each level more; what is deeper is read slowly


def quick_type(depth: int = _QUICK_DEPTH) -> Any:
    """Give the type of values that fit: no integer beyond 64 bits, nothing nested deeper."""
    whole: Any = Annotated[int, msgspec.Meta(ge=INTEGER_MIN, le=INTEGER_MAX)]
    fits: Any = None | bool | whole | float | str
    for _ in range(depth):
        fits = None | bool | whole | float | str | list[fits] | dict[str, fits]
    return fits


_QUICK: msgspec.json.Decoder[JSON] = msgspec.json.Decoder(quick_type())
# The hooks keep the C scanner: 5 µs for a frame of 270 bytes, and it says where the fault is.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant, strict=True
)
ENCODER = msgspec.json.Encoder()
