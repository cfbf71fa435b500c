"""Keeping the triggers in step with the schema. Works: plain functions on an open connection.

What should be there is compared, word for word, with what is; only where they differ anything is written, all of it in
one transaction. So it does not matter what somebody did to the schema: added a column, rebuilt a table, removed our
triggers, restored a dump.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.capture.shape import Secret, Table, dump, load, shape_of, warnings
from appliance.capture.triggers import fingerprint, triggers
from appliance.model import Shape, ascii_fold, quote_identifier
from appliance.store.file import schema
from appliance.store.tables import breaks, catalog, ended, migration, removal, standing
from appliance.store.tables.standing import Standing


@dataclass(frozen=True, slots=True)
class Synced:
    """What is captured now, and what a synchronisation has changed.

    ``shapes``, ``skipped`` and ``warnings`` go by table name. ``changed`` are tables that have been captured before, at
    whatever time, and whose triggers had to be made anew, so that changes may have been missed or mean something else.
    ``dropped`` (folded) are those whose triggers were still there and that are captured no more: unwatched or renamed;
    a table that is dropped takes its triggers with it. ``found_version`` is the schema's
    version before it, less what ``capture`` has moved it, ``schema_version`` after it; ``foreign`` is all of the schema
    that is not ours. ``found_texts`` and ``texts`` are those of our triggers before and after it (``standing.texts``).
    """

    shapes: Mapping[str, Shape]
    found_version: int
    schema_version: int
    foreign: Mapping[str, str | None]
    found_texts: Mapping[int, bytes]
    texts: Mapping[int, bytes]
    changed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def synchronise(db: sqlite3.Connection, *, secret: Secret, watched: Callable[[str], bool]) -> Synced:
    """Put every watched table under capture and take our triggers off all others.

    A table that cannot be captured is skipped with the reason. Raises ``sqlite3.Error`` when nothing can be written,
    ``migration.Suspended`` while somebody migrates, ``Unavailable`` where somebody has dropped tables of ours.
    """
    # The schema is read before anything is locked: most of the time there is nothing to do. But in one transaction:
    # somebody may drop a table between two looks.
    db.execute("BEGIN")
    try:
        migration.check(db)
        schema.demand(db)
        plan = _plan(db, secret, watched)
        if plan.is_done:
            return plan.result(db, {})
    finally:
        db.execute("COMMIT")
    with schema.transaction(db):
        migration.check(db)
        # To look at all tables takes long, where there are hundreds: only for what has come in between.
        return _carry_out(db, plan if schema.version(db) == plan.version else _plan(db, secret, watched))


def remember(db: sqlite3.Connection, synced: Synced) -> None:
    """Remember which schema is under capture, for ``has_moved``."""
    schema.remember(db, schema.SCHEMA_VERSION, synced.schema_version)


def has_moved(db: sqlite3.Connection) -> bool:
    """Whether somebody has changed the schema, or run VACUUM, since it was last looked at: while no server ran."""
    return schema.get(db, schema.SCHEMA_VERSION) not in (None, schema.version(db))


def found(db: sqlite3.Connection) -> tuple[int, dict[str, str | None]]:
    """Give the schema's ``found_version`` and what of it is ``foreign``, as ``Synced`` has them."""
    db.execute("BEGIN")
    try:
        return schema.version(db) - _steps(db), standing.foreign(db)
    finally:
        db.execute("COMMIT")


def break_off_unkeyed(db: sqlite3.Connection) -> None:
    """Note that captured tables without a key may have other rowids than their events say."""
    shapes = load_shapes(db)
    captured = {shapes[shape_id] for shape_id in map(standing.shape_id, standing.ours(db)) if shape_id in shapes}
    if unkeyed := sorted(shape.table for shape in captured if shape.rowid):
        with schema.transaction(db):
            breaks.note(db, unkeyed)


def suspend(db: sqlite3.Connection) -> bool:
    """Take our triggers off all tables, for whoever holds the migration; whether there were any."""
    with schema.transaction(db):
        triggers = standing.ours(db)
        for trigger in triggers:
            db.execute(f"DROP TRIGGER main.{quote_identifier(trigger.name)}")
        migration.mark(db)
    return bool(triggers)


def resume(db: sqlite3.Connection, *, secret: Secret, watched: Callable[[str], bool]) -> Synced:
    """Put every watched table under capture again, for whoever holds the migration; raises as ``synchronise``."""
    with schema.transaction(db):
        return _carry_out(db, _plan(db, secret, watched))


