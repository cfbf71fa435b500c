"""The REPLACE recipe: the triggers that tell of rows which a REPLACE displaces.

``INSERT OR REPLACE`` fires no delete trigger for the rows it displaces unless the writer has set
``recursive_triggers``. So BEFORE triggers copy the rows that are at risk to the scratch table – only if there are any –
and the AFTER trigger finds those that are gone: the one whose primary key the new row has becomes an ``update``, the
others become ``delete``. Copies that come to nothing (OR IGNORE, UPSERT) are cleared by the next write, or, where a
nested statement may write the same table, kept in step with it and bounded in number.

Where foreign keys' actions lead back to the table, they come after a row is displaced, moved or deleted, and before
what tells that. So there a copy has a ``fate``: what an action fires leaves alone what is told later, and tells what
nothing else would.

Known not to be told as it should: the second row that an UPDATE OR REPLACE displaces, where the first takes along the
row that is being updated (ON DELETE CASCADE): its ``delete`` comes with the next write. What an action changes in the
row that is being updated: it is told before the update, whose old image may be the row before the action.
"""

from __future__ import annotations

from appliance.capture import passwords
from appliance.capture.expressions import any_of, collated, equal, of, outbox_row, vector
from appliance.capture.images import Images, Trigger
from appliance.capture.joins import JOIN_PART, SCRATCH, Joins
from appliance.capture.outbox import DISPLACED, KEYS, OF_UPDATE, TOLD_LATER, VALUES
from appliance.capture.shape import REFERENCE, Table
from appliance.capture.ways import Way, ways
from appliance.model import Op, Shape, ascii_fold, quote_identifier

#: Copies kept for a table whose rows may be written while one of them is: as many as one statement's REPLACE can need.
RING = 32

#: Terms of a compound SELECT that a writer with SQLite's recommended limits reads.
COMPOUND = 3


