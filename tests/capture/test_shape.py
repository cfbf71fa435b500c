"""What of a table is captured, and what is said of it that is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.capture.shape import Table, TableColumn, UniqueIndex, dump, load, secrets_of, shape_of, warnings
from appliance.model import UTF_8, Affinity, Column, Shape
from appliance.store.tables.secrecy import Secrecy


def column(name: str, declared: str = "", key: int = 0, *, virtual: bool = False) -> TableColumn:
    return TableColumn(name, declared, "BINARY", key, virtual)


def hidden(*names: str):  # type: ignore[no-untyped-def]
    return lambda _table, name, _key: name in names


def test_virtual_and_secret_columns_are_left_out() -> None:
    table = Table("t", (column("id", "INT", 1), column("v", virtual=True), column("password"), column("b", "BOOL")))
    shape = shape_of(table, 7, hidden("password"))
    assert shape == Shape(7, "t", (Column("id", "INT", Affinity.INTEGER), Column("b", "BOOL", Affinity.NUMERIC)), (0,))


def test_the_key_is_in_the_keys_order() -> None:
    table = Table("t", (column("a", key=2), column("x"), column("b", key=1)))
    assert shape_of(table, 1, hidden()).key == (2, 0)


def test_a_key_that_holds_a_secret_is_no_key() -> None:
    table = Table("t", (column("a", key=2), column("b", key=1)), without_rowid=True, rowid=None)
    shape = shape_of(table, 1, hidden("b"))
    assert (shape.key, shape.rowid) == ((), False)
    assert "REPLACE not covered" in warnings(table, shape)[0]


def test_a_pattern_of_secrets_takes_a_standard_table_its_key_as_little_as_any_other() -> None:
    columns = (column("id", "INTEGER", 1), column("reference_id", "TEXT"), column("room_id", "TEXT"))
    shape = shape_of(Table("t", columns, standard=True), 1, Secrecy(["*id"], []))
    assert [each.name for each in shape.columns] == ["reference_id"]
    assert shape.key == (0,)


@pytest.mark.parametrize(
    ("table", "kept"),
    [
        ("t", ["reference_id", "permission", "user_account_id"]),
        (
            "t_t_id_has_usergroup_usergroup_id",
            ["reference_id", "permission", "user_account_id", "t_id", "usergroup_id"],
        ),
    ],
)
def test_a_pattern_of_secrets_takes_a_standard_table_nothing_that_rights_stand_on(table: str, kept: list[str]) -> None:
    names = ("id", "reference_id", "permission", "user_account_id", "t_id", "usergroup_id")
    columns = tuple(column(name) for name in names if name != "usergroup_id" or table != "t")
    made = Table(table, columns, standard=True)
    assert [each.name for each in shape_of(made, 1, Secrecy(["*"], [])).columns] == kept
    declared = Secrecy([f"{table}.{name}" for name in names], [])
    assert shape_of(made, 1, declared).columns == ()
    assert secrets_of(made, declared) == {each.name for each in columns}


def test_a_table_without_a_key_is_captured_with_its_rowid() -> None:
    assert shape_of(Table("t", (column("a"),)), 1, hidden()).rowid
    nameless = Table("t", (column("rowid"), column("oid"), column("_rowid_")), rowid=None)
    assert not shape_of(nameless, 1, hidden()).rowid
    assert len(warnings(nameless, shape_of(nameless, 1, hidden()))) == 1


def test_any_in_a_strict_table_has_no_affinity() -> None:
    columns = (column("a", "ANY"), column("b", "any"), column("c", "TEXT"))
    strict = shape_of(Table("t", columns, strict=True), 1, hidden())
    assert [each.affinity for each in strict.columns] == [Affinity.BLOB, Affinity.BLOB, Affinity.TEXT]
    assert shape_of(Table("t", columns), 1, hidden()).columns[0].affinity is Affinity.NUMERIC


@pytest.mark.parametrize("width", [8, 9])
def test_a_key_of_many_columns_is_captured_but_its_replaces_are_not(width: int) -> None:
    table = Table("t", tuple(column(f"k{place}", key=place) for place in range(1, width + 1)), without_rowid=True)
    assert bool(warnings(table, shape_of(table, 1, hidden()))) is (width > 8)


def test_a_unique_index_on_an_expression_is_told() -> None:
    table = Table("t", (column("a"),), (UniqueIndex((("a", "BINARY"),), expression=True),))
    assert "expression" in warnings(table, shape_of(table, 1, hidden()))[0]


NAMES = st.text(st.characters(codec="utf-8"))
COLUMNS = st.builds(Column, NAMES, NAMES, st.sampled_from(Affinity), NAMES)


@given(
    st.builds(
        Shape, st.integers(), NAMES, st.lists(COLUMNS).map(tuple), st.lists(st.integers()).map(tuple), st.booleans()
    )
)
def test_a_shape_that_is_written_down_can_be_read(shape: Shape) -> None:
    assert load(shape.id, shape.table, dump(shape), UTF_8) == shape
