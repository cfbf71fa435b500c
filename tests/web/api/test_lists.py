"""Lists: pages, order, filters and fields."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance.store.tables import rows
from appliance.store.tables.making import NewColumn
from appliance.store.tables.resources import Resources
from appliance.web.api import query, reading, tables
from tests.web.api.application import Served, code, ids, served

#: A path and a query (RFC 3986, sections 3.3 and 3.4).
ADDRESS = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*")

TABLE = "CREATE TABLE t(k INTEGER PRIMARY KEY, v)"
NUMBERS = (
    "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i, i % 3 FROM n"
)


async def every_page(live: Served, path: str) -> list[list[str]]:
    """Follow the links from page to page."""
    pages = []
    following: str | None = path
    while following is not None:
        answer = await live.ask("GET", following)
        pages.append(ids(answer))
        following = answer.json()["links"].get("next")
    return pages


async def test_pages_follow_each_other_by_key(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", TABLE, NUMBERS.format(7)) as live:
        assert await every_page(live, "/api/t?page[size]=3") == [["1", "2", "3"], ["4", "5", "6"], ["7"]]
        assert await every_page(live, "/api/t?page[size]=7") == [list("1234567")]
        assert await every_page(live, "/api/t?page[size]=4&sort=-k") == [list("7654"), list("321")]
        # 3 and 6 have 0; 1, 4 and 7 have 1; 2 and 5 have 2
        assert await every_page(live, "/api/t?page[size]=3&sort=v,-k") == [list("637"), list("415"), list("2")]
        assert ids(await live.ask("GET", "/api/t?page[size]=2&filter[v]=1")) == ["1", "4"]
        assert await every_page(live, "/api/t?page[size]=2&filter[v]=1") == [["1", "4"], ["7"]]


async def test_pages_have_numbers_too(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", TABLE, NUMBERS.format(5)) as live:
        second = await live.ask("GET", "/api/t?page[number]=2&page[size]=2&sort=-k")

        assert ids(second) == ["3", "2"]
        links = second.json()["links"]
        assert ids(await live.ask("GET", links["next"])) == ["1"]
        assert ids(await live.ask("GET", links["prev"])) == ids(await live.ask("GET", links["first"])) == ["5", "4"]


async def test_links_are_addresses_whatever_a_request_is_written_like(tmp_path: Path) -> None:
    async with served(
        tmp_path / "live.db", 'CREATE TABLE "a [b]"(k INTEGER PRIMARY KEY)', "INSERT INTO 'a [b]' VALUES(1)"
    ) as live:
        answer = await live.ask("GET", "/api/A%20[b]?page[size]=1&page[number]=2&filter[k][in]=1,2")

        links = answer.json()["links"]
        assert links["prev"].startswith("/api/a%20%5Bb%5D?page%5Bsize%5D=1&")
        assert all(ADDRESS.fullmatch(each) for each in links.values())
        assert ids(await live.ask("GET", links["prev"])) == ["1"]


async def test_a_token_in_the_query_is_in_no_link(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", TABLE, NUMBERS.format(5)) as live:
        answer = await live.client.get(f"/api/t?page[size]=1&token={live.token(admin=True)}")

        assert answer.status_code == 200
        assert "token" not in answer.text


ROWS = (
    "CREATE TABLE t(k INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, n INTEGER, on_ BOOLEAN, EventType TEXT)",
    "INSERT INTO t VALUES(1,'Ann',10,1,'x'), (2,'bob',20,0,'create'), (3,NULL,NULL,NULL,NULL), (4,'a,b',30,1,'y')",
)


@pytest.mark.parametrize("schema", ["k INTEGER PRIMARY KEY", "k TEXT PRIMARY KEY", "k"])
@pytest.mark.parametrize("sort", ["v", "-v", "w,-v"])
async def test_a_list_that_is_sorted_by_long_values_has_a_next_page_that_can_be_asked_for(
    tmp_path: Path, schema: str, sort: str
) -> None:
    rows = [f"INSERT INTO t VALUES({n}, CAST(zeroblob(100000) AS TEXT) || {n // 2}, x'ff')" for n in range(6)]
    async with served(tmp_path / "live.db", f"CREATE TABLE t({schema}, v, w)", *rows) as live:
        whole = ids(await live.ask("GET", f"/api/t?sort={sort}"))
        found, path = [], f"/api/t?sort={sort}&page[size]=1"
        while path:
            answer = await live.ask("GET", path)
            found += ids(answer)
            path = answer.json()["links"].get("next", "")
            assert len(path) < 1000

        assert found == whole
        assert len(whole) == 6


@pytest.mark.parametrize("change", ["UPDATE t SET v = v || 'x' WHERE k = 1", "DELETE FROM t WHERE k = 1"])
async def test_a_page_that_begins_behind_a_row_that_is_another_by_now_is_refused(tmp_path: Path, change: str) -> None:
    rows = [f"INSERT INTO t VALUES({n}, CAST(zeroblob(100000) AS TEXT) || {n})" for n in (1, 2)]
    async with served(tmp_path / "live.db", "CREATE TABLE t(k INTEGER PRIMARY KEY, v)", *rows) as live:
        path = (await live.ask("GET", "/api/t?sort=v&page[size]=1")).json()["links"]["next"]
        live.sql(change)
        answer = await live.ask("GET", path)

        assert code(answer) == (400, "bad-request")
        assert answer.json()["errors"][0]["source"] == {"parameter": "page[after]"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("filter[name]=ANN", "1"),
        ("filter[NAME]=ann", "1"),
        ("filter[n]=20", "2"),
        ("filter[n][gt]=10&filter[n][lte]=30", "24"),
        ("filter[n][in]=10,30", "14"),
        ('filter[name][in]=["a,b","bob"]', "24"),
        ("filter[n][nin]=10,30", "23"),
        ("filter[n][ne]=10", "234"),
        ("filter[name][null]=true", "3"),
        ("filter[name][null]=false", "124"),
        ("filter[name][contains]=b", "24"),
        ("filter[name][startswith]=A", "1"),
        ("filter[on_]=true", "14"),
        ("filter[EventType]=create", "2"),
        ('filter={"n":{"gt":10},"name":["bob","a,b"]}', "24"),
        ('filter={"n":null}', "3"),
        ("filter[n]=20&filter[name]=ann", ""),
        ("sort=name", "3412"),
        ("sort=-n", "4213"),
    ],
)
async def test_filters_are_those_of_subscriptions(tmp_path: Path, query: str, expected: str) -> None:
    async with served(tmp_path / "live.db", *ROWS) as live:
        assert ids(await live.ask("GET", f"/api/t?{query}")) == list(expected)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("filter[x]=1", "filter[x]"),
        ("filter[n][above]=1", "filter[n][above]"),
        ("filter[n][gt]=1&filter[N][above]=2", "filter[N][above]"),
        ("filter[EventType][above]=create", "filter[EventType][above]"),
        ('filter={"EventType":{"above":1}}', "filter"),
        ("filter[n][null]=maybe", "filter[n][null]"),
        ("filter[n][in]=[", "filter[n][in]"),
        ("filter[n]=1&filter[n][eq]=2", "filter[n][eq]"),
        ("filter=1", "filter"),
        ("filter=x", "filter"),
        ("sort=x", "sort"),
        ("sort=k,k,k,k,k,k,k,k,k", "sort"),
        ("page[size]=0", "page[size]"),
        ("page[size]=1001", "page[size]"),
        ("page[size]=x", "page[size]"),
        ("page[number]=0", "page[number]"),
        ("page[number]=101", "page[number]"),
        ("page[number]=1&page[after]=x", "page[number]"),
        ("page[after]=x", "page[after]"),
        ("page[after]=W10", "page[after]"),
        ("page[before]=x", "page[before]"),
        ("include=x", "include"),
        ("fields[t]=x", "fields[t]"),
        ("limit=1", "limit"),
        ("sort=k&sort=n", "sort"),
    ],
)
async def test_a_parameter_at_fault_is_named(tmp_path: Path, query: str, parameter: str) -> None:
    async with served(tmp_path / "live.db", *ROWS) as live:
        answer = await live.ask("GET", f"/api/t?{query}")

        assert answer.status_code == 400
        assert answer.json()["errors"][0]["source"] == {"parameter": parameter}


async def test_a_place_in_one_order_is_none_in_another(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", *ROWS) as live:
        following = (await live.ask("GET", "/api/t?page[size]=1")).json()["links"]["next"]

        assert code(await live.ask("GET", following + "&sort=name")) == (400, "bad-request")


async def test_fields_leave_out_the_others(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", *ROWS) as live:
        row = (await live.ask("GET", "/api/t/1?fields[t]=n,NAME&fields[u]=x")).json()["data"]
        none = (await live.ask("GET", "/api/t?fields[t]=&page[size]=1")).json()["data"][0]

        assert row["attributes"] == {"name": "Ann", "n": 10}
        assert none["attributes"] == {}


async def test_fields_leave_out_a_column_called_id_that_is_not_the_key(tmp_path: Path) -> None:
    made = (
        "CREATE TABLE of_two(tenant TEXT, id TEXT, a, PRIMARY KEY(tenant, id))",
        "INSERT INTO of_two VALUES('x','y',2)",
    )
    async with served(tmp_path / "live.db", *made) as live:
        some = (await live.ask("GET", "/api/of_two?fields[of_two]=a")).json()["data"][0]
        every = (await live.ask("GET", "/api/of_two")).json()["data"][0]

        assert some["attributes"] == {"a": 2}
        assert list(every["attributes"].items()) == [("tenant", "x"), ("id", "y"), ("a", 2)]


async def test_a_list_that_would_read_too_much_is_given_up(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", TABLE, NUMBERS.format(20_000), query_s=0.0) as live:
        assert code(await live.ask("GET", "/api/t?filter[v]=x")) == (503, "unavailable")


async def test_who_may_read_few_of_many_rows_gets_them_though_it_takes_long_by_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = (
        "INSERT INTO note(text, user_account_id) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        "WHERE i < 5000) SELECT i, CASE i % 1000 WHEN 7 THEN 'ann' ELSE 'bob' END FROM n"
    )
    async with served(tmp_path / "live.db", fill, tables={"note": (NewColumn("text", "text"),)}) as live:
        usual = ids(await live.ask("GET", "/api/note", "ann"))
        monkeypatch.setattr(tables, "SHARE", 0.0)
        first = await live.ask("GET", "/api/note?page[size]=2", "ann")
        second = await live.ask("GET", first.json()["links"]["next"], "ann")
        monkeypatch.undo()
        third = await live.ask("GET", second.json()["links"]["next"], "ann")

        assert len(usual) == 5
        assert [*ids(first), *ids(second), *ids(third)] == usual


async def test_a_filter_that_few_of_many_rows_match_is_answered_though_the_key_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = "CREATE TABLE t(k TEXT PRIMARY KEY, v)"
    fill = (
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
        "SELECT 'k' || (i * 7 % 5003), i % 1000 FROM n"
    )
    async with served(tmp_path / "live.db", made, fill) as live:
        usual = ids(await live.ask("GET", "/api/t?filter[v]=7"))
        monkeypatch.setattr(tables, "SHARE", 0.0)
        through = ids(await live.ask("GET", "/api/t?filter[v]=7"))

        assert len(usual) == 5
        assert through == usual


def test_a_table_is_read_through_without_an_index_in_the_same_order() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE t(k TEXT PRIMARY KEY, v)")
        of = Resources(lambda table, column, key: False).read(db)["t"]
        order = rows.through(query.ordered(query.Query(), of))
        sql, bound = rows.page_sql(of, [rows.after(order, ("a", 1))], order, 10)
        steps = [step for *_, step in db.execute(f"EXPLAIN QUERY PLAN {sql}", bound)]

    assert len(steps) == 2
    assert not any("INDEX" in step for step in steps)


async def test_a_total_is_counted_only_if_asked_for_and_only_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "TOTAL_LIMIT", 5)
    async with served(tmp_path / "live.db", TABLE, NUMBERS.format(7)) as live:

        async def meta(query: str) -> Any:
            return (await live.ask("GET", f"/api/t?page[size]=2{query}")).json().get("meta")

        assert await meta("") is await meta("&page[total]=false") is None
        assert await meta("&page[total]=true") == {"total": 5, "exact": False}
        assert await meta("&page[total]=true&filter[k][lte]=5") == {"total": 5, "exact": True}
        following = (await live.ask("GET", "/api/t?page[size]=2&page[total]=true&filter[v]=1")).json()["links"]["next"]
        assert (await live.ask("GET", following)).json()["meta"] == {"total": 3, "exact": True}
        assert code(await live.ask("GET", "/api/t?page[total]=1")) == (400, "bad-request")


async def test_a_total_is_of_the_rows_that_may_be_read(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables={"todo": ()}) as live:
        for subject in ("ann", "ann", "bob"):
            await live.create("todo", subject)
        answers = [(await live.ask("GET", "/api/todo?page[total]=true", who)).json() for who in ("ann", "bob", None)]
        assert [answer["meta"]["total"] for answer in answers] == [2, 1, 3]


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("page[size]=abc", "page[size] must be a whole number from 1 to 1000"),
        ("page[total]=1", "page[total] must be true or false"),
        ("filter=(paid=false)", 'filter must be a JSON object, such as {"paid":false}; or write filter[paid]=false'),
        ("filter=[1]", 'filter must be a JSON object, such as {"paid":false}; or write filter[paid]=false'),
        ("paid=eq.false", "to filter by a column write filter[paid]=value"),
        ("page[before]=1", 'did you mean "page[number]"?; to filter by a column write filter[column]=value'),
        ("filter[Nmae]=x", '"Nmae" is not a column of "t" to filter by; did you mean "name"?'),
    ],
)
async def test_a_parameter_at_fault_is_refused_with_what_to_write(tmp_path: Path, query: str, detail: str) -> None:
    async with served(tmp_path / "live.db", *ROWS) as live:
        answer = await live.ask("GET", f"/api/t?{query}")

        assert detail in answer.json()["errors"][0]["detail"]
