"""How many descriptors the process may have: each connection takes one."""

from __future__ import annotations

import resource
from typing import Final

import structlog

log = structlog.get_logger()

#: Descriptors that are not such connections: the database, listeners, the loop, libraries, and those beyond the limit.
BESIDE: Final = 128


def short_of(connections: int) -> tuple[int, int] | None:
    """Give how many there can be at most and how many so many connections want; ``None`` when that is enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + BESIDE
    return None if hard == resource.RLIM_INFINITY or hard >= wanted else (hard, wanted)


def room_for(connections: int) -> int:
    """Give how many of so many connections can be taken: one too many that has no descriptor gets no answer at all."""
    short = short_of(connections)
    return connections if short is None else max(short[0] - BESIDE, short[0] // 2)


def raise_limit(connections: int) -> None:
    """Have a descriptor for every connection, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + BESIDE
    if resource.RLIM_INFINITY not in (soft, hard):
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if (short := short_of(connections)) is not None:
        log.warning("few_descriptors", limit=short[0], wanted=short[1])
