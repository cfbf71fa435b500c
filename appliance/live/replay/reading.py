"""Reading for subscriptions until the hub can feed them: replay, the hand-over after a snapshot, and catch-up.

There is one mechanism for all three. A reading begins at a position, with subscriptions that the hub does not feed and
that have been served up to that position. It takes what comes next – from memory, where the hub keeps what it has
delivered last, or a page of the outbox – puts each event to each subscription by the rule that the hub tells by
(``Audience.form``), sends what is due, and only then moves its position. It never goes beyond the hub's position,
which is always the end of an event; only the first page of a snapshot may, and then it is waited for (``run``).

* No gap: up to the hub's position nothing is committed any more (``capture.outbox``), and all that comes after the
  reading's is there, or it is known that it is not (``trimmed``, found out in the transaction that reads the page): the
  client is told. What a page leaves out is due to none of the subscriptions: what SQLite is asked, and the blocks that
  it is not asked about, refuse nothing that their filters let through (``store.outbox.replay``, ``capture.contents``).
* No double: the position moves past an event in the same step, without an await, in which its frames are sent
  (``_deliver``). A refusal sends nothing and moves nothing.
* The hand-over: the memory ends where the hub is. So when nothing in memory comes after the reading's position, there
  is no event between that and the hub's, and it is attached there in the same step: all before was read, all after will
  be fed.

A reading goes at its reader's pace: it takes no further step while more than ``ROOM`` bytes wait for the peer, and
while it waits for that it holds no events and no rows: each step is a call, and what it held ends with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

import structlog
import trio

from appliance.errors import ApplianceError, BadRequest, CloseCode
from appliance.live.fanout import notices
from appliance.live.fanout.hub import STRETCH, Hub
from appliance.live.fanout.subscribers import Subscription, doubt
from appliance.live.matching.access import Reader, Sight
from appliance.live.matching.facts import Facts
from appliance.live.matching.telling import Told
from appliance.live.replay import joint, pages, wants
from appliance.live.replay.commits import Commits
from appliance.live.replay.feed import Feed
from appliance.live.replay.joint import Due
from appliance.live.replay.lapse import changed_upto
from appliance.live.wire.frames import text_frame
from appliance.model import Shape, ascii_fold
from appliance.protocol import frames
from appliance.store.file.texts import said
from appliance.store.outbox import replay
from appliance.store.outbox.replay import Page
from appliance.store.outbox.wanted import Wanted
from appliance.store.store import Store
from appliance.store.tables import snapshot

log = structlog.get_logger()

#: Events that a reading looks at between two chances for everybody else (some ms), and takes from memory at a time.
STEP: Final = 100
STEPS: Final = 10 * STEP
#: With more events than this in memory, SQLite finds faster what a filter lets through.
WORTH_ASKING: Final = 4000
#: How long a reading waits after the file could not be read, seconds.
RETRY_S: Final = 0.25


class Reading:
    """Serves subscriptions of one session, all from the same position on.

    ``announce``: each is told when it is live. ``scan``: the one subscription is a snapshot, whose rows come first.
    """

    def __init__(
        self,
        hub: Hub,
        store: Store,
        feed: Feed,
        subscriptions: Sequence[Subscription],
        after: int,
        *,
        announce: bool = False,
        scan: bool = False,
    ) -> None:
        self._hub = hub
        self._store = store
        self._feed = feed
        self._commits = Commits(hub, store, after)
        self._subscriptions = list(subscriptions)
        self._position = after
        self._announce = announce
        self._scan = scan
        self._failing = self._refused = False
        #: The tables (folded) of whose rows it was told that too much has happened to them.
        self._doubted: frozenset[str] = frozenset()
        #: Whether SQLite is asked for what is in memory, too: not once less is kept than is remembered.
        self._asks = True

    async def run(self) -> None:
        """Read until the hub feeds all of the subscriptions, they have ended, or the session is over."""
        with self._hub.shared.reading():
            seen = await self._rows() if self._scan else self._position
            await self._hub.reached(seen)
            while self._wanting():
                await self._room()
                if not self._wanting() or await self._is_last_step():
                    return

    async def _is_last_step(self) -> bool:
        """Send what comes next, or have the hub feed the subscriptions from now on: then it was the last."""
        count = self._hub.recent.count_after(self._position)
        if count is None or (count > WORTH_ASKING and self._asks and self._selective()):
            await self._from_outbox(fill=count is None and not self._selective())
            return False
        told = list(islice(self._hub.recent.events_after(self._position), STEPS))
        if not told:
            end = self._commits.undecided(self._position)
            if end > self._hub.position.id:  # the tail decides on the rest in other knowledge
                await self._hub.reached(end)
                return False
            self._hand_over()
            return True
        await self._send_all(told, told[-1].id)
        return False

    async def _room(self) -> None:
        """Wait until little waits for the peer; when it has refused something, until nothing does."""
        if self._refused:
            self._refused = False
            await self._feed.drained()
        else:
            await self._feed.room()

    def _wanting(self) -> bool:
        self._subscriptions = [each for each in self._subscriptions if not each.ended]
        return bool(self._subscriptions) and not self._feed.over

    def _selective(self) -> bool:
        return all(each.audience.filter is not None for each in self._subscriptions)

    def _hand_over(self) -> None:
        for subscription in self._subscriptions:
            subscription.read_upto(self._hub.position.id)
            if subscription.ended:
                continue
            self._hub.attach(subscription)
            if self._announce:
                self._feed.tell(notices.live(subscription.topic, self._hub.position, subscription.shown))

    # -- events ------------------------------------------------------------------------------------------

    async def _from_outbox(self, *, fill: bool = False) -> None:
        try:
            if fill and await self._hub.shared.fill(self._position, self._everything):
                return
            page = await self._page(complete=False)
            if page.unknown:  # another process has stored a shape
                self._hub.shapes = await self._store.read_shapes()
                page = await self._page(complete=True)
        except (sqlite3.Error, ApplianceError) as error:  # the writer reads shapes, and it may be locked
            await self._fails(error)
            return
        if page.trimmed:
            if self._hub.recent.count_after(self._position) is not None:
                self._asks = False
            elif self._wanting():  # else the client has unsubscribed meanwhile, and may be subscribing anew
                self._trimmed()
            return
        for fault in page.faults:
            log.error("outbox_row_unreadable", event_id=fault.id, reason=fault.reason)
        await self._send_all([Told(event) for event in page.events], page.end)

    async def _page(self, *, complete: bool) -> Page:
        return await self._read(
            self._position, self._hub.position.id, wants.of(self._hub, self._subscriptions), complete=complete
        )

    async def _everything(self, after: int, upto: int) -> Page:
        return await self._read(after, upto, Wanted.everything(self._hub.shapes.values()), complete=False)

    async def _read(self, after: int, upto: int, wanted: Wanted, *, complete: bool) -> Page:
        shapes, contents = self._hub.shapes, self._store.contents
        page = await self._store.read(
            lambda db: replay.page(db, after, upto, wanted, shapes, contents, complete=complete), patient=True
        )
        return replace(page, events=[each for each in page.events if not self._hub.withheld.has(each)])

    async def _send_all(self, found: Sequence[Told], end: int) -> None:
        """Send what is due of these events, as far as the peer takes it; after all of them the position is ``end``."""
        concerned = wants.by_table(self._hub, self._subscriptions)
        told = [each for each in found if each.topic in concerned]
        parts = self._commits.parts(told) if self._by_row() else [told]
        try:
            for part in parts:
                if not await self._send_part(part, end if part is parts[-1] else part[-1].id):
                    return
        except sqlite3.Error as error:
            await self._fails(error)

    async def _send_part(self, events: Sequence[Told], end: int) -> bool:
        """Send what is due of events that are decided on together; give whether it was all."""
        by_row, _, _ = ground = self._ground()
        since = max(each.reader.read_at for each in self._subscriptions)
        course = await self._commits.of(events, by_row)
        for first in range(0, max(1, len(events)), STEP):
            some = events[first : first + STEP]
            facts = await self._commits.known(some, course, by_row, since)
            last = end if first + STEP >= len(events) else some[-1].id
            if doubtful := facts.doubtful & by_row - self._doubted:
                concerned = [each for each in self._subscriptions if ascii_fold(each.topic) in doubtful]
                doubt(concerned, self._hub.counters, last)
                self._doubted |= doubtful
            self._failing = False
            if await changed_upto(self._hub, self._store, self._subscriptions[0].reader, facts.newest):
                await self._hub.reached(facts.newest)  # rows are judged as of then, and by then it is known who may
                return False
            # What else transactions did is not known of other tables whose rows decide by now, or by other grants; and
            # with other rights rows would be judged that are as they were before. So nothing is awaited from here to
            # what is sent.
            if ground != self._ground():
                return False
            if not await self._send(some, facts, last):
                return False
        return True

    def _ground(self) -> tuple[frozenset[str], int, frozenset[Reader]]:
        """Say by what it is decided what is sent: the tables (folded) whose rows say it, the grants, and whose rights.

        Those are one session's, so there are several only where one of them has just changed.
        """
        readers = frozenset(each.reader for each in self._subscriptions if not each.ended)
        return self._by_row(), self._hub.access.regranted, readers

    def _by_row(self) -> frozenset[str]:
        """Name (folded) the tables of which rows say what a subscription may be told."""
        some = (each for each in self._subscriptions if not each.ended and each.audience.sight is Sight.BY_ROW)
        return frozenset(ascii_fold(each.topic) for each in some)

    async def _send(self, events: Sequence[Told], facts: Facts, end: int) -> bool:
        """Send what is due of these events; then the position is ``end``, and more can be sent.

        It is less, and false, when the peer takes no more for now: what is left is read again when it does, so that
        nothing is kept for who waits, and everything is decided on rights and subscriptions as they are then.
        """
        due: list[Due] = []
        size = 0
        owed = sorted({at for each in self._subscriptions for at, _ in each.owed or ()})
        if (found := joint.due(self._hub, self._subscriptions, events, facts, self._commits.moment())) is not None:
            due, events = found, ()
        concerned = wants.by_table(self._hub, self._subscriptions)
        for told in events:
            while owed and owed[0] < told.id:  # a notice that stands before this event
                if not self._replay(due, owed.pop(0)):
                    return False
                size = 0
            for subscription in (each for each in concerned.get(told.topic, ()) if not each.ended):
                for frame in self._hub.frames(subscription, told, facts, subscription.reader):
                    due.append((subscription, 1, frame))
                    size += len(frame)
            if size > STRETCH:
                if not self._replay(due, told.id) or self._feed.busy:
                    return False
                size = 0
        if not self._replay(due, end):
            return False
        await trio.lowlevel.checkpoint()
        return True

    def _replay(self, due: list[Due], position: int) -> bool:
        """Send what is due of events up to a position, as ``_deliver`` does; then none is any more."""
        if not self._deliver(due, position):
            return False
        self._hub.counters.replayed_events += sum(count for _, count, _ in due)
        due.clear()
        return True

    def _deliver(self, due: Sequence[Due], position: int) -> bool:
        """Send and move on; false when it is refused, and it is to be tried again when nothing waits any more."""
        if due and not self._feed.deliver(b"".join([some for _, _, some in due])):
            self._refused = True
            return False
        for subscription, count, _ in due:
            subscription.shown += count
        self._position = position
        for subscription in self._subscriptions:
            subscription.read_upto(position)
        return True

    def _trimmed(self) -> None:
        """What comes next is not kept any more: a live set goes on and is told, any other reader has lost its place."""
        if not self._scan:
            self._feed.end(CloseCode.POSITION_LOST, "what comes next for you is not kept any more: load the state anew")
            return
        self._lose("overrun")

    def _lose(self, reason: str) -> None:
        """Go on from where the hub is, with a resync."""
        self._position = self._hub.position.id
        for subscription in self._subscriptions:
            if not subscription.read_upto(self._position):
                self._feed.tell(notices.because(notices.RESYNC, subscription.topic, reason))

    async def _fails(self, error: Exception) -> None:
        if not self._failing:
            log.error("reading_failed", reason=said(error))
        self._failing = True
        await trio.sleep(RETRY_S)

    # -- rows --------------------------------------------------------------------------------------------

    async def _rows(self) -> int:
        """Send the rows that are there, page by page; the position of the first is where the events begin.

        Gives how far the hub has to come before it is live: rows are as they were at the last page's position.
        """
        (subscription,) = self._subscriptions
        begun, seen = self._hub.table(subscription.topic), self._position
        place: snapshot.Place | None = snapshot.Place()
        first = True
        while place is not None:
            await self._room()
            if not self._wanting():
                return seen
            shape = self._hub.table(subscription.topic)
            if shape is None or begun is None or shape.id != begun.id:
                self._lose("schema")
                return seen
            found = await self._some_rows(subscription, shape, place, first=first)
            if found is not None:
                (place, seen), first = found, False
        return seen

    async def _some_rows(
        self, subscription: Subscription, shape: Shape, place: snapshot.Place, *, first: bool
    ) -> tuple[snapshot.Place | None, int] | None:
        """Send the rows behind a place; give where the next are, or these are still to be sent, and how far to go.

        ``None``: they could not be read, or are not its to see any more.
        """
        condition = self._hub.rows_of(subscription, shape)
        try:
            page, is_visible = await pages.read(self._hub, self._store, subscription, shape, condition, place)
        except (sqlite3.Error, BadRequest) as error:  # another table, perhaps, and the hub hears of it soon
            await self._fails(error)
            return None
        self._failing = False
        if not is_visible:
            await self._hub.reached(page.position)  # by then it is known what is
            return None
        seen = self._commits.note(page.position)
        if first:
            self._position = page.position
        if subscription.ended:
            return None, seen
        if self._hub.table(subscription.topic) != shape or self._hub.rows_of(subscription, shape) != condition:
            return place, seen  # other rows are its to see now
        due = [(subscription, 1, text_frame(frames.snapshot(image, shape, self._hub.options))) for image in page.images]
        if not self._deliver(due, self._position):
            return place, seen
        self._hub.counters.snapshot_rows += len(due)
        return page.next, seen
