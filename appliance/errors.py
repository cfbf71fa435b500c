"""Everything that can be refused, in one place: what it is called, why it happens and what to do about it.

Three tables: ``RequestError`` and its children (the ``code`` of an error reply and of an HTTP error body),
``CommandError`` and its children (the exit status of a command) and ``CloseCode`` (why a WebSocket ended).
The reference in ``docs/protocol.md`` is tested against them.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from appliance.model import JSON


class ApplianceError(Exception):
    """The root of every error that a person is meant to read. The message says what to do next."""


class RequestError(ApplianceError):
    """One request cannot be done; its connection goes on.

    ``code`` is what the client sees, ``status`` the HTTP status for the same refusal. ``detail`` is put beside
    ``code`` and ``message`` in the reply. ``cause`` and ``cure`` are the reference's words.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    cause: ClassVar[str]
    cure: ClassVar[str]

    def __init__(self, message: str, **detail: JSON) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class BadJson(RequestError):
    code, status = "bad-json", 400
    cause = "The frame is not JSON, or holds NaN, a duplicate key, a lone surrogate, or nests deeper than 32."
    cure = "Send one JSON object as one text frame."


class BadRequest(RequestError):
    code, status = "bad-request", 400
    cause = "An attribute is missing, unknown, of the wrong type, or out of its range."
    cure = "Correct the attribute that the message names."


class UnknownMethod(RequestError):
    code, status = "unknown-method", 400
    cause = "There is no method of that name."
    cure = "Use one of the methods listed in the message."


class UnknownTopic(RequestError):
    code, status = "unknown-topic", 404
    cause = "There is no topic of that name, or you may not know of it."
    cure = "Ask `list-topic` which topics there are."


class TopicExists(RequestError):
    code, status = "topic-exists", 409
    cause = "A table or a user topic has that name already; names compare without ASCII case."
    cure = "Choose another name, or subscribe to the topic that is there."


class SystemTopic(RequestError):
    code, status = "system-topic", 409
    cause = "The topic is a table: it cannot be destroyed and takes no messages."
    cure = "Change the table's rows instead, or use a user topic."


class AlreadySubscribed(RequestError):
    code, status = "already-subscribed", 409
    cause = "This connection has a subscription to the topic."
    cure = "`unsubscribe` first, then subscribe with the new filters."


class NotSubscribed(RequestError):
    code, status = "not-subscribed", 409
    cause = "This connection has no subscription to the topic."
    cure = "Nothing is to be undone; `subscribe` begins one."


class BadFilter(RequestError):
    code, status = "bad-filter", 400
    cause = "A filter names a column that is unknown, secret or not comparable here, or has a bad operand."
    cure = "Correct the filter that the message names."


class Forbidden(RequestError):
    code, status = "forbidden", 403
    cause = "Your permissions do not allow it."
    cure = "Ask an administrator or the object's owner, or use a token of somebody who may."


class Conflict(RequestError):
    code, status = "conflict", 409
    cause = "What is asked does not go with what is there, or the idempotency key came with another body before."
    cure = "Use a new key for a new message; correct the value that the message names."


class Gap(RequestError):
    code, status = "gap", 410
    cause = (
        "The position is not kept any more, belongs to another epoch, lies ahead, "
        "or before changes that may be missing."
    )
    cure = "Load the state anew and go on from the `newest` and `epoch` of the reply."


class TooLarge(RequestError):
    code, status = "too-large", 413
    cause = "The message or body is over its limit."
    cure = "Send less at once; the limit is in the message."


class RateLimited(RequestError):
    code, status = "rate-limited", 429
    cause = "This connection sends more requests than it may."
    cure = "Wait a moment, then send more slowly."


class TooManySubscriptions(RequestError):
    code, status = "too-many-subscriptions", 429
    cause = "This connection has as many subscriptions as one may have."
    cure = "Unsubscribe from what is not needed, or open another connection."


class Unauthorized(RequestError):
    code, status = "unauthorized", 401
    cause = "The token is missing, malformed, expired, not yet valid, or not from an issuer known here."
    cure = "Get a new token and connect again."


