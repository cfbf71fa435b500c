"""Stores in a file, without a server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from appliance.store import offline


def sql(path: Path, *statements: str) -> None:
    """Run statements as another program of the machine."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def rows(path: Path, query: str) -> list[Any]:
    """Ask as another program of the machine."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(query).fetchall()


def store(path: Path, *statements: str) -> Path:
    """Make a file with these statements, and a store of it, as the first command does."""
    sql(path, "PRAGMA journal_mode=WAL", *statements)
    with offline.open_store(path):
        return path
