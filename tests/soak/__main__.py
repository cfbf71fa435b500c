"""``python -m tests.soak --seconds N --seed S``: run a soak, report, and fail if anything was lost."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.soak.course import soak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep the file and the log in this folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = soak(given.keep or Path(folder), given.seconds, given.seed)
    print(json.dumps(report, indent=1))
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
