"""A short soak; ``python -m tests.soak`` runs longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.course import soak

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]


# A server that is killed in the midst of a handshake: the client library then leaves its socket to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_soak_of_writers_clients_and_kills_loses_nothing(tmp_path: Path) -> None:
    report = soak(tmp_path, seconds=20, seed=1)
    assert report["failures"] == []
    assert report["happened"].get("kill", 0) > 0, report