class Recipe(Images):
    """Writes the triggers of a table, with the REPLACE recipe."""

    def __init__(self, table: Table, shape: Shape) -> None:
        super().__init__(table, shape)
        # In a subquery of the table, NEW and OLD are not to mean the table.
        shadows = ascii_fold(table.name) in ("new", "old")
        self._from = f"{self._name} AS _appliance_row" if shadows else self._name
        # What tells rows apart: the rowid, or the key of a WITHOUT ROWID table under its index's collations.
        primary = next((each for each in table.uniques if each.primary), None)
        key = primary.columns if primary else tuple((each.name, each.collation) for each in table.key)
        self._key = [(quote_identifier(name), collation) for name, collation in key]
        if shape.standard:
            self._key = [(quote_identifier(REFERENCE), "BINARY")]
        elif len(shape.key) < len(table.key):
            self._key = []  # a key that is secret is not copied, either
        self._identity = self._key if table.without_rowid else [(str(table.rowid), "BINARY")]
        # What a scratch row keeps beside the values: identity first, then what decides whether it is the same key.
        self._kept = [name for name, _ in self._identity]
        if not table.without_rowid and (table.integer_key is None or shape.standard):
            self._kept += [name for name, _ in self._key]
        self._joins = Joins(shape.id, table.joins, (self._kept[0], self._kept[1])) if table.joins else None

    def all(self) -> tuple[Trigger, ...]:
        """Give the triggers in the order in which they must be created."""
        # What was displaced is told before the row that took its place, so that trigger is the newer.
        after = (self._update(), self._delete(), self._displaced_by_update(), self._insert(), self._insert_displacing())
        return (*after, *self._before(), *self._before_delete(), *self._ended_tokens())

    def _insert(self) -> Trigger:
        """Tell of the new row, always as a ``create``: behind an update's old image it is that update's new one."""
        return self._trigger("insert", "AFTER INSERT", None, [*self._image("NEW", str(int(Op.CREATE))), *self._keep()])

    def _delete(self) -> Trigger:
        body = [
            *(self._joins.of_deleted() if self._joins else []),
            *self._image("OLD", str(int(Op.DELETE))),
            f"DELETE FROM {SCRATCH} WHERE shape={self._id} AND {self._is('OLD')}",
            *self._there_again(),
        ]
        return self._trigger("delete", "AFTER DELETE", None, body)

    def _before_delete(self) -> list[Trigger]:
        """Note the groups that a row is joined to: by the time it is gone, cascades have taken the join rows.

        Where it is taken by a row that its own update has displaced, nothing else tells that.
        """
        body = []
        if self._joins:
            body = [*(self._joins.forget(RING) if self._table.nested else []), *self._joins.note("OLD")]
        when = None if body else self._has_scratch()
        if self._table.acted:
            body = [*self._tell_displaced([self._gone_by_update()]), *body, *self._told_later(self._is("OLD"))]
        return [self._trigger("before_delete", "BEFORE DELETE", when, body)] if body else []

    def _ended_tokens(self) -> list[Trigger]:
        """End the tokens of a user whose password anybody has changed, whose account was another's or is gone."""
        if not self._table.accounts:
            return []
        of_new, of_old = passwords.end_tokens("NEW.reference_id"), passwords.end_tokens("OLD.reference_id")
        return [
            self._trigger("new_password", "AFTER UPDATE OF password", passwords.CHANGED, of_new),
            self._trigger("renamed", "AFTER UPDATE OF reference_id", passwords.RENAMED, of_old),
            self._trigger("removed", "AFTER DELETE", None, of_old),
        ]

    def _end_displaced(self, displaced: str) -> tuple[str, ...]:
        """End the tokens of the accounts that a REPLACE has displaced."""
        if not self._table.accounts:
            return ()
        reference = KEYS[len(self._identity)]
        # Marked first: what says so is too deep an expression for a subquery of a subquery.
        mark = f"UPDATE {SCRATCH} SET fate={DISPLACED} WHERE shape={self._id} AND {displaced}"
        marked = f"FROM {SCRATCH} WHERE (shape,part)=({self._id},0) AND fate={DISPLACED}"
        return mark, *passwords.end_tokens(reference, marked)

    def _there_again(self) -> list[str]:
        """Say of a row that was deleted that it is there, if a foreign key's action has made it anew meanwhile.

        Actions come before AFTER triggers, so its ``create`` was told before this ``delete``.
        """
        if not self._table.acted:
            return []
        return self._image("", str(int(Op.CREATE)), f" FROM {self._from} WHERE {self._keyed('OLD')}")

    def _changed_again(self) -> list[str]:
        """Tell of a row that a foreign key's action has changed once more, or deleted: that was told before this."""
        if not self._table.acted:
            return []
        columns = {quote_identifier(each.name): each for each in self._table.columns}
        nullable = [f"NEW.{name} IS NULL" for name, _ in self._key if columns[name].nullable]
        told = self._again(self._keyed("NEW"), *nullable)
        if nullable:  # with a NULL in it a key tells no row from another
            told += self._again(self._own("NEW"), f"{any_of(nullable)}=0")
        return told

    def _again(self, same: str, *unless: str) -> list[str]:
        here = f" FROM {self._from} WHERE {same}"
        again = f"{here} AND {any_of(self._changes('NEW', ''), *unless)}"
        gone = f"NOT EXISTS(SELECT 1{here})"
        return [
            *self._image("NEW", str(int(Op.UPDATE)), again),
            *self._image("", str(int(Op.MORE)), again),
            *self._image("NEW", str(int(Op.DELETE)), f" WHERE {any_of([gone], *unless) if unless else gone}"),
        ]

    def _keyed(self, row: str) -> str:
        """Say that a row of the table has the key of ``NEW`` or ``OLD``."""
        return equal([(name, f"{row}.{name}", collation) for name, collation in self._key or self._identity])

    def _has_scratch(self) -> str:
        return f"{self._id} IN (SELECT shape FROM {SCRATCH})"

    def _is(self, row: str) -> str:
        """Say that a scratch row is a copy of ``NEW`` or ``OLD``."""
        return equal([(kept, f"{row}.{name}", collation) for kept, (name, collation) in self._kept_identity()])

    def _kept_identity(self) -> list[tuple[str, tuple[str, str]]]:
        return list(zip(KEYS, self._identity, strict=False))

    def _gone(self) -> str:
        """Say that the row that a scratch row is a copy of is not in the table any more."""
        if len(self._identity) == 1:
            name, collation = self._identity[0]
            return f"{collated(KEYS[0], collation)} NOT IN (SELECT {name} FROM {self._name})"
        # With several IN would do so by any index, and in 3.40 then give values the affinity of others of them.
        same = equal([(name, f"{SCRATCH}.{key}", each) for key, (name, each) in self._kept_identity()], plain="")
        return f"NOT EXISTS(SELECT 1 FROM (SELECT 1 FROM {self._from} WHERE {same}))"

    def _gone_by_update(self) -> str:
        """Say that the row that a scratch row is a copy of is gone, and that no insert replaces it."""
        return f"fate IN ({DISPLACED},{OF_UPDATE}) AND {self._gone()}"

    def _same_key(self) -> str:
        """Say that a scratch row has the primary key of NEW."""
        if len(self._kept) == len(self._identity):
            return self._is("NEW")
        compared = zip(KEYS[len(self._identity) :], self._key, strict=False)
        return equal([(kept, f"NEW.{name}", collation) for kept, (name, collation) in compared])

    def _before(self) -> list[Trigger]:
        """Copy the rows at risk, after what came to nothing was cleared: before an update a trigger for each way.

        An update of other columns does not even compile its triggers: it may come from a writer without the collation
        or the function of a UNIQUE index that it does not touch. An insert compiles all of them.
        """
        made = []
        has, found = self._has_scratch(), ways(self._table)
        theres = [self._there(way) for way in found]
        for number, (way, there) in enumerate(zip(found, theres, strict=True)):
            when = f"{way.moved} AND {there}" if way.moved else there
            event = f"BEFORE UPDATE OF {','.join(way.columns)}" if way.columns else "BEFORE UPDATE"
            body = self._copies(way.conflict, self._find(way), f" AND NOT {self._own()}")
            made.append(self._trigger(f"before_update_{number}", event, when, body))
        # SQLite loads for BEFORE UPDATE triggers only the columns that they name, and computes generated ones from what
        # is loaded: so that they are right, one names all. (A plain `0 AND …` the parser would drop.)
        named = [f"NEW.{quote_identifier(each.name)}" for each in self._table.columns if not each.generated]
        loads = [f"{each} IS NULL AND {each} IS NOT NULL" for each in named]
        computed = len(named) < len(self._table.columns)
        update = any_of([*loads, has]) if computed else has
        clear = [*self._clear(), *self._told_later(f"{self._is('OLD')} AND NOT {self._is('NEW')}")]
        made.append(self._trigger("before_update_clear", "BEFORE UPDATE", update, clear))
        return [*made, self._before_insert(found, theres, has)]

    def _told_later(self, copies: str) -> list[str]:
        """Mark the copies of a row that is being moved or deleted: when an action fires, it is not where it was."""
        return [f"UPDATE {SCRATCH} SET fate={TOLD_LATER} WHERE shape={self._id} AND {copies}"] * self._table.acted

    def _before_insert(self, found: list[Way], theres: list[str], has: str) -> Trigger:
        """Copy the rows at risk in one trigger: each costs a writer also when there is nothing to do.

        Copies that came to nothing may stay till then: they are as their rows are, for what changes a row clears them.
        """
        stale = [has] if self._table.nested or self._table.accounts or self._unseen() else []
        conflicts = [way.conflict for way in found]
        finds = [self._find(way) for way in found]
        if len(found) > 1:
            # One statement for up to three ways: of each way's own, the copied values would be most of the SQL.
            finds = [" UNION ALL ".join(finds[at : at + COMPOUND]) for at in range(0, len(finds), COMPOUND)]
            conflicts = [f"{self._compared()} IN ({each})" for each in finds]
        anew = len(conflicts) == 1 and not self._table.nested
        each = zip(conflicts, finds, strict=True)
        body = [*self._clear(), *(copy for conflict, find in each for copy in self._copies(conflict, find, anew=anew))]
        return self._trigger("before_insert", "BEFORE INSERT", any_of([*stale, *theres]), body)

    def _there(self, way: Way) -> str:
        """Say that a row of the table stands in the way of NEW."""
        # Inside FROM, because the depth of a condition right in a subquery counts twice.
        return way.search or f"EXISTS(SELECT 1 FROM (SELECT 1 FROM {self._from} WHERE {way.conflict}))"

    def _find(self, way: Way) -> str:
        """Select what tells apart the rows of the table that stand in the way of NEW."""
        return f"SELECT {','.join(name for name, _ in self._identity)} FROM {self._from} WHERE {way.conflict}"

    def _own(self, row: str = "OLD") -> str:
        """Say that a row of the table is the one that is being updated, or ``NEW``."""
        return equal([(name, f"{row}.{name}", collation) for name, collation in self._identity])

    def _clear(self) -> list[str]:
        """Clear copies that came to nothing; where a statement may be nested in another, only the oldest of many."""
        if not self._table.nested:
            return [f"DELETE FROM {SCRATCH} WHERE shape={self._id}"]
        copies = f"shape={self._id}"
        if self._joins:  # one comparison, because of the limit on an expression's depth
            copies = f"(shape,part) BETWEEN ({self._id},0) AND ({self._id},{self._parts})"
        newest = f"SELECT id FROM {SCRATCH} WHERE {copies} ORDER BY id DESC LIMIT 1 OFFSET {RING * self._parts}"
        return [f"DELETE FROM {SCRATCH} WHERE shape={self._id} AND id<=({newest})", *self._unseen()]

    def _unseen(self) -> list[str]:
        """Note the groups of all rows that there are copies of, where one may be displaced and not found before."""
        if not self._joins or not any(each.expression for each in self._table.uniques):
            return []
        (name, _), key = self._identity[0], KEYS[0]
        copied = f"SELECT {key} FROM {SCRATCH} WHERE (shape,part)=({self._id},0)"
        return self._joins.note_at_risk(self._name, f"SELECT {name} FROM {self._name} WHERE {name} IN ({copied})")

    def _compared(self) -> str:
        """Give what tells a row of the table apart, to be compared."""
        return vector([collated(name, collation) for name, collation in self._identity])

    def _copies(self, conflict: str, find: str, others: str = "", *, anew: bool = False) -> list[str]:
        """Copy the rows at risk to the scratch table, those that are not there yet; ``anew``: it was just cleared.

        ``conflict`` says that a row of the table is one, ``find`` selects what tells them apart.
        """
        written = []
        keys = ",".join(KEYS[: len(self._identity)])
        kept = vector([collated(key, collation) for key, (_, collation) in self._kept_identity()])
        copies = f"shape={self._id} AND {kept} IN ({find})" + (f" AND NOT {self._is('OLD')}" if others else "")
        if self._table.acted:  # always anew, because of a fate that came to nothing
            written.append(f"DELETE FROM {SCRATCH} WHERE {copies}")
        for part in range(self._parts):
            there = f"SELECT {keys} FROM {SCRATCH} WHERE shape={self._id} AND part={part}"
            found = conflict if anew else f"({self._compared()} NOT IN ({there}){others}) AND ({conflict})"
            written.append(self._into_scratch("", part, f"FROM {self._from} WHERE {found}"))
        if self._joins:
            written += self._joins.note_at_risk(self._name, find, updated=bool(others))
        if self._table.acted and others:
            written.append(f"UPDATE {SCRATCH} SET fate={OF_UPDATE} WHERE {copies}")
        return written

    def _into_scratch(self, row: str, part: int, source: str) -> str:
        """Copy one part of ``row``, or of ``source``: ``FROM … WHERE …``, or only ``WHERE …``."""
        columns, shown, cut = outbox_row(self._of_part(row, part))
        keys = ",".join(KEYS[: len(self._kept)])
        values = ",".join([*(of(row, name) for name in self._kept), cut, *shown])
        return f"INSERT INTO {SCRATCH}(shape,part,{keys},cut{columns}) SELECT {self._id},{part},{values} {source}"

    def _insert_displacing(self) -> Trigger:
        body = self._tell_displaced([self._is("NEW"), self._gone()], replaced=self._same_key())
        return self._trigger("insert_displacing", "AFTER INSERT", self._has_scratch(), body)

    def _displaced_by_update(self) -> Trigger:
        signs = [self._is("NEW"), self._gone()]
        if self._table.acted:  # what an insert replaces is left to it, unless another row has got the key
            signs = [self._is("NEW"), f"{self._same_key()} AND {self._gone()}", self._gone_by_update()]
        body = self._tell_displaced(signs, unless=self._is("OLD"))
        if self._table.nested:
            body += self._keep_in_step()
        body += self._keep()
        when = None if self._table.disturbed else self._has_scratch()
        return self._trigger("displaced_by_update", "AFTER UPDATE", when, body)

    def _tell_displaced(self, signs: list[str], *, unless: str = "", replaced: str = "") -> list[str]:
        """Tell of the rows that are gone, which copies that have one of ``signs`` are of, then clear these.

        The one that was ``replaced`` goes last: it is the old image of an update, to be followed by the new one. Each
        row's parts stand together. Nothing is marked first: an UPDATE has a register for each column, twice, and a
        trigger pays for its registers also when it has nothing to do.
        """
        later = f"fate={TOLD_LATER}" if self._table.acted else ""
        displaced = any_of(signs, unless, later)
        told = displaced
        fate, joins, order = str(int(Op.DELETE)), "", ",".join([*KEYS[: len(self._identity)], "part"])
        if replaced:
            fate, order = f"CASE WHEN {replaced} THEN {int(Op.UPDATE)} ELSE {fate} END", f"{replaced},{order}"
        if self._joins:
            joins = f" WHEN {JOIN_PART} THEN {int(Op.GRANTS)}"
            told = any_of(signs, f"part={JOIN_PART} AND {replaced}" if replaced else unless, self._joins.alone(), later)
        values = "".join(f",{name}" for name in VALUES[: self._shape.width])
        # Where there is but one row at a time to be displaced, and it has one part, nothing is to be put in order.
        one = len(ways(self._table)) == self._parts == 1 and not (self._table.nested or self._joins)
        return [
            f"INSERT INTO _appliance_outbox(shape,op,cut{values}) "
            f"SELECT shape,CASE part WHEN 0 THEN {fate}{joins} ELSE {int(Op.MORE)} END,cut{values} FROM {SCRATCH} "
            f"WHERE shape={self._id} AND {told}" + ("" if one else f" ORDER BY {order}"),
            *self._end_displaced(displaced),
            # In the midst of another statement, other copies may still be wanted.
            f"DELETE FROM {SCRATCH} WHERE shape={self._id}" + (f" AND {displaced}" if self._table.nested else ""),
        ]

    def _keep(self) -> list[str]:
        """Copy the row that was written, where the statement round this one may displace it.

        That is where a user's BEFORE trigger wrote it: our own BEFORE triggers, newer than it, fired before it did.
        """
        if not self._table.disturbed:
            return []
        written = []
        for part in range(self._parts):
            there = f"SELECT 1 FROM {SCRATCH} WHERE shape={self._id} AND part={part} AND {self._is('NEW')}"
            written.append(self._into_scratch("NEW", part, f"WHERE NOT EXISTS({there})"))
        if self._joins:
            written += self._joins.note("NEW")
        if self._table.acted:  # which may be an update
            written.append(f"UPDATE {SCRATCH} SET fate={OF_UPDATE} WHERE shape={self._id} AND {self._is('NEW')}")
        return written

    def _keep_in_step(self) -> list[str]:
        """Make a copy of the row that was updated the copy of what it now is."""
        written = []
        kept = [f"{name}=NEW.{value}" for name, value in zip(KEYS, self._kept, strict=False)]
        if self._table.acted:
            kept.append(f"fate=CASE WHEN fate<{TOLD_LATER} THEN fate END")
        for part in range(self._parts):
            _, shown, cut = outbox_row(self._of_part("NEW", part))
            values = [f"{name}={value}" for name, value in zip(VALUES, shown, strict=False)]
            written.append(
                f"UPDATE {SCRATCH} SET {','.join([*kept, f'cut={cut}', *values])} "
                f"WHERE shape={self._id} AND part={part} AND {self._is('OLD')}"
            )
        if self._joins:
            written.append(f"UPDATE {SCRATCH} SET {','.join(kept)} WHERE {self._joins.of('OLD')}")
        return written
