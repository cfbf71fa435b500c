"""Who somebody is now, asked of the store for all at once that ask at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from appliance.live.matching.access import Access, Reader
from appliance.model import Principal
from appliance.store.access.callers import Caller
from appliance.store.file.bridge import open_bridge
from appliance.store.store import Store, StoreSettings, open_store
from appliance.store.tables.secrecy import Secrecy


def guest(number: int) -> Principal:
    return Principal(f"guest at {number}", "guest", admin=False, expires_at=float("inf"), guest=True)


class Held(Access):
    """Notes how many are asked for at a time; the first time waits for ``let``."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked: list[int] = []
        self.let = trio.Event()

    async def identify(self, principals: Sequence[Principal]) -> list[Caller]:
        self.asked.append(len(principals))
        await self.let.wait()
        return await super().identify(principals)


@asynccontextmanager
async def held(folder: Path) -> AsyncIterator[Held]:
    settings = StoreSettings(folder / "a.db", Secrecy((), ()), busy_timeout_s=5)
    async with open_bridge(), open_store(settings) as store:
        await store.synchronise()
        access = Held(store)
        access.configure(external=(), lifetime_s=3600, guests=True)
        yield access


async def test_all_that_wait_are_asked_for_at_once_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    found: dict[int, Reader] = {}
    async with held(tmp_path) as access:

        async def ask(number: int) -> None:
            found[number] = await access.reader(guest(number))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0)
            await wait_all_tasks_blocked()
            for number in range(1, 50):
                nursery.start_soon(ask, number)
            await wait_all_tasks_blocked()
            access.let.set()
        assert access.asked == [1, 49]
        assert all(found[number].principal == guest(number) for number in range(50))


async def test_who_leaves_while_asking_takes_nobody_along(tmp_path: Path) -> None:
    found: list[Reader] = []
    async with held(tmp_path) as access:

        async def ask(number: int) -> None:
            found.append(await access.reader(guest(number)))

        async with trio.open_nursery() as nursery:
            leaving = trio.CancelScope()

            async def leave() -> None:
                with leaving:
                    await access.reader(guest(0))

            nursery.start_soon(leave)
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, 1)
            await wait_all_tasks_blocked()
            leaving.cancel()
            await wait_all_tasks_blocked()
            access.let.set()
        assert [each.principal for each in found] == [guest(1)]
