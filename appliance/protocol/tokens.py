"""JSON Web Tokens (RFC 7519): a text and the keys that are known to a principal, and claims of ours to a text.

Each key has one algorithm, and a token is only ever put to keys whose algorithm it names: it does not choose how it is
verified. Header and claims are read as strictly as requests are (no duplicates, no NaN, no nesting bombs); a token
that demands an extension (``crit``, ``b64``) is refused (RFC 8725 lists the attacks).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance.errors import BadJson, Unauthorized
from appliance.model import JSON, Principal
from appliance.protocol import json as strict_json
from appliance.protocol.signatures import jwt, verifier

ALGORITHM: Final = "HS256"
#: What a key may be for: one of each family that issuers use.
ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")
ISSUER: Final = "live-appliance"
#: Who acts when an administrator works with the file itself: a subject of ours, though it has no account.
ADMINISTRATOR: Final = "administrator"
#: Whom messages and notices are from beside users (``MessageSource``): no subject may be called so, and no other
#: issuer's what only ours may be.
NOBODYS: Final = frozenset(("guest", "system", "database"))
SPOKEN_FOR: Final = NOBODYS | {ADMINISTRATOR}
#: What the ids of other issuers' keys begin with.
OTHERS: Final = "jwt-"
#: How far two clocks may be apart, seconds.
LEEWAY_S: Final = 5.0
#: A longer text is not looked at, bytes.
TOKEN_LIMIT: Final = 8192
#: The longest subject and name of a group, characters, and the most groups of a token.
SUBJECT_LIMIT: Final = 128
GROUPS_LIMIT: Final = 256
#: Tokens of which it is remembered that their signature is right: clients that come back bring the same.
REMEMBERED: Final = 4096
#: The shortest keys, bytes and bits (RFC 7518, sections 3.2 and 3.3).
SECRET_BYTES: Final = 32
#: How many different bytes a secret must have: 32 random decimal digits have fewer once in ten million times, and one
#: that is left blank, or is one character again and again, could be guessed.
SECRET_DIFFERENT: Final = 6
RSA_BITS: Final = 2048
#: The last moment that counts, seconds: beyond it a double has no seconds any more.
LAST: Final = float(1 << 53)

_NO_GROUPS: Final[frozenset[str]] = frozenset()
_REFUSED = "the token is not valid here (wrong signature, malformed, or a claim is missing)"
_SEGMENT = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs, and what its claims mean.

    ``name`` is what principals are known by; with ``checked`` it is also what the token's ``iss`` must be.
    ``accounts``: its subjects are the reference_ids of accounts of this store. ``groups`` and ``admin`` name claims,
    ``a.b`` the claim ``b`` in ``a``; "" is none.
    """

    name: str
    checked: bool = True
    audience: str = ""
    accounts: bool = False
    groups: str = ""
    admin: str = ""


#: The store itself. Its tokens say ``admin`` only where a command made them for no account.
OURS: Final = Issuer(ISSUER, admin="admin")


EXPIRED: Final = "the token has expired; get a new one"
NO_KEY: Final = "the key or the settings that this token was accepted by count no more; connect again with a new one"


class Unverified(Unauthorized):
    """None of the keys has signed this token."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key: an ``id`` to know it by, its one algorithm, and what that takes to verify with.

    The same key of an issuer whose claims mean something else has another ``id``.
    ``kid`` is what tokens call it; ``None`` if they need not.
    """

    id: str
    algorithm: str
    material: Any
    issuer: Issuer
    kid: str | None = None


def own_key(secret: str) -> Key:
    """Make the key of a secret of ours."""
    name = key_id(secret)
    return Key(name, ALGORITHM, secret.encode(), OURS, name)


def weakness(secret: bytes) -> str:
    """Say why a secret could be guessed; "" where nobody could tell."""
    if len(secret) < SECRET_BYTES:
        return f"is shorter than {SECRET_BYTES} bytes"
    return "is the same few bytes again and again" if len(set(secret)) < SECRET_DIFFERENT else ""


