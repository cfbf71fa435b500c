"""The triggers that write every change into the outbox: a table's shape to SQL.

They run inside the writer's transaction, in the writer's SQLite, under the writer's limits and settings; if one
fails, somebody's write fails. So they are made of plain INSERT, SELECT, UPDATE, DELETE and CASE, with ``length`` and
``typeof`` as the only functions, need SQLite 3.31, and keep below the limits that SQLite recommends against hostile
input (https://sqlite.org/security.html): an expression depth of 10 above all, hence the flat CASE lists.

The REPLACE recipe. ``INSERT OR REPLACE`` fires no delete trigger for the rows it displaces unless the writer has
set ``recursive_triggers``. So a BEFORE trigger copies the rows that are at risk to the scratch table – only if there
are any – and the AFTER trigger finds those that are gone: the one whose primary key the new row has becomes an
``update``, the others become ``delete``. Copies that come to nothing (OR IGNORE, UPSERT) are cleared by the next
firing, or, where a nested statement may write the same table, kept in step with it and bounded in number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.capture.outbox import KEYS, VALUE_LIMIT, VALUES, WIDTH, parts
from appliance.capture.shape import Table, UniqueIndex
from appliance.capture.sql import tokens
from appliance.model import Affinity, Op, Shape, ascii_fold, quote_identifier

#: Copies kept for a table whose rows may be written while one of them is: as many as one statement's REPLACE can need.
RING = 32

SCRATCH = "_appliance_scratch"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One trigger: its name, and the whole CREATE TRIGGER statement."""

    name: str
    sql: str


def triggers(table: Table, shape: Shape) -> tuple[Trigger, ...]:
    """Give all triggers of a table, in the order in which they must be created: SQLite fires the newest first."""
    return _Writer(table, shape).all()


def all_of(conditions: Sequence[str]) -> str:
    """AND conditions as a balanced tree: SQLite limits the depth of an expression."""
    return _tree(conditions, "AND")


def _tree(conditions: Sequence[str], operator: str) -> str:
    if len(conditions) == 1:
        return conditions[0]
    middle = len(conditions) // 2
    left, right = _tree(conditions[:middle], operator), _tree(conditions[middle:], operator)
    return f"({left} {operator} {right})"


def any_of(conditions: Iterable[str]) -> str:
    """OR conditions as one flat CASE: any number of them has the same depth, and the first that holds ends it."""
    cases = " ".join(f"WHEN {condition} THEN 1" for condition in conditions)
    return f"CASE {cases} ELSE 0 END" if cases else "0"


def too_long(value: str) -> str:
    """Whether a value is over the limit. Numbers are told apart first: ``length`` would have to render them."""
    return f"{value} COLLATE BINARY>='' AND length(CAST({value} AS BLOB))>{VALUE_LIMIT}"


