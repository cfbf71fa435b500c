"""Where a token stands in a request."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.errors import Unauthorized


def token_of(query: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
    """Give the token: by ``?token=`` or else by ``Authorization: Bearer``; ``None`` when there is neither.

    Names of headers are in lower case. Raises ``Unauthorized`` for another scheme.
    """
    token = query.get("token")
    if token is None:
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return credentials.strip()
        if scheme:
            raise Unauthorized("the Authorization header must be: Bearer <token>")
    return token
