"""Who is told what: for those whom the hub feeds as for each one alone, by the bits of the row alone."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.live.matching.access import Access, Reader, Sight
from appliance.live.matching.audience import Wish
from appliance.live.matching.audiences import Audiences
from appliance.live.matching.facts import Facts
from appliance.live.matching.telling import CREATE, DELETE, UPDATE, UPDATE_ALONE
from appliance.model import Affinity, Change, Column, Image, Op, Principal, Shape
from appliance.protocol.frames import Form
from appliance.protocol.permissions import GROUP_SHIFT, OWNER_SHIFT, Guarded, Verb
from appliance.store.access.grants import TableGrant, TableKind

NAMES = ("reference_id", "permission", "user_account_id", "room")
SHAPE = Shape(1, "note", tuple(Column(name, "TEXT", Affinity.TEXT) for name in NAMES), key=(0,), standard=True)
READ = (0, Verb.READ, Verb.READ << OWNER_SHIFT, Verb.READ | Verb.READ << OWNER_SHIFT)
GROUP_READ = Verb.READ << GROUP_SHIFT
PEOPLE = ("ann", "bob", "eve")
GROUPS = ("red", "blue")


class Rights(Access):
    """The rights of one standard table."""

    def __init__(self) -> None:
        self._granted = {"note": TableGrant("note", TableKind.STANDARD, Guarded(0))}


@dataclass(eq=False)
class Member:
    reader: Reader


def image(permission: int, owner: str | None, room: str) -> Image:
    return Image(("r", permission, owner, room))


images = st.builds(image, st.sampled_from(READ), st.sampled_from((*PEOPLE, None)), st.sampled_from(("1", "2", "3")))
joins = st.lists(st.tuples(st.sampled_from(GROUPS), st.sampled_from((0, GROUP_READ))), max_size=2).map(tuple)
readers = st.builds(
    lambda subject, groups, guest: Reader(Principal("us", subject, admin=False, expires_at=0, guest=guest), groups),
    st.sampled_from(PEOPLE),
    st.frozensets(st.sampled_from(GROUPS)),
    st.booleans(),
)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    op = draw(st.sampled_from((Op.CREATE, Op.UPDATE, Op.DELETE)))
    old = None if op is Op.CREATE else draw(images)
    new = None if op is Op.DELETE else draw(images)
    return Change(1, op, SHAPE, new, old, draw(joins) if op is Op.DELETE else ())


wishes = st.builds(
    Wish,
    st.sampled_from((
        {}, {"room": "1"}, {"room": ["1", "3"]}, {"room": ["1", "2"]}, {"room": "1", "EventType": "delete"},
        {"room": "1", "user_account_id": ["ann", "bob"]}, {"room": {"ne": "1"}},
    )),
    st.booleans(),
    st.booleans(),
)  # fmt: skip


@settings(max_examples=400)
@given(
    st.builds(lambda old, new: Change(1, Op.UPDATE, SHAPE, new, old), images, images),
    st.lists(st.tuples(wishes, st.sampled_from((Sight.BY_ROW, Sight.BY_ROW, Sight.ALL)), st.booleans()), max_size=3),
)
def test_a_live_set_that_a_row_leaves_by_its_filter_is_found_without_asking_each(
    change: Change, those: list[tuple[Wish, Sight, bool]]
) -> None:
    audiences: Audiences[Member] = Audiences(SHAPE)
    for wish, sight, fed in those:
        member = Member(Reader(Principal("us", "ann", admin=False, expires_at=0), frozenset()))
        audience = audiences.join(member, wish, sight)
        if fed:  # who is read for counts, too
            audience.feed(member)
    assert audiences.is_left_by(change) == any(each.is_left_by(change) for each in audiences)


@settings(max_examples=400)
@given(
    st.lists(st.tuples(changes(), st.lists(st.integers(0, 7))), min_size=1, max_size=4),
    st.lists(st.tuples(readers, wishes, st.sampled_from(Sight)), max_size=8),
    joins,
    st.booleans(),
)
def test_all_at_once_are_told_as_each_one_is(
    course: list[tuple[Change, list[int]]],
    people: list[tuple[Reader, Wish, Sight]],
    now: tuple[tuple[str, int], ...],
    there: bool,
) -> None:
    rights, audiences = Rights(), Audiences[Member](SHAPE)
    facts = Facts({("note", "r"): Guarded(0, None, now) if there else None})
    members = [Member(reader) for reader, _, _ in people]
    audience_of = {
        member: audiences.join(member, wish, sight) for member, (_, wish, sight) in zip(members, people, strict=True)
    }
    for change, moving in course:
        for member, audience in ((members[each], audience_of[members[each]]) for each in moving if each < len(members)):
            if member in audience.members:
                audience.wait(member)
            else:
                audience.feed(member)

        told: dict[Member, Form] = {}
        sent: dict[Hashable, set[Member]] = {}
        for telling in audiences.tellings(change, rights, facts):
            assert sent.setdefault(telling.who, set(telling.members)) == set(telling.members)
            for member in telling.members:
                assert member not in told
                told[member] = telling.form

        fed = {member: audience for member, audience in audience_of.items() if member in audience.members}
        alone = {each: audience.form(each.reader, change, rights, facts) for each, audience in fed.items()}
        assert told == {member: form for member, form in alone.items() if form is not None}


@given(changes(), readers, st.booleans())
def test_nobody_is_shown_an_image_that_is_not_theirs_to_read(change: Change, reader: Reader, live_set: bool) -> None:
    rights, audiences = Rights(), Audiences[Member](SHAPE)
    member = Member(reader)
    form = audiences.join(member, Wish({}, live_set), Sight.BY_ROW).form(reader, change, rights, Facts())

    def readable(row: Image | None) -> bool:
        guard = None if row is None else rights.guard(change, row, Facts())
        return guard is not None and reader.may(Verb.READ, guard)

    if form in (CREATE, UPDATE, UPDATE_ALONE):
        assert readable(change.new)
    if form in (DELETE, UPDATE):
        assert readable(change.old)
    if live_set and form is None:
        assert not readable(change.new)
        assert not readable(change.old)


class Asked(Reader):
    """Counts how often it is asked what it may."""

    count = 0

    def may(self, verb: Verb, on: Guarded) -> bool:
        Asked.count += 1
        return super().may(verb, on)


def test_nobody_is_asked_where_a_row_names_who_may_read_it() -> None:
    rights, audiences = Rights(), Audiences[Member](SHAPE)
    people = [Asked(Principal("us", f"user-{number}", False, 0), frozenset(("users",))) for number in range(100)]
    members = [Member(reader) for reader in people]
    for member in members:
        audience = audiences.join(member, Wish(), Sight.BY_ROW)
        audience.feed(member)

    def told(owner: str, *joins: tuple[str, int]) -> list[tuple[list[Member], object]]:
        change = Change(1, Op.CREATE, SHAPE, image(Verb.READ << OWNER_SHIFT, owner, "1"), None)
        facts = Facts({("note", "r"): Guarded(Verb.READ << OWNER_SHIFT, owner, joins)})
        return [(list(each.members), each.who) for each in audiences.tellings(change, rights, facts)]

    ((mine, _),) = told("user-7", ("users", Verb.PEEK << GROUP_SHIFT))
    ((all_, who),) = told("user-7", ("users", GROUP_READ))
    assert (mine, all_) == ([members[7]], members)
    assert told("user-8", ("users", GROUP_READ)) == [(members, who)]  # known to be the same ones, and sent as such
    assert Asked.count == 0


def test_members_that_leave_are_told_nothing_and_leave_nothing_behind() -> None:
    rights, audiences = Rights(), Audiences[Member](SHAPE)
    change = Change(1, Op.CREATE, SHAPE, image(Verb.READ << OWNER_SHIFT, "ann", "1"), None)
    members = [Member(Reader(Principal("us", name, admin=False, expires_at=0), frozenset(GROUPS))) for name in PEOPLE]
    places = [audiences.join(member, Wish({"room": "1"}), Sight.BY_ROW) for member in members]
    for member, audience in zip(members, places, strict=True):
        audience.feed(member)
    assert [list(each.members) for each in audiences.tellings(change, rights, Facts())] == [[members[0]]]

    for member, audience in zip(members, places, strict=True):
        audiences.leave(member, audience)
    assert not audiences
    assert not list(audiences.tellings(change, rights, Facts()))
    assert (audiences.by_row, audiences.live_sets) == (0, 0)


def test_those_who_want_different_lists_of_values_are_found_at_one_look() -> None:
    rights, audiences = Rights(), Audiences[Member](SHAPE)
    reader = Reader(Principal("us", "ann", admin=False, expires_at=0), frozenset())
    members = [Member(reader) for _ in range(100)]
    places = [
        audiences.join(member, Wish({"room": ["1", f"of {number}"]}), Sight.ALL)
        for number, member in enumerate(members)
    ]
    for member, audience in zip(members, places, strict=True):
        audience.feed(member)
    create = Change(1, Op.CREATE, SHAPE, image(0, "ann", "1"), None)
    (telling,) = audiences.tellings(create, rights, Facts())
    assert list(telling.members) == members

    cut = Change(2, Op.CREATE, SHAPE, Image(("r", 0, "ann", "1"), cut=frozenset((3,))), None)
    assert not list(audiences.tellings(cut, rights, Facts()))

    places[7].leave(members[7])
    assert next(audiences.tellings(create, rights, Facts())).members.keys() == {*members} - {members[7]}
    for member, audience in zip(members, places, strict=True):
        audiences.leave(member, audience)
    assert not list(audiences.tellings(create, rights, Facts()))


def test_numbers_that_are_equal_and_other_texts_are_no_one_filter() -> None:
    rights, audiences = Rights(), Audiences[Member](SHAPE)
    reader = Reader(Principal("us", "ann", admin=False, expires_at=0), frozenset())
    wanted = (42, 42.0, 0, 0.0, -0.0, {"in": [7]}, {"in": [7.0]})
    members = {}
    for value in wanted:
        member = Member(reader)
        audiences.join(member, Wish({"room": value}), Sight.ALL).feed(member)
        members[str(value)] = member
    for text in ("42", "42.0", "0", "0.0"):
        create = Change(1, Op.CREATE, SHAPE, image(0, "ann", text), None)
        told = [member for each in audiences.tellings(create, rights, Facts()) for member in each.members]
        assert members[text] in told
        assert all(member is members[text] for member in told if members["-0.0"] is not member)
