"""The filters of tables: what they match is what SQLite's own expression matches."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from appliance.capture.contents import in_order
from appliance.errors import BadFilter
from appliance.model import UTF_8, Affinity, Column, Image, Op, Shape
from appliance.protocol.collations import equality_key
from appliance.protocol.filters import KEYS_LIMIT, compile_table
from appliance.protocol.operators import ITEMS_LIMIT, OPERATORS

DECLARED = [
    "INTEGER",
    "TEXT",
    "REAL",
    "NUMERIC",
    "BLOB",
    "",
    "BOOLEAN",
    "VARCHAR(10)",
    "DATETIME",
    "JSON",
    "FLOATING POINT",
]


ENCODINGS = [UTF_8, "UTF-16le", "UTF-16be"]


def column(declared: str, collation: str = "BINARY", name: str = "c", encoding: str = UTF_8) -> Column:
    return Column(name, declared, Affinity.of(declared), collation, encoding)


def matches(declared: str, stored: object, wanted: object, collation: str = "BINARY", encoding: str = UTF_8) -> bool:
    """Ask the compiled filter, and SQLite with the filter's own SQL, which must agree."""
    shape = Shape(1, "t", (column(declared, collation, encoding=encoding),))
    compiled = compile_table({"c": wanted}, shape)
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"PRAGMA encoding='{encoding}'")
        db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        db.execute(f"CREATE TABLE t (c {declared} COLLATE {collation})")
        db.execute("INSERT INTO t VALUES (?)", (stored,))
        if isinstance(stored, bytes) and stored.startswith(b"text:"):
            db.execute("UPDATE t SET c = CAST(? AS TEXT)", (stored[5:],))
        (value,) = db.execute("SELECT c FROM t").fetchone()
        expression, parameters = compiled.sql
        (expected,) = db.execute(f"SELECT coalesce({expression}, 0) <> 0 FROM t", parameters).fetchone()
        # Where the value stands without its column's affinity and collation, as in the outbox, nothing may be missed.
        db.execute("CREATE TABLE kept (v)")
        db.execute("INSERT INTO kept SELECT c FROM t")
        possible = all(
            db.execute(f"SELECT coalesce({sql.replace('{}', 'v')}, 0) <> 0 FROM kept", values).fetchone()[0]
            for sql, values, *_ in (each.stored for each in compiled.conditions)
        )
    answer = compiled.matches(Op.CREATE, Image((value,)))
    assert answer == bool(expected), (value, expression, parameters)
    assert possible or not answer, (value, [each.stored for each in compiled.conditions])
    for each in compiled.conditions:
        assert not answer or each.stored.among is None or value in each.stored.among
        assert (
            not answer
            or each.stored.between is None
            or any(in_order(low) <= in_order(value) <= in_order(high) for low, high in each.stored.between)
        ), (value, each.stored)
    for position, keys in compiled.equalities:
        assert not answer or equality_key(shape.columns[position])(value) in keys
    return answer


NUMBERS = st.one_of(
    st.integers(-3, 130),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.sampled_from([2**53, 2**53 + 1, 2**53 - 1, -(2**53) - 1, 2**63 - 1, -(2**63)]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5.0, 42.0, 1e3, 1e15, 1e20, 0.1 + 0.2, float(2**53), float(2**63), 1e-5, 1.7e308]),
)
NUMERIC_TEXT = st.one_of(
    NUMBERS.map(repr),
    st.sampled_from(
        ["42", " 42 ", "1e3", "1E+3", "+5", "-0", "05", "5.", ".5", "0x2A", "1e400", "-1e400", "9223372036854775808",
         "9007199254740993", "9007199254740993.0", "42abc", "", " ", "4 2", "\t7\n", "\u00a042", "1_000", "٤٢", "inf",
         "NaN", "0.30000000000000004", "1e", "5e-1", "42\0"]
    ),
)  # fmt: skip
WORDS = st.one_of(
    st.text(st.sampled_from("aAbBzZ \0é[{_@`~"), max_size=5),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.sampled_from(["true", "false", "TRUE", "True", "1", "0", "a", "A", "a ", "a\0b", "A\0c", "a\0", "\ufffd",
                     "\U0001f600", "\uffff"]),
)  # fmt: skip
TEXT = NUMERIC_TEXT | WORDS
RAW_TEXT = st.binary(max_size=5).map(lambda raw: b"text:" + raw)  # stored as TEXT that need not be UTF-8
STORED = st.one_of(
    st.none(), NUMBERS, TEXT, st.binary(max_size=5), TEXT.map(str.encode), RAW_TEXT, st.just(float("inf")),
    st.sampled_from([0, 1]),
)  # fmt: skip
SCALAR = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)
OPERATOR = st.one_of(
    *(st.fixed_dictionaries({name: SCALAR}) for name in ("eq", "ne", "gt", "gte", "lt", "lte")),
    *(st.fixed_dictionaries({name: st.lists(SCALAR, max_size=4)}) for name in ("in", "nin")),
    *(st.fixed_dictionaries({name: TEXT}) for name in ("contains", "startswith")),
    st.fixed_dictionaries({"null": st.booleans()}),
)
WANTED = st.one_of(SCALAR, st.lists(SCALAR, max_size=4), OPERATOR, st.builds(lambda a, b: a | b, OPERATOR, OPERATOR))


