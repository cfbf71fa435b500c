"""Rows on the wire."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model import Affinity, Column, Image, Shape, SQLiteValue
from appliance.protocol.values import EXACT_INTEGER, ValueOptions, key, row, wire

OPTIONS = ValueOptions()


def shape(*declared: str, key: tuple[int, ...] = (), names: str = "abcdefgh", rowid: bool = False) -> Shape:
    columns = (Column(name, each, Affinity.of(each)) for name, each in zip(names, declared, strict=False))
    return Shape(1, "t", tuple(columns), key, rowid)


def sent(value: Any, declared: str = "", options: ValueOptions = OPTIONS) -> Any:
    text = row(Image((value,)), shape(declared), options)
    found = json.loads(text)
    assert found.pop("__type") == "t"
    return found["a"] if set(found) == {"a"} else found


@pytest.mark.parametrize(
    ("declared", "stored", "text"),
    [
        ("REAL", 5.0, "5.0"),
        ("REAL", 0.1 + 0.2, "0.30000000000000004"),
        ("INTEGER", 2**63 - 1, "9223372036854775807"),
        ("BOOLEAN", 0, "false"),
        ("bool", 1, "true"),
        ("BOOLEAN", 2, "2"),
        ("BOOLEAN", "true", '"true"'),
        ("BOOLEAN", None, "null"),
        ("INTEGER", 1, "1"),
        ("TEXT", "a\0b", '"a\\u0000b"'),
        ("BLOB", b"\xff", '{"$blob":"/w=="}'),
        ("TEXT", b"", '{"$blob":""}'),
        ("REAL", math.inf, '{"$real":"Infinity"}'),
        ("", -math.inf, '{"$real":"-Infinity"}'),
        ("JSON", ' {"b": [1, 1.0 ,true]}', '{"b":[1,1.0,true]}'),
        ("JSON", '{"a":1,"a":2}', '"{\\"a\\":1,\\"a\\":2}"'),
        ("JSON", "NaN", '"NaN"'),
        ("JSON", "1e400", '"1e400"'),
        ("JSON", '"\\ud800"', '"\\"\\\\ud800\\""'),
        ("JSON", "", '""'),
        ("JSON", 5, "5"),
        ("JSON", b"1", '{"$blob":"MQ=="}'),
        ("TEXT", "[1]", '"[1]"'),
    ],
)
def test_a_value_is_sent_like_this(declared: str, stored: object, text: str) -> None:
    assert row(Image((stored,)), shape(declared), OPTIONS) == b'{"__type":"t","a":%b}' % text.encode()


def test_big_integers_go_as_configured() -> None:
    strings = ValueOptions(big_integers="string")
    for value in (EXACT_INTEGER + 1, -EXACT_INTEGER - 1, 2**63 - 1):
        assert sent(value) == value
        assert sent(value, options=strings) == str(value)
    assert sent(EXACT_INTEGER, options=strings) == EXACT_INTEGER
    assert sent(1, "BOOLEAN", strings) is True
    assert key(Image((2**60,)), shape("INTEGER", key=(0,)), strings) == b'["1152921504606846976"]'


def test_text_that_is_not_utf8_is_marked() -> None:
    image = Image(("é\udcff", "fine", '"\udc80"'))
    assert wire(image, shape("TEXT", "TEXT", "JSON"), OPTIONS) == {
        "__type": "t", "a": "é\ufffd", "b": "fine", "c": '"\ufffd"', "__lossy": ["a", "c"],
    }  # fmt: skip


def test_a_row_with_a_cut_value_is_its_key() -> None:
    columns = shape("TEXT", "INTEGER", "BOOLEAN", key=(2, 1))
    image = Image((None, 7, 1), cut=frozenset((0,)))
    assert row(image, columns, OPTIONS) == b'{"__type":"t","b":7,"c":true,"__truncated":true}'
    assert key(image, columns, OPTIONS) == b"[true,7]"
    key_cut = Image(("x", None, 1), cut=frozenset((1,)))
    assert row(key_cut, columns, OPTIONS) == b'{"__type":"t","c":true,"__truncated":true}'
    assert key(key_cut, columns, OPTIONS) is None


def test_a_row_over_the_limit_is_its_key() -> None:
    columns = shape("INTEGER", "TEXT", key=(0,))
    whole = row(Image((1, "x" * 50)), columns, OPTIONS)
    at_limit = ValueOptions(event_limit=len(whole))
    assert row(Image((1, "x" * 50)), columns, at_limit) == whole
    assert row(Image((1, "x" * 51)), columns, at_limit) == b'{"__type":"t","a":1,"__truncated":true}'
    assert row(Image((1, "\0" * 50)), columns, at_limit) == b'{"__type":"t","a":1,"__truncated":true}'
    text_key = shape("TEXT", key=(0,))
    assert row(Image(("x" * 100,)), text_key, at_limit) == b'{"__type":"t","__truncated":true}'
    assert key(Image(("x" * 100,)), text_key, at_limit) is None


def test_a_key_is_a_list_in_the_order_of_the_key() -> None:
    assert key(Image((1, "a", b"\0")), shape("INTEGER", "TEXT", "BLOB", key=(2, 0)), OPTIONS) == b'[{"$blob":"AA=="},1]'
    assert key(Image(("a",), rowid=9), shape("TEXT", rowid=True), OPTIONS) == b"[9]"
    assert key(Image(("a",)), shape("TEXT"), OPTIONS) is None


def test_a_column_named_like_a_marker_stands_for_itself() -> None:
    columns = Shape(1, "t", tuple(Column(n, "TEXT", Affinity.TEXT) for n in ("__type", "__lossy", "__truncated")), (2,))
    assert row(Image(("a", "\udcff", "c")), columns, OPTIONS) == (
        '{"__type":"a","__lossy":"\ufffd","__truncated":"c"}'.encode()
    )
    assert row(Image((None, "b", "c"), cut=frozenset((0,))), columns, OPTIONS) == b'{"__type":"t","__truncated":"c"}'


STORED = st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False) | st.text() | st.binary()


@given(st.lists(st.tuples(st.sampled_from(["", "INTEGER", "TEXT", "REAL"]), STORED), max_size=8))
def test_a_row_can_be_read_back_bit_for_bit(cells: list[tuple[str, object]]) -> None:
    columns = shape(*(declared for declared, _ in cells))
    found = json.loads(row(Image(tuple(value for _, value in cells)), columns, OPTIONS))
    assert list(found) == ["__type", *"abcdefgh"[: len(cells)]]
    for value, got in zip((value for _, value in cells), list(found.values())[1:], strict=True):
        if isinstance(got, dict):
            got = base64.b64decode(got["$blob"]) if "$blob" in got else float(got["$real"])
        assert repr(got) == repr(value)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["BOOLEAN", "JSON", "TEXT"]),
            STORED | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")),
        ),
        max_size=8,
    ),
    st.integers(30, 200),
    st.sampled_from(["number", "string"]),
)
def test_any_row_encodes_within_its_limit(cells: list[tuple[str, object]], limit: int, big: Any) -> None:
    columns = shape(*(declared for declared, _ in cells), key=tuple(range(min(2, len(cells)))))
    image = Image(tuple(value for _, value in cells))
    encoded = row(image, columns, ValueOptions(big, limit))
    assert len(encoded) <= max(limit, len(b'{"__type":"t","__truncated":true}'))
    json.loads(encoded.decode())


@pytest.mark.parametrize("names", [
    ("a", "b"), ('"', "\\"), ("\n", "\x01"), ("é", "日本"), ("__type", "b"), ("v1", "v0"), ("tag", "__struct_fields__"),
    ("\udcff", "\udcfe"), ("", " "), tuple(f"c{number}" for number in range(300)),
])  # fmt: skip
def test_a_row_is_an_object_by_its_columns_whatever_they_are_called(names: tuple[str, ...]) -> None:
    columns = Shape(1, 'the "table"', tuple(Column(name, "", Affinity.BLOB) for name in names))
    image = Image(tuple(range(len(names))))
    expected: dict[str, object] = {"__type": 'the "table"'}
    for name, value in zip(names, image.values, strict=True):
        expected["\ufffd" if name > "\udc00" else name] = value
    assert list(json.loads(row(image, columns, OPTIONS)).items()) == list(expected.items())


@pytest.mark.parametrize(("value", "text"), [
    (7, b"[7]"), (-1, b"[-1]"), (1, b"[true]"), (2**53, b'["9007199254740992"]'), (1.0, b"[1.0]"), ("x", b'["x"]'),
    (None, b"[null]"), (math.inf, b'[{"$real":"Infinity"}]'), (b"", b'[{"$blob":""}]'),
])  # fmt: skip
def test_a_key_of_one_column_is_sent_as_its_value_is(value: SQLiteValue, text: bytes) -> None:
    columns = shape("BOOLEAN" if text == b"[true]" else "", key=(0,))
    assert key(Image((value,)), columns, ValueOptions(big_integers="string")) == text
    if not isinstance(value, (str, bytes)) and value not in (1, math.inf):
        assert key(Image((value,)), columns, OPTIONS) == json.dumps([value]).encode()
