"""What the headers of a JSON:API request ask for: media types, and which version of a row."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio
from starlette.requests import Request

from appliance.errors import NotAcceptable, Stale, Unavailable, UnsupportedMedia
from appliance.model import JSON
from appliance.protocol.json import decode
from appliance.web.api.documents import MEDIA_TYPE

#: Media types of a document that are taken; the second for clients that know no other.
TAKEN: Final = (MEDIA_TYPE, "application/json")
#: A body that is no longer is read where it came, bytes: 15 ms at the worst.
AT_ONCE: Final = 64 << 10
#: One of the others at a time, so that half of the time is left.
_LONG: Final = trio.CapacityLimiter(1)
#: And one of them at a time is there as objects until it is written: 8 MiB of JSON can be 180 MiB of these, and who has
#: locked the database keeps all waiting that come.
_WRITTEN: Final = trio.Semaphore(1)
#: How long the next waits for that, seconds: longer than for somebody's lock.
PATIENCE_S: Final = 10.0


@asynccontextmanager
async def document(request: Request) -> AsyncIterator[JSON]:
    """Read the body of a write, which the block does. Raises ``UnsupportedMedia``, ``BadJson``, ``Unavailable``."""
    given, *parameters = (part.strip() for part in request.headers.get("content-type", "").lower().split(";"))
    plain = given == TAKEN[1]
    if given not in TAKEN or any(not _is_harmless(each, plain) for each in parameters):
        raise UnsupportedMedia(
            f"send the document as {MEDIA_TYPE} without parameters, or as {TAKEN[1]}", header="Content-Type"
        )
    body = await request.body()
    if len(body) <= AT_ONCE:
        yield decode(body)
        return
    with trio.move_on_after(PATIENCE_S) as patience:
        await _WRITTEN.acquire()
    if patience.cancelled_caught:
        raise Unavailable("other long documents wait to be written; send the request again soon", retry_after=5)
    try:
        yield await decoded(body)
    finally:
        _WRITTEN.release()


async def decoded(body: bytes) -> JSON:
    """Read JSON; where that may take long, so that others have their turn meanwhile. Raises ``BadJson``."""
    if len(body) <= AT_ONCE:
        return decode(body)
    return await trio.to_thread.run_sync(decode, body, limiter=_LONG)


def _is_harmless(parameter: str, plain: bool) -> bool:
    return parameter == "" or parameter.startswith("profile=") or (plain and parameter.startswith("charset="))


def check_accept(request: Request) -> None:
    """Refuse a client that names JSON:API in no form that there is (section "Server Responsibilities")."""
    listed = [each.strip().lower() for each in _listed(request, "accept").split(",")]
    ours = [each for each in listed if each.partition(";")[0].strip() == MEDIA_TYPE]
    if ours and all(map(_MODIFIED.search, ours)):
        raise NotAcceptable(f"ask for {MEDIA_TYPE} without parameters", header="Accept")


def _listed(request: Request, name: str) -> str:
    """Give a header that is a list; it may stand there several times (RFC 9110, section 5.3)."""
    return ", ".join(request.headers.getlist(name))


#: A parameter of a media type that changes it; weights and profiles do not.
_MODIFIED = re.compile(r";\s*(?!q=|profile=)\S")


def check_match(request: Request, *tags: str) -> None:
    """Refuse a write to a row that is another by now (RFC 9110, section 13.1.1). Raises ``Stale``.

    Each of ``tags`` names it as it is; without any only the asterisk matches.
    """
    if "if-match" in request.headers and not _matches(_listed(request, "if-match"), tags, weakly=False):
        raise Stale("the row is not the one that If-Match names any more; read it again", header="If-Match")


def is_known(request: Request, tag: str) -> bool:
    """Whether a client has a row already (RFC 9110, section 13.1.2)."""
    return _matches(_listed(request, "if-none-match"), (tag,), weakly=True)


def _matches(listed: str, tags: tuple[str, ...], *, weakly: bool) -> bool:
    """Say whether a list of entity tags has one of ``tags``, or the asterisk that stands for all."""
    given = [each.strip() for each in listed.split(",")]
    return "*" in given or any((each.removeprefix("W/") if weakly else each) in tags for each in given)