@st.composite
def near(draw: st.DrawFn) -> tuple[object, object]:
    """A stored value, and a filter that is likely to have to do with it."""
    stored = draw(STORED)
    if isinstance(stored, bytes):
        stored_text = stored.removeprefix(b"text:").decode("utf-8", "ignore")
    else:
        stored_text = "" if stored is None else str(stored)
    operand = draw(
        st.sampled_from([stored_text, stored_text.swapcase(), stored_text + " ", stored_text[:2], stored_text[1:]])
        | (st.just(stored) if isinstance(stored, (int, str)) else st.just(stored_text))
    )
    name = draw(st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte", "contains", "startswith", "in", "nin"]))
    if name in ("contains", "startswith"):
        operand = str(operand)
    return stored, {name: [operand] if name in ("in", "nin") else operand}


@settings(max_examples=800)
@given(
    declared=st.sampled_from(DECLARED),
    collation=st.sampled_from(["BINARY", "NOCASE", "RTRIM"]),
    encoding=st.sampled_from(ENCODINGS),
    case=st.tuples(STORED, WANTED) | st.tuples(STORED, OPERATOR) | near(),
)
@example("INTEGER", "BINARY", UTF_8, (42, "42"))
@example("REAL", "BINARY", UTF_8, (float(2**53), {"lt": 2**53 + 1}))
@example("TEXT", "NOCASE", UTF_8, ("a\0b", "A\0C"))
@example("TEXT", "BINARY", UTF_8, (b"text:\xff\xc3\xa9", {"contains": "é"}))
@example("", "BINARY", UTF_8, (b"\xa9\xc3\xa9", {"contains": "é"}))
@example("REAL", "BINARY", UTF_8, (1e20, {"startswith": "1.0e+"}))
@example("TEXT", "BINARY", UTF_8, ("1.0e+20", 1e20))
@example("INTEGER", "BINARY", UTF_8, ("abc", {"gt": 5}))
@example("BLOB", "BINARY", UTF_8, (b"a", {"gt": 5}))
@example("TEXT", "RTRIM", UTF_8, ("a  ", {"gt": "a"}))
@example("", "NOCASE", UTF_8, (b"a", "A"))
@example("TEXT", "BINARY", "UTF-16le", ("15", {"gt": "\ue000"}))
@example("TEXT", "BINARY", "UTF-16be", ("\U0001f600", {"lt": "\ue000"}))
@example("TEXT", "NOCASE", "UTF-16be", ("\U0001f600", {"gt": "\ue000"}))
@example("TEXT", "BINARY", "UTF-16be", ("\uffff", "\ufffd"))
@example("TEXT", "BINARY", "UTF-16le", (b"text:\xff\xff", "\uffff"))
@example("TEXT", "BINARY", "UTF-16le", (b"K\0\0\xff", {"contains": "K"}))
@example("TEXT", "BINARY", "UTF-16le", (b"text:a\0\x05\xda", {"gte": "a\u0100"}))
def test_a_filter_matches_what_its_sql_matches(
    declared: str, collation: str, encoding: str, case: tuple[object, object]
) -> None:
    stored, wanted = case
    if encoding != UTF_8 and isinstance(stored, bytes) and stored.startswith(b"text:"):
        # What is no UTF-16, but for a half of a pair at the end, can be read as other text than it is.
        assume(
            len(stored) % 2 and not re.search("[\ud800-\udfff].", stored[5:].decode(encoding, "surrogatepass"), re.S)
        )
    with suppress(BadFilter):
        matches(declared, stored, wanted, collation, encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(stored=st.text(max_size=4), other=st.text(max_size=4), relation=st.sampled_from(["gt", "gte", "lt", "lte"]))
def test_text_is_in_the_order_that_it_has_in_the_file(encoding: str, stored: str, other: str, relation: str) -> None:
    for operand in (other, stored[:1] + other, stored):
        matches("TEXT", stored, {relation: operand}, "BINARY", encoding)


JSON_VALUES = st.recursive(
    SCALAR | st.text(max_size=3) | st.just(10**30) | st.just(float("inf")) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*OPERATORS, "regex", ""]) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=500)
