"""Accounts and groups. Works: plain functions on an open connection, in a transaction of the caller's.

Passwords come here as hashes only (``passwords``): hashing takes longer than anybody may hold the database.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import sqlite3
import time
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from appliance.errors import BadRequest, CommandError, Conflict, Forbidden, Unauthorized
from appliance.model import SQLiteValue, ascii_fold, quote_identifier
from appliance.protocol.permissions import MEMBERSHIP
from appliance.protocol.values import legible
from appliance.store.file import connections, schema
from appliance.store.tables import standard
from appliance.store.tables.standard import ADMINISTRATORS, BUILT_IN, USER_ACCOUNT, USERS, join_table

#: The longest address (RFC 5321, section 4.5.3.1.3, less its brackets) and name, characters.
ADDRESS_LIMIT: Final = 254
NAME_LIMIT: Final = 128
#: Of a text that is longer, no more is looked at as an address, characters. NFC makes one of four at most, and may take
#: as long as the square of a text's length: of 8 MiB it would take days.
_FOLDED: Final = 4 * ADDRESS_LIMIT
#: How long the link to the first administrator's account is good for, seconds.
SETUP_S: Final = 24 * 3600
#: Since when a subject's tokens are dead is remembered for so long at least, seconds.
ENDED_S: Final = 366 * 86400

_MEMBERS = join_table(USER_ACCOUNT)
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"


@dataclass(frozen=True, slots=True)
class Account:
    """One user. With a ``password`` that is no hash nobody can sign in. ``not_before``: see ``Standing``."""

    reference_id: str
    email: str
    name: str
    password: SQLiteValue
    confirmed: bool
    not_before: float

    def __repr__(self) -> str:
        return f"Account({self.reference_id!r})"  # a hash does not belong into a log


def address(text: str) -> str:
    """Check an e-mail address and give it as it is stored: in lower case. Raises ``BadRequest``."""
    found = folded(text)
    local, _, domain = found.rpartition("@")
    short = len(text) <= _FOLDED and len(found) <= ADDRESS_LIMIT
    if not local or not domain or not short or not found.isprintable() or " " in found:
        raise BadRequest("this is not an e-mail address; write it as name@example.com", attribute="email")
    return found


def folded(text: str) -> str:
    """Fold an address as it is stored and compared; what is longer than any is cut."""
    return unicodedata.normalize("NFC", text.strip()[:_FOLDED].lower())


def add(
    db: sqlite3.Connection, email: str, password: str | None, *, name: str = "", admin: bool = False,
    confirmed: bool = False,
) -> Account:  # fmt: skip
    """Make an account, a member of ``users``. ``password`` is a hash.

    Raises ``BadRequest``, ``Conflict``; ``Forbidden`` where the store keeps no accounts.
    """
    _demand_accounts(db)
    email = address(email)
    check_name(name)
    if account(db, email) is not None:
        raise Conflict(
            "there is an account with this address already; sign in, or use another address", attribute="email"
        )
    itself = str(uuid.uuid4())  # who owns it is known before the row is
    db.execute(
        "INSERT INTO user_account(reference_id, user_account_id, email, name, password, confirmed) "
        "VALUES(?, ?, ?, ?, ?, ?)",
        (itself, itself, email, name or email.partition("@")[0], password, confirmed),
    )
    made = known(db, email)
    join(db, made.reference_id, USERS)
    if admin:
        join(db, made.reference_id, ADMINISTRATORS)
    return made


def check_name(name: str) -> None:
    """Raise ``BadRequest`` unless an account may be called so."""
    if len(name) > NAME_LIMIT or not name.isprintable():
        raise BadRequest(f"a name has at most {NAME_LIMIT} printable characters", attribute="name")


def _demand_accounts(db: sqlite3.Connection) -> None:
    if not standard.is_prepared(db):
        raise Forbidden("this store keeps no accounts: it is served with --no-accounts, or was never served")


def account(db: sqlite3.Connection, email: str) -> Account | None:
    """Find an account by its address, in any case. Raises ``Forbidden`` where the store keeps no accounts."""
    _demand_accounts(db)
    return _find(db, "email", folded(email))


def account_of(db: sqlite3.Connection, reference_id: str) -> Account | None:
    """Find an account by its ``reference_id``; ``None`` also where the store keeps no accounts."""
    return _find(db, "reference_id", reference_id)


def _find(db: sqlite3.Connection, column: str, value: SQLiteValue) -> Account | None:
    if not standard.is_prepared(db):
        return None
    sql = (
        "SELECT reference_id, email, name, password, confirmed, "
        "coalesce((SELECT not_before FROM _appliance_account WHERE subject = reference_id), 0) "
        f"FROM user_account WHERE {column} = ?"
    )
    row = connections.tolerant(db, lambda: db.execute(sql, (value,)).fetchone())
    if row is None:
        return None
    reference, email, name = map(_said, row[:3])
    return Account(reference, email, name, row[3], bool(row[4]), float(row[5]))


def _said(value: SQLiteValue) -> str:
    """Give the text of a column as a token can hold it: whoever writes to the file may write anything."""
    return legible(value) if isinstance(value, str) else ""


def accounts(db: sqlite3.Connection) -> list[tuple[Account, list[str]]]:
    """List all accounts by address, each with the names of its groups."""
    ids = [row[0] for row in db.execute("SELECT id FROM user_account ORDER BY email").fetchall()]
    return [(each, _groups_of(db, each.reference_id)) for one in ids if (each := _find(db, "id", one)) is not None]


def _groups_of(db: sqlite3.Connection, reference_id: str) -> list[str]:
    sql = (
        f"SELECT name FROM {_MEMBERS} AS member JOIN usergroup ON usergroup.reference_id = usergroup_id "
        "WHERE member.user_account_id = ? ORDER BY name"
    )
    rows = connections.tolerant(db, lambda: db.execute(sql, (reference_id,)).fetchall())
    return [_said(name) for (name,) in rows]


def known(db: sqlite3.Connection, email: str) -> Account:
    """Find an account that must be there. Raises ``CommandError``."""
    found = account(db, email)
    if found is None:
        raise CommandError(f"there is no account {email}; `live-appliance user list` names those there are")
    return found


def set_password(db: sqlite3.Connection, email: str, password: str) -> Account:
    """Give an account another password, a hash; all its tokens end. Raises ``CommandError``: there is none."""
    found = known(db, email)
    db.execute(
        f"UPDATE user_account SET password = ?, version = version + 1, updated_at = {_NOW} WHERE reference_id = ?",
        (password, found.reference_id),
    )
    end_tokens(db, found.reference_id)
    return found


def remove(db: sqlite3.Connection, email: str) -> Account:
    """Delete an account, and with it its memberships and tokens. Raises ``CommandError``: there is none.

    What it owns stays, and is nobody's.
    """
    found = known(db, email)
    remove_of(db, found.reference_id)
    return found


def remove_of(db: sqlite3.Connection, reference_id: str) -> None:
    """Delete an account by its ``reference_id``, as ``remove`` does."""
    end_tokens(db, reference_id)
    db.execute(f"DELETE FROM {_MEMBERS} WHERE user_account_id = ?", (reference_id,))
    db.execute("DELETE FROM user_account WHERE reference_id = ?", (reference_id,))


def end_tokens(db: sqlite3.Connection, subject: str) -> None:
    """End all tokens that a subject has just now. Their times are whole seconds: those of this second end, too."""
    db.execute(
        "INSERT INTO _appliance_account(subject, not_before) VALUES(?, ?) "
        "ON CONFLICT(subject) DO UPDATE SET not_before = max(not_before, excluded.not_before)",
        (subject, math.floor(time.time()) + 1),
    )
    schema.bump(db)


def outlived(db: sqlite3.Connection, before: float) -> bool:
    """Whether there are subjects whose tokens have been dead since ``before``: none of them can be alive by now."""
    sql = "SELECT 1 FROM _appliance_account WHERE not_before < ? LIMIT 1"
    return db.execute(sql, (int(before),)).fetchone() is not None


def forget_outlived(db: sqlite3.Connection, before: float) -> None:
    """Forget those subjects."""
    db.execute("DELETE FROM _appliance_account WHERE not_before < ?", (int(before),))


def revoke(db: sqlite3.Connection, token_id: str, expires_at: float) -> None:
    """End one token before its time; those that would have expired by now are forgotten.

    Another of the same id may have been ended before, which expired sooner.
    """
    db.execute("DELETE FROM _appliance_revoked WHERE expires_at < ?", (int(time.time()),))
    db.execute(
        "INSERT INTO _appliance_revoked(token_id, expires_at) VALUES(?, ?) "
        "ON CONFLICT(token_id) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
        (token_id, math.ceil(expires_at)),
    )
    schema.bump(db)


# --- groups -----------------------------------------------------------------------------------------------------------


def group_named(db: sqlite3.Connection, name: str) -> str:
    """Give the reference_id of a group: a built-in one by its first name, any other by its name or reference_id.

    Raises ``CommandError``.
    """
    for reference, called in BUILT_IN.items():
        if ascii_fold(name) in (called, reference):
            return reference
    # Somebody may have called a group like another's reference_id.
    row = db.execute(
        "SELECT reference_id FROM usergroup WHERE name = :it OR reference_id = :it ORDER BY reference_id <> :it",
        {"it": name},
    ).fetchone()
    if row is None:
        raise CommandError(f'there is no group "{name}"; `live-appliance group list` names those there are')
    return str(row[0])


def add_group(db: sqlite3.Connection, name: str) -> str:
    """Make a group; give its reference_id. Raises ``BadRequest``, ``Conflict``."""
    check_new_group(db, name)
    (made,) = db.execute("INSERT INTO usergroup(name) VALUES(?) RETURNING reference_id", (name,)).fetchone()
    return str(made)


def check_new_group(db: sqlite3.Connection, name: str) -> None:
    """Raise ``BadRequest`` or ``Conflict`` unless a group may be made that is called so."""
    if not 1 <= len(name) <= NAME_LIMIT or not name.isprintable() or ascii_fold(name) == "owner":
        raise BadRequest(
            f'a group\'s name has 1 to {NAME_LIMIT} printable characters, and is not "owner"', attribute="name"
        )
    taken = db.execute("SELECT 1 FROM usergroup WHERE name = ? OR reference_id = ?", (name, name)).fetchone()
    if taken is not None or ascii_fold(name) in BUILT_IN.values():
        raise Conflict(f'there is a group "{name}" already', attribute="name")


def remove_group(db: sqlite3.Connection, name: str) -> None:
    """Delete a group, its memberships and what was granted to it. Raises ``BadRequest``, ``CommandError``."""
    reference = group_named(db, name)
    if reference in BUILT_IN:
        raise BadRequest(f'"{name}" is built in; take its members out instead')
    for each in standard.registered(db).values():
        if each.object_table is not None:
            table = quote_identifier(each.table)
            db.execute(f"DELETE FROM {table} WHERE usergroup_id = ?", (reference,))
    db.execute("DELETE FROM usergroup WHERE reference_id = ?", (reference,))


def groups(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """List the groups by name, each with the number of its members."""
    sql = (
        f"SELECT name, (SELECT count(*) FROM {_MEMBERS} WHERE usergroup_id = usergroup.reference_id) "
        "FROM usergroup ORDER BY name"
    )
    rows = connections.tolerant(db, lambda: db.execute(sql).fetchall())
    return [(_said(name), members) for name, members in rows]


def join(db: sqlite3.Connection, reference_id: str, group: str) -> None:
    """Put a user into a group; nothing changes for one who is in it. Both by reference_id."""
    db.execute(
        f"INSERT INTO {_MEMBERS}(user_account_id, usergroup_id, permission) VALUES(?, ?, ?) ON CONFLICT DO NOTHING",
        (reference_id, group, MEMBERSHIP),
    )


def leave(db: sqlite3.Connection, reference_id: str, group: str) -> bool:
    """Take a user out of a group; give whether it was in it. Both by reference_id."""
    sql = f"DELETE FROM {_MEMBERS} WHERE user_account_id = ? AND usergroup_id = ?"
    return db.execute(sql, (reference_id, group)).rowcount > 0


# --- the first administrator ------------------------------------------------------------------------------------------


def has_administrator(db: sqlite3.Connection) -> bool:
    """Whether there is an account that is an administrator's."""
    row = db.execute(
        f"SELECT 1 FROM {_MEMBERS} AS member JOIN user_account ON user_account.reference_id = member.user_account_id "
        "WHERE usergroup_id = ?",
        (ADMINISTRATORS,),
    ).fetchone()
    return row is not None


