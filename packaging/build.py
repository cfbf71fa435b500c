#!/usr/bin/env python3
"""Build dist/live-appliance: one file that runs on any Linux with the glibc of this machine or a younger one.

python3 packaging/build.py

Beside it: its SHA-256, a bill of materials (CycloneDX), and the licences of all that is in it. What goes in is pinned:
Python packages by requirements-package.lock, SQLite by sqlite.py, PyInstaller's bootloader by the lock and
bootloader.patch. Python and the system's libraries are those of the machine, named in the bill of materials. The same
commit, built twice on one machine, gives the same bytes. Needed: gcc, npm, patch, strip, and a Python 3.11, 3.12
or 3.13 with a shared library; nothing here is particular to a processor.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import sqlite

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
BUILD = ROOT / "build"
DIST = ROOT / "dist"
LOCK = PACKAGING / "requirements-package.lock"
PATCH = PACKAGING / "bootloader.patch"
PROGRAM = "live-appliance"
#: Pythons that may do, best first: the distribution's has its security fixes.
PYTHONS = ("/usr/bin/python3", sys.executable, "python3.13", "python3.12", "python3.11")
#: What a Python says of itself: version, the shared library, and whether it can make virtual environments.
QUESTION = """
import json, os, sys, sysconfig
try:
    import ensurepip, venv
except ImportError:
    ensurepip = None
get = sysconfig.get_config_var
library = os.path.join(get("LIBDIR") or "", get("INSTSONAME") or "")
print(json.dumps([sys.version_info[:3], bool(get("Py_ENABLE_SHARED")) and os.path.exists(library), bool(ensurepip)]))
"""


def main() -> None:
    """Build it."""
    for tool, package in (("gcc", "gcc"), ("npm", "npm"), ("patch", "patch"), ("strip", "binutils"), ("git", "git")):
        if not shutil.which(tool):
            sys.exit(f"{tool} is needed; on Debian: apt-get install -y {package}")
    BUILD.mkdir(exist_ok=True)
    commit, epoch = origin()
    (BUILD / "commit").write_text(commit + "\n", "ascii")
    sqlite.build(BUILD / "sqlite")
    python = environment(choose_python())
    # A build that fails must not leave an older program to be taken for the new one.
    shutil.rmtree(DIST, ignore_errors=True)
    settings = {
        **os.environ,
        "LIVE_APPLIANCE_BUILD": str(BUILD),
        "PYINSTALLER_CONFIG_DIR": str(BUILD / "cache"),
        "PYTHONHASHSEED": "0",
        # Without columns in what is compiled: there is no source beside it that they could point to.
        "PYTHONNODEBUGRANGES": "1",
        "SOURCE_DATE_EPOCH": epoch,
    }
    run(python, PACKAGING / "harvest.py", BUILD, env=settings)
    run(
        *(python, "-m", "PyInstaller", "--noconfirm", "--clean", "--log-level", "WARN"),
        *("--distpath", DIST, "--workpath", BUILD / "work", PACKAGING / f"{PROGRAM}.spec"),
        env=settings,
    )
    run(python, PACKAGING / "inventory.py", BUILD, DIST, sqlite.version(BUILD / "sqlite"), env=settings)
    program = DIST / PROGRAM
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    (DIST / f"{PROGRAM}.sha256").write_text(f"{digest}  {PROGRAM}\n")
    print(f"{program}: {program.stat().st_size / (1 << 20):.1f} MiB, SHA-256 {digest}")
    run(program, "version")


def run(*command: str | Path, **options: object) -> None:
    """Run a command; end with its status when it fails."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{Path(command[0]).name} failed with status {done.returncode}")


def origin() -> tuple[str, str]:
    """Give the commit and its time in seconds. A checkout with changes that are not committed says so."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    if not commit:
        return "unknown", "0"
    changed = "-changed" if git("status", "--porcelain") else ""
    return commit[:12] + changed, git("log", "-1", "--format=%ct")


def choose_python() -> str:
    """Choose the Python to put in; says of each that is there why it does not do."""
    refused: dict[str, str] = {}
    for name in PYTHONS:
        path = shutil.which(name)
        if path is None or path in refused:
            continue
        answer = subprocess.run([path, "-c", QUESTION], capture_output=True, text=True, check=False)
        if answer.returncode:
            refused[path] = "does not run"
            continue
        version, shared, venv = json.loads(answer.stdout)
        if not [3, 11] <= version[:2] <= [3, 13]:
            refused[path] = f"is {'.'.join(map(str, version))}, not 3.11, 3.12 or 3.13"
        elif not shared:
            refused[path] = (
                "has no shared library (configure --enable-shared; on Debian: apt-get install libpython3-dev)"
            )
        elif not venv:
            refused[path] = "has no venv (on Debian: apt-get install python3-venv)"
        else:
            return path
    sys.exit("no Python here can be put into the program:\n" + "\n".join(f"  {k} {v}" for k, v in refused.items()))


def environment(python: str) -> Path:
    """Make the environment to build in: what the lock says, and PyInstaller with our bootloader. Give its Python."""
    venv = BUILD / "venv"
    inside, mark = venv / "bin" / "python", venv / "installed"
    wanted = (python, subprocess.check_output([python, "-VV"], text=True), LOCK.read_text(), PATCH.read_text())
    state = hashlib.sha256(repr(wanted).encode()).hexdigest()
    if mark.exists() and mark.read_text() == state:
        return inside
    shutil.rmtree(venv, ignore_errors=True)
    run(python, "-m", "venv", venv)
    pip = (inside, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "install", "--require-hashes", "-r", LOCK)
    source = bootloader_source(pip)
    # Compiled here, with its own zlib: it then needs nothing of the machine it will run on but the C library.
    flags = {**os.environ, "PYINSTALLER_COMPILE_BOOTLOADER": "1", "PYI_STATIC_ZLIB": "1", "SOURCE_DATE_EPOCH": "0"}
    run(*pip, "install", "--no-deps", "--no-build-isolation", "--force-reinstall", source, env=flags)
    mark.write_text(state)
    return inside


def bootloader_source(pip: tuple[str | Path, ...]) -> Path:
    """Get PyInstaller's source, in the version and with the hash of the lock, and put our changes in."""
    found = re.search(r"^pyinstaller==.*?(?=^\S)", LOCK.read_text(), re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"{LOCK} does not name pyinstaller")
    folder = BUILD / "pyinstaller"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "requirements.txt").write_text(re.sub(r"^ +#.*\n", "", found[0], flags=re.MULTILINE))
    run(
        *(*pip, "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"),
        *("-r", folder / "requirements.txt", "-d", folder),
    )
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    source = folder / archive.name.removesuffix(".tar.gz")
    with PATCH.open() as patch:
        run("patch", "--quiet", "-p1", "-d", source, stdin=patch)
    return source


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 – it says so instead of failing somewhere
        sys.exit("live-appliance is built with Python 3.11 or newer")
    main()
