"""A look is short on the event loop, and long ones are for a thread."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from appliance.capture.contents import Contents
from appliance.store.file import schema
from appliance.store.outbox import look, replay
from appliance.store.outbox.look import Beyond, Look, Seen
from appliance.store.outbox.wanted import Wanted


def standing(db: sqlite3.Connection) -> Seen:
    return Seen(int(db.execute("PRAGMA schema_version").fetchone()[0]), {})


def test_a_schema_that_has_changed_is_not_read_on_the_event_loop(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as db:
        schema.prepare(db)
        known = standing(db)
        seen = look.glance(db, 0, None, known)
        assert isinstance(seen, Look)
        assert seen.schema_version == known.schema_version
        db.execute("CREATE TABLE t(a)")
        assert isinstance(look.glance(db, 0, None, known), Beyond)
        assert isinstance(look.glance(db, 0, None, standing(db)), Look)


def test_many_rows_are_not_read_on_the_event_loop(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as db:
        schema.prepare(db)
        insert = "INSERT INTO _appliance_outbox(op, v0, v1, v2) VALUES(4, 'topic', 'sender', 'body')"
        for count, kind in ((look.GLANCE_ROWS, Look), (1, Beyond)):
            db.executemany(insert, [()] * count)
            assert isinstance(look.glance(db, 0, None, standing(db)), kind)


def test_of_rows_that_are_long_no_more_are_had_at_a_time_than_by_one(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as db:
        schema.prepare(db)
        long = look.GLANCE_BYTES * 2 // 5
        insert = "INSERT INTO _appliance_outbox(op, v0, v1, v2) VALUES(4, 'topic', 'sender', zeroblob(?))"
        db.executemany(insert, [(1,)] * 30 + [(long,)] * 30)
        assert isinstance(look.glance(db, 0, None, standing(db)), Beyond)
        for most, rows in ((long, 31), (2 * long, 32)):
            seen = look.behind(db, 0, 50, most)
            assert (len(seen.rows), seen.full) == (rows, True)
        seen = look.behind(db, 58, 2, long * 3)
        assert (len(seen.rows), seen.full) == (2, False)
        last = look.glance(db, 59, None, standing(db))
        assert isinstance(last, Look)
        assert (len(last.rows), last.full) == (1, False)
        page = replay.page(db, 30, 60, Wanted.messages("topic"), {}, Contents(), complete=True)
        assert len(page.events) == replay.PAGE_BYTES // long