@given(st.dictionaries(st.sampled_from(["c", "C", "EventType", "d", "x"]), JSON_VALUES, max_size=4))
def test_any_json_either_compiles_or_is_a_bad_filter(filters: dict[str, object]) -> None:
    shape = Shape(1, "t", (column("INTEGER"), column("TEXT", name="d")))
    try:
        compiled = compile_table(filters, shape)
    except BadFilter:
        return
    compiled.matches(Op.UPDATE, Image((1, "a")))


#: At the ends of what a byte or two hold, where the order of bytes is not that of characters.
ENDS = "a~\x7f\xfe\xff\u0100\u01ff\ud7fe\ud7ff\ue000\ufffd\U0001f3fe\U0010ffff"


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(prefix=st.text(ENDS, max_size=3), rest=st.text(ENDS + "\0\uffff", max_size=2))
def test_text_with_a_prefix_is_found_where_it_stands_in_any_encoding(encoding: str, prefix: str, rest: str) -> None:
    compiled = compile_table({"c": {"startswith": prefix}}, Shape(1, "t", (column("TEXT"),)))
    (stored,) = [each.stored for each in compiled.conditions]
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"PRAGMA encoding='{encoding}'")
        db.execute("CREATE TABLE kept(v)")
        db.execute("INSERT INTO kept VALUES(?)", (prefix + rest,))
        found = db.execute(f"SELECT {stored.sql.replace('{}', 'v')} FROM kept", stored.parameters).fetchone()
    assert found == (1,)


@pytest.mark.parametrize(
    ("declared", "stored", "wanted"),
    [
        ("INTEGER", 42, "42"),
        ("INTEGER", 42, " 42 "),
        ("INTEGER", 1000, "1e3"),
        ("INTEGER", 42, {"gt": "41.5"}),
        ("TEXT", "42", 42),
        ("TEXT", "42.0", 42.0),
        ("TEXT", "1.0e+20", 1e20),
        ("", 42, "42"),
        ("", "42", "42"),
        ("", 10, {"gt": "9"}),
        ("BLOB", "42", "42"),
        ("BLOB", 42, 42),
        ("BOOLEAN", 1, True),
        ("BOOLEAN", 1, "true"),
        ("BOOLEAN", 1, "1"),
        ("BOOLEAN", 1, 1),
        ("BOOLEAN", 0, "False"),
        ("BOOLEAN", "true", "true"),
        ("INTEGER", 1, True),
        ("REAL", 5, 5),
        ("REAL", 5, "5"),
        ("INTEGER", 2**53 + 1, str(2**53 + 1)),
        ("TEXT", None, None),
        ("TEXT", None, {"ne": "a"}),
        ("TEXT", None, {"nin": ["a"]}),
        ("TEXT", "a", {"nin": []}),
        ("TEXT", None, [None, "a"]),
        ("TEXT", "abc", {"contains": ""}),
        ("INTEGER", 1423, {"contains": "42"}),
        ("TEXT", "x", {"gte": "a", "lt": "y", "null": False}),
    ],
)
def test_these_match(declared: str, stored: object, wanted: object) -> None:
    assert matches(declared, stored, wanted)


