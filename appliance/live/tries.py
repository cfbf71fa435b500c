"""Who tries too often: tries that run out and come back, by name, with a bound on the names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

#: Names that are remembered.
REMEMBERED: Final = 10_000
#: How much of an IPv6 address says whose it is, bits: networks are given out so, and each has more addresses than
#: anybody could count (RFC 6177).
NETWORK_BITS: Final = 64


class Tries:
    """Counts tries by name: ``burst`` at once, one more every ``every_s``; the longest unused are forgotten first."""

    def __init__(self, burst: int, every_s: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._every_s = every_s
        self._clock = clock
        #: When a name's tries would all be there again.
        self._full: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, name: str) -> float:
        """Take one try; give how long to wait when there is none, 0 when there was one."""
        now = self._clock()
        full = max(self._full.pop(name, now), now) + self._every_s
        wait = full - now - self._burst * self._every_s
        self._full[name] = full if wait <= 0 else full - self._every_s
        if len(self._full) > REMEMBERED:
            self._full.popitem(last=False)
        return max(wait, 0.0)


def network_of(address: str) -> str:
    """Give what counts as one client: an address, of IPv6 the network that it is in; what is none as it is."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    host = 128 - NETWORK_BITS
    return f"{IPv6Address(int(found) >> host << host)}/{NETWORK_BITS}"
