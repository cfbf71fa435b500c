"""The triggers that write every change into the outbox, but for what a REPLACE displaces.

They run inside the writer's transaction, in the writer's SQLite, under the writer's limits and settings; if one
fails, somebody's write fails. So they are made of plain INSERT, SELECT, UPDATE, DELETE and CASE, with ``length``,
``typeof`` and ``ifnull`` as the only functions beside those of the table's own DEFAULTs and indexes, need SQLite 3.31,
and keep below the limits that SQLite recommends against hostile input (https://sqlite.org/security.html): an expression
depth of 10 above all, in which SQLite counts a subquery's expressions twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from appliance.capture.expressions import Value, any_of, collated, of, outbox_row, vector
from appliance.capture.outbox import WIDTH, parts
from appliance.capture.shape import Table
from appliance.model import Affinity, Column, Op, Shape, quote_identifier

#: Affinities that leave nothing but numbers in a STRICT table (https://sqlite.org/stricttables.html).
_NUMBERS: Final = (Affinity.INTEGER, Affinity.REAL)
INTEGER_MIN: Final = -(1 << 63)


@dataclass(frozen=True, slots=True)
class Trigger:
    """One trigger: its name, and the whole CREATE TRIGGER statement."""

    name: str
    sql: str


class Images:
    """Writes the triggers that every table has: those that copy a row as it was or is."""

    def __init__(self, table: Table, shape: Shape) -> None:
        self._table = table
        self._shape = shape
        self._name = quote_identifier(table.name)
        self._id = shape.id
        self._values = [self._value(column) for column in shape.columns]
        if shape.rowid:
            self._values.insert(0, Value(str(table.rowid), number=True))
        self._parts = parts(shape.width)

    def _value(self, column: Column) -> Value:
        number = column.name == self._table.integer_key or (self._table.strict and column.affinity in _NUMBERS)
        no_number, plain = column.affinity is Affinity.TEXT, column.collation == "BINARY"
        return Value(quote_identifier(column.name), number, no_number, plain)

    def all(self) -> tuple[Trigger, ...]:
        """Give the triggers in the order in which they must be created."""
        return (self._update(), self._delete(), self._insert())

    def _trigger(self, kind: str, event: str, when: str | None, body: Iterable[str]) -> Trigger:
        name = f"_appliance_{self._id}_{kind}"
        condition = f"WHEN {when}\n" if when else ""
        statements = "".join(f"{statement};\n" for statement in body)
        head = f"CREATE TRIGGER {quote_identifier(name)} {event} ON {self._name} FOR EACH ROW"
        return Trigger(name, f"{head}\n{condition}BEGIN\n{statements}END")

    def _insert(self) -> Trigger:
        return self._trigger("insert", "AFTER INSERT", None, self._image("NEW", str(int(Op.CREATE))))

    def _delete(self) -> Trigger:
        return self._trigger("delete", "AFTER DELETE", None, self._image("OLD", str(int(Op.DELETE))))

    def _update(self) -> Trigger:
        body = [
            *self._image("OLD", str(int(Op.UPDATE))),
            *self._image("NEW", str(int(Op.MORE))),
            *self._changed_again(),
        ]
        return self._trigger("update", "AFTER UPDATE", any_of(self._changes()), body)

    def _changed_again(self) -> list[str]:
        """Tell what has become of a row between its update and this trigger; only the REPLACE recipe knows."""
        return []

    def _changes(self, was: str = "OLD", now: str = "NEW") -> list[str]:
        """Say of each captured value that it has changed, to the bit."""
        columns = [(quote_identifier(each.name), each.collation) for each in self._shape.columns]
        if self._shape.rowid:
            columns.insert(0, (str(self._table.rowid), "BINARY"))
        if not columns:
            return []
        before = [collated(of(was, name), "BINARY", plain=collation) for name, collation in columns]
        found = [f"{vector(before)} IS NOT {vector([of(now, name) for name, _ in columns])}"]
        for column in self._shape.columns:
            value, new = of(was, quote_identifier(column.name)), of(now, quote_identifier(column.name))
            # 1 IS 1.0: two values may be equal and yet of two types. Numeric affinities make the one of the other, but
            # for the least of all integers; TEXT and REAL know only one kind of number.
            if column.name != self._table.integer_key:
                other_type = f"typeof({value})<>typeof({new})"
                if column.affinity is Affinity.BLOB:
                    found.append(other_type)
                elif column.affinity in (Affinity.INTEGER, Affinity.NUMERIC):
                    found.append(f"{value}={INTEGER_MIN} AND {other_type}")
        return found

    def _image(self, row: str, op: str, source: str = "") -> list[str]:
        """Write one image, ``NEW`` or ``OLD``, as rows of the outbox; the first has ``op``.

        With a ``source``, `` FROM … WHERE …``, of which there is at most one row: if there is one; ``row`` may be its.
        """
        written = []
        for part in range(self._parts):
            columns, shown, cut = outbox_row(self._of_part(row, part))
            first = op if part == 0 else str(int(Op.MORE))
            all_values = ",".join([str(self._id), first, cut, *shown])
            given = f"SELECT {all_values}{source}" if source else f"VALUES({all_values})"
            written.append(f"INSERT INTO _appliance_outbox(shape,op,cut{columns}) {given}")
        return written

    def _of_part(self, row: str, part: int) -> list[Value]:
        return [value.of(row) for value in self._values[part * WIDTH : (part + 1) * WIDTH]]
