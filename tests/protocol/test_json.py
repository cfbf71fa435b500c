"""JSON: strict in, compact out."""

from __future__ import annotations

import json as stdlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import BadJson
from appliance.protocol.json import DEPTH_LIMIT, decode, encode, identity

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def same(a: object, b: object) -> bool:
    return repr(a) == repr(b)  # types, digits, the sign of zero and the order of keys included


@given(VALUES)
def test_what_is_written_reads_back_the_same(value: object) -> None:
    assert same(decode(encode(value)), value)
    assert same(decode(stdlib.dumps(value)), value)
    assert same(stdlib.loads(encode(value)), value)


@given(st.text() | st.text(st.sampled_from('{}[]",:\\u0d8e+-.1aNIt \n\0'), max_size=30) | st.binary())
def test_any_text_is_read_or_is_bad_json(text: str | bytes) -> None:
    try:
        value = decode(text)
    except BadJson:
        return
    assert same(value, stdlib.loads(text))


TEXTS = st.recursive(
    st.sampled_from(["null", "true", "1", "-0", "-0.0", "0.1", "1e400", "1E5", '"a"', '""', '":1"', '"é"', "01", ""])
    | st.integers(-(1 << 65), 1 << 65).map(str)
    | st.sampled_from([str(sign * (1 << bits) + off) for sign in (1, -1) for bits in (63, 64) for off in (-1, 0, 1)])
    | st.floats(allow_nan=True).map(repr),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: "[" + ", ".join(parts) + "]")
        | st.lists(st.tuples(st.sampled_from(["a", "b", "", "é"]), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f'"{key}" :{part}' for key, part in pairs) + "}"
        )
    ),
    max_leaves=12,
)


@given(TEXTS)
def test_a_text_is_read_alike_whether_or_not_it_must_be_read_slowly(text: str) -> None:
    slowly = f'[{text},"\\n"]'  # an escape is for the strict reader
    try:
        value = decode(text)
    except BadJson:
        with pytest.raises(BadJson):
            decode(slowly)
    else:
        assert same(value, decode(slowly)[0])  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "character 1"),
        ("{", "character 2"),
        ('{"a":1,}', "character"),
        ("[1] 2", "character 5"),
        ("NaN", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("1e400", "1e400"),
        ("-1e400", "-1e400"),
        ("1" * 400 + ".0", "out of range"),
        ('{"a":1,"b":2,"a":1}', '"a"'),
        ('[{"x":{"\\u0061":1,"a":2}}]', '"a"'),
        ('"\\ud800"', "surrogate"),
        ('{"\\udc00":1}', "surrogate"),
        ('"\\udc00\\ud800"', "surrogate"),
        ('"\ud800"', "surrogate"),
        ("9223372036854775808", "64 bits"),
        ("-9223372036854775809", "64 bits"),
        ("1" * 100_000, "64 bits"),
        ("[" * 100_000, "deeper than 32"),
        ('{"a":' * 100_000, "deeper than 32"),
        ("[" * 33 + "]" * 33, "deeper than 32"),
        ('{"a":[' * 17 + "]}" * 17, "deeper than 32"),
        ("\ufeff1", "character 1"),
        (b"\xff", "byte 1"),
        ('"\t"', "control character"),
        ("01", "character 2"),
        ("'a'", "character 1"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_named(text: str | bytes, names: str) -> None:
    with pytest.raises(BadJson) as caught:
        decode(text)
    assert names in caught.value.message
    assert len(caught.value.message) < 200


def test_the_limits_themselves_are_allowed() -> None:
    assert decode("[9223372036854775807,-9223372036854775808]") == [(1 << 63) - 1, -(1 << 63)]
    decode("[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT)
    assert decode('"' + "[" * 1000 + '"') == "[" * 1000
    assert len(decode("[" + ",".join(["[]"] * 1000) + "]")) == 1000
    assert decode('"\\ud83d\\ude00"') == "😀"
    assert decode("1.7976931348623157e308") == math.nextafter(math.inf, 0)


def test_numbers_keep_all_their_digits() -> None:
    assert (
        encode([0.1 + 0.2, 5.0, -0.0, 2**63 - 1, 5e-324])
        == b"[0.30000000000000004,5.0,-0.0,9223372036854775807,5e-324]"
    )


@given(VALUES, VALUES)
def test_identity_tells_json_values_apart(a: object, b: object) -> None:
    assert identity(a) == identity(decode(encode(a)))
    if identity(a) == identity(b):
        assert a == b
    assert identity(True) != identity(1) == identity(1.0)
    assert identity([]) != identity({})
