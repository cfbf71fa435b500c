"""Rights that change while connections are open: read anew, and put into effect before anything else is delivered."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from appliance.errors import CloseCode
from appliance.live.fanout.hub import Hub
from appliance.live.fanout.sessions import Session, Sessions
from appliance.live.matching.access import Access, Reader
from appliance.live.matching.stale import EVERYTHING, Stale
from appliance.live.replay.lapse import changed
from appliance.store.store import Store


class Rights:
    """Keeps the rights of all that is open as the store has them."""

    def __init__(self, access: Access, hub: Hub, sessions: Sessions) -> None:
        self._access = access
        self._hub = hub
        self._sessions = sessions
        self._renewing = trio.Lock()

    async def renew(self, stale: Stale = EVERYTHING) -> bool:
        """Read these rights anew and put them into effect; give whether they are anybody's who is here.

        Raises ``sqlite3.Error`` when they cannot be read.
        """
        if stale.subjects is None:
            await self._access.read_keys()
        async with self._renewing:  # one after the other, or the older would count in the end
            holders: list[Session] = []
            if stale.subjects is None or stale.subjects or stale.named:
                holders = [
                    each for each in self._sessions.all() if each.authenticated and stale.concerns(each.principal)
                ]
                self._access.renewed += 1
            concerned = stale.tables or bool(holders)
            if concerned:
                await self._renew(holders, tables=stale.tables)
        return concerned

    def end_expired(self) -> None:
        """Put into effect what time alone has changed: tokens have ended."""
        self._sessions.end_expired()

    async def renew_to(self, store: Store, position: int) -> bool:
        """Read anew what has changed up to a position, as of which rows are judged; give what ``renew`` says.

        A row's groups of now and somebody's groups of before would be rights that nobody ever had.
        """
        if position <= self._hub.known_to:
            return False
        stale = await changed(self._hub, store, self._hub.known_to, position)
        concerned = bool(stale) and await self.renew(stale)
        self._hub.known_to = position  # not before: readings go by it meanwhile
        return concerned

    async def renew_of(self, holder: Session) -> None:
        """Read one session's rights anew: they changed between the look at its token and its beginning."""
        if holder.authenticated:
            async with self._renewing:
                await self._renew([holder])

    async def _renew(self, holders: Sequence[Session], *, tables: bool = False) -> None:
        principals = [each.principal for each in holders]
        granted, callers = await self._access.read(principals, tables=tables)
        # All of it in one step: who is in a group now, and what a group may now, may be of one transaction. Somebody's
        # groups of before with what is granted now would be rights that nobody ever had.
        changed = {} if granted is None else self._access.take_up(granted)
        for holder, principal, caller in zip(holders, principals, callers, strict=True):
            if holder.principal is not principal:
                continue  # it has brought another token meanwhile, whose rights were read since
            if caller.refused:
                holder.end(CloseCode.TOKEN_EXPIRED, caller.refused)
            else:
                holder.become(Reader(caller.principal, caller.groups, trio.current_time()))
        self._hub.reassess(self._hub.subscriptions_to(changed), {name for name, other in changed.items() if other})
