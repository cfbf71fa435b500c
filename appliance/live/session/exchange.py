"""A client's requests and their replies, in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import structlog
import trio

from appliance.errors import CloseCode, Internal, RateLimited, RequestError, StoreUnusable, Unauthorized, Unavailable
from appliance.live.session.session import Session
from appliance.live.wire.frames import text_frame
from appliance.model import JSON
from appliance.protocol import frames
from appliance.protocol.requests import Authenticate, NewMessage, Refused, Request, parse
from appliance.store.file.texts import said

log = structlog.get_logger()

#: Replies that wait for a client that does not read them, bytes: beyond, no further request is read.
UNREAD_REPLIES: Final = 64 << 10
#: Requests of which the replies are sent together.
REPLIES: Final = 512
#: A request counts as one more for each so many characters.
REQUEST_BYTES: Final = 4096
#: Malformed frames in a row that end a connection.
MALFORMED_LIMIT: Final = 10


@dataclass(frozen=True, slots=True)
class Later:
    """An answer that takes a commit: until it is asked for, others can wait for the same one."""

    outcome: Callable[[], Awaitable[JSON]]


#: How one kind of request is answered. The table that holds it gives it only requests of that kind.
Answer: TypeAlias = "Callable[[Session, Any], Awaitable[JSON | Later]]"
#: Gives the whole reply without waiting; ``None``: this request has to wait, and nothing was done.
AtOnce: TypeAlias = "Callable[[Session, Any], bytes | None]"
#: What ends one request and no more: what refuses it, or a store that cannot be read or vouch for it just now.
FAILURES: Final = (RequestError, StoreUnusable, sqlite3.Error)


def unreadable(error: Exception, method: str | None) -> Unavailable:
    """Give the refusal of a request that the store cannot serve just now; why is in the log."""
    log.error("request_failed", method=method, error=said(error))
    return Unavailable("the database cannot be read or written just now; send the request again soon")


class Exchange:
    """Answers the requests of one session, each after those before it."""

    __slots__ = (
        "_allowance", "_allowed_at", "_answers", "_at_once", "_later", "_malformed", "_outgoing", "_replies",
        "_session",
    )  # fmt: skip

    def __init__(self, session: Session, answers: dict[type, Answer], at_once: dict[type, AtOnce]) -> None:
        self._session = session
        self._outgoing = session.way
        self._answers = answers
        self._at_once = at_once
        # Mostly there are none, and there may be 20,000 of these.
        self._replies: list[bytes] | None = None
        self._later: list[tuple[Request, Later]] | None = None
        self._malformed = 0
        self._allowance = float(session.backend.limits.request_burst)
        self._allowed_at = trio.current_time()

    async def authenticate(self, message: str | bytes) -> None:
        """Answer the first frame of a client that has no token yet; only a request that brings one is done."""
        asked = self._asked(message)
        if isinstance(asked, Refused):
            self._refuse(asked, len(message))
        elif isinstance(asked, Authenticate):
            await self._answer(asked, len(message))
        self._flush()

    def __call__(self, texts: Sequence[bytes]) -> int:
        """Answer requests right where they are received, as many from the first on as need not wait; give how many.

        So they cost no message of the WebSocket library and no switch of tasks. None while one before them is being
        answered, none for a client that does not read its replies, and none where something was committed that has not
        been taken up: it may be somebody's rights.
        """
        session, backend = self._session, self._session.backend
        backend.sessions.end_expired()
        if session.ending or not self._outgoing.idle or self._outgoing.unsent > UNREAD_REPLIES:
            return 0
        if not (backend.tail.has_all() or backend.tail.state.behind):
            return 0
        self._grow_allowance()
        answered = 0
        done: dict[str, int] = {}
        for text in texts:
            try:
                asked = parse(text)
            except Refused:
                break
            answer = self._at_once.get(type(asked))
            if answer is None:
                break
            allowance = self._allowance
            try:
                self._take_allowance(len(text))
                reply = answer(session, asked)
            except RequestError as error:
                self._reply(self._refusal(asked, error))
            else:
                if reply is None:
                    self._allowance = allowance
                    break
                done[asked.object_type] = done.get(asked.object_type, 0) + 1
                self._reply(reply)
            answered += 1
        if answered:
            for object_type, count in done.items():
                backend.hub.counters.requests[object_type, "ok"] += count
            self._flush()
        return answered

    async def answer(self, messages: Sequence[str | bytes]) -> None:
        """Answer what came as one message of the WebSocket library."""
        self._session.up_to_date = False
        for message in messages:
            if self._outgoing.unsent > UNREAD_REPLIES:
                self._flush()
                await self._outgoing.wait_send_all_might_not_block()
            asked = self._asked(message)
            if type(asked) is not NewMessage:
                self._session.backend.hub.flush()  # or what was sent already would wait with this, and time goes on
                await self._settle()
            if isinstance(asked, Refused):
                self._refuse(asked, len(message))
            elif asked is not None:
                await self._answer(asked, len(message))
            if len(self._replies or ()) >= REPLIES or type(asked) is not NewMessage:
                self._flush()
            if self._session.ending is not None:
                break
        await self._settle()
        if self._outgoing.answered():
            self._flush()

    def _asked(self, message: str | bytes) -> Request | Refused | None:
        """Read a frame; one that cannot be a request ends the session."""
        if isinstance(message, bytes):
            self._session.end(CloseCode.UNSUPPORTED_DATA, "requests are text frames")
            return None
        try:
            return parse(message)
        except Refused as refused:
            return refused

    def _refuse(self, refused: Refused, length: int) -> None:
        """Answer a frame that is no request. It costs as much as one, and those behind it may be too many then."""
        self._grow_allowance()
        self._spend(length)
        # Not by its method: that is whatever the client wrote.
        self._session.backend.hub.counters.requests["", refused.error.code] += 1
        self._reply(frames.error(refused.error, refused.object_type, refused.id))
        self._malformed += 1
        if self._malformed >= MALFORMED_LIMIT:
            self._session.end(CloseCode.ABUSE, f"{MALFORMED_LIMIT} malformed frames in a row")

    async def _answer(self, asked: Request, length: int) -> None:
        try:
            self._grow_allowance()
            self._take_allowance(length)
            data = await self._answers[type(asked)](self._session, asked)
        except FAILURES as error:
            reply = self._refusal(asked, error)
        else:
            if isinstance(data, Later):
                self._later = self._later or []
                self._later.append((asked, data))
                return
            reply = self._response(asked, data)
        await self._settle()
        self._reply(reply)

    async def _settle(self) -> None:
        """Reply to the requests whose answers take a commit, one for all of them."""
        if not self._later:
            return
        self._session.backend.hub.flush()
        later, self._later = self._later, None
        for asked, answer in later:
            try:
                self._reply(self._response(asked, await answer.outcome()))
            except FAILURES as error:
                self._reply(self._refusal(asked, error))

    def _response(self, asked: Request, data: JSON) -> bytes:
        self._count(asked, "ok")
        return frames.response(asked.object_type, data, asked.id)

    def _refusal(self, asked: Request, error: Exception) -> bytes:
        if not isinstance(error, RequestError):
            if not self._session.authenticated:
                raise error  # it is closed, but not as one whose token is refused for good
            error = unreadable(error, asked.object_type)
        elif isinstance(error, Internal):
            log.error("request_failed", method=asked.object_type, error=repr(error.__cause__ or error))
        self._count(asked, error.code)
        return frames.error(error, asked.object_type, asked.id)

    def _count(self, asked: Request, code: str) -> None:
        counters = self._session.backend.hub.counters
        counters.requests[asked.object_type, code] += 1
        counters.bad_tokens += code == Unauthorized.code

    def _reply(self, text: bytes) -> None:
        if self._replies is None:
            self._replies = []
        self._replies.append(text_frame(text))

    def _flush(self) -> None:
        """Send the messages that the last requests brought, and the replies to them, each receiver all at one stroke.

        That is done when none of what the client sent at once is left to be answered.
        """
        self._session.backend.hub.flush()
        if self._replies:
            replies, self._replies = self._replies, None
            self._session.tell(b"".join(replies))

    def _grow_allowance(self) -> None:
        """Add what the time since the last requests allows."""
        limits, now = self._session.backend.limits, trio.current_time()
        guest = self._session.authenticated and self._session.principal.guest
        rate, burst = (
            (limits.guest_requests_per_s, limits.guest_request_burst)
            if guest
            else (limits.requests_per_s, limits.request_burst)
        )
        self._allowance = min(float(burst), self._allowance + (now - self._allowed_at) * rate)
        self._allowed_at = now

    def _take_allowance(self, length: int) -> None:
        """Count a request of so many characters. Raises ``RateLimited``."""
        if self._allowance < 1:
            raise RateLimited("too many requests on this connection; send more slowly")
        self._malformed = 0  # nor does one that is too many make up for a frame that is none
        self._spend(length)

    def _spend(self, length: int) -> None:
        # What is long costs more to read; what it takes below zero, those after it wait for.
        self._allowance -= 1 + length // REQUEST_BYTES
