"""Where a token stands in a request."""

from __future__ import annotations

from appliance.errors import Unauthorized


def token_of(field: str | None, header: str | None) -> str | None:
    """Give the token: by ``?token=`` or else by ``Authorization: Bearer``; ``None`` when there is neither.

    ``field`` and ``header`` are what these say, where there are several all of it, with commas between. Raises
    ``Unauthorized`` for another scheme, and where there are several.
    """
    token = field
    if token is None:
        scheme, _, token = (header or "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer":
            raise Unauthorized("the Authorization header must be: Bearer <token>")
    if "," in token:  # in no token there is one
        raise Unauthorized("a token is given once, in the query or in an Authorization header")
    return token.strip() if field is None else token
