"""Which tables a transaction has written to that is longer than the tail looks back: what rows were in it is not known.

Nobody may be shown what only the midst of a transaction has made readable. What has been done to a row so far back is
not looked for at each of its events: of such rows nothing is shown of what they were but the key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from appliance.live.matching.access import Access
from appliance.live.matching.telling import Told
from appliance.model import Change, ascii_fold
from appliance.store.outbox.borders import Borders


class Written:
    """Takes note of what comes for the hub, in order: some of it perhaps twice, and nothing while nobody asks."""

    def __init__(self, access: Access, borders: Borders) -> None:
        self._access = access
        self._borders = borders
        #: The topics (folded) with rows that a transaction has made or changed that has not come whole yet, by the id
        #: that it comes behind.
        self._topics: dict[int, set[str]] = {}

    def veiled(
        self, events: Sequence[Told], topics: Collection[str], position: int, newest: int, back: int
    ) -> Mapping[str, int]:
        """Say, of these events that come next behind a position, of which tables (folded) rows are not known as they
        were, and up to which event: so many ids ``back`` is not all of their transaction.

        It may be all of these ``topics``. Rows that it only deletes are as they were.
        """
        borders = self._borders
        begun = position if borders.is_one(position) else borders.before(position)
        self._topics = {each: some for each, some in self._topics.items() if each >= begun}
        veiled: dict[str, int] = {}
        if begun < position - back:
            written, end = self._topics.get(begun, topics), borders.end(position, newest)
            veiled = {ascii_fold(self._access.grant(each).object_table or each): end for each in written}
        if not borders.is_one(events[-1].id):
            self._take(events, borders.before(events[-1].id), position)
        return veiled

    def _take(self, events: Sequence[Told], begun: int, position: int) -> None:
        topics = self._topics.setdefault(begun, set()) if begun >= position else self._topics.get(begun)
        for told in reversed(events):
            if topics is None or told.id <= begun:
                break
            if told.topic not in topics and isinstance(told.event, Change) and told.event.new is not None:
                topics.add(told.topic)
