"""Where the keys that tokens are signed with come from: the store's own secrets, and files of another issuer's keys."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence

from appliance.protocol.tokens import SECRET_BYTES, Issuer, Key, own_key
from appliance.store import schema


def secret(db: sqlite3.Connection) -> str:
    """Give the secret that the store's tokens are signed with."""
    return str(schema.get(db, "secret"))


def own(db: sqlite3.Connection) -> tuple[Key, ...]:
    """Give the keys of the store's secrets: the one that signs, and that before it until it is dropped."""
    former = schema.get(db, "former_secret")
    return tuple(own_key(str(each)) for each in (secret(db), former) if each)


def rotate(db: sqlite3.Connection, *, drop: bool) -> None:
    """Sign with a new secret from now on, inside a transaction.

    Tokens of the secret before stay valid until the next rotation or, with ``drop``, are dead at once.
    """
    if drop:
        schema.put(db, "former_secret", "")
    else:
        schema.put(db, "former_secret", secret(db))
    schema.put(db, "secret", secrets.token_hex(SECRET_BYTES))
    schema.bump(db)


def external(files: Sequence[str], issuer: Issuer) -> tuple[Key, ...]:
    """Read the keys of another issuer: each ``ALGORITHM:FILE``, a secret or a public key (PEM), or a JWKS file.

    Raises ``BadConfiguration``, naming the file and never what is in it.
    """
    if not files:
        return ()
    from appliance.store import issuer_keys  # loads cryptography, which a store without such files has no use for

    return issuer_keys.read(files, issuer)
