"""Who sends an HTTP request, and what its path names."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import unquote

from starlette.requests import Request

from appliance.errors import NotFound, Unauthorized
from appliance.live.matching.access import Reader
from appliance.model import Principal
from appliance.web.credentials import token_of


class Authority(Protocol):
    """What says whom a token stands for."""

    async def principal(self, token: str) -> Principal:
        """Say whom ``token`` stands for now. Raises ``Unauthorized``."""

    def guest(self, remote: str) -> Reader | None:
        """Give who has no token; ``None`` where nobody comes in without one."""

    def refusal(self, principal: Principal) -> str:
        """Say why it would not be let in any more; "" when it would. May be asked in any thread."""


async def principal_of(request: Request, authority: Authority) -> Principal:
    """Say who asks: by ``?token=`` or else by ``Authorization: Bearer``. Raises ``Unauthorized``."""
    fields, lines = request.query_params.getlist("token"), request.headers.getlist("authorization")
    token = token_of(", ".join(fields) if fields else None, ", ".join(lines))
    if token is None:
        guest = authority.guest(address_of(request))
        if guest is not None:
            return guest.principal
        raise Unauthorized("a token is needed: an Authorization header (Bearer <token>), or ?token=…")
    return await authority.principal(token)


def address_of(request: Request) -> str:
    """Give the address that a request comes from; nothing where that is not known."""
    return request.client.host if request.client is not None else ""


def names_nobody(request: Request) -> bool:
    """Whether the request has no token at all, good or bad."""
    return "token" not in request.query_params and "authorization" not in request.headers


def segments(request: Request) -> list[str]:
    """Give the parts of the path between its slashes, each decoded by itself, so that a name may hold a slash.

    Raises ``NotFound`` when one is not UTF-8.
    """
    raw: bytes = request.scope["raw_path"]
    try:
        return [unquote(part, errors="strict") for part in raw.decode("ascii").split("/")[1:]]
    except UnicodeDecodeError:
        raise NotFound("there is nothing at this path: it is not UTF-8 in percent-encoding") from None
