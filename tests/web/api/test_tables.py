"""Rows as JSON:API resources: what is sent, what is taken, and how it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pytest
import trio

from appliance.protocol.values import ValueOptions
from appliance.store.tables.making import NewColumn
from appliance.web.api import headers, reading
from tests.web.api.application import MEDIA, code, ids, served

TODO = {"todo": (NewColumn("title", "text", required=True), NewColumn("done", "boolean"), NewColumn("tags", "json"))}


def create(schema: str) -> str:
    """Give the statement that makes a table; what is behind the closing parenthesis may be written, too."""
    return f"CREATE TABLE t({schema}" + ("" if schema.endswith(("ROWID", "STRICT")) else ")")


async def test_a_row_is_created_read_changed_and_deleted(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        created = await live.create("todo", "ann", title="Buy milk", done=False, tags=["a", 1])
        row = created.json()["data"]
        path = row["links"]["self"]

        assert created.status_code == 201
        assert created.headers["Content-Type"] == MEDIA
        assert created.headers["Location"] == path == f"/api/todo/{row['id']}"
        assert created.headers["ETag"] == (await live.ask("GET", path, "ann")).headers["ETag"]
        assert row["type"] == "todo"
        assert row["attributes"] | {"created_at": "", "updated_at": ""} == {
            "reference_id": row["id"], "version": 1, "created_at": "", "updated_at": "", "permission": 2097057,
            "user_account_id": "ann", "title": "Buy milk", "done": False, "tags": ["a", 1],
        }  # fmt: skip
        assert (await live.ask("GET", path, "ann")).json()["data"] == row

        changed = await live.change("todo", row["id"], "ann", done=True, tags=None)
        assert changed.status_code == 200
        assert changed.headers["ETag"] != created.headers["ETag"]
        attributes = changed.json()["data"]["attributes"]
        assert (attributes["done"], attributes["tags"], attributes["version"]) == (True, None, 2)
        assert attributes["updated_at"].endswith("Z")

        assert (await live.ask("DELETE", path, "ann")).status_code == 204
        assert code(await live.ask("GET", path, "ann")) == (404, "not-found")


async def test_every_write_is_an_event_in_the_order_of_the_answers(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        before = (await live.store.position()).id
        row_id = (await live.create("todo", "ann", title="a")).json()["data"]["id"]
        await live.change("todo", row_id, "ann", title="b")
        await live.ask("DELETE", f"/api/todo/{row_id}", "ann")

        found = live.sql("SELECT op FROM _appliance_outbox WHERE id > ? AND op IN (1, 2, 3)", before)
        assert found == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("declared", "sent"),
    [
        ("INTEGER", 9007199254740993),
        ("REAL", 0.1),
        ("REAL", {"$real": "-Infinity"}),
        ("TEXT", "ä\u0000b"),
        ("BLOB", {"$blob": "AP8="}),
        ("BOOLEAN", True),
        ("JSON", {"a": [1, None, {"b": "c"}]}),
        ("JSON", "text"),
        ("JSON", True),
        ("INTEGER", "not a number"),
        ("", 1),
        ("", "1"),
        ("TEXT", None),
    ],
)
async def test_a_value_is_taken_in_the_form_in_which_it_is_sent(tmp_path: Path, declared: str, sent: Any) -> None:
    async with served(tmp_path / "live.db", f"CREATE TABLE t(k INTEGER PRIMARY KEY, v {declared})") as live:
        created = await live.create("t", v=sent)
        again = await live.change("t", "1", v=created.json()["data"]["attributes"]["v"])

        assert created.json()["data"]["attributes"] == {"k": 1, "v": sent}
        assert again.headers["ETag"] == created.headers["ETag"]
        assert live.sql("SELECT count(*) FROM _appliance_outbox WHERE op = 2") == [(0,)]


@pytest.mark.parametrize(
    ("schema", "values", "row_id"),
    [
        ("id INTEGER PRIMARY KEY, v", "7, 1", "7"),
        ("k TEXT PRIMARY KEY, v", "'a/b c', 1", "a/b c"),
        ("k TEXT PRIMARY KEY, v", "'[a', 1", '["[a"]'),
        ("k PRIMARY KEY, v", "7, 1", "[7]"),
        ("k BLOB PRIMARY KEY, v", "x'00ff', 1", '[{"$blob":"AP8="}]'),
        ("k REAL PRIMARY KEY, v", "0.5, 1", "[0.5]"),
        ("a, b TEXT, v, PRIMARY KEY(b, a)", "1, 'x', 1", '["x",1]'),
        ("a, b TEXT, v, PRIMARY KEY(b, a)) WITHOUT ROWID", "1, 'x', 1", '["x",1]'),
        ("k TEXT PRIMARY KEY, v", "'..', 1", '[".."]'),
        ("k TEXT PRIMARY KEY, v", "'.', 1", '["."]'),
        ("k TEXT PRIMARY KEY, v", "char(10, 97, 10, 10), 1", "\na\n\n"),
        ("v", "1", "1"),
        ("k TEXT COLLATE NOCASE PRIMARY KEY, v", "'Aé', 1", "Aé"),
    ],
)
async def test_every_kind_of_key_is_an_id(tmp_path: Path, schema: str, values: str, row_id: str) -> None:
    async with served(tmp_path / "live.db", create(schema), f"INSERT INTO t VALUES({values})") as live:
        assert ids(await live.ask("GET", "/api/t")) == [row_id]
        path = (await live.ask("GET", "/api/t")).json()["data"][0]["links"]["self"]

        assert (await live.ask("GET", path)).json()["data"]["id"] == row_id
        data = {"type": "t", "id": row_id, "attributes": {"v": 2}}
        assert (await live.write("PATCH", path, data)).json()["data"]["attributes"]["v"] == 2
        assert (await live.ask("DELETE", path)).status_code == 204
        assert live.sql("SELECT * FROM t") == []


async def test_a_client_may_name_the_key_of_a_new_plain_row_and_move_a_row_to_another(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(a, b, v, PRIMARY KEY(a, b)) WITHOUT ROWID") as live:
        data = {"type": "t", "id": '["x",1]', "attributes": {"v": 1}}
        created = await live.write("POST", "/api/t", data)
        moved = await live.change("t", '["x",1]', b=2)

        assert (created.status_code, created.json()["data"]["id"]) == (201, '["x",1]')
        assert moved.json()["data"]["id"] == '["x",2]'
        assert code(await live.write("POST", "/api/t", data | {"id": '["x",2]'})) == (409, "conflict")
        other = {"type": "t", "id": '["x",3]', "attributes": {"b": 4}}
        assert code(await live.write("POST", "/api/t", other)) == (409, "conflict")


async def test_names_compare_as_in_sql_and_are_sent_as_in_the_schema(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", 'CREATE TABLE "Größe x"("sché ma" TEXT)') as live:
        created = await live.write("POST", "/api/grö%C3%9Fe%20X", {"type": "GRößE x", "attributes": {"SCHé ma": "v"}})

        assert created.json()["data"]["attributes"] == {"sché ma": "v"}
        assert created.headers["Location"] == "/api/Gr%C3%B6%C3%9Fe%20x/1"


@pytest.mark.parametrize(
    ("schema", "attributes", "expected", "pointer"),
    [
        ("k INTEGER PRIMARY KEY, v NOT NULL", {}, (422, "invalid"), "/data/attributes"),
        ("k INTEGER PRIMARY KEY, v NOT NULL", {"v": None}, (422, "invalid"), "/data/attributes/v"),
        ("k INTEGER PRIMARY KEY, v UNIQUE", {"v": 1}, (409, "conflict"), "/data/attributes/v"),
        ("k INTEGER PRIMARY KEY, v", {"k": 1}, (409, "conflict"), "/data/attributes/k"),
        ("k INTEGER PRIMARY KEY, v", {"k": "x"}, (422, "invalid"), "/data/attributes/k"),
        ("k INTEGER PRIMARY KEY, v CHECK(v < 5)", {"v": 7}, (422, "invalid"), None),
        ("k INTEGER PRIMARY KEY, v REFERENCES t(k)", {"v": 7}, (409, "conflict"), None),
        ("k INTEGER PRIMARY KEY, v INT) STRICT", {"v": "x"}, (422, "invalid"), "/data/attributes/v"),
        ("k TEXT PRIMARY KEY, v", {"v": 1}, (422, "invalid"), "/data/attributes"),
        ("k TEXT PRIMARY KEY, v", {"k": None}, (422, "invalid"), "/data/attributes/k"),
        ("k INTEGER PRIMARY KEY, v", {"v": True}, (422, "invalid"), "/data/attributes/v"),
        ("k INTEGER PRIMARY KEY, v", {"v": [1]}, (422, "invalid"), "/data/attributes/v"),
        ("k INTEGER PRIMARY KEY, v, g AS (v) STORED", {"g": 1}, (422, "invalid"), "/data/attributes/g"),
        ("k INTEGER PRIMARY KEY, v, g AS (v)", {"g": 1}, (422, "invalid"), "/data/attributes/g"),
        ("k INTEGER PRIMARY KEY, v", {"w": 1}, (400, "bad-request"), "/data/attributes/w"),
        ("k INTEGER PRIMARY KEY, v", {"v": 1, "V": 2}, (400, "bad-request"), "/data/attributes/V"),
    ],
)
async def test_what_a_table_refuses_is_refused_by_name(
    tmp_path: Path, schema: str, attributes: Any, expected: tuple[int, str], pointer: str | None
) -> None:
    async with served(tmp_path / "live.db", create(schema), "INSERT INTO t(v) VALUES(1)") as live:
        answer = await live.create("t", **attributes)

        assert code(answer) == expected
        assert answer.json()["errors"][0].get("source", {}).get("pointer") == pointer
        assert live.sql("SELECT count(*) FROM t") == [(1,)]


@pytest.mark.parametrize(
    "trigger",
    [
        "BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'not today'); END",
        "BEFORE INSERT ON t BEGIN SELECT RAISE(ROLLBACK, 'not today'); END",
    ],
)
async def test_a_triggers_own_words_are_the_answer(tmp_path: Path, trigger: str) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)", f"CREATE TRIGGER r {trigger}") as live:
        answer = await live.create("t", v=1)

        assert code(answer) == (422, "invalid")
        assert "not today" in answer.json()["errors"][0]["detail"]


async def test_a_row_that_others_refer_to_stays(tmp_path: Path) -> None:
    schema = ("CREATE TABLE p(k INTEGER PRIMARY KEY)", "CREATE TABLE c(p REFERENCES p(k))")
    async with served(tmp_path / "live.db", *schema) as live:
        await live.create("p", k=1)
        await live.create("c", p=1)

        assert code(await live.ask("DELETE", "/api/p/1")) == (409, "conflict")


async def test_a_deferred_foreign_key_is_refused_at_the_commit(tmp_path: Path) -> None:
    schema = "CREATE TABLE t(k INTEGER PRIMARY KEY, p REFERENCES t(k) DEFERRABLE INITIALLY DEFERRED)"
    async with served(tmp_path / "live.db", schema) as live:
        assert code(await live.create("t", p=9)) == (409, "conflict")
        assert (await live.create("t", p=None)).status_code == 201


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"", (400, "bad-json")),
        (b'{"data":{"type":"t","attributes":{"v":1,"v":2}}}', (400, "bad-json")),
        (b"[]", (400, "bad-request")),
        (b'{"data":[]}', (400, "bad-request")),
        (b'{"data":{"attributes":{}}}', (400, "bad-request")),
        (b'{"data":{"type":"u"}}', (409, "conflict")),
        (b'{"data":{"type":"t","id":1}}', (400, "bad-request")),
        (b'{"data":{"type":"t","id":"1"}}', (403, "forbidden")),
        (b'{"data":{"type":"t","attributes":[]}}', (400, "bad-request")),
        (b'{"data":{"type":"t","relationships":{"x":{}}}}', (400, "bad-request")),
    ],
)
async def test_a_document_that_is_none_says_where(tmp_path: Path, document: bytes, expected: tuple[int, str]) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)") as live:
        answer = await live.ask("POST", "/api/t", content=document, headers={"Content-Type": MEDIA})

        assert code(answer) == expected
        assert live.sql("SELECT * FROM t") == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": MEDIA}, 201),
        ({"Content-Type": "application/json; charset=utf-8"}, 201),
        ({"Content-Type": f'{MEDIA}; profile="x"'}, 201),
        ({"Content-Type": f"{MEDIA}; charset=utf-8"}, 415),
        ({"Content-Type": f'{MEDIA}; ext="x"'}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({}, 415),
        ({"Content-Type": MEDIA, "Accept": f'{MEDIA}; ext="x"'}, 406),
        ({"Content-Type": MEDIA, "Accept": f'{MEDIA}; ext="x,y", text/html'}, 406),
        ({"Content-Type": MEDIA, "Accept": f'{MEDIA}; ext="x", {MEDIA}; q=0.5'}, 201),
        ({"Content-Type": MEDIA, "Accept": "text/html, */*"}, 201),
    ],
)
async def test_media_types_are_those_of_json_api(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)") as live:
        answer = await live.ask("POST", "/api/t", content=b'{"data":{"type":"t"}}', headers=headers)

        assert answer.status_code == status
        assert answer.headers["Content-Type"] == MEDIA


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("PUT", "/api/t", "GET, HEAD, POST"), ("POST", "/api/t/1", "GET, HEAD, PATCH, DELETE")],
)
async def test_a_path_says_which_methods_it_takes(tmp_path: Path, method: str, path: str, allow: str) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)") as live:
        answer = await live.ask(method, path)

        assert code(answer) == (405, "not-allowed")
        assert answer.headers["Allow"] == allow


@pytest.mark.parametrize(
    "path",
    [
        "/api/", "/api/nothing", "/api/t/9", "/api/t/x", "/api/t/1/2", "/api/_appliance_meta", "/api/%FF", "/api/a%0Ab",
        "/api/t/1%0A",
    ],
)  # fmt: skip
async def test_what_is_not_there_is_404(tmp_path: Path, path: str) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)") as live:
        assert code(await live.ask("GET", path))[0] == 404


@pytest.mark.parametrize("path", ["/api", "/healthz/", "/openapi.json/", "/setup/?token=secret"])
async def test_nobody_is_sent_to_another_path(tmp_path: Path, path: str) -> None:
    async with served(tmp_path / "live.db") as live:
        answer = await live.client.get(path, headers={"Host": "evil.example.com"})

        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not-found")
        assert "Location" not in answer.headers


async def test_a_tables_name_may_hold_a_line_feed(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", 'CREATE TABLE "a\n\n"(v)', 'INSERT INTO "a\n\n" VALUES(1)') as live:
        assert ids(await live.ask("GET", "/api/a%0A%0A")) == ["1"]


async def test_a_fault_is_a_document_of_json_api_like_every_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise RuntimeError("the row's password")

    async with served(tmp_path / "live.db", "CREATE TABLE t(v)") as live:
        monkeypatch.setattr(reading, "page", fail)
        live.client._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
        answer = await live.ask("GET", "/api/t")

        assert code(answer) == (500, "internal")
        assert "password" not in answer.text


async def test_a_refused_media_type_says_which_are_taken(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)") as live:
        answer = await live.ask("POST", "/api/t", content=b"{}", headers={"Content-Type": "text/plain"})

        assert code(answer) == (415, "unsupported-media-type")
        assert answer.json()["errors"][0]["detail"] == (
            "send the document as application/vnd.api+json without parameters, or as application/json"
        )


async def test_nobody_reads_without_a_token(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)") as live:
        answer = await live.client.get("/api/t")

        assert code(answer) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_two_tokens_in_one_place_say_nothing_even_when_they_are_the_same(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)") as live:
        good = live.token(admin=True)
        for second in (good, live.token("ann"), "", "bad"):
            for first, last in ((good, second), (second, good)):
                in_query = await live.client.get(f"/api/t?token={first}&token={last}")
                lines = [("Authorization", f"Bearer {each}") for each in (first, last)]
                in_headers = await live.client.get("/api/t", headers=lines)
                for answer in (in_query, in_headers):
                    assert code(answer) == (401, "unauthorized")
                    assert "once" in answer.json()["errors"][0]["detail"]
        assert (await live.client.get(f"/api/t?token={good}", headers=lines)).status_code == 200  # that one counts


async def test_members_that_json_api_does_not_know_are_ignored_as_it_says(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)") as live:
        document = {"jsonapi": {"version": "1.1"}, "more": 1, "data": {"type": "t", "more": 1, "attributes": {"v": 1}}}
        answer = await live.ask("POST", "/api/t", json=document)

        assert (answer.status_code, live.sql("SELECT v FROM t")) == (201, [(1,)])


async def test_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    plain = "CREATE TABLE p(k INTEGER PRIMARY KEY, v)"
    async with served(tmp_path / "live.db", plain, "INSERT INTO p VALUES(1, 1)", tables=TODO) as live:
        created = await live.create("todo", "ann", title="a")
        row_id, first = created.json()["data"]["id"], created.headers["ETag"]

        assert (await live.change("todo", row_id, "ann", if_match=first, title="b")).status_code == 200
        assert code(await live.change("todo", row_id, "ann", if_match=first, title="c")) == (412, "stale")
        assert code(await live.change("todo", row_id, "ann", if_match='W/"2"', title="c")) == (412, "stale")
        assert code(await live.change("todo", row_id, "ann", version=1, title="c")) == (409, "conflict")
        assert (await live.change("todo", row_id, "ann", version=2, title="c")).status_code == 200
        assert code(await live.change("todo", row_id, "ann", if_match='"2"', title="d")) == (412, "stale")
        assert (await live.change("todo", row_id, "ann", if_match='"3"', title="d")).status_code == 200
        assert (await live.change("todo", row_id, "ann", if_match="*", title="e")).status_code == 200

        seen = (await live.ask("GET", "/api/p/1")).headers["ETag"]
        live.sql("UPDATE p SET v = 2")
        assert code(await live.change("p", "1", if_match=seen, v=3)) == (412, "stale")
        stale = await live.ask("DELETE", "/api/p/1", headers={"If-Match": seen})
        assert code(stale) == (412, "stale")


async def test_what_was_written_by_sql_without_a_version_is_another_row_to_who_has_seen_the_former(
    tmp_path: Path,
) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        created = await live.create("todo", "ann", title="a")
        row, seen = created.json()["data"], created.headers["ETag"]
        path = row["links"]["self"]

        live.sql("UPDATE todo SET title = 'by SQL'")

        known = await live.ask("GET", path, "ann", headers={"If-None-Match": seen})
        assert (known.status_code, known.json()["data"]["attributes"]["title"]) == (200, "by SQL")
        assert code(await live.change("todo", row["id"], "ann", if_match=seen, title="b")) == (412, "stale")
        assert code(await live.ask("DELETE", path, "ann", headers={"If-Match": seen})) == (412, "stale")
        assert (
            await live.change("todo", row["id"], "ann", if_match=known.headers["ETag"], title="b")
        ).status_code == 200


async def test_a_row_that_is_known_is_not_sent_again(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(v)", "INSERT INTO t VALUES(1)") as live:
        tag = (await live.ask("GET", "/api/t/1")).headers["ETag"]

        assert (await live.ask("GET", "/api/t/1", headers={"If-None-Match": f'"x", W/{tag}'})).status_code == 304
        assert (await live.ask("GET", "/api/t/1", headers={"If-None-Match": '"x"'})).status_code == 200

        live.sql("ALTER TABLE t RENAME COLUMN v TO w")
        renamed = await live.ask("GET", "/api/t/1", headers={"If-None-Match": tag})
        assert (renamed.status_code, renamed.json()["data"]["attributes"]) == (200, {"w": 1})


async def test_a_patch_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = (await live.create("todo", "ann", title="a", tags={"a": 1})).json()["data"]
        events = live.sql("SELECT max(id) FROM _appliance_outbox")

        same = await live.change("todo", row["id"], "ann", **row["attributes"])

        assert (same.status_code, same.json()["data"]) == (200, row)
        assert live.sql("SELECT max(id) FROM _appliance_outbox") == events


@pytest.mark.parametrize("big_integers", ["number", "string"])
async def test_what_is_sent_back_as_it_was_sent_writes_nothing(
    tmp_path: Path, big_integers: Literal["number", "string"]
) -> None:
    big = 9007199254740993
    schema = (
        "CREATE TABLE t(k INTEGER PRIMARY KEY, v, w, n INTEGER, b BOOLEAN, j JSON, x JSON, r REAL, s TEXT)",
        f"INSERT INTO t VALUES(1, {big}, '{big}', {big}, 1, '{{\"a\": 1}}', 'x', 5.0, CAST(x'61ff' AS TEXT))",
    )
    async with served(tmp_path / "live.db", *schema, options=ValueOptions(big_integers)) as live:
        stored = "SELECT v, w, n, b, j, x, r, typeof(v), typeof(r), hex(s) FROM t"
        before = live.sql(stored)
        row = (await live.ask("GET", "/api/t/1")).json()["data"]["attributes"]
        # JavaScript has no 5.0, and would lose digits of an integer beyond 2^53.
        same = await live.change("t", "1", **(row | {"r": 5}))

        assert (same.status_code, same.json()["data"]["attributes"]) == (200, row)
        assert live.sql(stored) == before
        assert live.sql("SELECT count(*) FROM _appliance_outbox WHERE op = 2") == [(0,)]
        assert (await live.change("t", "1", w="1")).json()["data"]["attributes"] == row | {"w": "1"}


@pytest.mark.parametrize(
    ("declared", "written", "key", "others"),
    [
        ("k INTEGER PRIMARY KEY, v", "7", "7", ("07", "+7", "7.0", "%207")),
        ("k TEXT COLLATE NOCASE PRIMARY KEY, v", "'a b'", "a%20b", ("A%20B", "%5B%22a%20B%22%5D")),
        ("k INT, l TEXT, v, PRIMARY KEY(k, l)", "7, 'x'", "%5B7%2C%22x%22%5D", ("%5B%227%22,%20%22x%22%5D",)),
        ("v", "1", "1", ("01",)),
    ],
)
async def test_what_sqlite_takes_for_the_same_key_names_the_same_row_for_every_method(
    tmp_path: Path, declared: str, written: str, key: str, others: tuple[str, ...]
) -> None:
    made = f"INSERT INTO t VALUES({written}" + (")" if declared == "v" else ", 1)")
    async with served(tmp_path / "live.db", f"CREATE TABLE t({declared})", made) as live:
        row = (await live.ask("GET", f"/api/t/{key}")).json()
        for other in others:
            assert (await live.ask("GET", f"/api/t/{other}")).json() == row, other
            changed = {"type": "t", "id": unquote(other), "attributes": {"v": other}}
            answer = await live.write("PATCH", f"/api/t/{other}", changed)
            row = answer.json()
            assert (answer.status_code, row["data"]["attributes"]["v"]) == (200, other)
            assert code(await live.write("PATCH", f"/api/t/{other}", changed | {"id": "8"})) == (409, "conflict")
        assert (await live.ask("DELETE", f"/api/t/{others[0]}")).status_code == 204
        assert live.sql("SELECT * FROM t") == []


async def test_long_documents_are_objects_one_after_another_however_long_they_wait_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(k INTEGER PRIMARY KEY, v)") as live:
        commit, free, begun = live.store.commit, trio.Event(), 0
        answers: list[int] = []

        async def locked(work: Any) -> Any:
            nonlocal begun
            begun += 1
            await free.wait()
            return await commit(work)

        async def create(value: str) -> None:
            answers.append((await live.create("t", v=value)).status_code)

        monkeypatch.setattr(live.store, "commit", locked)
        async with trio.open_nursery() as writers:
            for _ in range(3):
                writers.start_soon(create, "x" * headers.AT_ONCE)
            writers.start_soon(create, "short")
            while (begun, headers._WRITTEN.statistics().tasks_waiting) != (2, 2):
                await trio.lowlevel.checkpoint()
            monkeypatch.setattr(headers, "PATIENCE_S", 0)
            answer = await live.create("t", v="y" * headers.AT_ONCE)
            assert (code(answer), answer.headers["Retry-After"]) == ((503, "unavailable"), "5")
            free.set()
        assert answers == [201] * 4


async def test_a_version_that_is_no_number_is_refused_as_that(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables=TODO) as live:
        row = (await live.create("todo", "ann", title="a")).json()["data"]["id"]
        answers = [await live.change("todo", row, "ann", version=given, title="b") for given in ("1", None, 1.5, 1.0)]

        assert [answer.status_code for answer in answers] == [422, 422, 422, 200]
        assert answers[0].json()["errors"][0]["source"] == {"pointer": "/data/attributes/version"}


async def test_text_that_is_not_utf8_is_read_and_named(tmp_path: Path) -> None:
    schema = ("CREATE TABLE t(v TEXT, w)", "INSERT INTO t VALUES(CAST(x'61ff' AS TEXT), 1)")
    async with served(tmp_path / "live.db", *schema) as live:
        row = (await live.ask("GET", "/api/t/1")).json()["data"]
        changed = await live.change("t", "1", w=2)

        assert (row["attributes"]["v"], row["meta"]) == ("a\ufffd", {"lossy": ["v"]})
        assert changed.json()["data"]["attributes"] == {"v": "a\ufffd", "w": 2}
        assert live.sql("SELECT hex(v) FROM t") == [("61FF",)]


async def test_secrets_are_written_and_never_sent(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", "CREATE TABLE t(k INTEGER PRIMARY KEY, api_key TEXT UNIQUE)") as live:
        created = await live.create("t", api_key="canary-1")
        again = await live.create("t", api_key="canary-1")
        others = [
            await live.ask("GET", "/api/t?filter[api_key]=canary-1"),
            await live.ask("GET", "/api/t?sort=api_key"),
            await live.ask("GET", "/api/t?fields[t]=api_key"),
            await live.ask("GET", "/api/t"),
        ]

        assert live.sql("SELECT api_key FROM t") == [("canary-1",)]
        assert code(again) == (409, "conflict")
        assert [answer.status_code for answer in others] == [400, 400, 400, 200]
        assert all("canary-1" not in answer.text for answer in (created, again, others[3]))


async def test_relationships_are_the_foreign_keys_to_standard_tables(tmp_path: Path) -> None:
    tables = {
        "room": (NewColumn("name", "text"),),
        "note": (NewColumn("room_id", "room"), NewColumn("about", "room"), NewColumn("text", "text")),
    }
    async with served(tmp_path / "live.db", tables=tables) as live:
        room = (await live.create("room", "ann", name="a")).json()["data"]["id"]
        data = {"type": "note", "relationships": {"room": {"data": {"type": "room", "id": room}}}}
        note = (await live.write("POST", "/api/note", data, "ann")).json()["data"]

        assert note["attributes"]["room_id"] == room
        assert note["relationships"] == {
            "room": {"data": {"type": "room", "id": room}, "links": {"related": f"/api/room/{room}"}},
            "about_row": {"data": None},
        }
        data = {"type": "note", "id": note["id"], "relationships": {"room": {"data": None}}}
        changed = await live.write("PATCH", f"/api/note/{note['id']}", data, "ann")
        assert changed.json()["data"]["relationships"]["room"] == {"data": None}
        bad = {"type": "note", "relationships": {"room": {"data": {"type": "room", "id": "nowhere"}}}}
        answer = await live.write("POST", "/api/note", bad, "ann")
        assert code(answer) == (404, "not-found")
        assert answer.json()["errors"][0]["source"] == {"pointer": "/data/relationships/room"}
