"""The file's absence: whoever moves it away may put it back, so it is waited for before anything ends.

And that of our tables in it: a schema tool that knows nothing of them takes them for left over, and drops them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

import structlog
import trio

from appliance.errors import ApplianceError, StoreUnusable
from appliance.store.file import schema
from appliance.store.file.incarnation import StoreReplaced
from appliance.store.store import Store
from appliance.store.tables import migration

log = structlog.get_logger()

#: How long to wait for a database file that was taken away to be there again, seconds.
REAPPEAR_S: Final = 10.0
#: How often the place is looked at while what is in the WAL is moved into the file, which takes some ms, seconds.
GLANCE_S: Final = 0.001


class Absence:
    """Looks whether the store's file is at its place, for the tail, which looks often."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._since: float | None = None
        self._lacking: list[str] = []

    @property
    def is_on(self) -> bool:
        """Whether the file was gone at the last look, so that another may come at any moment."""
        return self._since is not None

    async def look(self) -> None:
        """Look once: a ``stat`` or three. When the file is found to be gone, what is in its WAL is moved into it.

        Raises ``StoreReplaced`` when another one is there, or a link leads to another, or its WAL was deleted,
        ``StoreUnusable`` when there is none for ``REAPPEAR_S``, or as ``Place.make_room`` says.
        """
        place = self._store.place
        if place.is_ours():
            if lacking := place.lacks():
                await self._store.part()
                raise StoreReplaced(f"somebody has deleted its {' and '.join(lacking)}")
            if place.is_left():
                raise StoreReplaced("the link to it leads to another file now")
            if self._since is not None:
                log.info("store_back")
            self._since, self._store.condition.absent = None, False
        elif place.is_taken():
            place.make_room()
            raise StoreReplaced("the file was replaced by another")
        elif self._since is None:
            self._since, self._store.condition.absent = trio.current_time(), True
            log.warning("store_away", path=str(place.path))
            await self._save()
        elif trio.current_time() - self._since > REAPPEAR_S:
            raise taken_away(place.path)

    async def look_for_tables(self) -> None:
        """Look once, after a look has failed for want of one. Where tables of ours are gone, ``StoreReplaced`` is
        raised: to begin anew makes them anew. But not while more may be dropped; and who migrates does it himself.
        """
        before = self._lacking
        with contextlib.suppress(sqlite3.Error, ApplianceError):
            self._lacking = await self._store.read(schema.lacking)
        if self._lacking and self._lacking == before and not migration.is_held(self._store.place.path):
            raise StoreReplaced(f"somebody has dropped {', '.join(before)}")

    async def _save(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._make_room)
            await self._store.save()
            nursery.cancel_scope.cancel()

    async def _make_room(self) -> None:
        """When another file comes to the place meanwhile, it is not to be opened with our WAL beside it."""
        while not self._store.place.is_taken():  # noqa: ASYNC110 – nothing tells of it
            await trio.sleep(GLANCE_S)
        self._store.place.make_room()


def taken_away(path: Path) -> StoreUnusable:
    """Say that there is no file."""
    return StoreUnusable(f"{path} was taken away while it was served; put it back and start again")
