"""Who sends an HTTP request, and whether it asks too often or too much at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import trio
from starlette.requests import Request

from appliance.errors import RateLimited, Unauthorized
from appliance.live.tries import Tries, network_of
from appliance.model import Principal
from appliance.store.file.readers import READERS
from appliance.web.api.caller import Authority, address_of, principal_of

#: Queries at a time: each may take as long as ``query_s``, and one reader is left for all that waits for no query – who
#: comes in, and what rights events are decided on.
QUERIES: Final = READERS - 1


@dataclass(frozen=True, slots=True)
class Rates:
    """How often one may ask: settings, by their names. Requests a second, and how many at once."""

    requests_per_s: float
    request_burst: int
    guest_requests_per_s: float
    guest_request_burst: int


class Entrance:
    """Says who asks, and turns away who asks too often.

    The rates are those of a session's requests: here of one principal, and of one address without a token that is
    good, so that guessing tokens is bounded, too.
    """

    def __init__(self, authority: Authority, rates: Rates, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._authority = authority
        self._users = Tries(rates.request_burst, 1 / rates.requests_per_s, clock)
        self._addresses = Tries(rates.guest_request_burst, 1 / rates.guest_requests_per_s, clock)
        self._queries = trio.Semaphore(QUERIES)
        #: What lets one principal wait for no more than one of these; there as long as somebody holds or wants it.
        self._own_turns: WeakValueDictionary[tuple[str, str], trio.Lock] = WeakValueDictionary()

    async def principal(self, request: Request) -> Principal:
        """Say who asks. Raises ``Unauthorized``, ``RateLimited``."""
        try:
            found = await principal_of(request, self._authority)
        except Unauthorized:
            self.anybody(request)
            raise
        if found.guest:
            self.anybody(request)
        else:
            _take(self._users, f"{found.issuer} {found.subject}")
        return found

    def demand(self, principal: Principal) -> None:
        """Raise ``Unauthorized`` where its token has ended since, or its key is gone; in any thread.

        A body may take its client two minutes, and what it asks for is to wait for others.
        """
        if why := self._authority.refusal(principal):
            raise Unauthorized(why)

    def anybody(self, request: Request) -> None:
        """Let a request in for which it does not matter who asks. Raises ``RateLimited``."""
        _take(self._addresses, network_of(address_of(request)))

    @asynccontextmanager
    async def turn(self, principal: Principal) -> AsyncIterator[None]:
        """Query rows for as long as the block runs, after whoever has come before.

        Of each principal one query at a time waits for that: however many one sends, others have their turns between.
        """
        own = self._own_turns.setdefault((principal.issuer, principal.subject), trio.Lock())
        async with own, self._queries:
            yield


def _take(tries: Tries, name: str) -> None:
    wait_s = tries.wait_s(name)
    if wait_s > 0:
        raise RateLimited("too many requests; send more slowly", retry_after=round(wait_s) or 1)
