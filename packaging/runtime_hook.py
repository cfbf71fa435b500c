"""Run in the one-file program before its own first line: has it do less at every start."""

import builtins
import ctypes.util
import dataclasses
import gzip
import marshal
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

from attr import _make

UNPACKED = Path(sys._MEIPASS)

# ---- cryptography: 14 MB that only tokens signed with RSA or elliptic curves ask for are unpacked when it is imported.
LATER = UNPACKED / "later"


class Later(MetaPathFinder):
    """Puts a module's file into its place before the ordinary finders look there."""

    def find_spec(self, name, path=None, target=None):
        """Find nothing; unpack the module if it is one of those that wait."""
        packed = LATER / (name.replace(".", "/") + ".abi3.so.gz")
        if name.startswith("cryptography.") and packed.exists():
            place = UNPACKED / packed.relative_to(LATER).with_suffix("")
            place.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(packed) as content, place.open("wb") as file:
                while chunk := content.read(1 << 20):
                    file.write(chunk)
            place.chmod(0o700)
            packed.unlink()


sys.meta_path.insert(0, Later())

# ---- dataclasses and attrs compile the methods they write; the build has done that already (harvest.py).
CODE = marshal.loads((UNPACKED / "precompiled").read_bytes())


def execute(source, *namespaces):
    """Stand for ``exec`` in dataclasses."""
    builtins.exec(CODE.get(source, source), *namespaces)


def compile_(source, filename, mode):
    """Stand for ``compile`` in attrs."""
    return CODE.get((source, filename)) or builtins.compile(source, filename, mode)


dataclasses.exec, _make.compile = execute, compile_

# ---- ctypes.util asks /sbin/ldconfig, a program, for what is certain on every Linux with a glibc.
LIBRARIES = {"c": "libc.so.6", "pthread": "libpthread.so.0"}
search = ctypes.util.find_library


def find_library(name):
    """Stand for ``ctypes.util.find_library``."""
    return LIBRARIES.get(name) or search(name)


ctypes.util.find_library = find_library
