"""Passwords to hashes (bcrypt). Pure computation of about a tenth of a second: to be run in a thread."""

from __future__ import annotations

import re
from typing import Final

from appliance.errors import BadRequest

#: The work factor: each hash takes 2^COST rounds.
COST: Final = 11
#: The shortest and the longest password, bytes of UTF-8; bcrypt looks at no more than 72.
SHORTEST: Final = 8
LONGEST: Final = 72

#: What a password is compared with when there is no account: nobody's, of the same cost.
_NOBODY: Final = "$2b$11$V1QxSK3jW/9.5MSC.jnnYuZ7glkZrQ6rg3k2rkKcjRIeXy6KnLM8G"
_WITH_COST: Final = re.compile(r"\$2[abxy]\$(\d\d)\$")


def check_password(password: str) -> bytes:
    """Check that a new password can be one; give its bytes. Raises ``BadRequest``, which never holds it."""
    try:
        raw = password.encode()
    except UnicodeEncodeError as error:
        raise BadRequest("the password is not text that UTF-8 can hold", attribute="password") from error
    if not SHORTEST <= len(raw) <= LONGEST or b"\0" in raw:
        raise BadRequest(f"a password has {SHORTEST} to {LONGEST} bytes (of UTF-8), none of them NUL",
                         attribute="password")  # fmt: skip
    return raw


def hash_password(password: str) -> str:
    """Hash a new password. Raises ``BadRequest``."""
    import bcrypt  # many a server never sees a password

    return bcrypt.hashpw(check_password(password), bcrypt.gensalt(COST)).decode("ascii")


def is_password(password: str, hashed: str | None) -> bool:
    """Whether a password is the one that was hashed. Takes as long when there is no hash, and is then false.

    So it does for a hash of a lower cost, from elsewhere; one of a higher cost takes longer.
    """
    import bcrypt

    raw = password.encode("utf-8", "surrogatepass")
    usable = len(raw) <= LONGEST
    raw = raw[:LONGEST]
    try:
        same = bcrypt.checkpw(raw, (hashed or _NOBODY).encode())
    except ValueError:  # somebody has put something into the column that is no hash
        bcrypt.checkpw(raw, _NOBODY.encode())
        return False
    found = _WITH_COST.match(hashed or "")
    # Twice as long for each one more: with the first it makes 2^COST.
    for cost in range(int(found[1]) if found else COST, COST):
        bcrypt.checkpw(raw, f"$2b${cost:02}{_NOBODY[6:]}".encode())
    return same and usable and bool(hashed)
