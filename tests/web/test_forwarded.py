"""A client is who a trusted proxy says it is, and nobody else's word counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import BadConfiguration
from appliance.web.forwarded import Caller, Proxies

PEER = Caller("127.0.0.1", 5000, False)
PROXIES = Proxies(("127.0.0.1", "10.0.0.0/8", "2001:db8::/32"))


def caller(*headers: tuple[str, str], peer: Caller = PEER, proxies: Proxies = PROXIES) -> Caller:
    return proxies.caller(peer, [(name.encode(), value.encode("latin-1")) for name, value in headers])


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], PEER),
        ([("x-forwarded-for", "192.0.2.7")], Caller("192.0.2.7", 0, False)),
        ([("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")], Caller("192.0.2.7", 0, True)),
        ([("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "HTTP")], Caller("192.0.2.7", 0, False)),
        # What the client itself has put before is only what it says.
        ([("x-forwarded-for", "1.2.3.4, 192.0.2.7")], Caller("192.0.2.7", 0, False)),
        # Through two trusted proxies, in one header or in two.
        ([("x-forwarded-for", "1.2.3.4, 192.0.2.7, 10.1.1.1")], Caller("192.0.2.7", 0, False)),
        ([("x-forwarded-for", "192.0.2.7"), ("x-forwarded-for", "10.1.1.1")], Caller("192.0.2.7", 0, False)),
        ([("x-forwarded-for", "192.0.2.7, 10.1.1.1"), ("x-forwarded-proto", "https, http")],
         Caller("192.0.2.7", 0, True)),
        # All are trusted: the farthest is as near to the client as is known.
        ([("x-forwarded-for", "10.0.0.9, 10.1.1.1")], Caller("10.0.0.9", 0, False)),
        ([("x-forwarded-for", "192.0.2.7:8080")], Caller("192.0.2.7", 8080, False)),
        ([("x-forwarded-for", "[2001:db9::7]:8080")], Caller("2001:db9::7", 8080, False)),
        ([("x-forwarded-for", "2001:db9::7")], Caller("2001:db9::7", 0, False)),
        ([("x-forwarded-for", "::ffff:192.0.2.7")], Caller("192.0.2.7", 0, False)),
        ([("x-forwarded-for", "unknown")], PEER),
        ([("x-forwarded-for", "192.0.2.7, unknown, 10.1.1.1")], Caller("10.1.1.1", 0, False)),
        ([("x-forwarded-proto", "https")], Caller("127.0.0.1", 5000, True)),
        ([("forwarded", "for=192.0.2.7;proto=https;by=203.0.113.43")], Caller("192.0.2.7", 0, True)),
        ([("forwarded", 'For="[2001:db9::7]:4711"; Proto=HTTPS')], Caller("2001:db9::7", 4711, True)),
        ([("forwarded", "for=1.2.3.4;proto=http, for=192.0.2.7;proto=https")], Caller("192.0.2.7", 0, True)),
        ([("forwarded", 'for="_a,b;c\\"";proto=https')], Caller("127.0.0.1", 5000, True)),
        ([("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "1.2.3.4")], Caller("192.0.2.7", 0, False)),
    ],
)  # fmt: skip
def test_a_trusted_proxy_says_who_asks(headers: list[tuple[str, str]], expected: Caller) -> None:
    assert caller(*headers) == expected


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_nobody_else_is_believed(header: str) -> None:
    stranger = Caller("192.0.2.1", 1, False)
    said = [(header, "for=1.2.3.4;proto=https" if header == "forwarded" else "1.2.3.4"), ("x-forwarded-proto", "https")]

    assert caller(*said, peer=stranger) == stranger
    assert caller(*said, proxies=Proxies()) == PEER


def test_a_proxy_with_an_address_of_ipv6_is_known() -> None:
    peer = Caller("2001:db8::1", 1, True)

    assert caller(("x-forwarded-for", "192.0.2.7"), peer=peer) == Caller("192.0.2.7", 0, True)


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "proxy.example.com", "10.0.0.0/33", "*"])
def test_what_is_no_network_is_refused(wrong: str) -> None:
    with pytest.raises(BadConfiguration, match="--trusted-proxies"):
        Proxies((wrong,))


@given(st.lists(st.tuples(st.sampled_from(("forwarded", "x-forwarded-for", "x-forwarded-proto")),
                          st.text(st.characters(max_codepoint=255))), max_size=4))  # fmt: skip
def test_no_header_breaks_it(headers: list[tuple[str, str]]) -> None:
    assert isinstance(caller(*headers), Caller)