def key_id(secret: str) -> str:
    """Name a secret of ours without giving it away."""
    return hashlib.sha256(b"live-appliance key " + secret.encode()).hexdigest()[:16]


def issue(
    secret: str,
    *,
    subject: str,
    now: float,
    ttl_s: float,
    token_id: str,
    admin: bool = False,
    email: str | None = None,
    name: str | None = None,
    not_before: float = 0,
) -> str:
    """Sign a token for ``subject``, valid from ``now`` (seconds since the Unix epoch) for ``ttl_s`` seconds.

    ``email`` and ``name`` are those of an account. A token that was issued before the account's ``not_before`` is dead,
    and times are whole seconds: so it is never dated before that.
    """
    begins = int(now)
    claims: dict[str, Any] = {
        "sub": subject,
        "iat": max(begins, int(not_before)),
        "nbf": begins,
        "exp": begins + int(ttl_s),
        "iss": ISSUER,
        "jti": token_id,
    }
    if admin:
        claims["admin"] = True
    if email is not None:
        claims |= {"email": email, "name": name or ""}
    return jwt.encode(claims, secret, ALGORITHM, headers={"kid": key_id(secret)})


class Keyring:
    """All keys that tokens may be signed with. Frozen: a changed configuration makes a new one."""

    def __init__(self, keys: Iterable[Key], *, lifetime_s: float = LAST) -> None:
        self._keys = tuple(keys)
        self._lifetime_s = lifetime_s
        #: What signatures were found right of late: the key and the claims, by the token's digest.
        self._known: dict[bytes, tuple[Key, Mapping[str, JSON]]] = {}
        self.ids = frozenset(key.id for key in self._keys)

    def verify(self, token: str, now: float) -> Principal:
        """Say whom a token stands for at ``now`` (seconds since the Unix epoch).

        Whether it was revoked, and what rights its subject has just now, only the store knows. Raises ``Unauthorized``;
        its message never holds the token, nor a part of it. ``Unverified`` where another key may have signed it.
        """
        if len(token) > TOKEN_LIMIT:
            raise Unauthorized(f"the token is longer than {TOKEN_LIMIT} bytes; get a new one")
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        if (known := self._known.get(digest)) is None:
            known = self._known[digest] = self._signed(token)
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return self._principal(*known, now)

    def refusal(self, principal: Principal, now: float) -> str:
        """Say why the token that a principal was verified by is not accepted any more; "" when it is.

        It has ended, its key may have been taken away, its issuer be judged otherwise (``Key.id``), or tokens not live
        as long.
        """
        if principal.key_id not in self.ids:
            return NO_KEY
        if now >= principal.expires_at:
            return EXPIRED
        try:
            self._check_life(principal.expires_at, principal.issued_at, now)
        except Unauthorized as error:
            return error.message
        return ""

    def _signed(self, token: str) -> tuple[Key, Mapping[str, JSON]]:
        """Say which key has signed a token, and what it claims."""
        head, payload, signature = _segments(token)
        header = _object(head)
        if "crit" in header or "b64" in header:
            raise Unauthorized("the token demands an extension (crit, b64) that is not known here")
        signed = token.rpartition(".")[0].encode()
        key = next((each for each in self._candidates(header) if _verifies(each, signed, signature)), None)
        if key is None:
            raise Unverified(_REFUSED)
        return key, _object(payload)

    def _candidates(self, header: Mapping[str, JSON]) -> Iterable[Key]:
        algorithm, kid = header.get("alg"), header.get("kid")
        if "kid" in header and not isinstance(kid, str):
            raise Unauthorized(_REFUSED)
        for key in self._keys:
            if key.algorithm == algorithm and (kid is None or key.kid is None or key.kid == kid):
                yield key

    def _principal(self, key: Key, claims: Mapping[str, JSON], now: float) -> Principal:
        issuer = key.issuer
        if issuer.checked and claims.get("iss") != issuer.name:
            raise Unauthorized("the token's issuer (iss) is not that of its key; get one from the right issuer")
        if issuer.audience and issuer.audience not in _strings(claims.get("aud")):
            raise Unauthorized("the token is for another audience (aud); get one for this server")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= SUBJECT_LIMIT:
            raise Unauthorized(f"the token's sub must be a string of 1 to {SUBJECT_LIMIT} characters")
        expires, issued = self._times(claims, now)
        token_id = claims.get("jti", "")
        own = issuer is OURS
        return Principal(
            issuer=ISSUER if issuer.accounts else issuer.name,
            subject=subject,
            admin=bool(issuer.admin) and _claim(claims, issuer.admin) is True,
            expires_at=expires,
            groups=frozenset(_strings(_claim(claims, issuer.groups))) if issuer.groups else _NO_GROUPS,
            issued_at=issued,
            token_id=token_id if isinstance(token_id, str) else "",
            key_id=key.id,
            registered=issuer.accounts or (own and isinstance(claims.get("email"), str)),
        )

    def _times(self, claims: Mapping[str, JSON], now: float) -> tuple[float, float | None]:
        """Check the times of a token; give when it expires and when it was issued, ``None`` if it does not say so."""
        expires, begins = _time(claims, "exp"), _time(claims, "nbf", 0.0)
        issued = _time(claims, "iat") if "iat" in claims else None
        if now >= expires:
            raise Unauthorized(EXPIRED)
        if now + LEEWAY_S < max(begins, issued or 0.0):
            raise Unauthorized("the token is not valid yet; look at the clocks of both machines")
        self._check_life(expires, issued, now)
        return expires, issued

    def _check_life(self, expires: float, issued: float | None, now: float) -> None:
        if expires - (now if issued is None else issued) > self._lifetime_s:
            raise Unauthorized(f"the token lives longer than the {self._lifetime_s:.10g} s that are allowed here")


