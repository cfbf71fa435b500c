"""What is written while a table or a column is called otherwise than our triggers say is told to nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.live.replay.test_reading import Served, served


async def taken_up(live: Served) -> None:
    """Wait until the tail has taken up the schema as it is."""
    (version,) = live.file.writer.execute("PRAGMA schema_version").fetchone()
    while live.tail._schema.version < version or not live.tail._told:
        live.tail.waking.wake()
        await trio.lowlevel.checkpoint()


WRITE = "INSERT INTO t VALUES(1, 1)"
RENAMED = "ALTER TABLE t RENAME COLUMN v TO w"
SWAPPED = ("ALTER TABLE t RENAME TO x", "ALTER TABLE u RENAME TO t", "ALTER TABLE x RENAME TO u")


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        ((WRITE, RENAMED, "INSERT INTO t VALUES(2, 2)"), ["resync"]),
        ((RENAMED, "INSERT INTO t VALUES(1, 1)", "ALTER TABLE t RENAME COLUMN w TO v"), ["create"]),
        ((WRITE, *SWAPPED, "INSERT INTO u VALUES(2, 2)"), ["resync"]),
        ((WRITE, "ALTER TABLE t RENAME TO x"), ["table-dropped"]),
        ((WRITE, "ALTER TABLE t ADD COLUMN w"), ["create", "resync"]),
        ((WRITE, "DROP TABLE t"), ["create", "table-dropped"]),
        (
            (WRITE, "DROP TABLE t", "CREATE TABLE t(id INTEGER PRIMARY KEY)"),
            ["create", "resync"],
        ),
        ((WRITE, "ALTER TABLE u RENAME COLUMN v TO w"), ["create"]),
    ],
)
async def test_of_a_transaction_that_renames_nothing_is_told(
    tmp_path: Path, statements: tuple[str, ...], told: list[str]
) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer()
        live.hub.attach(live.subscribe(peer))
        await live.write("BEGIN", *statements, "COMMIT")
        await taken_up(live)
        assert [event["EventType"] for event in peer.came] == told


async def test_nor_to_who_is_behind(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as live:
        peer = live.peer()
        reading = live.reading(peer, live.subscribe(peer), live.hub.position.id)
        await live.write("INSERT INTO t VALUES(1, 'before')")
        await live.write("BEGIN", RENAMED, "INSERT INTO t VALUES(2, 'secret')", "COMMIT")
        await taken_up(live)
        await live.write("INSERT INTO t VALUES(3, 'after')")
        live.hub.recent.forget(live.hub.position.id)
        await reading.run()
        assert [(event["EventType"], event["EventData"].get("id")) for event in peer.came] == [
            ("create", 1), ("resync", None), ("create", 3), ("live", None),
        ]  # fmt: skip


async def test_nor_what_is_written_under_a_name_that_is_taken_back_before_anybody_has_looked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "a.db") as live:
        peer, synchronise = live.peer(), live.store.synchronise
        live.hub.attach(live.subscribe(peer))

        async def late():  # type: ignore[no-untyped-def]
            live.file.writer.execute("ALTER TABLE t RENAME COLUMN w TO v")
            return await synchronise()

        monkeypatch.setattr(live.store, "synchronise", late)
        await live.write("BEGIN", RENAMED, "INSERT INTO t VALUES(1, 1)", "COMMIT")
        monkeypatch.setattr(live.store, "synchronise", synchronise)
        await taken_up(live)
        assert [event["EventType"] for event in peer.came] == ["resync"]
