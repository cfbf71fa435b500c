"""Whom a verified token stands for, as the store knows it at this moment. Works: plain functions on a connection."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from appliance.model import Principal
from appliance.protocol.tokens import ISSUER, NO_KEY, NOBODYS, OTHERS, SPOKEN_FOR
from appliance.store.access import grants, keys
from appliance.store.access.grants import Standing, TableGrant
from appliance.store.tables import standard

#: What is granted on tables, by folded name.
Granted: TypeAlias = Mapping[str, TableGrant]


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal, with ``admin`` as it is now, and its groups; ``refused`` says why its token counts no more."""

    principal: Principal
    groups: frozenset[str]
    refused: str = ""


def identify(db: sqlite3.Connection, principals: Sequence[Principal]) -> list[Caller]:
    """Say of each principal what it is now: whether its account is there, in which groups, and its token not revoked.

    Whoever has a token of ours for no account – a command makes such – counts as a member of ``users``.
    """
    standings = grants.standing(db, sorted({each.subject for each in principals if not each.guest}))
    ended, own = revoked(db), keys.own_ids(db)
    return [_identified(db, each, standings, ended, own) for each in principals]


def with_grants(
    db: sqlite3.Connection, principals: Sequence[Principal], *, tables: bool
) -> tuple[Granted | None, list[Caller]]:
    """Say what each principal is, and what is granted on ``tables`` if that is wanted, both of one moment."""
    db.execute("BEGIN")
    try:
        return grants.read(db) if tables else None, identify(db, principals) if principals else []
    finally:
        db.execute("COMMIT")


def revoked(db: sqlite3.Connection) -> frozenset[str]:
    """Give the ids of the tokens that were revoked; those that have expired since are forgotten with the next one."""
    return frozenset(token_id for (token_id,) in db.execute("SELECT token_id FROM _appliance_revoked").fetchall())


def _identified(
    db: sqlite3.Connection,
    principal: Principal,
    standings: Mapping[str, Standing],
    ended: frozenset[str],
    own: frozenset[str] | None,
) -> Caller:
    if principal.guest:
        return Caller(principal, frozenset((standard.GUESTS,)))
    if principal.token_id and principal.token_id in ended:
        return Caller(principal, frozenset(), "the token was revoked; get a new one")
    by_ours = principal.issuer == ISSUER and not principal.key_id.startswith(OTHERS)
    if by_ours and own is not None and principal.key_id and principal.key_id not in own:
        return Caller(principal, frozenset(), NO_KEY)  # dropped a moment ago: who has verified the token had it still
    stands = standings[principal.subject]
    if principal.issuer != ISSUER:
        if stands.exists or stands.not_before or principal.subject in SPOKEN_FOR:
            # Owners are known by their subject: it would have what the account, or one that was removed, owns.
            return Caller(principal, frozenset(), "this subject is one of ours; only tokens of ours stand for it")
        return Caller(principal, _shared(grants.groups_named(db, principal.groups)))
    if principal.subject in NOBODYS and not stands.exists:
        # The secret may be shared: whoever signs with it does not ask us. Its messages would seem to be the server's.
        return Caller(principal, frozenset(), "this subject stands for nobody; get a token for another one")
    if principal.registered and not stands.exists:
        return Caller(principal, frozenset(), "the account of this token is not there any more")
    if (principal.issued_at or 0) < stands.not_before:
        return Caller(principal, frozenset(), "this token is not valid any more; sign in again")
    groups = stands.groups if stands.exists else frozenset((standard.USERS,))
    # Asked again and again of an open connection: what the store said the last time is no more than that.
    by_token = principal.admin and not principal.appointed
    appointed = stands.admin and not by_token
    return Caller(replace(principal, admin=by_token or appointed, appointed=appointed), _shared(groups))


@functools.lru_cache(1024)
def _shared(groups: frozenset[str]) -> frozenset[str]:
    """Give one object for equal groups: most are in the same, and there may be 20,000 connections."""
    return groups
