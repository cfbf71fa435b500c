"""Passwords to hashes (bcrypt). Pure computation of about a tenth of a second: to be run in a thread."""

from __future__ import annotations

import re
from typing import Final

from appliance.errors import BadRequest
from appliance.model import SQLiteValue

#: The work factor: each hash takes 2^COST rounds.
COST: Final = 11
#: The highest of a hash from elsewhere: a try takes 3 s. With 31 it were a day, and few others could sign in meanwhile.
MOST: Final = 16
#: The shortest and the longest password, bytes of UTF-8; bcrypt looks at no more than 72.
SHORTEST: Final = 8
LONGEST: Final = 72

#: What a password is compared with when there is no account: nobody's, of the same cost.
_NOBODY: Final = b"$2b$11$V1QxSK3jW/9.5MSC.jnnYuZ7glkZrQ6rg3k2rkKcjRIeXy6KnLM8G"
#: What a hash looks like. bcrypt is less strict: it takes ``+4`` and ``004`` for a cost, too.
_HASH: Final = re.compile(rb"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}")


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


def is_password(password: str, stored: SQLiteValue) -> bool:
    """Whether a password is the one that was hashed. Takes as long when there is no hash, and is then false.

    So it does for a hash of a lower cost, from elsewhere; one of a higher cost takes longer.
    """
    import bcrypt

    raw = password.encode("utf-8", "surrogatepass")
    usable = len(raw) <= LONGEST
    raw = raw[:LONGEST]
    hashed, cost = _hash_of(stored) or (_NOBODY, COST)
    try:
        same = bcrypt.checkpw(raw, hashed)
    except ValueError:  # a salt that bcrypt does not make
        hashed, cost = _NOBODY, COST
        same = bcrypt.checkpw(raw, hashed)
    # Twice as long for each one more: with the first it makes 2^COST.
    for each in range(cost, COST):
        bcrypt.checkpw(raw, b"$2b$%02d%b" % (each, _NOBODY[6:]))
    return same and usable and hashed is not _NOBODY


def _hash_of(stored: SQLiteValue) -> tuple[bytes, int] | None:
    """Give a hash and its cost; ``None`` for what is none.

    Some applications store the bytes that bcrypt gives them, and the column takes anything.
    """
    raw = stored.encode("utf-8", "surrogatepass") if isinstance(stored, str) else stored
    found = _HASH.fullmatch(raw) if isinstance(raw, bytes) else None
    if found is None or int(found[1]) > MOST:
        return None
    return found[0], int(found[1])
