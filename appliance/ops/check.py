"""``live-appliance check``: what is right and wrong with a store, and what to do about it. Changes nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.capture.shape import Secret
from appliance.errors import StoreUnusable
from appliance.store import offline
from appliance.store.file import connections, schema

#: Less free space than this is a warning, bytes.
LITTLE_SPACE: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``grade`` is ``ok``, ``warning``, ``problem`` or ``unusable``."""

    grade: str
    words: str

    @property
    def exit_status(self) -> int:
        """What the command's status must be at least."""
        return {"problem": 1, "unusable": StoreUnusable.exit_status}.get(self.grade, 0)


def examine(path: Path, secret: Secret) -> list[Finding]:
    """Examine the store at ``path``."""
    try:
        return list(_findings(path, secret))
    except StoreUnusable as error:
        return [Finding("unusable", str(error))]
    except sqlite3.Error as error:
        return [Finding("unusable", str(connections.refusal(path, error)))]


def _findings(path: Path, secret: Secret) -> Iterator[Finding]:
    yield _sqlite()
    unchecked = connections.inspect(path, busy_timeout_s=offline.BUSY_TIMEOUT_S, create=True)
    if not path.exists():
        yield Finding("warning", f"there is no file {path} yet: serve makes one; or name another with --db")
        return
    with closing(connections.open_reader(path, busy_timeout_s=offline.BUSY_TIMEOUT_S)) as db:
        schema.check_format(db)
        yield Finding("ok", f"{path} is a sound SQLite file that can be written")
        for name, reason in unchecked.items():
            yield Finding("warning", f"table {name}: only its application can check whether it is sound ({reason})")
        free = shutil.disk_usage(path.parent).free
        if free < LITTLE_SPACE:
            yield Finding("warning", f"only {free >> 20} MiB are free on its disk; make room")
        if not schema.exists(db):
            yield Finding("ok", "it is not a store yet: the first serve makes it one")
            return
        served = offline.is_served(path)
        yield Finding("ok", "a server has it open" if served else "no server has it open")
        for table in offline.tables(db, secret):
            if table.watched and not table.captured:
                grade = "problem" if served else "warning"
                yield Finding(grade, f"table {table.name} is not captured; the log of serve says why, or start serve")
            for warning in table.warnings:
                yield Finding("warning", f"table {table.name}: {warning}")


def _sqlite() -> Finding:
    if sqlite3.sqlite_version_info >= connections.SOUND_SQLITE:
        return Finding("ok", f"SQLite {sqlite3.sqlite_version}")
    sound = ".".join(map(str, connections.SOUND_SQLITE))
    return Finding("warning", f"SQLite {sqlite3.sqlite_version} is old ({connections.OLD_SQLITE_BUGS}); "
                              f"use a Python with SQLite {sound} or newer")  # fmt: skip