class _Writer:
    """Writes the triggers of one table.

    Names: a row of the table inside a subquery is called by the table's own name, because the WHERE of a partial index
    may do so; ``s`` is the scratch table.
    """

    def __init__(self, table: Table, shape: Shape) -> None:
        self._table = table
        self._shape = shape
        self._name = quote_identifier(table.name)
        # A row of the table in a subquery goes by the table's name, but where NEW and OLD are meant by that.
        shadowed = ascii_fold(table.name) in ("new", "old")
        self._row = "_appliance_row" if shadowed else self._name
        self._from = f"{self._name} AS {self._row}" if shadowed else self._name
        self._id = shape.id
        self._values = [quote_identifier(column.name) for column in shape.columns]
        if shape.rowid:
            self._values.insert(0, str(table.rowid))
        self._parts = parts(shape.width)
        # What tells rows apart: the rowid, or the key of a WITHOUT ROWID table under its index's collations.
        primary = next((each for each in table.uniques if each.primary), None)
        key = primary.columns if primary else tuple((each.name, each.collation) for each in table.key)
        self._key = [(quote_identifier(name), collation) for name, collation in key]
        captured = len(shape.key) == len(table.key)  # a key that is secret is not copied, either
        if not captured and not table.without_rowid:
            self._key = []
        self._identity = self._key if table.without_rowid else [(str(table.rowid), "BINARY")]
        self._covered = table.replaceable and (captured or not table.without_rowid)
        # What a scratch row keeps beside the values: identity first, then what decides whether it is the same key.
        self._kept = [name for name, _ in self._identity]
        if not table.without_rowid and table.integer_key is None:
            self._kept += [name for name, _ in self._key]

    def all(self) -> tuple[Trigger, ...]:
        made = [self._update(), self._delete()]
        if self._covered:
            made += [self._displaced_by_update(), self._insert_displacing(), self._insert()]
            made += [self._before_insert(), self._before_update()]
        else:
            made.append(self._insert())
        return tuple(made)

    def _trigger(self, kind: str, event: str, when: str | None, body: Iterable[str]) -> Trigger:
        name = f"_appliance_{self._id}_{kind}"
        condition = f"WHEN {when}\n" if when else ""
        statements = "".join(f"{statement};\n" for statement in body)
        head = f"CREATE TRIGGER {quote_identifier(name)} {event} ON {self._name} FOR EACH ROW"
        return Trigger(name, f"{head}\n{condition}BEGIN\n{statements}END")

    # -- the four that every table has -------------------------------------------------------------------

    def _insert(self) -> Trigger:
        when = f"NOT {self._has_scratch()}" if self._covered else None
        return self._trigger("insert", "AFTER INSERT", when, self._image("NEW", str(int(Op.CREATE))))

    def _delete(self) -> Trigger:
        body = self._image("OLD", str(int(Op.DELETE)))
        if self._covered:
            body.append(f"DELETE FROM {SCRATCH} WHERE shape={self._id} AND {self._is('OLD')}")
        return self._trigger("delete", "AFTER DELETE", None, body)

    def _update(self) -> Trigger:
        body = self._image("OLD", str(int(Op.UPDATE))) + self._image("NEW", str(int(Op.MORE)))
        return self._trigger("update", "AFTER UPDATE", any_of(self._changes()), body)

    def _changes(self) -> list[str]:
        """Say of each captured value that it has changed, to the bit."""
        found = []
        if self._shape.rowid:
            found.append(f"OLD.{self._table.rowid}<>NEW.{self._table.rowid}")
        for column in self._shape.columns:
            name = quote_identifier(column.name)
            found.append(f"OLD.{name} COLLATE BINARY IS NOT NEW.{name}")
            # 1 IS 1.0. Only TEXT and REAL affinity leave no two values that are equal and yet of two types.
            if column.affinity not in (Affinity.TEXT, Affinity.REAL):
                found.append(f"typeof(OLD.{name})<>typeof(NEW.{name})")
        return found

    def _image(self, row: str, op: str) -> list[str]:
        """Write one image, ``NEW`` or ``OLD``, as rows of the outbox; the first has ``op``."""
        values = [f"{row}.{value}" for value in self._values]
        written = []
        for part in range(self._parts):
            columns, shown, cut = _row(values[part * WIDTH : (part + 1) * WIDTH])
            first = op if part == 0 else str(int(Op.MORE))
            all_values = ",".join([str(self._id), first, cut, *shown])
            written.append(f"INSERT INTO _appliance_outbox(shape,op,cut{columns}) VALUES({all_values})")
        return written

    # -- the REPLACE recipe ------------------------------------------------------------------------------

    def _has_scratch(self) -> str:
        return f"EXISTS(SELECT 1 FROM {SCRATCH} WHERE shape={self._id})"

    def _is(self, row: str) -> str:
        """Say that a scratch row is a copy of ``NEW`` or ``OLD`` or of the row of a subquery."""
        return all_of(
            [
                f"{SCRATCH}.{kept}={row}.{name} COLLATE {quote_identifier(collation)}"
                for kept, (name, collation) in zip(KEYS, self._identity, strict=False)
            ]
        )

    def _gone(self) -> str:
        return f"NOT EXISTS(SELECT 1 FROM {self._from} WHERE {self._is(self._row)})"

    def _same_key(self) -> str:
        """Say that a scratch row has the primary key of NEW."""
        if self._table.without_rowid or self._table.integer_key is not None or not self._key:
            return self._is("NEW")
        compared = [
            f"{SCRATCH}.{kept}=NEW.{name} COLLATE {quote_identifier(collation)}"
            for kept, (name, collation) in zip(KEYS[1:], self._key, strict=False)
        ]
        return all_of(compared)

    def _conflicts(self, row: str, other_than: str | None) -> list[str]:
        """Say, for each way in which a row of the table can stand in the way of ``row``, that it does."""
        found = []
        if not self._table.without_rowid:
            found.append(f"{self._row}.{self._table.rowid}={row}.{self._table.rowid}")
        found += [self._conflict(unique, row) for unique in self._table.uniques if not unique.expression]
        if other_than is not None:
            same = all_of(
                [
                    f"{self._row}.{name}={other_than}.{name} COLLATE {quote_identifier(collation)}"
                    for name, collation in self._identity
                ]
            )
            found = [f"{each} AND NOT {same}" for each in found]
        return found

    def _conflict(self, unique: UniqueIndex, row: str) -> str:
        columns = [(quote_identifier(name), quote_identifier(collation)) for name, collation in unique.columns]
        equal = [f"{self._row}.{name}={row}.{name} COLLATE {collation}" for name, collation in columns]
        # Without its own WHERE a partial index could not be searched: the whole table would be, for each insert.
        return all_of([*equal, f"({unique.where})"] if unique.where else equal)

    def _before_insert(self) -> Trigger:
        found = [f"EXISTS(SELECT 1 FROM {self._from} WHERE {each})" for each in self._conflicts("NEW", None)]
        body = [*self._clear(), *self._copies(None)]
        return self._trigger("before_insert", "BEFORE INSERT", any_of(found), body)

    def _before_update(self) -> Trigger:
        conflicts = self._conflicts("NEW", "OLD")
        moved = []
        if not self._table.without_rowid:
            moved.append(f"OLD.{self._table.rowid}<>NEW.{self._table.rowid}")
        for unique in self._table.uniques:
            if not unique.expression:
                # A row may also enter a partial index by a column of its WHERE.
                changed = [
                    f"OLD.{quote_identifier(name)} COLLATE BINARY IS NOT NEW.{quote_identifier(name)}"
                    for name, _ in unique.columns
                ]
                moved.append("1" if unique.where else _tree(changed, "OR"))
        # SQLite loads for a BEFORE UPDATE trigger only the columns that it names, and computes generated ones from
        # what is loaded: so that they are right, it names all.
        named = [f"NEW.{quote_identifier(each.name)}" for each in self._table.columns if not each.generated]
        # (A plain `0 AND …` the parser would drop.)
        loads = (
            [f"{each} IS NULL AND {each} IS NOT NULL" for each in named]
            if len(named) < len(self._table.columns)
            else []
        )
        when = any_of(
            [
                *loads,
                *(
                    f"{change} AND EXISTS(SELECT 1 FROM {self._from} WHERE {conflict})"
                    for change, conflict in zip(moved, conflicts, strict=True)
                ),
            ]
        )
        return self._trigger(
            "before_update", f"BEFORE UPDATE{self._of()}", when, [*self._clear(), *self._copies("OLD")]
        )

    def _of(self) -> str:
        """Name the columns whose update can displace a row.

        An update of others does not even compile the trigger: it may come from a writer without the collation or the
        function of a UNIQUE index that it does not touch.
        """
        unique = [each for each in self._table.uniques if not each.expression]
        names = {name for each in unique for name, _ in each.columns} | {each.name for each in self._table.key}
        written = {token.name for each in unique for token in tokens(each.where or "")}
        names |= {each.name for each in self._table.columns if ascii_fold(each.name) in map(ascii_fold, written)}
        if any(each.generated and each.name in names for each in self._table.columns):
            return ""  # it changes with the columns that it is computed from
        rowids = [] if self._table.without_rowid else ["rowid", "oid", "_rowid_"]
        return f" OF {','.join([*rowids, *map(quote_identifier, sorted(names))])}"

    def _clear(self) -> list[str]:
        """Clear copies that came to nothing; where a statement may be nested in another, only the oldest of many."""
        if not self._table.nested:
            return [f"DELETE FROM {SCRATCH} WHERE shape={self._id}"]
        newest = (
            f"(SELECT id FROM {SCRATCH} WHERE shape={self._id} ORDER BY id DESC LIMIT 1 OFFSET {RING * self._parts})"
        )
        return [f"DELETE FROM {SCRATCH} WHERE shape={self._id} AND id<={newest}"]

    def _copies(self, other_than: str | None) -> list[str]:
        """Copy every row at risk to the scratch table, once."""
        written = []
        kept = [f"{self._row}.{name}" for name in self._kept]
        values = [f"{self._row}.{value}" for value in self._values]
        for conflict in self._conflicts("NEW", other_than):
            for part in range(self._parts):
                columns, shown, cut = _row(values[part * WIDTH : (part + 1) * WIDTH])
                keys = ",".join(KEYS[: len(kept)])
                there = f"SELECT 1 FROM {SCRATCH} WHERE shape={self._id} AND part={part} AND {self._is(self._row)}"
                written.append(
                    f"INSERT INTO {SCRATCH}(shape,part,{keys},cut{columns}) "
                    f"SELECT {self._id},{part},{','.join([*kept, cut, *shown])} "
                    f"FROM {self._from} WHERE {conflict} AND NOT EXISTS({there})"
                )
        return written

    def _insert_displacing(self) -> Trigger:
        displaced = f"({self._gone()} OR {self._is('NEW')})"
        replaced = f"{displaced} AND {self._same_key()}"
        # As two conditions, because of the depth.
        replaces = [
            f"EXISTS(SELECT 1 FROM {SCRATCH} WHERE shape={self._id} AND {self._same_key()} AND {how})"
            for how in (self._gone(), self._is("NEW"))
        ]
        first = f"CASE {' '.join(f'WHEN {each} THEN {int(Op.MORE)}' for each in replaces)} ELSE {int(Op.CREATE)} END"
        body = [
            *self._from_scratch(Op.DELETE, f"{displaced} AND ({self._same_key()}) IS NOT 1"),
            *self._from_scratch(Op.UPDATE, replaced),
            *self._image("NEW", first),
            f"DELETE FROM {SCRATCH} WHERE shape={self._id}" + (f" AND {displaced}" if self._table.nested else ""),
        ]
        return self._trigger("insert_displacing", "AFTER INSERT", self._has_scratch(), body)

    def _displaced_by_update(self) -> Trigger:
        displaced = f"NOT ({self._is('OLD')}) AND ({self._gone()} OR {self._is('NEW')})"
        body = self._from_scratch(Op.DELETE, displaced)
        if self._table.nested:
            body.append(f"DELETE FROM {SCRATCH} WHERE shape={self._id} AND {displaced}")
            body += self._keep_in_step()
        else:
            body.append(f"DELETE FROM {SCRATCH} WHERE shape={self._id}")
        return self._trigger("displaced_by_update", "AFTER UPDATE", self._has_scratch(), body)

    def _keep_in_step(self) -> list[str]:
        """Make a copy of the row that was updated the copy of what it now is."""
        written = []
        kept = [f"{name}=NEW.{value}" for name, value in zip(KEYS, self._kept, strict=False)]
        for part in reversed(range(self._parts)):
            _, shown, cut = _row([f"NEW.{value}" for value in self._values[part * WIDTH : (part + 1) * WIDTH]])
            values = [f"{name}={value}" for name, value in zip(VALUES, shown, strict=False)]
            written.append(
                f"UPDATE {SCRATCH} SET {','.join([*kept, f'cut={cut}', *values])} "
                f"WHERE shape={self._id} AND part={part} AND {self._is('OLD')}"
            )
        return written

    def _from_scratch(self, op: Op, condition: str) -> list[str]:
        """Write the copies that satisfy a condition into the outbox, each row's parts together."""
        values = "".join(f",{name}" for name in VALUES[: self._shape.width])
        order = ",".join([*KEYS[: len(self._identity)], "part"])
        first = f"CASE part WHEN 0 THEN {int(op)} ELSE {int(Op.MORE)} END"
        return [
            f"INSERT INTO _appliance_outbox(shape,op,cut{values}) SELECT shape,{first},cut{values} FROM {SCRATCH} "
            f"WHERE shape={self._id} AND {condition} ORDER BY {order}"
        ]


def _row(values: Sequence[str]) -> tuple[str, list[str], str]:
    """Give the columns, the values and the ``cut`` of one outbox or scratch row."""
    columns = "".join(f",{name}" for name in VALUES[: len(values)])
    shown = [f"CASE WHEN {too_long(value)} THEN x'' ELSE {value} END" for value in values]
    cut = f"CASE {' '.join(f'WHEN {too_long(value)} THEN 1' for value in values)} END" if values else "NULL"
    return columns, shown, cut