@pytest.mark.parametrize(
    ("declared", "stored", "wanted"),
    [
        ("INTEGER", 42, "0x2A"),
        ("INTEGER", 42, "42abc"),
        ("INTEGER", 2**53 + 1, float(2**53)),
        ("TEXT", "abc", "ABC"),
        ("TEXT", "a", "a "),
        ("INTEGER", "abc", {"gt": 5}),
        ("INTEGER", 5, {"lt": "abc"}),
        ("BLOB", b"b", {"gt": "a"}),
        ("BLOB", b"a", "a"),
        ("BLOB", 42, "42"),
        ("BLOB", 42, {"gt": "41"}),
        ("TEXT", None, {"contains": ""}),
        ("TEXT", None, {"gt": ""}),
        ("TEXT", "a", []),
        ("TEXT", None, {"ne": None}),
        ("BOOLEAN", 0, "true"),
    ],
)
def test_these_do_not_match(declared: str, stored: object, wanted: object) -> None:
    assert not matches(declared, stored, wanted)


def test_a_nocase_column_matches_without_ascii_case_and_rtrim_without_trailing_spaces() -> None:
    assert matches("TEXT", "Alice", "aLICE", "NOCASE")
    assert matches("TEXT", "Alice", {"gte": "ALICE", "lte": "alice"}, "NOCASE")
    assert not matches("TEXT", "É", "é", "NOCASE")
    assert matches("TEXT", "alice  ", "alice", "RTRIM")
    assert not matches("TEXT", "alice\t", "alice", "RTRIM")


def test_contains_and_startswith_compare_bytes_whatever_the_collation() -> None:
    assert not matches("TEXT", "Alice", {"startswith": "al"}, "NOCASE")
    assert not matches("TEXT", "Alice", {"contains": "LIC"}, "NOCASE")
    assert matches("TEXT", "Alice", {"startswith": "Al"}, "NOCASE")


SHAPE = Shape(
    1,
    "shop",
    (column("INTEGER", name="id"), column("TEXT", name="Name"), column("TEXT", "lower_de", "sorted"),
     column("TEXT", name="note")),
    (0,),
)  # fmt: skip
ROW = Image((1, "ada", "x", None))


def refusal(filters: dict[str, object], hidden: tuple[str, ...] = ()) -> str:
    with pytest.raises(BadFilter) as caught:
        compile_table(filters, SHAPE, hidden)
    return caught.value.message


def test_no_filter_matches_every_event() -> None:
    everything = compile_table({}, SHAPE)
    assert all(everything.matches(op, ROW) for op in (Op.CREATE, Op.UPDATE, Op.DELETE))
    assert everything.sql == ("1", ())
    assert everything.equalities == ()


def test_event_type_is_one_or_a_list() -> None:
    one = compile_table({"EventType": "update"}, SHAPE)
    assert [one.matches(op, ROW) for op in (Op.CREATE, Op.UPDATE, Op.DELETE)] == [False, True, False]
    two = compile_table({"EventType": ["create", "delete"], "name": "ada"}, SHAPE)
    assert [two.matches(op, ROW) for op in (Op.CREATE, Op.UPDATE, Op.DELETE)] == [True, False, True]
    for bad in ("updated", "new-message", "", [], ["update", 1], None, {"eq": "update"}, "UPDATE"):
        assert "EventType" in refusal({"EventType": bad})
    assert 'did you mean "update"' in refusal({"EventType": "updated"})


def test_a_column_is_found_without_ascii_case_and_named_when_it_is_not_there() -> None:
    assert compile_table({"NAME": "ada"}, SHAPE).matches(Op.CREATE, ROW)
    assert refusal({"nmae": "ada"}) == '"nmae" is not a column of "shop" to filter by; did you mean "Name"?'
    assert '; there are "' in refusal({"qqqqqqqq": 1})
    assert "rowid" in refusal({"rowid": 1})


def test_a_hidden_column_is_refused_and_never_suggested() -> None:
    assert '"NOTE"' in refusal({"NOTE": "x"}, ("note",))
    assert '"password"' in refusal({"password": "x"}, ("password",))
    assert "did you mean" not in refusal({"notes": "x"}, ("note",))