def capture(db: sqlite3.Connection, *, secret: Secret, unwatched: Collection[str]) -> None:
    """Put under capture what is not yet, inside the transaction that makes a table: no row of it goes untold.

    Nothing while somebody migrates, who does it in the end.
    """
    off = frozenset(map(ascii_fold, unwatched))
    try:
        migration.check(db)
    except migration.Suspended:
        return
    before = schema.version(db)
    plan = _plan(db, secret, lambda table: ascii_fold(table) not in off)
    plan.anew = [each for each in plan.anew if ascii_fold(each[0].name) not in plan.before]
    plan.superfluous = []
    plan.carry_out(db)
    schema.put(db, _STEPS, _steps(db) + schema.version(db) - before)


#: Why a table is left out that is called, or has a column that is called, so.
_UNNAMED: Final = "its name, or a column's, is not UTF-8: rename it"
#: How far ``capture`` has moved the schema's version since somebody last synchronised: that was us and not a VACUUM.
_STEPS: Final = "schema_steps"


def _steps(db: sqlite3.Connection) -> int:
    return int(schema.get(db, _STEPS) or 0)


def _carry_out(db: sqlite3.Connection, plan: _Plan) -> Synced:
    migration.unmark(db)
    result = plan.result(db, plan.carry_out(db))
    if plan.steps:
        schema.put(db, _STEPS, 0)
    ended.forget(db, {shape.id for shape in result.shapes.values()})
    return result


@dataclass(slots=True)
class _Plan:
    """What is to be done: triggers to drop, tables to capture anew, and what is right already.

    ``revived``: somebody has put back a table with our triggers, whose shape had ended (``ended``).
    """

    right: dict[str, Shape]
    tables: dict[str, Table]
    anew: list[tuple[Table, str]]
    superfluous: list[str]
    before: frozenset[str]
    known: frozenset[str]
    version: int
    steps: int
    texts: Mapping[int, bytes]
    unnamed: Sequence[str] = ()
    revived: bool = False

    @property
    def is_done(self) -> bool:
        return not (self.anew or self.superfluous or self.steps or self.revived)

    def carry_out(self, db: sqlite3.Connection) -> dict[str, str]:
        """Do it, inside a transaction; give the tables that could not be captured, and why."""
        skipped = {}
        for name in self.superfluous:
            db.execute(f"DROP TRIGGER IF EXISTS main.{quote_identifier(name)}")
        for table, layout in self.anew:
            before = _faults(db, table)
            db.execute("SAVEPOINT capture")
            try:
                shape = _store_shape(db, table.name, layout)
                # Copies from before may not be as their rows are now.
                db.execute("DELETE FROM _appliance_scratch WHERE shape=?", (shape.id,))
                for trigger in triggers(table, shape):
                    db.execute(trigger.sql)
                # CREATE TRIGGER does not look at the body. If it cannot be compiled, no write could.
                for write, fault in _faults(db, table).items():
                    if write not in before:
                        raise fault
                self.right[table.name] = shape
            except sqlite3.Error as error:
                if not _is_refusal(error):
                    raise
                skipped[table.name] = str(error)
                db.execute("ROLLBACK TO capture")
            db.execute("RELEASE capture")
        if made := [table.name for table, _ in self.anew if table.name not in skipped]:
            breaks.note(db, made)
        return skipped

    def result(self, db: sqlite3.Connection, skipped: dict[str, str]) -> Synced:
        noted = {name: warnings(self.tables[name], shape) for name, shape in self.right.items()}
        return Synced(
            shapes=self.right,
            found_version=self.version - self.steps,
            schema_version=schema.version(db),
            foreign=standing.foreign(db),
            found_texts=self.texts,
            texts=self.texts if self.is_done else standing.texts(standing.ours(db)),
            changed=tuple(table.name for table, _ in self.anew if ascii_fold(table.name) in self.known),
            dropped=tuple(sorted(self.before - {ascii_fold(name) for name in self.tables})),
            skipped=dict.fromkeys(self.unnamed, _UNNAMED) | skipped,
            warnings={name: each for name, each in noted.items() if each},
        )


