"""How much the messages may take that have come in part: of all clients together, and of those at one address."""

from __future__ import annotations

from collections import Counter
from typing import Final

from appliance.live.tries import network_of

#: A message, or the body of a request or an answer, that is no longer has room at any time, bytes.
SHORT: Final = 64 << 10
#: What all may take together is this many times what those of one client may.
SHARES: Final = 4
#: What the longer messages may take together, bytes.
MOST: Final = 256 << 20


class Incoming:
    """What the long messages take, in all connections, that have begun and not ended: as much as they announce.

    A client may leave a message without its end for as long as it likes, on each of its connections.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._all = 0
        self._of: Counter[str] = Counter()

    def take(self, address: str, size: int) -> bool:
        """Count ``size`` bytes more of a message from an address; false, and nothing counted, without room for them."""
        client = network_of(address)
        if self._all + size > self._most or self._of.get(client, 0) + size > self._most // SHARES:
            return False
        self._all += size
        self._of[client] += size
        return True

    def give_back(self, address: str, size: int) -> None:
        """Count so many bytes no more."""
        client = network_of(address)
        self._all -= size
        self._of[client] -= size
        if not self._of[client]:
            del self._of[client]
