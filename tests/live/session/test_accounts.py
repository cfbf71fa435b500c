"""Signing up and in: one answer for all that is wrong, tries that run out, and a log without secrets."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import structlog
import trio

from appliance.config import SECRET_COLUMNS
from appliance.errors import BadRequest, Conflict, Forbidden, RateLimited, Unauthorized
from appliance.live.session import accounts as live_accounts
from appliance.live.session.accounts import ADDRESS_TRIES, CLIENT_TRIES, WAITING, Accounts
from appliance.live.tries import REMEMBERED, Tries, network_of
from appliance.protocol.tokens import Keyring
from appliance.store.access import accounts, passwords
from appliance.store.file.bridge import open_bridge
from appliance.store.store import Store, StoreSettings, open_store
from appliance.store.tables.secrecy import Secrecy

PASSWORD = "a canary of a password"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "COST", 4)


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[tuple[Store, Accounts]]:
    settings = StoreSettings(path / "a.db", Secrecy(SECRET_COLUMNS, ()), accounts=True)
    async with open_bridge(), open_store(settings) as store:
        yield store, Accounts(store, **({"kept": True, "signup": True, "ttl_s": 60.0} | options))


async def test_who_signs_up_can_sign_in(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, service):
        made = await service.sign_up("Ann@example.com", PASSWORD, name="Ann", client="c")
        token = await service.sign_in("ann@EXAMPLE.com", PASSWORD, client="c")
        principal = Keyring(await store.read(store.secrets.keys)).verify(token, time.time())
        assert (principal.subject, principal.registered, principal.admin) == (made.reference_id, True, False)
        with pytest.raises(Conflict):
            await service.sign_up("ann@example.com", PASSWORD, client="c")
        with pytest.raises(BadRequest):
            await service.sign_up("bob@example.com", "short", client="c")


async def test_without_accounts_nobody_is_let_in_by_those_that_there_are_from_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, service):
        await service.sign_up("ann@example.com", PASSWORD, client="c")
        code = await store.commit(accounts.setup_code)
        assert code is not None
        service = Accounts(store, kept=False, signup=True, ttl_s=60)
        with pytest.raises(Forbidden, match="--no-accounts"):
            await service.sign_up("bob@example.com", PASSWORD, client="c")
        with pytest.raises(Forbidden, match="--no-accounts"):
            await service.sign_in("ann@example.com", PASSWORD, client="c")
        with pytest.raises(Forbidden, match="--no-accounts"):
            await service.set_up(code, "root@example.com", PASSWORD, client="c")


async def test_a_token_after_a_new_password_is_good_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, service):
        await service.sign_up("ann@example.com", PASSWORD, client="c")
        hashed = passwords.hash_password("another password")
        changed = await store.commit(lambda db: accounts.set_password(db, "ann@example.com", hashed))
        token = await service.sign_in("ann@example.com", "another password", client="c")
        principal = Keyring(await store.read(store.secrets.keys)).verify(token, time.time())
        found = await store.read(lambda db: accounts.account(db, changed.email))
        assert found is not None
        assert principal.issued_at >= found.not_before


@pytest.mark.parametrize(
    "change",
    [
        lambda db: accounts.set_password(db, "ann@example.com", passwords.hash_password("another password")),
        lambda db: accounts.remove(db, "ann@example.com"),
    ],
)
async def test_a_password_that_is_changed_while_it_is_looked_at_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    looked, go_on, check = trio.Event(), threading.Event(), passwords.is_password

    def slowly(*both: Any) -> bool:
        trio.from_thread.run_sync(looked.set)
        assert go_on.wait(30)
        return check(*both)

    async def sign_in() -> None:
        with pytest.raises(Unauthorized):
            await service.sign_in("ann@example.com", PASSWORD, client="c")

    async with opened(tmp_path) as (store, service):
        await service.sign_up("ann@example.com", PASSWORD, client="c")
        monkeypatch.setattr(passwords, "is_password", slowly)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sign_in)
            await looked.wait()
            await store.commit(change)
            go_on.set()


async def test_an_unknown_address_and_a_wrong_password_have_one_answer_and_one_hashing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashings: list[bool] = []
    check = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda *both: (hashings.append(True), check(*both))[1])
    async with opened(tmp_path) as (_, service):
        await service.sign_up("ann@example.com", PASSWORD, client="c")
        answers = set()
        for email, password in (("ann@example.com", "wrong password"), ("nobody@example.com", PASSWORD), ("", ""),
                                ("ann@example.com", "x" * 100), ("ann@example.com", "")):  # fmt: skip
            with pytest.raises(Unauthorized) as caught:
                await service.sign_in(email, password, client="c")
            answers.add((str(caught.value), str(caught.value.detail)))
        assert len(answers) == 1
        assert len(hashings) == 5


@pytest.mark.parametrize("stored", ["x'00ff'", "CAST(x'ff' AS TEXT)", "NULL", "5", "'no hash'", "1.5"])
async def test_a_password_that_is_no_hash_is_answered_as_a_wrong_one(tmp_path: Path, stored: str) -> None:
    async with opened(tmp_path) as (store, service):
        await service.sign_up("ann@example.com", PASSWORD, client="c")
        await store.commit(lambda db: db.execute(f"UPDATE user_account SET name = x'ff', password = {stored}"))
        with pytest.raises(Unauthorized):
            await service.sign_in("ann@example.com", PASSWORD, client="c")


async def test_who_has_the_bytes_of_a_hash_and_of_a_name_can_sign_in(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, service):
        await service.sign_up("ann@example.com", PASSWORD, name="Ann", client="c")
        await store.commit(
            lambda db: db.execute(
                "UPDATE user_account SET name = CAST(name AS BLOB), password = CAST(password AS BLOB)"
            )
        )
        assert await service.sign_in("ann@example.com", PASSWORD, client="c")


async def test_signing_up_can_be_off(tmp_path: Path) -> None:
    async with opened(tmp_path, signup=False) as (_, service):
        with pytest.raises(Forbidden):
            await service.sign_up("ann@example.com", PASSWORD, client="c")


async def test_the_first_administrator_signs_in_by_the_code(tmp_path: Path) -> None:
    async with opened(tmp_path, signup=False) as (store, service):
        code = await store.commit(accounts.setup_code)
        assert code
        with pytest.raises(Unauthorized):
            await service.set_up(code + "x", "root@example.com", PASSWORD, client="c")
        assert await service.set_up(code, "root@example.com", PASSWORD, client="c")
        assert await store.read(accounts.has_administrator)
        with pytest.raises(Unauthorized):
            await service.set_up(code, "evil@example.com", PASSWORD, client="c")


async def test_tries_for_an_address_run_out_whoever_asks_and_come_back(tmp_path: Path) -> None:
    now = 0.0
    async with opened(tmp_path, clock=lambda: now) as (_, service):
        await service.sign_up("ann@example.com", PASSWORD, client="c")
        for number in range(ADDRESS_TRIES):
            with pytest.raises(Unauthorized):
                await service.sign_in("Ann@example.com", "wrong password", client=f"client {number}")
        with pytest.raises(RateLimited) as caught:
            await service.sign_in("ann@example.com ", PASSWORD, client="another")
        now += caught.value.detail["retry_after"]  # type: ignore[operator]
        assert await service.sign_in("ann@example.com", PASSWORD, client="another")


async def test_tries_of_a_client_run_out_whatever_it_asks_for(tmp_path: Path) -> None:
    async with opened(tmp_path, clock=lambda: 0.0) as (_, service):
        for number in range(CLIENT_TRIES):
            with pytest.raises(Unauthorized):
                await service.sign_in(f"{number}@example.com", "wrong password", client="c")
        with pytest.raises(RateLimited):
            await service.sign_in("x@example.com", PASSWORD, client="c")
        with pytest.raises(RateLimited):
            await service.sign_up("x@example.com", PASSWORD, client="c")
        with pytest.raises(Unauthorized):
            await service.sign_in("x@example.com", PASSWORD, client="d")


def test_tries_are_forgotten_in_the_order_of_their_use() -> None:
    now = 0.0
    tries = Tries(2, 10.0, lambda: now)
    assert [tries.wait_s("a") for _ in range(4)] == [0, 0, 10, 10]
    now = 10.0
    assert [tries.wait_s("a"), tries.wait_s("a")] == [0, 10]
    for number in range(REMEMBERED):
        tries.wait_s(str(number))
    assert tries.wait_s("a") == 0


async def test_what_waits_to_be_hashed_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_accounts.os, "cpu_count", lambda: 1)
    release = threading.Event()
    monkeypatch.setattr(passwords, "is_password", lambda *_: release.wait(30) and False)
    refused = 0

    async def sign_in(number: int) -> None:
        nonlocal refused
        try:
            await service.sign_in(f"{number}@example.com", PASSWORD, client=str(number))
        except RateLimited:
            refused += 1
            if refused == 2:  # one is being hashed and ``WAITING`` wait
                release.set()
        except Unauthorized:
            pass

    async with opened(tmp_path) as (_, service), trio.open_nursery() as nursery:
        for number in range(WAITING + 3):
            nursery.start_soon(sign_in, number)
    assert refused == 2


async def test_the_log_says_who_signed_in_and_no_secret(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        async with opened(tmp_path) as (store, service):
            made = await service.sign_up("ann@example.com", PASSWORD, client="1.2.3.4")
            token = await service.sign_in("ann@example.com", PASSWORD, client="1.2.3.4")
            with pytest.raises(Unauthorized):
                await service.sign_in("ann@example.com", PASSWORD + "x", client="1.2.3.4")
            found = await store.read(lambda db: accounts.account(db, "ann@example.com"))
    told = [(line["event"], line.get("user"), line.get("remote")) for line in lines]
    who = (made.reference_id, "1.2.3.4")
    assert told == [("signed_up", *who), ("signed_in", *who), ("sign_in_failed", *who)]
    assert found is not None
    for secret in (PASSWORD, token, found.password, token.split(".")[2]):
        assert str(secret) not in str(lines)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:7:1::9", "2001:db8:0:7::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("somebody", "somebody"),
    ],
)
def test_the_addresses_of_one_network_count_as_one_client(address: str, network: str) -> None:
    assert network_of(address) == network


async def test_a_client_does_not_get_more_tries_by_other_addresses_of_its_network(tmp_path: Path) -> None:
    async with opened(tmp_path, clock=lambda: 0.0) as (_, service):
        for number in range(CLIENT_TRIES):
            with pytest.raises(Unauthorized):
                await service.sign_in(f"{number}@example.com", "wrong password", client=f"2001:db8::{number}")
        with pytest.raises(RateLimited):
            await service.sign_in("x@example.com", PASSWORD, client="2001:db8::ffff")
        with pytest.raises(Unauthorized):
            await service.sign_in("x@example.com", PASSWORD, client="2001:db8:0:1::1")


async def test_a_running_server_takes_up_whether_anybody_may_sign_up_and_how_long_tokens_are_good(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as (store, service):
        await service.sign_up("ann@example.com", PASSWORD, client="c")
        service.configure(signup=False, ttl_s=7200)
        with pytest.raises(Forbidden):
            await service.sign_up("bob@example.com", PASSWORD, client="c")
        begun = time.time()
        token = await service.sign_in("ann@example.com", PASSWORD, client="c")
        principal = Keyring(await store.read(store.secrets.keys)).verify(token, begun)
        assert 7199 <= principal.expires_at - begun <= 7202
