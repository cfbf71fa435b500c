"""What all tests share."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Hundreds of tests start the program: where this is set, each start would compile all of it anew, a third of a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

#: Where tests open a whole store each, most of them with a server's parts around it.
INTEGRATION = (
    "live/fanout", "live/matching/test_not_utf8.py", "live/replay", "live/session", "live/tail", "store", "web/api",
)  # fmt: skip


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    places = [Path(__file__).parent / each for each in INTEGRATION]
    for item in items:
        if any(item.path.is_relative_to(place) for place in places):
            item.add_marker("integration")