def _plan(db: sqlite3.Connection, secret: Secret, watched: Callable[[str], bool]) -> _Plan:
    found = standing.ours(db)
    foreign = standing.newest_foreign(db)
    shapes = load_shapes(db)
    by_layout = {(shape.table, dump(shape)): shape for shape in shapes.values()}
    captured = {ascii_fold(shapes[shape_id].table) for shape_id in map(standing.shape_id, found) if shape_id in shapes}
    known = frozenset(ascii_fold(shape.table) for shape in shapes.values())
    plan = _Plan({}, {}, [], [], frozenset(captured), known, schema.version(db), _steps(db), standing.texts(found))
    kept: set[str] = set()
    by_table: dict[str, list[Standing]] = {}
    for each in found:
        by_table.setdefault(ascii_fold(each.table), []).append(each)
    tables, plan.unnamed = catalog.tables_and_unnamed(db)
    for table in tables:
        if not watched(table.name):
            continue
        plan.tables[table.name] = table
        draft = shape_of(table, 0, secret)
        layout = dump(draft)
        shape = by_layout.get((table.name, layout))
        there = by_table.get(ascii_fold(table.name), [])
        if (
            shape is not None
            and plan.texts.get(shape.id) == fingerprint(table, shape)
            and _alone(there, shape, foreign.get(ascii_fold(table.name), 0))
        ):
            plan.right[table.name] = shape
            kept.update(each.name for each in there)
        else:
            plan.anew.append((table, layout))
    plan.superfluous = [each.name for each in found if each.name not in kept]
    plan.revived = not ended.ended(db).keys().isdisjoint(shape.id for shape in plan.right.values())
    return plan


def _faults(db: sqlite3.Connection, table: Table) -> dict[str, sqlite3.Error]:
    """Compile each kind of write to the table; give those that fail, and how."""
    name = quote_identifier(table.name)
    column = table.rowid or quote_identifier((table.key or table.columns)[0].name)
    found = {}
    for write in (
        f"INSERT INTO main.{name} DEFAULT VALUES",
        f"UPDATE main.{name} SET {column}={column}",
        f"DELETE FROM main.{name} WHERE {column} IS NULL",  # without a condition it would not look at the indexes
    ):
        try:
            # Compiled anew, not run, and not kept as ``execute`` does: with its triggers it takes up to 90 KB.
            db(write)
        except sqlite3.Error as error:
            found[write] = error
    return found


def _is_refusal(error: sqlite3.Error) -> bool:
    """Whether SQLite will not have the SQL, rather than cannot write it: disk full, locked, corrupt."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_TOOBIG) & 0xFF
    return code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOMEM)


def _alone(there: list[Standing], shape: Shape, newest_foreign: int) -> bool:
    """Whether the triggers on a table are all of this shape, and newer than anybody else's."""
    return all(standing.shape_id(each) == shape.id and each.place > newest_foreign for each in there)


def _store_shape(db: sqlite3.Connection, table: str, layout: str) -> Shape:
    """Store a shape, or find it if the table had it before: old rows of the outbox still mean the same."""
    row = db.execute(
        'SELECT id FROM _appliance_shape WHERE "table"=? AND layout=? ORDER BY id DESC', (table, layout)
    ).fetchone()
    if row is None:
        inserted = db.execute('INSERT INTO _appliance_shape("table", layout) VALUES(?, ?)', (table, layout))
        return load(int(inserted.lastrowid or 0), table, layout, _encoding(db))
    return load(row[0], table, layout, _encoding(db))


def load_shapes(db: sqlite3.Connection) -> dict[int, Shape]:
    """Give every shape that a row of the outbox may have, by its id."""
    rows = db.execute('SELECT id, "table", layout FROM _appliance_shape').fetchall()
    encoding = _encoding(db)
    return {shape_id: load(shape_id, table, layout, encoding) for shape_id, table, layout in rows}


def _encoding(db: sqlite3.Connection) -> str:
    return str(db.execute("PRAGMA encoding").fetchone()[0])


def captured(db: sqlite3.Connection) -> list[str]:
    """Name the tables that have our triggers."""
    return sorted({each.table for each in standing.ours(db)})


def release(db: sqlite3.Connection, table: str) -> None:
    """Take our triggers off one table."""
    for trigger in standing.ours(db):
        if ascii_fold(trigger.table) == ascii_fold(table):
            db.execute(f"DROP TRIGGER main.{quote_identifier(trigger.name)}")


def remove(db: sqlite3.Connection) -> list[str]:
    """Take all our triggers and all ``_appliance_*`` tables out of the file; give what ``remove_unused`` says."""
    with schema.transaction(db):
        for trigger in standing.ours(db):
            db.execute(f"DROP TRIGGER main.{quote_identifier(trigger.name)}")
        left = removal.remove_unused(db)
        ours = db.execute(
            "SELECT name FROM main.sqlite_schema WHERE type='table' AND name LIKE '\\_appliance\\_%' ESCAPE '\\'"
        ).fetchall()
        for (name,) in ours:
            db.execute(f"DROP TABLE main.{quote_identifier(name)}")
    return left
