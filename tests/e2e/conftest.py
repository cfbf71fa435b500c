"""What the tests with real processes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.certificates import write_certificate


@pytest.fixture(scope="session")
def certificate_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for ``localhost`` that signs itself, and its key: two paths."""
    chain, key = write_certificate(Path(tmp_path_factory.mktemp("tls")), "localhost")
    return str(chain), str(key)
