"""The SQL expressions that triggers are made of, shallow because SQLite limits the depth of an expression."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appliance.capture.outbox import VALUE_LIMIT, VALUES
from appliance.model import quote_identifier


def any_of(conditions: Iterable[str]) -> str:
    """OR conditions as one flat CASE: any number of them has the same depth, and the first that holds ends it."""
    cases = " ".join(f"WHEN {condition} THEN 1" for condition in conditions)
    return f"CASE {cases} ELSE 0 END" if cases else "0"


def too_long(value: str) -> str:
    """Whether a value is over the limit. Numbers are told apart first: ``length`` would have to render them."""
    return f"{value} COLLATE BINARY>='' AND length(CAST({value} AS BLOB))>{VALUE_LIMIT}"


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


def outbox_row(values: Sequence[str]) -> tuple[str, list[str], str]:
    """Give the columns, the values and the ``cut`` of one outbox or scratch row."""
    columns = "".join(f",{name}" for name in VALUES[: len(values)])
    shown = [f"CASE WHEN {too_long(value)} THEN x'' ELSE {value} END" for value in values]
    cut = f"CASE {' '.join(f'WHEN {too_long(value)} THEN 1' for value in values)} END" if values else "NULL"
    return columns, shown, cut
