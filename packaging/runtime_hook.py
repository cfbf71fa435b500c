"""Run in the one-file program before its own first line, after stand_ins.py: has it do less at every start."""

import _sre
import builtins
import dataclasses
import importlib
import marshal
import os
import sys
import zlib
from hashlib import sha256
from pathlib import Path
from re import _compiler
from types import ModuleType

import pyimod01_archive
import pyimod02_importers

UNPACKED = Path(sys._MEIPASS)

# ---- What the bootloader has put into the environment was for this process, which has it. What we start (migrate) is
# to find its own libraries: another sqlite3 would load ours, and fail.
for name in [each for each in os.environ if each.startswith("_PYI_")]:
    del os.environ[name]
os.environ.pop("LD_LIBRARY_PATH", None)
if (former := os.environ.pop("LD_LIBRARY_PATH_ORIG", None)) is not None:
    os.environ["LD_LIBRARY_PATH"] = former


# ---- The program's own file stays open. An upgrade puts another one in its place, where what is imported later is not.
class Held:
    """Reads a file that is open, from any thread, without a position that they share."""

    def __init__(self, descriptor):
        """Read from the beginning."""
        self.descriptor, self.position = descriptor, 0

    def __enter__(self):
        """Stand for a file that has just been opened."""
        return self

    def __exit__(self, *_):
        """Leave it open."""

    def seek(self, position):
        """Go to a position."""
        self.position = position

    def read(self, size):
        """Read so many bytes."""
        return os.pread(self.descriptor, size, self.position)


PROGRAM = os.open(sys.executable, os.O_RDONLY | os.O_CLOEXEC)
pyimod01_archive.open = lambda *_: Held(PROGRAM)

# ---- What the build has compiled already (harvest.py): methods that dataclasses and attrs write, regular expressions.
PIECES = os.open(UNPACKED / "precompiled", os.O_RDONLY | os.O_CLOEXEC)
BEGIN = 8 + int.from_bytes(os.pread(PIECES, 8, 0), "big")
PLACES, VERSIONS = marshal.loads(os.pread(PIECES, BEGIN - 8, 8))


def compiled(source):
    """Give what the build has compiled; nothing where it has not seen that source."""
    place = PLACES.get(sha256(repr(source).encode()).digest()[:16])
    return place and marshal.loads(os.pread(PIECES, place[1], BEGIN + place[0]))


compile_expression = _compiler.compile


def expression(pattern, flags=0):
    """Stand for the compiler of regular expressions."""
    given = compiled((pattern, int(flags)))
    return _sre.compile(*given) if given else compile_expression(pattern, flags)


_compiler.compile = expression
from attr import _make  # noqa: E402 – what it imports has such expressions


def execute(source, *namespaces):
    """Stand for ``exec`` in dataclasses."""
    builtins.exec(compiled(source) or source, *namespaces)


def compile_(source, filename, mode):
    """Stand for ``compile`` in attrs."""
    return compiled((source, filename)) or builtins.compile(source, filename, mode)


dataclasses.exec, _make.compile = execute, compile_

# ---- trio-websocket asks for trio's version, in a way that brings e-mail and ZIP files with it.
METADATA = "importlib.metadata"
sys.modules[METADATA] = ModuleType(METADATA)
sys.modules[METADATA].version = VERSIONS.__getitem__


# ---- Extension modules that are not unpacked at the start, and the libraries they need: see live-appliance.spec.
class Later:
    """Puts a module's files into their place before the ordinary finders look there."""

    def find_spec(self, name, path=None, target=None):
        """Find nothing; unpack the module if it is one of those that wait."""
        packed = "later:" + name.replace(".", "/")
        if packed in pyimod02_importers.pyz_archive.toc:
            try:
                for each, content in importlib.import_module(packed).FILES:
                    self.unpack(UNPACKED / each, zlib.decompress(content))
            except OSError as error:
                raise self.refusal(error) from None
            finally:
                del sys.modules[packed]

    def unpack(self, place, content):
        """Put a file into its place."""
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        place.chmod(0o700)

    def refusal(self, error):
        """Say what is wrong as the bootloader does, and end with its status where a command waits for this."""
        from appliance.errors import CommandError

        refused = CommandError(
            f"cannot unpack {error.filename or UNPACKED}: {error.strerror}; make room there, or set TMPDIR to another "
            "folder"
        )
        refused.exit_status = 75  # EX_TEMPFAIL
        return refused


sys.meta_path.insert(0, Later())