def test_equalities_name_what_can_match_and_are_never_empty() -> None:
    compiled = compile_table({"id": [1, "2"], "name": {"in": [], "ne": "a"}, "note": {"null": True}}, SHAPE)
    assert compiled.equalities == ((0, frozenset((1, 2))), (3, frozenset((None,))))
    assert not compiled.matches(Op.CREATE, ROW)


def test_a_collation_of_an_application_is_refused() -> None:
    assert "lower_de" in refusal({"sorted": "x"})
    assert "lower_de" in refusal({"sorted": {"null": True}})


@pytest.mark.parametrize(
    "wanted",
    [
        {}, {"gt": None}, {"gt": [1]}, {"in": "a"}, {"in": [[1]]}, [{}], {"eq": []}, {"contains": 1},
        {"contains": None},
        {"null": 1}, {"null": "true"}, {"like": "a"}, True, {"eq": {"eq": 1}}, [0] * (ITEMS_LIMIT + 1),
    ],
)  # fmt: skip
def test_a_bad_operand_is_refused_naming_the_column(wanted: object) -> None:
    assert '"Name"' in refusal({"name": wanted})


def test_an_unknown_operator_names_the_nearest() -> None:
    assert 'did you mean "startswith"' in refusal({"id": {"startsWith": "a"}})


def test_the_limits_of_a_filter_are_kept() -> None:
    many = tuple(column("INTEGER", name=f"c{number}") for number in range(KEYS_LIMIT + 1))
    wide = Shape(1, "wide", many)
    compile_table(dict.fromkeys([each.name for each in many[:KEYS_LIMIT]], 1), wide)
    with pytest.raises(BadFilter, match=str(KEYS_LIMIT)):
        compile_table(dict.fromkeys([each.name for each in many], 1), wide)
    compile_table({"c0": list(range(ITEMS_LIMIT))}, wide)


def test_the_largest_filter_is_still_one_sql_expression() -> None:
    columns = tuple(Column(f"c{number}", "", Affinity.BLOB) for number in range(KEYS_LIMIT))
    filters = {each.name: [str(item) for item in range(ITEMS_LIMIT)] for each in columns}
    expression, parameters = compile_table(filters, Shape(1, "t", columns)).sql
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE TABLE t ({', '.join(each.name for each in columns)})")
        assert db.execute(f"SELECT 1 FROM t WHERE {expression}", parameters).fetchall() == []


def test_a_cut_value_matches_only_what_is_known_of_it() -> None:
    image = Image((1, None, "x", None), cut=frozenset((1,)))
    answers = {
        name: compile_table({"name": {name: operand}}, SHAPE).matches(Op.CREATE, image)
        for name, operand in {
            "eq": "a", "ne": "a", "gt": "", "gte": "", "lt": "z", "lte": "z", "in": ["a", None], "nin": ["a", None],
            "contains": "", "startswith": "", "null": True,
        }.items()
    }  # fmt: skip
    assert set(answers) == set(OPERATORS)
    assert {name for name, answer in answers.items() if answer} == {"ne", "nin"}
    assert compile_table({"name": {"null": False}}, SHAPE).matches(Op.CREATE, image)
    assert compile_table({"id": 1}, SHAPE).matches(Op.CREATE, image)
    assert not compile_table({"name": None}, SHAPE).matches(Op.CREATE, image)


def test_the_sql_is_this_word_for_word() -> None:
    shape = Shape(1, "t", (column("INTEGER", name='a"b'), column("", name="c")))
    compiled = compile_table({'a"b': [1, None], "c": {"gt": "9", "startswith": "x", "ne": 5, "null": False}}, shape)
    assert compiled.sql == (
        '("a""b" IS ? OR "a""b" IS ?)'
        ' AND (typeof("c") = \'text\' AND "c" > ? OR typeof("c") IN (\'integer\', \'real\') AND "c" > ?)'
        ' AND (instr("c", ?) = 1) AND ("c" IS NOT ?) AND ("c" IS NOT NULL)',
        (1, None, "9", 9, "x", 5),
    )
    assert compiled.equalities == ((0, frozenset((1, None))),)
