"""Who a connection is and what it may do.

Rows have no owners yet: tables are for administrators only, user topics for everybody with a token
(owner all, every registered user peek, read and execute: PROTOCOL, section 6, permission 589696).
"""

from __future__ import annotations

import time
from typing import Final

from appliance.model import Principal, Topic
from appliance.protocol import tokens

#: Owner all; group peek, read, execute – and every registered user is in the group ``users``.
TOPIC_PERMISSION: Final = 589696


class Authority:
    """Knows the store's secret and says whom a token stands for."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def principal(self, token: str) -> Principal:
        """Say whom ``token`` stands for now. Raises ``Unauthorized``."""
        return tokens.verify(self._secret, token, now=time.time())


def may_see_tables(principal: Principal) -> bool:
    """Whether tables are topics for this principal. To all others they do not exist."""
    return principal.admin


def may_destroy(principal: Principal, topic: Topic) -> bool:
    """Whether this principal may end the topic: its owner and administrators may."""
    return principal.admin or topic.owner == principal.subject


def same_person(one: Principal, other: Principal) -> bool:
    """Whether two tokens stand for the same principal: the same issuer's same subject."""
    return (one.issuer, one.subject) == (other.issuer, other.subject)
