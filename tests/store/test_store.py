"""The open store, as the tail has it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from appliance.model import quote_identifier
from appliance.store.file.bridge import open_bridge
from appliance.store.outbox.retention import Retention
from appliance.store.store import StoreSettings, open_store
from appliance.store.tables.secrecy import Secrecy


async def test_whoever_drops_all_triggers_does_not_end_the_bound_on_the_outbox(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE t(a)")
        settings = StoreSettings(path, Secrecy((), ()), retention=Retention(rows=1000))
        async with open_bridge(), open_store(settings) as store:
            await store.synchronise()
            for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type='trigger'").fetchall():
                db.execute(f"DROP TRIGGER {quote_identifier(name)}")
            await store.synchronise()
            found = db.execute("PRAGMA schema_version").fetchone()
            assert (await store.synchronise()).schema_version == found[0]
            assert db.execute("PRAGMA schema_version").fetchone() == found
        db.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i FROM n")
        assert db.execute("SELECT count(*) FROM _appliance_outbox").fetchone()[0] < 1100


@pytest.mark.parametrize("dumped", [True, False])
async def test_a_file_made_anew_of_its_dump_begins_a_new_epoch(tmp_path: Path, dumped: bool) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    settings = StoreSettings(path, Secrecy((), ()), accounts=True)

    async def epoch() -> str:
        async with open_bridge(), open_store(settings) as store:
            await store.synchronise()
            return store.epoch

    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("CREATE TABLE t(a); INSERT INTO t VALUES(1), (2), (3); DELETE FROM t WHERE a = 2")
        before = await epoch()
        if dumped:  # whoever edits a dump has changed rows that nobody captures; and rowids are others
            with closing(sqlite3.connect(other)) as made:
                made.executescript("\n".join(db.iterdump()))
        else:
            db.execute("VACUUM INTO ?", (str(other),))
    shutil.copyfile(other, path)
    assert (await epoch() != before) == dumped
    assert await epoch() == await epoch()
