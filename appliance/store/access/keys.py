"""Where the keys that tokens are signed with come from: our own secrets, and files of another issuer's keys.

Our own are in the store, or in a file beside the configuration (``secret_file``) for whoever keeps secrets elsewhere.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from appliance.errors import BadConfiguration, CommandError
from appliance.protocol.tokens import SECRET_BYTES, Issuer, Key, own_key, weakness
from appliance.store.file import schema

#: A longer file of secrets is not read, bytes.
FILE_LIMIT: Final = 64 << 10
#: The setting in the store that says that its tokens are signed with secrets of a file.
_GIVEN: Final = "secret_given"


class Secrets:
    """What tokens of ours are signed with: secrets that were ``given``, else those that the store holds.

    The first that is given signs, and all of them verify.
    """

    def __init__(self, given: Sequence[str] = ()) -> None:
        self.given = tuple(given)

    def signing(self, db: sqlite3.Connection) -> str:
        """Give the secret that signs."""
        return self.given[0] if self.given else str(schema.get(db, "secret"))

    def keys(self, db: sqlite3.Connection) -> tuple[Key, ...]:
        """Give what verifies. Of the store's own: the one that signs, and that before it until it is dropped."""
        found = self.given or (self.signing(db), schema.get(db, "former_secret"))
        return tuple(own_key(str(each)) for each in found if each)

    def note(self, db: sqlite3.Connection) -> None:
        """Have commands know whose secrets these are; writes nothing when that is so already."""
        if bool(schema.get(db, _GIVEN)) != bool(self.given):
            schema.remember(db, _GIVEN, int(bool(self.given)))


def own_ids(db: sqlite3.Connection) -> frozenset[str] | None:
    """Give the ids of the keys that the store holds; ``None`` where its tokens are signed with secrets of a file."""
    return None if schema.get(db, _GIVEN) else frozenset(key.id for key in Secrets().keys(db))


def for_command(db: sqlite3.Connection, file: Path | None) -> Secrets:
    """Give the secrets that a server of this store has; ``file`` is where a command was told that they are.

    Raises ``CommandError`` when a server has them from a file and the command was told of none, and as ``given``.
    """
    if file is None and schema.get(db, _GIVEN):
        raise CommandError("the tokens of this store are signed with a secret in a file; name it with --secret-file or "
                           "LIVE_APPLIANCE_SECRET_FILE")  # fmt: skip
    return Secrets(given(file))


def given(file: Path | None) -> tuple[str, ...]:
    """Read a file of secrets, one a line; nothing where there is no file.

    Raises ``BadConfiguration``, naming the file and never what is in it.
    """
    if file is None:
        return ()
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_LIMIT + 1)
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except OSError as error:
        raise BadConfiguration(f"the secret file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadConfiguration(f"{file} is no text; write a secret into it with: openssl rand -hex 32") from error
    found = tuple(line for line in lines if line)
    if len(content) > FILE_LIMIT or "-----BEGIN" in content.decode():
        raise BadConfiguration(f"{file} holds something else than secrets, one a line")
    if not found or any(weakness(each.encode()) for each in found):
        raise BadConfiguration(f"{file} must hold a secret of at least {SECRET_BYTES} bytes a line, not the same few "
                               "again and again; make one with: openssl rand -hex 32")  # fmt: skip
    return found


def rotate(db: sqlite3.Connection, *, drop: bool) -> None:
    """Sign with a new secret of the store from now on, inside a transaction.

    Tokens of the secret before stay valid until the next rotation or, with ``drop``, are dead at once.
    Raises ``CommandError`` where a server signs with secrets of a file.
    """
    if schema.get(db, _GIVEN):
        raise CommandError("the tokens of this store are signed with a secret in a file; write a new one above it, "
                           "reload the server, and take the old one out when its tokens have ended")  # fmt: skip
    if drop:
        schema.put(db, "former_secret", "")
    else:
        schema.put(db, "former_secret", str(schema.get(db, "secret")))
    schema.put(db, "secret", secrets.token_hex(SECRET_BYTES))
    schema.bump(db)


def external(files: Sequence[str], issuer: Issuer) -> tuple[Key, ...]:
    """Read the keys of another issuer: each ``ALGORITHM:FILE``, a secret or a public key (PEM), or a JWKS file.

    Raises ``BadConfiguration``, naming the file and never what is in it.
    """
    if not files:
        return ()
    from appliance.store.access import (
        issuer_keys,  # loads cryptography, which a store without such files has no use for
    )

    return issuer_keys.read(files, issuer)
