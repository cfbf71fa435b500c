"""Signing up and in: what takes long runs in threads, what is tried too often is refused, what happens is logged."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import Final, TypeVar

import structlog
import trio

from appliance.errors import ApplianceError, Forbidden, RateLimited, Unauthorized
from appliance.live.tries import Tries, network_of
from appliance.protocol import tokens
from appliance.store.access import accounts, passwords
from appliance.store.access.accounts import Account
from appliance.store.store import Store

log = structlog.get_logger()

T = TypeVar("T")

#: Tries for one address, and from one client: so many at once, and then one in so many seconds.
ADDRESS_TRIES: Final = 10
ADDRESS_EVERY_S: Final = 30.0
CLIENT_TRIES: Final = 30
CLIENT_EVERY_S: Final = 5.0
#: Passwords that may wait to be hashed; each takes about a tenth of a second of one core.
WAITING: Final = 32


class Accounts:
    """Makes accounts and lets their users in; nobody, unless ``kept``, also where the file has accounts from before."""

    def __init__(
        self, store: Store, *, kept: bool, signup: bool, ttl_s: float, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._store, self._kept = store, kept
        self.configure(signup=signup, ttl_s=ttl_s)
        self._addresses = Tries(ADDRESS_TRIES, ADDRESS_EVERY_S, clock)
        self._clients = Tries(CLIENT_TRIES, CLIENT_EVERY_S, clock)
        # The loop needs a core of its own, where there are several.
        self._hashing = trio.CapacityLimiter(max(1, (os.cpu_count() or 1) - 1))

    def configure(self, *, signup: bool, ttl_s: float) -> None:
        """From now on, let anybody make an account or not, and give tokens that are good for ``ttl_s`` seconds."""
        self._signup, self._ttl_s = signup, ttl_s

    async def sign_up(self, email: str, password: str, *, name: str = "", client: str) -> Account:
        """Make an account. ``client`` is the address of who asks.

        Raises ``Forbidden`` when only administrators may, ``RateLimited``, ``BadRequest``, ``Conflict`` and what
        ``Store.commit`` raises.
        """
        self._demand_kept()
        if not self._signup:
            raise Forbidden("signing up is off here (--no-signup); ask an administrator for an account")
        accounts.address(email)
        hashed = await self.hashed(password, client=client)
        made = await self._store.commit(lambda db: accounts.add(db, email, hashed, name=name))
        log.info("signed_up", user=made.reference_id, remote=client)
        return made

    async def sign_in(self, email: str, password: str, *, client: str) -> str:
        """Give a token for an account. ``client`` is the address of who asks.

        Raises ``Unauthorized``, with one answer and after one time for an unknown address and a wrong password;
        ``RateLimited``, also for a right password; ``Forbidden`` where the store keeps no accounts.
        """
        self._demand_kept()
        self._take_try(self._clients, network_of(client))
        self._take_try(self._addresses, accounts.folded(email))
        found = await self._store.read(lambda db: accounts.account(db, email))
        right = await self._hash(lambda: passwords.is_password(password, found.password if found else None))
        if found is None or not right:
            raise _failed(found, client)
        return await self._token(found, client)

    async def set_up(self, code: str, email: str, password: str, *, name: str = "", client: str) -> str:
        """Make the first administrator's account with the code that ``serve`` printed; give a token for it.

        Raises ``Unauthorized``: the code is not good any more; ``Forbidden``, ``RateLimited``, ``BadRequest``,
        ``Conflict``.
        """
        self._demand_kept()
        accounts.address(email)
        hashed = await self.hashed(password, client=client)
        try:
            made = await self._store.commit(lambda db: accounts.redeem(db, code, email, hashed, name=name))
        except ApplianceError as error:
            log.warning("set_up_failed", remote=client, reason=getattr(error, "code", "error"))
            raise
        log.info("set_up", user=made.reference_id, remote=client)
        return await self._token(made, client)

    async def hashed(self, password: str, *, client: str | None) -> str:
        """Hash a new password; for a ``client``, by its address, that is one of its tries. Raises ``BadRequest``,
        ``RateLimited``.
        """
        passwords.check_password(password)
        if client is not None:
            self._take_try(self._clients, network_of(client))
        return await self._hash(lambda: passwords.hash_password(password))

    def _demand_kept(self) -> None:
        if not self._kept:
            raise Forbidden("this store keeps no accounts (--no-accounts)")

    async def _token(self, known: Account, client: str) -> str:
        """Sign a token for whoever has proved to be ``known``. Raises ``Unauthorized``.

        Hashing takes long, and longer where many wait for it: what has changed since counts, or whoever had the former
        password would have a token from after it. So does what ends the account's tokens from here on.
        """
        now = time.time()
        user, secret = await self._store.read(
            lambda db: (accounts.account_of(db, known.reference_id), self._store.secrets.signing(db))
        )
        if user is None or user.password != known.password:
            raise _failed(known, client)
        token_id = str(uuid.uuid4())
        log.info("signed_in", user=user.reference_id, remote=client, token_id=token_id)
        return tokens.issue(
            secret, subject=user.reference_id, email=user.email, name=user.name, now=now, ttl_s=self._ttl_s,
            token_id=token_id, not_before=user.not_before,
        )  # fmt: skip

    def _take_try(self, tries: Tries, name: str) -> None:
        wait_s = tries.wait_s(name)
        if wait_s > 0:
            log.warning("tried_too_often", remote=name if tries is self._clients else None)
            raise RateLimited(f"there were too many tries; wait {wait_s:.0f} s", retry_after=round(wait_s) or 1)

    async def _hash(self, work: Callable[[], T]) -> T:
        if self._hashing.statistics().tasks_waiting >= WAITING:
            raise RateLimited("too many sign in just now; try again in a moment", retry_after=5)
        return await trio.to_thread.run_sync(work, limiter=self._hashing)


def _failed(user: Account | None, client: str) -> Unauthorized:
    """Log that somebody is not let in, and give the refusal: one for all that may be wrong."""
    log.warning("sign_in_failed", user=user.reference_id if user else None, remote=client)
    return Unauthorized("the address or the password is wrong; try again")
