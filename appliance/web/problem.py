"""A refusal, as every part of the HTTP side words it: under ``/api/`` as a document of JSON:API, else as our own."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Mapping
from typing import Final

import msgspec

from appliance.errors import RequestError, Unauthorized, Unavailable
from appliance.web.api.documents import MEDIA_TYPE, error_document

JSON_TYPE: Final = "application/json"
_API: Final = "/api/"
_NOWHERE: Final[Mapping[str, str]] = {}


def error_body(code: str, message: str) -> bytes:
    """Give the JSON body of an HTTP error."""
    return msgspec.json.encode({"error": {"code": code, "message": message}})


def error_answer(
    path: str, status: int, code: str, message: str, source: Mapping[str, str] = _NOWHERE
) -> tuple[str, bytes]:
    """Give the media type and the body of an error at a path. ``source``: what of the request is at fault."""
    if path.startswith(_API):
        return MEDIA_TYPE, error_document(status, code, message, source)
    return JSON_TYPE, error_body(code, message)


def headers_of(error: RequestError) -> dict[str, str]:
    """Give the headers that belong to a refusal."""
    found = {"WWW-Authenticate": "Bearer"} if error.status == Unauthorized.status else {}
    for name, header in (("allow", "Allow"), ("retry_after", "Retry-After")):
        if name in error.detail:
            found[header] = str(error.detail[name])
    return found


class Refused(Exception):
    """This request is answered with ``status`` and the connection closed: what follows cannot be trusted."""

    def __init__(self, status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def unavailable(message: str) -> Refused:
    """Give the refusal of what may be asked again in a moment."""
    return Refused(Unavailable.status, Unavailable.code, message, ((b"retry-after", b"5"),))


def place(error: BaseException) -> str:
    """Say what failed and where, for the log: no message that may quote what a client sent; but SQLite's reason."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(dict.fromkeys(place(inner) for inner in error.exceptions))
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].name})" if frames else ""
    why = f": {error.__cause__}" if isinstance(error.__cause__, sqlite3.OperationalError) else ""
    return type(error).__name__ + where + why
