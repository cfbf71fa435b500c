"""Run in the one-file program before its own first line: has it do less at every start."""

# ruff: noqa: E402 – the imports below are among those
import gc

gc.disable()  # modules are no garbage; the first command that is imported has it look again (cli/__init__.py)

import builtins
import ctypes.util
import dataclasses
import importlib
import marshal
import sys
from hashlib import sha256
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

import pyimod02_importers
from attr import _make

UNPACKED = Path(sys._MEIPASS)


# ---- What libraries import, and need for what is never or seldom done here, is imported when something of it is used.
class StandIn(ModuleType):
    """Stands for a module until then."""

    def __getattr__(self, name):
        """Give what the module has."""
        if name.startswith("__"):
            raise AttributeError(name)
        package = self.__name__.partition(".")[0]
        for each in [each for each in STAND_INS if each.partition(".")[0] == package]:
            if isinstance(sys.modules[each], StandIn):
                del sys.modules[each]
        return getattr(importlib.import_module(self.__name__), name)


STAND_INS = (
    "anyio", "anyio.abc", "anyio.to_thread",  # starlette: functions that are not async, files, streams
    "http.client",  # starlette: the words for a status
)  # fmt: skip
for name in STAND_INS:
    sys.modules[name] = StandIn(name)
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(importlib.import_module(parent), own, sys.modules[name])
# What nobody here uses, ever: trio-asyncio's loop that is not async, and keys that PyJWT fetches by HTTP.
sys.modules["greenlet"] = ModuleType("greenlet")
sys.modules["jwt.jwks_client"] = ModuleType("jwt.jwks_client")
sys.modules["jwt.jwks_client"].PyJWKClient = None

# ---- trio-websocket asks for trio's version, in a way that brings e-mail and ZIP files with it.
METADATA = "importlib.metadata"
sys.modules[METADATA] = ModuleType(METADATA)
CODE, VERSIONS = marshal.loads((UNPACKED / "precompiled").read_bytes())
sys.modules[METADATA].version = VERSIONS.__getitem__


# ---- Extension modules that are not unpacked at the start: see live-appliance.spec.
class Later(MetaPathFinder):
    """Puts a module's file into its place before the ordinary finders look there."""

    def find_spec(self, name, path=None, target=None):
        """Find nothing; unpack the module if it is one of those that wait."""
        packed = "later:" + name.replace(".", "/")
        if packed in pyimod02_importers.pyz_archive.toc:
            module = importlib.import_module(packed)
            place = UNPACKED / module.PLACE
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(module.CONTENT)
            place.chmod(0o700)
            del sys.modules[packed]


sys.meta_path.insert(0, Later())

# ---- dataclasses and attrs compile the methods they write; the build has done that already (harvest.py).


def compiled(source):
    """Give what the build has compiled; nothing where it has not seen that source."""
    code = CODE.get(sha256(repr(source).encode()).digest())
    return code and marshal.loads(code)


def execute(source, *namespaces):
    """Stand for ``exec`` in dataclasses."""
    builtins.exec(compiled(source) or source, *namespaces)


def compile_(source, filename, mode):
    """Stand for ``compile`` in attrs."""
    return compiled((source, filename)) or builtins.compile(source, filename, mode)


dataclasses.exec, _make.compile = execute, compile_

# ---- ctypes.util asks /sbin/ldconfig, a program, for what is certain on every Linux with a glibc.
LIBRARIES = {"c": "libc.so.6", "pthread": "libpthread.so.0"}
search = ctypes.util.find_library


def find_library(name):
    """Stand for ``ctypes.util.find_library``."""
    return LIBRARIES.get(name) or search(name)


ctypes.util.find_library = find_library
