"""JSON Web Tokens (RFC 7519) of the store's own secret: claims to text and text to a principal.

HS256 and nothing else: the algorithm is the key's, never the token's.
"""

from __future__ import annotations

from typing import Final

import jwt

from appliance.errors import Unauthorized
from appliance.model import Principal

ALGORITHM: Final = "HS256"
ISSUER: Final = "live-appliance"
#: How far two clocks may be apart, seconds.
LEEWAY_S: Final = 5.0
#: A longer text is not looked at, bytes.
TOKEN_LIMIT: Final = 8192

_OURS = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "sub", "iss"]}


def issue(secret: str, *, subject: str, admin: bool, now: float, ttl_s: float, token_id: str) -> str:
    """Sign a token for ``subject``, valid from ``now`` (seconds since the Unix epoch) for ``ttl_s`` seconds."""
    issued = int(now)
    claims = {
        "sub": subject,
        "admin": admin,
        "iat": issued,
        "nbf": issued,
        "exp": issued + int(ttl_s),
        "iss": ISSUER,
        "jti": token_id,
    }
    return jwt.encode(claims, secret, ALGORITHM)


def verify(secret: str, token: str, *, now: float) -> Principal:
    """Say whom a token stands for.

    Raises ``Unauthorized``; its message never holds the token.
    """
    if len(token) > TOKEN_LIMIT:
        raise Unauthorized(f"the token is longer than {TOKEN_LIMIT} bytes; get a new one")
    try:
        # The times are checked below, against the clock that the caller gives.
        claims = jwt.decode(token, secret, [ALGORITHM], issuer=ISSUER, options=_OURS)  # type: ignore[arg-type]
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise Unauthorized("the token is not valid here (wrong signature, malformed, or a claim is missing)") from error
    if "crit" in header:
        raise Unauthorized("the token demands an extension (crit) that is not known here")
    expires, begins, subject = claims["exp"], claims.get("nbf", 0), claims["sub"]
    if not all(isinstance(time, (int, float)) and not isinstance(time, bool) for time in (expires, begins)):
        raise Unauthorized("the token's exp and nbf must be numbers")
    if not isinstance(subject, str) or not 1 <= len(subject) <= 128:
        raise Unauthorized("the token's sub must be a string of 1 to 128 characters")
    if now >= expires:
        raise Unauthorized("the token has expired; get a new one")
    if now + LEEWAY_S < begins:
        raise Unauthorized("the token is not valid yet; look at the clocks of both machines")
    return Principal(str(claims["iss"]), subject, claims.get("admin") is True, float(expires))
