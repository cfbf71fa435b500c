"""Memory for what is long and may take long: messages not answered, bodies in part, answers not taken yet."""

from __future__ import annotations

from collections import Counter
from typing import Final

from appliance.live.tries import network_of

#: A message, or what a request sends and is answered, has room at any time if it is no longer, bytes.
SHORT: Final = 64 << 10
#: What all that are longer may take together, bytes, and how many times that of one client it is.
MOST: Final = 256 << 20
SHARES: Final = 4


class Room:
    """Room for what is longer than ``SHORT``: so much for all together, and of it a share for each client.

    Something has room if what is taken, itself included, is no more than that, or if it is the only one. A client may
    leave a message or a body without its end for as long as it likes, on each of its connections; and a whole message
    waits for as long, if the client does not read what it was answered before.
    """

    def __init__(self, most: int = MOST) -> None:
        #: Bytes that are taken now.
        self.taken = 0
        self._most = most
        self._by_client: Counter[str] = Counter()
        #: Whose each is, and what it takes.
        self._long: dict[object, tuple[str, int]] = {}

    def take(self, what: object, size: int, address: str) -> bool:
        """Have something of a client at an address take ``size`` bytes, instead of those that it took before.

        False, and nothing changed, where there is no room. ``let_go`` is to follow.
        """
        client, before = self._long.get(what) or (network_of(address), 0)
        for taken, most in ((self.taken, self._most), (self._by_client[client], self._most // SHARES)):
            if before < taken and taken - before + size > most:
                return False
        self._change(client, size - before)
        self._long[what] = client, size
        return True

    def let_go(self, what: object) -> None:
        """Have something take nothing any more, if it took anything."""
        if (found := self._long.pop(what, None)) is not None:
            client, size = found
            self._change(client, -size)

    def _change(self, client: str, size: int) -> None:
        self.taken += size
        self._by_client[client] += size
        if not self._by_client[client]:
            del self._by_client[client]
