"""What is counted, is counted once and under words that stay few."""

from __future__ import annotations

from appliance.counters import OTHER_TABLES, TABLES_BY_NAME, Counters, Histogram
from appliance.model import Change, Message, Op, Shape


def change(table: str, op: Op = Op.CREATE) -> Change:
    return Change(1, op, Shape(1, table, ()), None, None)


def test_events_are_counted_by_table_and_kind() -> None:
    counters = Counters()

    counters.count_read([change("a"), change("a", Op.DELETE), change("a"), Message(4, "lobby", "x", b"1")])
    counters.count_read([change("b")])

    assert counters.changes == {("a", Op.CREATE): 2, ("a", Op.DELETE): 1, ("b", Op.CREATE): 1}
    assert counters.messages == 1


def test_beyond_so_many_tables_names_are_not_kept() -> None:
    counters = Counters()
    tables = TABLES_BY_NAME * 3 + 50

    counters.count_read([change(f"t{number}") for number in range(tables)])
    counters.count_read([change("t0")])

    assert counters.changes["t0", Op.CREATE] == 2
    assert counters.changes[OTHER_TABLES, Op.CREATE] == 50
    assert sum(counters.changes.values()) == tables + 1


def test_a_histogram_counts_each_time_in_the_first_bucket_that_holds_it() -> None:
    histogram = Histogram((0.1, 1.0))

    for seconds in (0.05, 0.1, 0.5, 2.0):
        histogram.observe(seconds)

    assert histogram.counts == [2, 1, 1]
    assert histogram.sum == 2.65
