"""What the tail knows of the schema, and what it makes of events that may be of another one than they say.

One is what somebody's RENAME leaves of our triggers: see ``fanout.withheld``.

The other is VACUUM, which may give the rows of tables without a key other rowids. It changes nothing that a trigger
could tell of, but moves the schema's version by one, as each statement does that changes the schema. So there was none
only if the version has moved no further than by the fewest statements that make the difference.

What was written after it names rows as they are named since. A look that sees such events sees the version, too: it is
one transaction. So their readers are told before it is delivered, and once more when the change of the schema is taken
up (``Tail._renew``): of what one look brings nobody knows whether it was written before the VACUUM.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from appliance.live.fanout.hub import Hub
from appliance.live.fanout.subscribers import resync
from appliance.live.matching.stale import EVERYTHING, RIGHTS, Stale
from appliance.model import Shape, ascii_fold
from appliance.store.outbox.look import Look
from appliance.store.store import Store
from appliance.store.tables import watch
from appliance.store.tables.catalog import Catalog, statements


class Ground:
    """The schema as the tail has taken it up: its ``version``, and by which statements it could have come about."""

    def __init__(self, hub: Hub, store: Store, catalog: Catalog) -> None:
        self.version = catalog.schema_version
        self._foreign = catalog.foreign
        self._hub = hub
        self._store = store
        #: At which version it was asked, and the tables whose readers were told: ``None``, when nobody was to be.
        self._judged = self.version
        self._warned: set[str] | None = None
        #: Our triggers by shape, and the shapes of those that somebody's RENAME has changed since.
        self._texts = catalog.texts
        self._renamed: set[int] = set()

    def moved_by(self, catalog: Catalog) -> list[str]:
        """Name the tables whose events up to now are not the whole story, or were withheld, besides those changed.

        What was written under a name of before is withheld from now on.
        """
        self._withhold(catalog.found_texts, catalog.highest)
        renamed = {self._hub.shapes[each].table for each in self._renamed if each in self._hub.shapes}
        there = {shape.table for shape in catalog.tables.values()}
        return sorted({*self._renumbered(catalog), *(renamed & there - {*catalog.changed})})

    def misses_rights(self, look: Look) -> bool:
        """Whether what has come was written while who may see what was not captured as it should be: triggers are gone.

        Then rights may be others, and no event tells of it.
        """
        if look.schema_version == self.version or not look.rows:
            return False
        of_rights, _ = self._hub.access.shapes_of_rights(self._hub.shapes)
        return any(look.texts.get(each) != self._texts.get(each) for each in of_rights)

    def stale(self, catalog: Catalog, changed: Collection[str]) -> Stale:
        """Say which rights are to be read anew with the schema, of which these tables have ``changed``."""
        there = {name for name in RIGHTS if self._hub.table(name) is not None}
        missed = there - catalog.tables.keys() or RIGHTS & set(map(ascii_fold, changed))
        return EVERYTHING if missed else Stale(tables=True)

    def _withhold(self, texts: Mapping[int, bytes], highest: int) -> None:
        self._renamed |= {each for each, text in texts.items() if self._texts.get(each, text) != text}
        self._hub.withheld.note(self._renamed, self._hub.position.id, highest)

    def _renumbered(self, catalog: Catalog) -> list[str]:
        """Name the tables whose rows may have other rowids since the schema was otherwise than it is now."""
        if catalog.found_version - self.version <= statements(self._foreign, catalog.foreign):
            return []
        tables = [shape.table for shape in catalog.tables.values() if shape.rowid]
        if catalog.highest > self._hub.position.id:
            self._tell(tables)
        return tables

    def take_up(self, catalog: Catalog) -> None:
        """Take over what the schema is now."""
        self.version, self._foreign = catalog.schema_version, catalog.foreign
        self._judged, self._warned = self.version, None
        self._texts, self._renamed = catalog.texts, set()

    async def forewarn(self, look: Look) -> None:
        """Withhold what was written under a name of before.

        And tell those who follow a table without a key that it may have been renumbered before some of these events:
        whoever comes back from before them has missed it, too. Raises ``sqlite3.Error``.
        """
        if look.schema_version != self.version:
            self._withhold(look.texts, look.highest)
        if self.version < 0 or (look.schema_version == self._judged and self._warned is None):
            return  # nor is it known while somebody migrates
        tables = {shape.table for each in {row[1] for row in look.rows} if (shape := self._unkeyed(each)) is not None}
        if look.schema_version != self._judged and tables:
            version, foreign = await self._store.read(watch.found)
            self._warned = set() if version - self.version > statements(self._foreign, foreign) else None
            self._judged = look.schema_version
        if self._warned is not None and (tables := tables - self._warned):
            self._warned |= tables
            self._store.breaks = {**self._store.breaks, **dict.fromkeys(map(ascii_fold, tables), look.highest)}
            self._tell(tables)

    def _tell(self, tables: Collection[str]) -> None:
        for table in tables:
            resync(self._hub.subscribers.of(table), self._hub.counters, "schema", self._hub.position.id)

    def _unkeyed(self, shape_id: object) -> Shape | None:
        shape = self._hub.shapes.get(shape_id) if isinstance(shape_id, int) else None
        return shape if shape is not None and shape.rowid else None