class ReadOnly(RequestError):
    code, status = "read-only", 503
    cause = "The store cannot be written: the disk is full or the file is read-only."
    cure = "Make room, or make the file writable, then send the request again."


class Unavailable(RequestError):
    code, status = "unavailable", 503
    cause = (
        "The server cannot do it just now: the database is locked by another program or cannot be read, "
        "or the server stops."
    )
    cure = "Send the request again after a moment."


class NotFound(RequestError):
    code, status = "not-found", 404
    cause = "There is nothing at this path, or you may not know of it."
    cure = "Look at the path, and whether the token is the one of somebody who may see it."


class NotAllowed(RequestError):
    code, status = "not-allowed", 405
    cause = "The path does not take this HTTP method."
    cure = "Use one of the methods in the `Allow` header."


class NotAcceptable(RequestError):
    code, status = "not-acceptable", 406
    cause = "The `Accept` header asks for a form of JSON:API that is not known here."
    cure = "Ask for `application/vnd.api+json` without parameters."


class Stale(RequestError):
    code, status = "stale", 412
    cause = "The row has changed since you read it: `If-Match` names another version than it has."
    cure = "Read the row again, and decide whether your change is still right."


class UnsupportedMedia(RequestError):
    code, status = "unsupported-media-type", 415
    cause = "The body is not of a media type that this path takes."
    cure = "Send it with the `Content-Type` that the message names."


class Invalid(RequestError):
    code, status = "invalid", 422
    cause = "The document is well formed, but what it asks for cannot be stored."
    cure = "Correct the member that `source` points to."


class Internal(RequestError):
    code, status = "internal", 500
    cause = "The server has a fault; its log names it."
    cure = "Report it with the log line of the same time."


#: Every code a client can get, in the order of the reference.
REQUEST_ERRORS: tuple[type[RequestError], ...] = (
    BadJson, BadRequest, UnknownMethod, UnknownTopic, TopicExists, SystemTopic, AlreadySubscribed, NotSubscribed,
    BadFilter, Forbidden, Conflict, Gap, TooLarge, RateLimited, TooManySubscriptions, Unauthorized, ReadOnly,
    Unavailable, NotFound, NotAllowed, NotAcceptable, Stale, UnsupportedMedia, Invalid, Internal,
)  # fmt: skip


class CommandError(ApplianceError):
    """A command cannot go on. ``exit_status`` follows sysexits.h where it has a number for the case."""

    exit_status: ClassVar[int] = 1


class StoreInUse(CommandError):
    """Another server has this store (EX_TEMPFAIL: it may be free later)."""

    exit_status = 75


class StoreUnusable(CommandError):
    """The file cannot serve as a store (EX_CONFIG: somebody must change something)."""

    exit_status = 78


class StoreLocked(StoreUnusable):
    """Another program holds the file's write lock for longer than anybody waits (EX_TEMPFAIL: it will let go of it)."""

    exit_status = 75


class StoreLinked(StoreUnusable):
    """The file has two names, and a server may have it by the other (EX_TEMPFAIL: the name may go)."""

    exit_status = 75


class BadConfiguration(CommandError):
    """A setting is unknown, of the wrong type or out of its range (EX_CONFIG)."""

    exit_status = 78


class AddressMissing(BadConfiguration):
    """This machine has not the address to listen on (EX_TEMPFAIL: while it boots, it may not have it yet)."""

    exit_status = 75


class CloseCode(enum.IntEnum):
    """Why a WebSocket was closed. 4400–4499 may be retried, 4500–4599 must not be."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_TEXT = 1007
    ABUSE = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TOKEN_EXPIRED = 4401
    TOO_SLOW = 4408
    POSITION_LOST = 4410
    TOO_MANY = 4429
    BAD_CLIENT = 4501
    FORBIDDEN = 4503


def first_of(error: BaseException) -> BaseException:
    """Give an error itself, or the first that a group of errors holds, however deep."""
    return first_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
