"""All open sessions: counted, kept alive, and ended together."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Final, NamedTuple, Protocol, TypeAlias

import trio

from appliance.errors import CloseCode
from appliance.live.beat import next_beat
from appliance.live.matching.access import Reader
from appliance.model import Principal

#: How often every session is looked at, seconds.
CHECK_EVERY_S: Final = 1.0
#: When the server stops, sessions are closed one after another within at most this many seconds, so that their
#: clients do not all come back at the same moment.
SPREAD_S: Final = 4.0
#: The pause between two of them is no longer than this, seconds.
SPREAD_STEP_S: Final = 0.005


#: An issuer and its subject.
User: TypeAlias = tuple[str, str]


class Traffic(NamedTuple):
    """What sessions have: subscriptions, batches of events that they were handed, bytes that they took and sent."""

    subscriptions: int
    batches: int
    bytes_out: int
    bytes_in: int


_STOPPING: Final = "the server stops or restarts: connect again"
NOTHING: Final = Traffic(0, 0, 0, 0)


class Pings(NamedTuple):
    """After which silence a client is pinged, and how long it has to answer, seconds."""

    every_s: float = 25.0
    within_s: float = 10.0


PINGS: Final = Pings()


class Session(Protocol):
    """A session as all of them together see it."""

    @property
    def traffic(self) -> Traffic:
        """Give what this session has been sent and has sent until now."""

    def check(self, now: float, ping_every_s: float, pong_within_s: float) -> None:
        """Ping the peer, or end the session if it is silent."""

    def end(self, code: CloseCode, reason: str) -> None:
        """Close the session."""

    @property
    def authenticated(self) -> bool:
        """Whether it is known whom it acts for."""

    @property
    def principal(self) -> Principal:
        """Whom it acts for; asked only once that is known."""

    def become(self, reader: Reader) -> None:
        """Act with other rights."""


class Sessions:
    """The sessions that are open now, and whose they are: ``None`` until the first frame has brought a token."""

    def __init__(self, pings: Pings = PINGS) -> None:
        self.pings = pings
        #: Whether it is known whose it is.
        self._open: dict[Session, bool] = {}
        self._by_user: Counter[User] = Counter()
        #: No token of theirs ends before (seconds since 1970).
        self._soonest = math.inf
        self._gone = NOTHING
        self._stopping = False

    def __len__(self) -> int:
        return len(self._open)

    def traffic(self) -> Traffic:
        """Sum up the subscriptions there are, and what has gone to and come from all sessions ever."""
        return _sum([self._gone, *(session.traffic for session in self._open)])

    def all(self) -> list[Session]:
        """Give all sessions that are open now."""
        return list(self._open)

    def of(self, user: User) -> int:
        """Count one user's sessions, with those to come."""
        return self._by_user[user]

    def expect(self, user: User) -> None:
        """Count a session that is to come, as many may come at once; ``expected`` is to follow."""
        self._by_user[user] += 1

    def expected(self, user: User) -> None:
        """Count it no more: it has come, and is counted as one that is open, or it will not come."""
        self._by_user[user] -= 1
        if not self._by_user[user]:
            del self._by_user[user]

    def add(self, session: Session, user: User | None) -> None:
        """Take a session up, or note whose it is; ``remove`` is to follow. Once all are ended, it is ended, too."""
        self._open[session] = user is not None
        if user is not None:
            self._by_user[user] += 1
        if self._stopping:
            session.end(CloseCode.RESTART, _STOPPING)

    def expires(self, at: float) -> None:
        """Take note when the token of one of them ends (seconds since 1970)."""
        self._soonest = min(self._soonest, at)

    def end_expired(self) -> None:
        """End the sessions whose tokens have ended: to be asked before anything is delivered or done for one."""
        now = time.time()
        if now < self._soonest:
            return
        self._soonest = math.inf
        for session, known in tuple(self._open.items()):
            if known and now < (at := session.principal.expires_at):
                self._soonest = min(self._soonest, at)
            elif known:
                session.end(CloseCode.TOKEN_EXPIRED, "the token has expired")

    def remove(self, session: Session) -> None:
        """Forget a session."""
        known = self._open.pop(session)
        self._gone = _sum([self._gone, session.traffic._replace(subscriptions=0)])
        if known:
            self.expected((session.principal.issuer, session.principal.subject))

    async def keep(self) -> None:
        """Ping the silent, end the dead and the expired, for as long as the server lives."""
        while True:
            await trio.sleep_until(next_beat(CHECK_EVERY_S))
            # What has come while the machine stood still is read first, or who has answered would count as silent.
            await trio.lowlevel.checkpoint()
            self.end_expired()
            now = trio.current_time()
            for session in tuple(self._open):
                session.check(now, self.pings.every_s, self.pings.within_s)

    async def end_all(self) -> None:
        """Tell every client that the server stops (1012), spread out over a short time; who comes later, at once."""
        self._stopping = True
        ending = tuple(self._open)
        pause = min(SPREAD_STEP_S, SPREAD_S / max(1, len(ending)))
        for session in ending:
            session.end(CloseCode.RESTART, _STOPPING)
            await trio.sleep(pause)


def _sum(traffic: list[Traffic]) -> Traffic:
    return Traffic(*map(sum, zip(*traffic, strict=True)))
