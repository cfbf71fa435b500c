"""What is wanted of the outbox, as an expression over its rows that SQLite decides on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, NamedTuple

from appliance.capture import outbox
from appliance.capture.contents import Having, Kind, Sought, one_of, within
from appliance.model import Op, Shape, SQLiteValue, ascii_fold
from appliance.protocol.filters import RowFilter

#: What a filter may bind for each subscription, and the filters that the shapes of its table may differ in: of more,
#: SQLite is asked for the rows of the table. Of 32 subscriptions it is then less than the 32,766 values that SQLite
#: takes, and no deeper than the 1000 levels (https://sqlite.org/limits.html).
BOUND_VALUES: Final = 1000
VARIANTS: Final = 100
#: Of so many shapes it is asked one by one: a list costs each row as much as three tests (measured).
FEW_SHAPES: Final = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of the outbox: an expression over its rows that holds for at least one row of each such event.

    ``reach`` is how many rows an event that a candidate belongs to may go on before and behind it. Rows for which it
    holds are among what is ``sought``; ``None``: they may be any.
    """

    sql: str
    parameters: tuple[Any, ...] = ()
    reach: int = 0
    sought: Sought | None = None

    @classmethod
    def rows(cls, shapes: Sequence[tuple[Shape, RowFilter | None]]) -> Wanted:
        """Want the changes of a table: each shape that it has had, with its filter."""
        variants: dict[_Condition, list[int]] = {}
        sought: list[tuple[Kind, tuple[Having, ...]]] = []
        for shape, wanted in shapes:
            condition, having = _condition(shape, wanted)
            variants.setdefault(condition, []).append(shape.id)
            sought.append((shape.id, having))
        if len(variants) > VARIANTS or sum(len(each.parameters) for each in variants) > BOUND_VALUES:
            variants = {_ANY: [shape.id for shape, _ in shapes]}
        return cls(
            " OR ".join(f"({each.first}{_among(ids)}{each.then})" for each, ids in variants.items()) or "0",
            tuple(value for each in variants for value in each.parameters),
            max((2 * outbox.parts(shape.width) - 1 for shape, _ in shapes), default=0),
            tuple(sought),
        )

    @classmethod
    def named(cls, shapes: Sequence[tuple[Shape, int]], names: Sequence[SQLiteValue]) -> Wanted:
        """Want the changes of rows that have one of these values, of which none is ``None``, at each shape's place.

        They are bound once for all shapes that have the same place in a row.
        """
        by_value: dict[int, list[Shape]] = {}
        for shape, place in shapes:
            by_value.setdefault(place % outbox.WIDTH, []).append(shape)
        listed = ",".join("?" * len(names))
        sought: list[tuple[Kind, tuple[Having, ...]]] = []
        for value, some in by_value.items():
            having = (one_of(value, names),)
            sought += [(shape.id, having) for shape in some]
        return cls(
            " OR ".join(
                f"({_among([shape.id for shape in some])} AND {outbox.VALUES[value]} IN ({listed}))"
                for value, some in by_value.items()
            )
            or "0",
            tuple(names) * len(by_value),
            max((2 * outbox.parts(shape.width) - 1 for shape, _ in shapes), default=0),
            tuple(sought),
        )

    @classmethod
    def messages(cls, topic: str) -> Wanted:
        """Want the messages of a user topic."""
        return cls(f"op={int(Op.MESSAGE)} AND v0=? COLLATE NOCASE", (topic,), sought=((ascii_fold(topic), ()),))

    @classmethod
    def everything(cls, shapes: Iterable[Shape]) -> Wanted:
        """Want every event; ``shapes`` are all that there are."""
        return cls("1", (), max((2 * outbox.parts(shape.width) - 1 for shape in shapes), default=0))

    @classmethod
    def any_of(cls, several: Sequence[Wanted]) -> Wanted:
        """Want what any of these wants."""
        if len(several) == 1:
            return several[0]
        known = [each.sought for each in several]
        return cls(
            " OR ".join(f"({each.sql})" for each in several) or "0",
            tuple(value for each in several for value in each.parameters),
            max((each.reach for each in several), default=0),
            None if None in known else tuple(chain.from_iterable(each for each in known if each is not None)),
        )


def _among(shapes: Sequence[int]) -> str:
    """Say that a row is of one of these shapes."""
    if len(shapes) <= FEW_SHAPES:
        return "(" + " OR ".join(f"shape={each}" for each in shapes) + ")"
    # The tables of accounts, say, were there before any other: what is refused is beyond the last of them.
    within, listed = f"shape<={max(shapes)} AND shape>={min(shapes)}", ",".join(map(str, shapes))
    return f"({within} AND shape IN ({listed}))"


class _Condition(NamedTuple):
    """What stands before the test of a row's shape, and what behind it, with the parameters of both in their order."""

    first: str
    then: str
    parameters: tuple[SQLiteValue, ...]


_ANY: Final = _Condition("", "", ())


def _condition(shape: Shape, wanted: RowFilter | None) -> tuple[_Condition, tuple[Having, ...]]:
    """Say which rows of this shape can belong to an event that the filter lets through, and what these have.

    Conditions on values that stand in other rows of the same image cannot be put to one row; so only those of the
    part that has the first of them are. Such a row is the first of an event where it is of the first part, unless it is
    of an update's new image.

    Where many rows have to be looked at, most are of the table in question, or they would have been left out; so what
    costs no more than the test of the shape is tested before it.
    """
    if wanted is None:
        return _ANY, ()
    first, then = _Part(), _Part()
    part: int | None = None
    having: list[Having] = []
    for condition in wanted.conditions:
        place = condition.position + shape.rowid
        if part is not None and place // outbox.WIDTH != part:
            continue
        part = place // outbox.WIDTH
        stored, value = condition.stored, place % outbox.WIDTH
        into = first if stored.cheap else then
        into.sql.append("(" + stored.sql.replace("{}", outbox.VALUES[value]) + ")")
        into.values += stored.parameters
        if stored.among is not None:
            having.append(one_of(value, stored.among))
        if stored.between is not None:
            having.append(within(value, stored.between))
    if len(wanted.events) < len(_ROW_EVENTS) and not part:
        # An update's new image is written as a create where an insert has replaced the row.
        among = {*wanted.events, *((Op.MORE, Op.CREATE) if Op.UPDATE in wanted.events else ())}
        then.sql.insert(0, f"op IN ({','.join(str(int(op)) for op in sorted(among))})")
    made = _Condition(
        "".join(f"{each} AND " for each in first.sql),
        "".join(f" AND {each}" for each in then.sql),
        (*first.values, *then.values),
    )
    return made, tuple(having)


@dataclass(slots=True)
class _Part:
    sql: list[str] = field(default_factory=list)
    values: list[SQLiteValue] = field(default_factory=list)


_ROW_EVENTS: Final = frozenset((Op.CREATE, Op.UPDATE, Op.DELETE))
