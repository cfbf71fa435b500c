"""What this program was built from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: The build puts the name of the commit there; a checkout has no such file.
COMMIT_FILE: Final = Path(__file__).parent.parent / "commit"


def commit() -> str | None:
    """Give the commit that the one-file program was built from; ``None`` when it runs from source."""
    try:
        return COMMIT_FILE.read_text("ascii").strip()
    except FileNotFoundError:
        return None
