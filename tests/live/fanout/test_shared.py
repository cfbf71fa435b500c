"""What many come back to, and counts as one transaction, is read once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.live.fanout.recent import Recent
from appliance.live.fanout.shared import COURSES, FOUND, MANY, Once, Shared
from appliance.live.fanout.subscribers import Subscription
from appliance.live.matching.access import Reader
from appliance.live.matching.audience import Wish
from appliance.live.matching.course import Course
from appliance.live.matching.facts import Facts
from appliance.live.replay import beside, commits
from appliance.live.replay.commits import Commits
from appliance.live.replay.reading import Reading
from appliance.store.access.grants import CLOSED, TableGrant, TableKind
from appliance.store.outbox import replay
from appliance.store.outbox.replay import Page
from appliance.store.outbox.wanted import Wanted
from appliance.store.tables.making import NewColumn
from tests.live.matching.test_facts import caught_up, peer
from tests.live.replay.test_closed_since import OWNERS
from tests.live.replay.test_reading import ADMINISTRATOR, FILL, Peer, Served, follow_own_rows, served
from tests.web.api.application import served as standard

#: Rows that are given to Ann, and of which one is taken from her again at once, before most of the others.
MUCH = (
    "BEGIN", FILL.format(first=1, last=3, value="'ann'"), "UPDATE t SET v = 'bob' WHERE id = 2",
    FILL.format(first=4, last=15, value="'ann'"), "COMMIT",
)  # fmt: skip


@contextmanager
def many_read(shared: Shared) -> Iterator[None]:
    """Have as many read as it takes."""
    with ExitStack() as readings:
        for _ in range(MANY):
            readings.enter_context(shared.reading())
        yield


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Course | None]:
    """Give what is read for all, of more than three ids, a page at a time."""
    found: list[Course | None] = []
    all_of = Commits._all_of

    async def noted(self: Commits, *asked: Any) -> Course | None:
        found.append(await all_of(self, *asked))
        return found[-1]

    monkeypatch.setattr(Commits, "_all_of", noted)
    monkeypatch.setattr(commits, "MANY", 3)
    monkeypatch.setattr(commits, "STEP", 4)
    monkeypatch.setattr(replay, "PAGE_ROWS", 4)
    return found


async def read_from_file(live: Served, whose: Peer, held: Subscription, after: int) -> None:
    """Read for somebody what has come after a position, of which nothing is remembered."""
    live.hub.recent.forget(live.hub.position.id)
    await Reading(live.hub, live.store, whose, [held], after).run()


@pytest.mark.parametrize("remembered", [True, False])
async def test_it_is_read_for_the_first_and_forgotten_with_the_last(
    tmp_path: Path, read: list[Course | None], remembered: bool
) -> None:
    async with served(tmp_path / "a.db") as live:
        _, held = await follow_own_rows(live)
        begun = live.hub.position.id
        await live.write(*MUCH)
        if not remembered:
            live.hub.recent.forget(live.hub.position.id)
        peers = [peer("ann") for _ in range(5)]
        async with trio.open_nursery() as nursery:
            for each in peers:
                subscription = live.hub.subscribe(each, held.topic, held.wish)
                nursery.start_soon(Reading(live.hub, live.store, each, [subscription], begun).run)
        assert len(read) == 1
        for each in peers:
            assert [event["Key"][0] for event in each.sent] == [1, 3, *range(4, 16)]
            assert each.told == []
        assert not live.hub.shared._courses


async def test_what_stands_beside_it_in_a_page_is_decided_on_by_itself(
    tmp_path: Path, read: list[Course | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "BESIDE", 0)
    async with served(tmp_path / "a.db") as live:
        ann, held = await follow_own_rows(live)
        begun = live.hub.position.id
        await live.write("INSERT INTO t VALUES(20, 'ann')")
        await live.caught_up()
        await live.write(*MUCH)
        await live.caught_up()
        await live.write("INSERT INTO t VALUES(21, 'ann')")
        await read_from_file(live, ann, held, begun)
        assert len(read) == 1
        assert ([event["Key"][0] for event in ann.sent], ann.told) == ([20, 1, 3, *range(4, 16), 21], [])


async def test_what_is_granted_meanwhile_has_it_read_again(
    tmp_path: Path, read: list[Course | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "a.db") as live:
        ann, held = await follow_own_rows(live)
        begun, access, page = live.hub.position.id, live.hub.access, replay.page
        granted = access._granted
        await live.write(*MUCH)
        pages = 0

        def page_on(*asked: Any, **options: bool) -> replay.Page:
            nonlocal pages
            pages += 1
            if pages == 3:  # in the midst of what is read for all
                access.take_up(granted)
            return page(*asked, **options)

        monkeypatch.setattr(replay, "page", page_on)
        await read_from_file(live, ann, held, begun)
        assert len(read) == 2
        assert [event["Key"][0] for event in ann.sent] == [1, 3, *range(4, 16)]


async def test_who_is_told_little_of_what_much_has_happened_to_has_all_of_it_read(
    tmp_path: Path, read: list[Course | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "MANY", 4)
    monkeypatch.setattr(commits, "BESIDE", 0)
    async with served(tmp_path / "a.db") as live:
        ann, held = await follow_own_rows(live)
        live.hub.unsubscribe(held)
        held, begun = live.subscribe(ann, Wish({"v": "ann"}, live_set=True)), live.hub.position.id
        others = [f"UPDATE t SET v = 'other {number}'" for number in range(8)]
        await live.write(
            "BEGIN", FILL.format(first=1, last=1, value="'ann'"), *others, "UPDATE t SET v = 'ann'", "COMMIT"
        )
        await read_from_file(live, ann, held, begun)
        assert len(read) == 1
        assert ([event["EventType"] for event in ann.sent], ann.told) == (["create", "delete", "create"], [])


async def test_where_it_is_too_much_who_holds_rows_is_told(
    tmp_path: Path, read: list[Course | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "KEPT", 10)
    monkeypatch.setattr(commits, "BESIDE", 0)
    async with served(tmp_path / "a.db") as live:
        ann, held = await follow_own_rows(live)
        begun = live.hub.position.id
        await live.write(*MUCH)
        await read_from_file(live, ann, held, begun)
        assert read == [None]
        assert [event["EventData"]["reason"] for event in ann.told] == ["overrun"]


@pytest.mark.parametrize("most", [15, 14])
async def test_what_many_come_back_to_is_put_into_memory_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(replay, "PAGE_ROWS", 4)
    async with served(tmp_path / "a.db") as live:
        begun = live.hub.position.id
        await live.write(FILL.format(first=1, last=15, value="1"))
        live.hub.recent = recent = Recent(live.hub.position.id, events=most)
        live.hub.shared = Shared(recent)
        peers = [live.peer() for _ in range(3)]
        with many_read(live.hub.shared):
            async with trio.open_nursery() as nursery:
                for each in peers:
                    nursery.start_soon(live.reading(each, live.subscribe(each), begun).run)
        assert [[event["EventId"] for event in each.sent] for each in peers] == [list(range(1, 16))] * 3
        assert recent.count_after(begun) == (15 if most == 15 else None)
        await live.write(FILL.format(first=16, last=20, value="1"))
        assert [told.id for told in recent.events_after(live.hub.position.id - 3)] == [18, 19, 20]


async def test_what_comes_meanwhile_is_in_memory_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path / "a.db") as live:
        await live.write(FILL.format(first=1, last=15, value="1"))
        recent = Recent(live.hub.position.id)
        live.hub.recent, shared, pages = recent, Shared(recent), list[int]()

        async def page(after: int, upto: int) -> Page:
            pages.append(after)
            await live.write(FILL.format(first=16, last=18, value="1"))
            shapes, contents = live.hub.shapes, live.store.contents
            wanted = Wanted.everything(shapes.values())
            return await live.store.read(
                lambda db: replay.page(db, after, upto, wanted, shapes, contents, complete=True)
            )

        with many_read(shared):
            assert await shared.fill(5, page)
            assert await shared.fill(7, page)
        assert pages == [5]
        assert [told.id for told in recent.events_after(5)] == list(range(6, 19))
        assert recent.count_after(5) == 13


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Facts]:
    """Give by what rows are judged, as often as it is read."""
    found: list[Facts] = []
    facts = Commits.facts

    async def noted(self: Commits, *asked: Any) -> Facts:
        found.append(await facts(self, *asked))
        return found[-1]

    monkeypatch.setattr(Commits, "facts", noted)
    return found


async def test_by_what_rows_are_judged_is_read_for_the_first_of_many_until_it_may_be_something_else(
    tmp_path: Path, judged: list[Facts]
) -> None:
    async with standard(tmp_path / "a.db", tables={"todo": (NewColumn("text", "text"),)}) as live:
        hub, begun = live.hub, live.hub.position.id

        async def read(*names: str) -> list[list[str]]:
            peers = [peer(name) if name else Peer(Reader(ADMINISTRATOR, frozenset())) for name in names]
            async with trio.open_nursery() as nursery:
                for each in peers:
                    subscription = hub.subscribe(each, "todo", Wish())
                    nursery.start_soon(Reading(hub, live.store, each, [subscription], begun).run)
            return [[event["EventData"]["text"] for event in each.sent] for each in peers]

        live.sql(f"INSERT INTO todo(text, permission, user_account_id) VALUES('a', {OWNERS}, 'ann')")
        live.sql(f"INSERT INTO todo(text, permission, user_account_id) VALUES('b', {OWNERS}, 'bob')")
        await caught_up(live)
        hub.attach(hub.subscribe(peer("carl"), "todo", Wish()))
        with many_read(hub.shared):
            judged.clear()
            assert await read("ann", "bob", "ann") == [["a"], ["b"], ["a"]]
            assert len(judged) == 1
            live.sql("UPDATE todo SET permission = 0 WHERE text = 'a'")
            await caught_up(live)
            judged.clear()
            assert await read("ann", "bob", "ann") == [[], ["b"], []]
            assert len(judged) == 1
            hub.access.renewed += 1
            assert await read("ann") == [[]]
            assert len(judged) == 2
        judged.clear()
        assert await read("ann", "bob") == [[], ["b"]]
        assert len(judged) == 2
        assert await read("") == [["a", "b", "a"]]  # by nothing, for an administrator
        assert len(judged) == 2


async def test_what_could_not_be_read_for_the_first_is_read_for_the_next() -> None:
    once = Once[int]()

    async def fail() -> int:
        raise OSError("gone")

    async def give(value: int) -> int:
        return value

    with pytest.raises(OSError, match="gone"):
        await once.get(fail)
    assert await once.get(partial(give, 1)) == 1
    assert await once.get(partial(give, 2)) == 1


def test_of_what_was_found_at_a_moment_the_last_is_kept() -> None:
    shared, made = Shared(Recent(0)), list[int]()

    def make(number: int) -> int:
        made.append(number)
        return number

    with many_read(shared):
        for number in (*range(FOUND + 1), FOUND, 0):
            assert shared.at((1,), number, partial(make, number)) == number
    assert made == [*range(FOUND + 1), 0]


async def test_of_long_transactions_that_did_nothing_to_the_rows_in_question_no_more_are_remembered_either() -> None:
    shared, nothing = Shared(Recent(0)), Course((), lambda table: TableGrant(table, TableKind.PLAIN, CLOSED))

    async def read() -> Course:
        return nothing

    with shared.reading():
        for number in range(COURSES + 1):
            assert await shared.get((number, number + 1, frozenset(), 0), read) is nothing
        assert (len(shared._courses), shared._being_read) == (COURSES, {})


@pytest.mark.parametrize("is_long", [True, False])
async def test_what_is_not_in_memory_is_read_for_the_first_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    reads: list[object] = []
    page, more = replay.page, beside.read

    def counted(work: Any) -> Any:
        def call(*asked: Any, **options: Any) -> Any:
            reads.append(work)
            return work(*asked, **options)

        return call

    async def no_room(self: Shared, *asked: Any) -> bool:
        return False

    monkeypatch.setattr(Shared, "fill", no_room)
    monkeypatch.setattr(commits, "MANY", 3 if is_long else 500)
    monkeypatch.setattr(replay, "page", counted(page))
    monkeypatch.setattr(beside, "read", counted(more))
    async with served(tmp_path / "a.db") as live:
        await follow_own_rows(live)
        begun = live.hub.position.id
        await live.write(*MUCH)
        live.hub.recent.forget(live.hub.position.id)
        peers = [peer("ann") for _ in range(MANY)]
        with many_read(live.hub.shared):
            async with trio.open_nursery() as nursery:
                for each in peers:
                    subscription = live.hub.subscribe(each, "t", Wish())
                    nursery.start_soon(Reading(live.hub, live.store, each, [subscription], begun).run)
        assert [[event["Key"][0] for event in each.sent] for each in peers] == [[1, 3, *range(4, 16)]] * MANY
        assert reads.count(more) == (0 if is_long else 1) + 1  # for the row that was taken from Ann, once more
