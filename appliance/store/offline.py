"""The store as commands use it: one plain connection, no server, nothing of trio.

A server may run at the same time: what is written here reaches it through the file, by the store's generation.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from appliance.capture.shape import Secret, secrets_of, shape_of, warnings
from appliance.errors import CommandError, StoreUnusable
from appliance.model import SQLiteValue, ascii_fold
from appliance.store.access import accounts
from appliance.store.file import connections, live_file, schema
from appliance.store.outbox import topics
from appliance.store.tables import catalog, migration, secrecy, standard, watch

BUSY_TIMEOUT_S = 5.0


@contextmanager
def open_store(path: Path, *, make: bool = True) -> Iterator[sqlite3.Connection]:
    """Open the file and make it a store if it is none yet, or leave it as it is; one of an earlier version is migrated.

    Raises ``StoreUnusable``, and ``StoreInUse`` when it is to be migrated while an earlier version serves it.
    """
    connections.inspect(path, busy_timeout_s=BUSY_TIMEOUT_S, create=False, write=make)
    try:
        with closing(connections.open_file(path, busy_timeout_s=BUSY_TIMEOUT_S)) as db:
            if make or schema.exists(db):
                with live_file.hold(path) if schema.is_outdated(db) else nullcontext():
                    schema.prepare(db)
            yield db
    except sqlite3.Error as error:
        raise connections.refusal(path, error) from error


@contextmanager
def open_made(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store that is there already, as it is; a file that is none is left alone.

    Raises ``CommandError`` when it is none, ``StoreUnusable``.
    """
    connections.inspect(path, busy_timeout_s=BUSY_TIMEOUT_S, create=False, write=False)
    try:
        with closing(connections.open_file(path, busy_timeout_s=BUSY_TIMEOUT_S)) as db:
            schema.check_format(db)
            if not schema.exists(db):
                raise CommandError(f"{path} is not served yet; start `live-appliance serve --db {path}`")
            yield db
    except sqlite3.Error as error:
        raise connections.refusal(path, error) from error


def is_served(path: Path) -> bool:
    """Whether a server has this store open just now."""
    return live_file.is_held(path)


@dataclass(frozen=True, slots=True)
class TableState:
    """One table as ``table list`` shows it. ``captured`` is whether its triggers are in place at this moment."""

    name: str
    watched: bool
    captured: bool
    key: tuple[str, ...]
    secret: tuple[str, ...]
    warnings: tuple[str, ...]


def tables(db: sqlite3.Connection, secret: Secret) -> list[TableState]:
    """List the file's tables and what is captured of them, also of one that is no store. Writes nothing."""
    off = topics.unwatched(db) if schema.exists(db) else frozenset()
    captured = {ascii_fold(name) for name in watch.captured(db)}
    found = []
    for table in catalog.tables(db):
        shape, hidden = shape_of(table, 0, secret), secrets_of(table, secret)
        found.append(
            TableState(
                name=table.name,
                watched=ascii_fold(table.name) not in off,
                captured=ascii_fold(table.name) in captured,
                key=("rowid",) if shape.rowid else tuple(shape.columns[position].name for position in shape.key),
                secret=tuple(each.name for each in table.columns if each.name in hidden),
                warnings=warnings(table, shape),
            )
        )
    return found


def set_watched(db: sqlite3.Connection, table: str, watched: bool) -> None:
    """Put a table on the watch, or take it off and its triggers with it.

    Raises ``CommandError`` when there is no such table, and for one by which it is known who may see what: a server
    hears of rights that are taken away by what is captured of it.
    """
    names = {ascii_fold(each.name): each.name for each in catalog.tables(db)}
    if ascii_fold(table) not in names:
        raise CommandError(f'there is no table "{table}"; `live-appliance table list` names those there are')
    if not watched and ascii_fold(table) in topics.of_rights(db):
        raise CommandError(
            f'"{names[ascii_fold(table)]}" says who may see what, so it stays on the watch: what changes there counts '
            "at the next event. Only those who may peek it know of it"
        )
    with schema.transaction(db):
        topics.set_watched(db, names[ascii_fold(table)], watched)
        if not watched:
            watch.release(db, names[ascii_fold(table)])


def capture(db: sqlite3.Connection) -> None:
    """Put tables under capture, inside the transaction that makes them; a store that was never served captures none."""
    rules = secrecy.remembered(db)
    if rules is not None:
        watch.capture(db, secret=rules, unwatched=topics.unwatched(db))


@contextmanager
def migrating(path: Path) -> Iterator[list[str]]:
    """Take our triggers off for as long as the block runs; whatever becomes of it, they are put back.

    What is written meanwhile is not captured, and subscribers are told. Gives a list that holds, at the end, the
    tables that cannot be captured any more, each with the reason. Raises ``StoreInUse``, ``StoreUnusable``.
    """
    uncaptured: list[str] = []
    with migration.hold(path):
        with open_store(path) as db:
            rules = secrecy.remembered(db)
            known = _passwords(db)
            watch.suspend(db)
        try:
            yield uncaptured
        finally:
            with open_store(path) as db:
                # A store that was never served is put under capture by who serves it first, by his rules.
                off = topics.unwatched(db)
                synced = watch.resume(
                    db,
                    secret=rules or secrecy.Secrecy((), ()),
                    watched=lambda table: rules is not None and ascii_fold(table) not in off,
                )
                uncaptured += [f"{table}: {reason}" for table, reason in synced.skipped.items()]
                with schema.transaction(db):
                    for account, _ in known - _passwords(db):
                        accounts.end_tokens(db, account)


def _passwords(db: sqlite3.Connection) -> frozenset[tuple[str, SQLiteValue]]:
    """Give the accounts, each with its password: who has another one loses his tokens, by whomever it was changed."""
    if not standard.is_prepared(db):
        return frozenset()
    return frozenset(connections.fetch(db, "SELECT reference_id, password FROM user_account"))


def release(path: Path) -> list[str]:
    """Take everything of ours out of the file: triggers, ``_appliance_*`` tables, the journal mode it had not.

    Gives the tables of rights that stay, as somebody has put something into them, in the order to drop them in.
    Raises ``StoreInUse`` while a server runs, ``StoreUnusable``.
    """
    connections.inspect(path, busy_timeout_s=BUSY_TIMEOUT_S, create=False)
    with live_file.hold(path):
        try:
            with closing(connections.open_file(path, busy_timeout_s=BUSY_TIMEOUT_S)) as db:
                schema.check_format(db)
                mode = schema.get(db, "journal_mode") if schema.exists(db) else None
                left = watch.remove(db)
                if isinstance(mode, str):
                    restored = db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
                    if restored != mode:
                        raise StoreUnusable(f"the journal mode stays {restored}: close the other programs that have "
                                            f"{path} open and run `PRAGMA journal_mode={mode}` yourself")  # fmt: skip
        except sqlite3.Error as error:
            raise connections.refusal(path, error) from error
        live_file.remove(path)
    return left
