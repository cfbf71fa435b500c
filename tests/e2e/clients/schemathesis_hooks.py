"""What schemathesis must know of the protocol that JSON Schema has no words for."""

from __future__ import annotations

from itertools import count
from typing import Any, Final

import schemathesis

from appliance.store.access.passwords import LONGEST, SHORTEST

#: So many passwords are hashed, which takes longer than all else that an account's requests come to.
HASHED: Final = 12

hashed = count()


def is_read(value: Any) -> bool:
    """Whether the server reads a body: integers beyond 64 bits are refused wherever they stand."""
    if isinstance(value, dict):
        return all(map(is_read, value.values()))
    if isinstance(value, list):
        return all(map(is_read, value))
    return not isinstance(value, int) or -(1 << 63) <= value < 1 << 63


def has_password(value: Any) -> bool:
    """Whether there is in a body, as an attribute, what the server would hash."""
    if isinstance(value, dict):
        password = value.get("password")
        return (isinstance(password, str) and SHORTEST <= len(password.encode(errors="replace")) <= LONGEST) or any(
            map(has_password, value.values())
        )
    return False


def is_said_twice(query: Any) -> bool:
    """Whether a query says where to begin, or what it wants of a column, in two ways."""
    return "filter" in query and any(name.startswith("filter[") for name in query)


def is_without_token(case: Any) -> bool:
    """Whether a case is of a request without a token, which the command line puts into each."""
    return case.meta is not None and getattr(case.meta.phase.data, "parameter", None) == "Authorization"


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    return (
        is_read(case.body)
        and is_read(case.query)
        and not is_said_twice(case.query or {})
        and not is_without_token(case)
        and not (has_password(case.body) and next(hashed) >= HASHED)
    )


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Leave out what nobody makes up: a place in a list, a row's version."""
    (case.query or {}).pop("page[after]", None)
    for name in ("If-Match", "If-None-Match"):
        (case.headers or {}).pop(name, None)
