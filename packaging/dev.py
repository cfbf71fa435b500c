#!/usr/bin/env python3
"""Everything that a checkout needs, in one command each; only Python 3.11, 3.12 or 3.13 has to be there.

python3 packaging/dev.py serve [OPTIONS]   install into .venv and run `live-appliance serve`
python3 packaging/dev.py test [OPTIONS]    install into .venv and run linters, type checker and all tests
python3 packaging/dev.py lock              make the lock files anew from pyproject.toml
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
RUN_LOCK = ROOT / "packaging" / "requirements.lock"
TEST_LOCK = ROOT / "packaging" / "requirements-dev.lock"
PACKAGE_LOCK = ROOT / "packaging" / "requirements-package.lock"


def run(*command: str | Path, **options: object) -> None:
    """Run a command; end with its status when it fails."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(done.returncode)


def make_venv() -> None:
    """Make .venv unless it is there. On Debian, venv is a package of its own."""
    if (BIN / "pip").exists():  # which comes last: one that was broken off is made anew
        return
    print("making .venv and installing into it, once: this takes a minute", file=sys.stderr)
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if not shutil.which("apt-get"):
        sys.exit(f"cannot make a virtual environment: {made.stderr or made.stdout}")
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    if sudo and not shutil.which("sudo"):
        sys.exit(f"a package is missing; as root run: apt-get install -y {package}")
    run(*sudo, "apt-get", "update", "-qq", stdout=subprocess.DEVNULL)
    run(*sudo, "apt-get", "install", "-y", "-qq", package, stdout=subprocess.DEVNULL)
    run(sys.executable, "-m", "venv", VENV)


def install(lock: Path) -> None:
    """Bring .venv to what ``lock`` says, and the project into it; does nothing when that is so already."""
    make_venv()
    state = hashlib.sha256(lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    mark = VENV / f"installed-{lock.name}"
    if mark.exists() and mark.read_text() == state:
        return
    pip = (BIN / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--require-hashes", "-r", lock)
    run(*pip, "--no-deps", "--no-build-isolation", "-e", ".")
    mark.write_text(state)


def serve(arguments: list[str]) -> None:
    """Install what the program needs and become ``live-appliance serve``."""
    install(RUN_LOCK)
    program = str(BIN / "live-appliance")
    os.execv(program, [program, "serve", *arguments])  # noqa: S606 – that is the job


def test(arguments: list[str]) -> None:
    """Install what the tests need and run all checks; ``arguments`` go to pytest instead of the whole suite."""
    install(TEST_LOCK)
    if not arguments:
        run(BIN / "ruff", "check", ".")
        run(BIN / "ruff", "format", "--check", ".")
        run(BIN / "mypy")
        test_all()
    else:
        run(BIN / "python", "-m", "pytest", *arguments)


def test_all() -> None:
    """Run the tests with real processes beside the others: most of their time is waiting for each other.

    What the first say is shown when the others are done. Ends with the status of what failed.
    """
    pytest = (BIN / "python", "-m", "pytest")
    with tempfile.TemporaryFile() as said:
        beside = subprocess.Popen([*pytest, "-m", "e2e"], cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        status = subprocess.run([*pytest, "-m", "not e2e"], cwd=ROOT, check=False).returncode
        status = beside.wait() or status
        said.seek(0)
        shutil.copyfileobj(said, sys.stdout.buffer)
        sys.stdout.flush()
    if status:
        sys.exit(status)


def lock(arguments: list[str]) -> None:
    """Resolve the dependencies anew, for every platform, with hashes."""
    make_venv()
    run(BIN / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "uv")
    like_run = ["-c", str(RUN_LOCK)]
    for file, group, constraints in (
        (RUN_LOCK, "build", []),
        (TEST_LOCK, "dev", like_run),
        (PACKAGE_LOCK, "package", like_run),
    ):
        run(
            *(BIN / "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-emit-index-url"),
            *("--python-version", "3.11", "--custom-compile-command", "python3 packaging/dev.py lock"),
            *("pyproject.toml", "--group", group, *constraints, *arguments, "-o", file),
        )


if __name__ == "__main__":
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):  # it says so instead of failing somewhere
        sys.exit(f"live-appliance needs Python 3.11, 3.12 or 3.13, not {sys.version.split()[0]}")
    jobs = {"serve": serve, "test": test, "lock": lock}
    if len(sys.argv) < 2 or sys.argv[1] not in jobs:
        sys.exit(__doc__)
    jobs[sys.argv[1]](sys.argv[2:])
