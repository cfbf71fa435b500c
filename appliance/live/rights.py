"""Rights that change while connections are open: read anew, and put into effect before anything else is delivered."""

from __future__ import annotations

import trio

from appliance.errors import CloseCode
from appliance.live.access import EVERYTHING, Access, Reader, Stale
from appliance.live.hub import Hub
from appliance.live.sessions import Session, Sessions


class Rights:
    """Keeps the rights of all that is open as the store has them."""

    def __init__(self, access: Access, hub: Hub, sessions: Sessions) -> None:
        self._access = access
        self._hub = hub
        self._sessions = sessions
        self._renewing = trio.Lock()

    async def renew(self, stale: Stale = EVERYTHING) -> None:
        """Read these rights anew and put them into effect. Raises ``sqlite3.Error`` when they cannot be read."""
        if stale.tables:
            changed = await self._access.read_grants()
            self._hub.reassess(self._hub.subscriptions_to(changed), {name for name, other in changed.items() if other})
        if stale.subjects is None:
            await self._access.read_keys()
        if stale.subjects is None or stale.subjects or stale.named:
            holders = [each for each in self._sessions.all() if each.authenticated and stale.concerns(each.principal)]
            self._access.renewed += 1
            await self._renew(holders)

    async def renew_of(self, holder: Session) -> None:
        """Read one session's rights anew: they changed between the look at its token and its beginning."""
        if holder.authenticated:
            await self._renew([holder])

    async def _renew(self, holders: list[Session]) -> None:
        if not holders:
            return
        async with self._renewing:  # one after the other, or the older would count in the end
            principals = [each.principal for each in holders]
            callers = await self._access.identify(principals)
            for holder, principal, caller in zip(holders, principals, callers, strict=True):
                if holder.principal is not principal:
                    continue  # it has brought another token meanwhile, whose rights were read since
                if caller.refused:
                    holder.end(CloseCode.TOKEN_EXPIRED, caller.refused)
                else:
                    holder.become(Reader(caller.principal, caller.groups))
