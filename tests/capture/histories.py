"""What tests of random histories share: statements are played on a copy of a file, and after each it is asked for what
the outbox says of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from appliance.capture import outbox
from appliance.capture.decode import decode
from appliance.model import Change, Shape
from appliance.store.file.texts import text


@contextmanager
def copy_of(path: Path) -> Iterator[sqlite3.Connection]:
    """Copy a file into memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        with closing(sqlite3.connect(path)) as source:
            source.backup(db)
        db.text_factory = text
        yield db


def changes(db: sqlite3.Connection, shapes: dict[int, Shape], sql: str) -> list[Change] | None:
    """Run a statement, which may be refused, but not by us; give what is told of it, ``None``: it took some back."""
    before = _position(db)
    try:
        db.execute(sql)
    except (sqlite3.IntegrityError, sqlite3.OperationalError) as error:
        if "_appliance" in str(error):
            raise
    if sql.startswith("ROLLBACK") or _position(db) < before:
        return None
    decoded = decode(db.execute(outbox.select_after(), (before, 1_000_000)).fetchall(), shapes, more=False)
    assert not decoded.faults
    found = [event for event in decoded.events if isinstance(event, Change)]
    assert len(found) == len(decoded.events)
    return found


def play_all(play: Callable[[str], None], statements: Sequence[str]) -> None:
    """Play statements; one that fails names all before it."""
    for at, sql in enumerate(statements):
        try:
            play(sql)
        except (AssertionError, KeyError) as error:
            error.add_note(";\n".join(statements[: at + 1]))
            raise


def _position(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT max(id) FROM _appliance_outbox").fetchone()[0] or 0)
