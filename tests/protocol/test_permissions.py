"""The decision: all bits, for everybody."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model import Principal
from appliance.protocol.permissions import (
    ALL,
    GROUP_SHIFT,
    MEMBERSHIP,
    MOST,
    OWNER_SHIFT,
    ROW_DEFAULT,
    TABLE_DEFAULT,
    TOPIC_DEFAULT,
    Guarded,
    Verb,
    bits,
    both,
    owner_of,
    permits,
    permits_on_join,
    permitted,
)  # fmt: skip

ANN = Principal("live-appliance", "ann", False, 0)
BOB = replace(ANN, subject="bob")
ADMIN = replace(ANN, subject="root", admin=True)
GUEST = replace(ANN, subject="ann", guest=True)

#: PROTOCOL, section 6, as it stands there.
BITS = {
    "guest": (1, 2, 4, 8, 16, 32, 64),
    "owner": (128, 256, 512, 1024, 2048, 4096, 8192),
    "group": (16384, 32768, 65536, 131072, 262144, 524288, 1048576),
}
#: Who may by a bit of each kind: a guest, the owner, a member of a joined group, an administrator, somebody else.
MAY = {
    "guest": (True, True, True, True, True),
    "owner": (False, True, False, True, False),
    "group": (False, False, True, True, False),
}


@pytest.mark.parametrize("kind", BITS)
@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("verb", Verb)
def test_every_bit_permits_its_verb_to_its_kind_and_nothing_else(kind: str, place: int, verb: Verb) -> None:
    bit = BITS[kind][place]
    right = list(Verb)[place] is verb
    joined = (("group", bit),) if kind == "group" else (("group", 0),)
    on = Guarded(0 if kind == "group" else bit, "ann", joined)

    found = (
        permits(GUEST, ("guests",), verb, on),
        permits(ANN, (), verb, on),
        permits(BOB, ("users", "group"), verb, on),
        permits(ADMIN, (), verb, on),
        permits(BOB, ("users",), verb, on),
    )

    assert found == (*(right and may for may in MAY[kind][:3]), True, right and MAY[kind][4])


@pytest.mark.parametrize("bit", BITS["group"])
def test_group_bits_of_the_object_itself_permit_nothing(bit: int) -> None:
    on = Guarded(bit, None, (("group", 0),))
    assert not any(permits(ANN, ("group",), verb, on) for verb in Verb)


def test_the_defaults_are_the_sums_that_the_protocol_says() -> None:
    guest, owner, group = (dict(zip(Verb, BITS[kind], strict=True)) for kind in BITS)
    assert guest[Verb.PEEK] + guest[Verb.EXECUTE] + sum(owner.values()) + sum(group.values()) == ROW_DEFAULT
    assert sum(owner.values()) + sum(group.values()) == TABLE_DEFAULT
    assert guest[Verb.PEEK] + guest[Verb.EXECUTE] + sum(owner.values()) == MEMBERSHIP
    assert sum(owner.values()) + group[Verb.PEEK] + group[Verb.READ] + group[Verb.EXECUTE] == TOPIC_DEFAULT
    assert [verb << OWNER_SHIFT for verb in Verb] == list(BITS["owner"])
    assert [verb << GROUP_SHIFT for verb in Verb] == list(BITS["group"])


def test_what_has_no_owner_is_nobodys() -> None:
    on = Guarded(2097151 & ~127, None)
    for who in (replace(ANN, subject=""), replace(ANN, subject="None"), replace(GUEST, subject="")):
        assert not any(permits(who, (), verb, on) for verb in Verb)
    assert not permits(replace(GUEST, subject=""), (), Verb.READ, Guarded(256, ""))


def test_a_join_row_is_read_by_who_reads_the_object_and_written_by_its_owner() -> None:
    joined = Guarded(Verb.READ << OWNER_SHIFT, "ann", (("group", Verb.READ << GROUP_SHIFT),))
    reads = {
        name: [permits_on_join(who, groups, verb, joined, membership=False) for verb in Verb]
        for name, who, groups in (
            ("owner", ANN, ()),
            ("member", BOB, ("group",)),
            ("other", BOB, ()),
            ("admin", ADMIN, ()),
        )
    }
    assert reads == {
        "owner": [True] * 7,
        "member": [True, True, False, False, False, False, False],
        "other": [False] * 7,
        "admin": [True] * 7,
    }


def test_a_membership_row_is_written_by_administrators_only() -> None:
    account = Guarded(ROW_DEFAULT, "ann")
    found = [permits_on_join(ANN, (), verb, account, membership=True) for verb in Verb]
    assert found == [True, True, False, False, False, False, False]
    assert all(permits_on_join(ADMIN, (), verb, account, membership=True) for verb in Verb)


def test_what_a_column_holds_is_a_permission_only_if_it_is_an_integer_and_an_owner_if_it_is_text_or_digits() -> None:
    assert [bits(value) for value in (7, None, "7", 7.5, b"7")] == [7, 0, 0, 0, 0]
    assert [owner_of(value) for value in ("ann", 42, None, 4.5, b"ann")] == ["ann", "42", None, None, None]


guards = st.builds(
    Guarded,
    st.integers(0, MOST),
    st.sampled_from((None, "ann", "bob")),
    st.just((("red", ALL << GROUP_SHIFT), ("blue", 0))),
)
people = st.builds(
    lambda name, admin, guest: Principal("us", name, admin=admin, expires_at=0, guest=guest),
    st.sampled_from(("ann", "bob", "eve")),
    st.booleans(),
    st.booleans(),
)


@given(guards, guards, people, st.sampled_from(((), ("red",), ("blue",))), st.sampled_from(list(Verb)))
def test_both_permit_what_each_of_them_permits(
    one: Guarded, other: Guarded, principal: Principal, groups: tuple[str, ...], verb: Verb
) -> None:
    each = permits(principal, groups, verb, one) and permits(principal, groups, verb, other)
    assert permits(principal, groups, verb, both(one, other, verb)) == each


@given(guards, people, st.sampled_from(((), ("red",), ("blue",))), st.sampled_from(list(Verb)))
def test_permitted_are_those_whom_an_object_names_and_guests_and_administrators(
    guarded: Guarded, principal: Principal, groups: tuple[str, ...], verb: Verb
) -> None:
    everybody = principal.admin or bool(guarded.permission & verb)
    owner, joined = permitted(verb, guarded)
    named = (owner == principal.subject and not principal.guest) or any(group in joined for group in groups)
    assert permits(principal, groups, verb, guarded) == (everybody or named)
