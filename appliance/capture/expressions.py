"""The SQL expressions that triggers are made of, shallow because SQLite limits the depth of an expression."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from appliance.capture.outbox import LONG_TEXT, VALUE_LIMIT, VALUES
from appliance.model import quote_identifier


def any_of(conditions: Iterable[str], *unless: str) -> str:
    """OR conditions as one flat CASE: any number of them has the same depth, and the first that holds ends it.

    Where one of ``unless`` holds (``""`` never does), none counts.
    """
    cases = " ".join(f"WHEN {condition} THEN 1" for condition in conditions)
    first = "".join(f"WHEN {each} THEN 0 " for each in unless if each)
    return f"CASE {first}{cases} ELSE 0 END" if cases else "0"


def of(row: str, name: str) -> str:
    """Name a value of ``NEW`` or ``OLD``, or with ``""`` of the table that is read."""
    return f"{row}.{name}" if row else name


class Value(NamedTuple):
    """One value to capture: its name, whether it can only be a number, whether it can never be one. NULL is neither.

    ``plain``: it is compared by its bytes without being told so.
    """

    name: str
    number: bool = False
    no_number: bool = False
    plain: bool = False

    def of(self, row: str) -> Value:
        """Give the same value of a row, as ``of`` does."""
        return self._replace(name=of(row, self.name))

    @property
    def too_long(self) -> str:
        """Whether it is over the limit. Numbers are told apart first: ``length`` would have to render them."""
        long = f"length(CAST({self.name} AS BLOB))>{VALUE_LIMIT}"
        if self.no_number:
            return long
        return f"{self.name}{'' if self.plain else ' COLLATE BINARY'}>='' AND {long}"

    @property
    def shown(self) -> str:
        """The value, as it is put into a row of ours."""
        if self.number:
            return self.name
        stand_in = str(LONG_TEXT) if self.no_number else "x''"
        return f"CASE WHEN {self.too_long} THEN {stand_in} ELSE {self.name} END"


def equal(pairs: Sequence[tuple[str, str, str]], plain: str = "BINARY") -> str:
    """Say that values are equal, each pair under its collation; ``plain`` needs no mention.

    As one comparison of row values, because SQLite limits the depth of an expression, and inside a subquery counts it
    twice (https://sqlite.org/rowvalue.html).
    """
    left = vector([each for each, _, _ in pairs])
    right = vector([collated(each, collation, plain) for _, each, collation in pairs])
    return f"{left}={right}"


def vector(values: Sequence[str]) -> str:
    """Give one value, or several as a row value."""
    return values[0] if len(values) == 1 else f"({','.join(values)})"


def collated(value: str, collation: str, plain: str = "BINARY") -> str:
    """Give a value the collation that it is to be compared under, unless it is the ``plain`` one."""
    return value if collation == plain else f"{value} COLLATE {quote_identifier(collation)}"


def outbox_row(values: Sequence[Value]) -> tuple[str, list[str], str]:
    """Give the columns, the values and the ``cut`` of one outbox or scratch row."""
    columns = "".join(f",{name}" for name in VALUES[: len(values)])
    cuts = [f"WHEN {value.too_long} THEN 1" for value in values if not value.number and not value.no_number]
    return columns, [value.shown for value in values], f"CASE {' '.join(cuts)} END" if cuts else "NULL"