@contextmanager
def administered(db: sqlite3.Connection) -> Iterator[None]:
    """Refuse what the block does where it leaves a store that had administrators without any. Raises ``Conflict``."""
    had = has_administrator(db)
    yield
    if had and not has_administrator(db):
        raise Conflict("this is the last administrator; make another one first")


def setup_code(db: sqlite3.Connection) -> str | None:
    """Make the code that the first administrator's account is made with; ``None`` when there is one.

    It is good once, for ``SETUP_S``, and until the next is made. The store keeps only its digest.
    """
    if not standard.is_prepared(db) or has_administrator(db):
        return None
    code = secrets.token_urlsafe(24)
    schema.put(db, "setup_code", _digest(code))
    schema.put(db, "setup_until", int(time.time()) + SETUP_S)
    return code


def end_setup(db: sqlite3.Connection) -> None:
    """Let the code that ``serve`` printed be good for nothing any more."""
    schema.put(db, "setup_code", "")


def redeem(db: sqlite3.Connection, code: str, email: str, password: str, *, name: str = "") -> Account:
    """Make the first administrator's account with the code that ``serve`` printed; ``password`` is a hash.

    Raises ``Unauthorized`` for a code that is not, or not any more, good; ``BadRequest``, ``Conflict``.
    """
    expected, until = schema.get(db, "setup_code"), schema.get(db, "setup_until")
    good = isinstance(expected, str) and isinstance(until, int) and time.time() < until
    if not good or not hmac.compare_digest(str(expected), _digest(code)) or has_administrator(db):
        raise Unauthorized("this link is not good any more; restart serve for another, or use `user add --admin`")
    made = add(db, email, password, name=name, admin=True, confirmed=True)
    end_setup(db)
    return made


def _digest(code: str) -> str:
    return hashlib.sha256(b"live-appliance setup " + code.encode("utf-8", "surrogatepass")).hexdigest()
