"""Who asks, when proxies stand between: what they say of it is believed if they are trusted, hop by hop.

A header can be written by anybody. So the chain is walked from this end: from the peer of the connection, who is known,
back through every address that is trusted, to the first that is not: that is the client, and what stands before it is
only what the client says. ``Forwarded`` (RFC 7239) counts before ``X-Forwarded-For`` and ``-Proto``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from appliance.errors import BadConfiguration


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: the address and port of the client, and whether it came by TLS. Port 0: not told."""

    address: str
    port: int
    secure: bool


@dataclass(frozen=True, slots=True)
class _Hop:
    """One proxy's word: for whom it asks, and by which scheme that one came, where it says so."""

    client: str
    scheme: str


class Proxies:
    """The addresses whose word on their clients is believed. Raises ``BadConfiguration`` for what is no network."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for each in trusted:
            try:
                self._networks.append(ip_network(each))
            except ValueError as error:
                raise BadConfiguration(
                    f"--trusted-proxies must be addresses or networks, such as 127.0.0.1 or 10.0.0.0/8: {error}"
                ) from None

    def caller(self, peer: Caller, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Say who sends the request with these headers (lower-case names) that came from ``peer``."""
        if not self._networks or not self._trusts(peer.address):
            return peer
        found = peer
        for hop in _hops(headers):
            address, port = _address(hop.client)
            secure = hop.scheme in ("https", "wss") if hop.scheme else found.secure
            if address is None:  # "unknown", a made-up name, or nonsense: the proxy itself is the last that is known
                return Caller(found.address, found.port, secure)
            found = Caller(address, port, secure)
            if not self._trusts(address):
                break
        return found

    def _trusts(self, address: str) -> bool:
        parsed = ip_address(address.partition("%")[0])
        return any(parsed in network for network in self._networks)


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> list[_Hop]:
    """Give what the proxies say, the nearest first."""
    said: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _HEADERS:
            said.setdefault(name, []).append(value.decode("latin-1"))
    if b"forwarded" in said:
        elements = [_parameters(each) for each in _outside_quotes(",", ",".join(said[b"forwarded"]))]
        return [_Hop(each.get("for", ""), each.get("proto", "").lower()) for each in reversed(elements)]
    clients = [each.strip() for each in ",".join(said.get(b"x-forwarded-for", ())).split(",")]
    schemes = [each.strip().lower() for each in ",".join(said.get(b"x-forwarded-proto", ())).split(",")]
    # One scheme, as most proxies write it, is that of the client; of a list, each belongs to one address.
    return [
        _Hop(client, schemes[-min(number, len(schemes))]) for number, client in enumerate(reversed(clients), start=1)
    ]


def _parameters(element: str) -> dict[str, str]:
    """Read one element of ``Forwarded``: its parameters by lower-case name, quotation marks taken off."""
    found = {}
    for pair in _outside_quotes(";", element):
        name, _, value = pair.partition("=")
        found[name.strip().lower()] = re.sub(r"\\(.)", r"\1", value.strip().strip('"'))
    return found


def _outside_quotes(separator: str, text: str) -> list[str]:
    return re.findall(rf'((?:[^{separator}"]|"(?:[^"\\]|\\.)*"?)+)', text)


def _address(text: str) -> tuple[str | None, int]:
    """Read an address with or without a port: ``192.0.2.1:80``, ``[2001:db8::1]:80``, ``2001:db8::1``."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, port = text.split(":")
    try:
        parsed = ip_address(host)
    except ValueError:
        return None, 0
    if isinstance(parsed, IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    return str(parsed), int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0


_HEADERS: Final = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-proto"))
