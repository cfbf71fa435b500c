"""A look is short on the event loop, and long ones are for a thread."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from appliance.store.file import schema
from appliance.store.outbox import look
from appliance.store.outbox.look import Beyond, Look, Seen


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
