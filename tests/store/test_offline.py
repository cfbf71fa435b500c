"""The store as commands use it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from appliance.errors import CommandError
from appliance.store import offline
from appliance.store.access import accounts, grants
from appliance.store.file import schema
from appliance.store.outbox import topics
from appliance.store.tables import making, standard
from appliance.store.tables.making import NewColumn
from appliance.store.tables.secrecy import Secrecy
from appliance.store.tables.standard import join_table


def test_what_says_who_may_see_what_stays_on_the_watch(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    with offline.open_store(path) as db:
        standard.prepare(db)
        with schema.transaction(db):
            making.create(db, "todo", [NewColumn("text", "text")])
        for table in ("user_account", "World", *map(join_table, ("user_account", "world", "todo"))):
            with pytest.raises(CommandError, match="says who may see what"):
                offline.set_watched(db, table, False)
        offline.set_watched(db, "todo", False)
        assert topics.unwatched(db) == {"todo"}


def test_a_table_of_rights_is_watched_though_another_of_its_name_was_taken_off_before(tmp_path: Path) -> None:
    path, joins = tmp_path / "a.db", join_table("todo")
    path.touch()
    with offline.open_store(path) as db:
        db.execute(f"CREATE TABLE {joins}(text)")
        offline.set_watched(db, joins, False)
        assert topics.unwatched(db) == {joins}
        db.execute(f"DROP TABLE {joins}")
        standard.prepare(db)
        with schema.transaction(db):
            making.create(db, "todo", [NewColumn("text", "text")])
        assert topics.unwatched(db) == frozenset()
        watched = {each.name: each.watched for each in offline.tables(db, Secrecy((), ()))}
        assert watched == dict.fromkeys(watched, True)


def test_who_has_another_password_after_a_migration_has_no_token_of_before(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    with offline.open_store(path) as db:
        standard.prepare(db)
        ids = {name: accounts.add(db, f"{name}@example.com", "$2b$").reference_id for name in ("ann", "bob", "eve")}
    with offline.migrating(path), closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE user_account SET password = '$2b$new' WHERE email = 'ann@example.com'")
        other.execute("DELETE FROM user_account WHERE email = 'eve@example.com'")
        other.commit()
    with offline.open_store(path) as db:
        ended = {name for name, each in ids.items() if grants.standing(db, [each])[each].not_before}
    assert ended == {"ann", "eve"}
