"""Which incarnation of the store is served: whether a start goes on in the epoch of before, or begins a new one.

What is in the database and what is in ``<db>-live`` (``live_file``) must fit together. Where they do not, ids could be
given out twice, and a new epoch begins.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from appliance.capture import outbox
from appliance.store.file import schema
from appliance.store.file.connections import fetch
from appliance.store.file.live_file import LiveFile, Record, sign

#: A server that stops waits no longer for other writers than this, milliseconds.
END_PATIENCE_MS = 2000


class StoreReplaced(Exception):
    """The database file is not the one that was opened: it was replaced, restored over, or its ids went back."""


def _holds(db: sqlite3.Connection, record: Record) -> bool:
    """Whether the row that was signed is still what it was, or trimmed: then nobody resumes from before it."""
    rows = fetch(db, outbox.select_after(), (record.signed - 1, 1))
    return not rows or rows[0][0] != record.signed or sign(rows[0]) == record.sign


def begin(db: sqlite3.Connection, live: LiveFile, found: int) -> tuple[str, str]:
    """Begin a new incarnation of the store; give ``(incarnation, epoch)``.

    ``found`` is the highest id that was in the file before this start wrote anything.
    The epoch is kept only when every id that was ever handed out is still in the file, for what it was handed out for:
    to a backup that somebody has put back others may have written since. The mark of an unclean end is set by a FULL
    commit before anything is answered: foreign writers choose their own ``synchronous``, so after a power cut
    acknowledged rows may be gone whatever ours is.
    """
    boot = _boot_id()
    before = live.read()
    epoch = schema.get(db, "epoch")
    kept = (
        before is not None
        and schema.get(db, "incarnation") in (before.incarnation, before.coming or before.incarnation)
        and found >= before.highest
        and _holds(db, before)
        and (before.boot == boot != "" or schema.get(db, "clean") == 1)
    )
    if not kept or not isinstance(epoch, str):
        epoch = secrets.token_hex(8)
    incarnation = secrets.token_hex(8)
    # A start that is killed behind the commit must not look like another file.
    live.renew(replace(before, boot=boot, coming=incarnation) if before is not None and kept else None)
    with _full_commit(db), schema.transaction(db):
        schema.put(db, "epoch", epoch)
        schema.put(db, "incarnation", incarnation)
        schema.put(db, "clean", 0)
    live.write(Record(incarnation, 0, boot))
    highest = schema.highest(db)
    live.note(highest, *fetch(db, outbox.select_after(), (highest - 1, 1)))
    return incarnation, epoch


def end(db: sqlite3.Connection, *, checkpoint: bool = True) -> None:
    """Mark a clean end and, with ``checkpoint``, move what is in the WAL into the file; wait for nobody for long."""
    db.execute(f"PRAGMA busy_timeout={END_PATIENCE_MS}").fetchall()
    with _full_commit(db), schema.transaction(db):
        schema.put(db, "clean", 1)
    if checkpoint:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


@contextlib.contextmanager
def _full_commit(db: sqlite3.Connection) -> Iterator[None]:
    (former,) = db.execute("PRAGMA synchronous").fetchone()
    db.execute("PRAGMA synchronous=FULL")
    try:
        yield
    finally:
        db.execute(f"PRAGMA synchronous={int(former)}")


def _boot_id() -> str:
    """Name the boot of this machine; ``""`` where the system does not tell, which is the same as no other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
