"""The SQLite that goes into the one-file program: its source, pinned, and how it is compiled.

Debian 12 has 3.40.1, whose WAL can be corrupted by a reset during a checkpoint (fixed in 3.51.3). SQLite's own site
is no package registry, so the amalgamation comes from one: the npm package better-sqlite3 carries it unchanged.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE = "better-sqlite3@12.11.1"
FOLDER = "package/deps/sqlite3/"
#: SHA-256 of what is compiled; the archive round it does not matter.
FILES = {
    "sqlite3.c": "60d2f39a3726cd6b9021da6f4e868608d66fbb6528a9f513dc8ffcc640493422",
    "sqlite3.h": "9e69a1353a4288450b0d5239ede11fc7f1f4c8e5eb07491fc8317eacb5b7de7e",
}
#: As distributions compile it, so that every schema that works elsewhere works here: a user's triggers, indexes and
#: virtual tables run in our connections, too. Whatever changes what a statement means is left at its default.
OPTIONS = (
    "SQLITE_THREADSAFE=1",
    "SQLITE_ENABLE_COLUMN_METADATA",
    "SQLITE_ENABLE_DBSTAT_VTAB",
    "SQLITE_ENABLE_FTS3",
    "SQLITE_ENABLE_FTS3_PARENTHESIS",
    "SQLITE_ENABLE_FTS4",
    "SQLITE_ENABLE_FTS5",
    "SQLITE_ENABLE_GEOPOLY",
    "SQLITE_ENABLE_MATH_FUNCTIONS",
    "SQLITE_ENABLE_RTREE",
    "SQLITE_ENABLE_STAT4",
    "SQLITE_SOUNDEX",
    "SQLITE_MAX_VARIABLE_NUMBER=250000",
    "SQLITE_USE_URI=1",
    "SQLITE_DEFAULT_MEMSTATUS=0",  # counts nobody reads, under a lock
    "HAVE_FDATASYNC=1",
    "HAVE_GMTIME_R=1",
    "HAVE_ISNAN=1",
    "HAVE_LOCALTIME_R=1",
    "HAVE_MALLOC_H=1",
    "HAVE_MALLOC_USABLE_SIZE=1",  # else each piece of memory takes 8 bytes more, a twentieth of a schema
    "HAVE_USLEEP=1",  # else a lock is waited for in whole seconds
)
LIBRARY = "libsqlite3.so.0"


def build(folder: Path) -> Path:
    """Make the library in ``folder`` unless it is there, built in this very way, and give its path."""
    library, mark = folder / LIBRARY, folder / "built"
    compiler = os.environ.get("CC", "gcc")
    # -ffile-prefix-map: the library must not depend on where the checkout is.
    command = (
        *(compiler, "-O2", "-fPIC", "-shared", f"-ffile-prefix-map={folder}=.", "-Wl,-z,relro,-z,now"),
        *(f"-Wl,-soname,{LIBRARY}", "-s", *(f"-D{option}" for option in OPTIONS)),
        *(str(folder / "sqlite3.c"), "-o", str(library), "-lm", "-lpthread", "-ldl"),
    )
    state = hashlib.sha256(repr((command, FILES)).encode()).hexdigest()
    if library.exists() and mark.exists() and mark.read_text() == state:
        return library
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fetch(folder)
    if not shutil.which(compiler):
        sys.exit(f"{compiler} is needed to compile SQLite; on Debian: apt-get install -y gcc libc6-dev")
    subprocess.run(command, check=True)
    mark.write_text(state)
    return library


def fetch(folder: Path) -> None:
    """Get the amalgamation through npm's client; ends the build unless it is the one that is pinned."""
    if not shutil.which("npm"):
        sys.exit("npm is needed to fetch SQLite's source; on Debian: apt-get install -y npm")
    subprocess.run(
        ["npm", "pack", PACKAGE, "--ignore-scripts", "--silent", "--pack-destination", str(folder)],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        for name, pinned in FILES.items():
            member = packed.extractfile(FOLDER + name)
            content = b"" if member is None else member.read()
            if hashlib.sha256(content).hexdigest() != pinned:
                sys.exit(f"{PACKAGE}: {name} is not the file that packaging/sqlite.py pins; nothing was built")
            (folder / name).write_bytes(content)
    archive.unlink()


def version(folder: Path) -> str:
    """Give the version of the source in ``folder``."""
    found = re.search(r'#define SQLITE_VERSION\s+"([\d.]+)"', (folder / "sqlite3.h").read_text())
    if found is None:
        sys.exit("sqlite3.h does not say its version")
    return found[1]