def verify(secret: str, token: str, *, now: float) -> Principal:
    """Say whom a token of ours stands for. Raises ``Unauthorized``; its message never holds the token."""
    return Keyring((own_key(secret),)).verify(token, now)


def _segments(token: str) -> tuple[bytes, bytes, bytes]:
    parts = token.split(".")
    if len(parts) != 3 or not all(parts) or not all(map(_SEGMENT.issuperset, parts)):
        raise Unauthorized(_REFUSED)
    try:
        head, payload, signature = map(jwt.utils.base64url_decode, parts)
    except ValueError as error:
        raise Unauthorized(_REFUSED) from error
    if jwt.utils.base64url_encode(signature).decode() != parts[2]:
        raise Unauthorized(_REFUSED)  # bits that mean nothing: one token would have several texts
    return head, payload, signature


def _object(text: bytes) -> dict[str, JSON]:
    try:
        found = strict_json.decode(text)
    except BadJson as error:
        raise Unauthorized(_REFUSED) from error
    if not isinstance(found, dict):
        raise Unauthorized(_REFUSED)
    return found


def _verifies(key: Key, signed: bytes, signature: bytes) -> bool:
    return bool(verifier(key.algorithm).verify(signed, key.material, signature))


def _time(claims: Mapping[str, JSON], name: str, default: float | None = None) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < LAST:
        raise Unauthorized(f"the token's {name} must be a number of seconds since 1970")
    return float(value)


def _claim(claims: Mapping[str, JSON], name: str) -> JSON:
    """Find a claim by its name, or by a path of names with dots between them."""
    if name in claims:
        return claims[name]
    found: JSON = dict(claims)
    for part in name.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return found


def _strings(value: JSON) -> list[str]:
    """Give a claim that is a string or a list of strings as a list; anything else says nothing."""
    several = value if isinstance(value, list) else [value]
    found = [each for each in several if isinstance(each, str) and 1 <= len(each) <= SUBJECT_LIMIT]
    return found[:GROUPS_LIMIT]
