"""Compile, once for all, what dataclasses and attrs write and compile at every start of the program: harvest.py BUILD.

Both make the methods of a class by compiling source text, some six hundred pieces: a tenth of the start. The texts are
the same each time, so the program carries them compiled; one that is not among them is compiled as ever.
"""

import builtins
import dataclasses
import marshal
import sys
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from attr import _make

CODE = {}


def execute(source, *namespaces):
    """Stand for ``exec`` in dataclasses."""
    CODE.setdefault(source, builtins.compile(source, "<string>", "exec"))
    builtins.exec(CODE[source], *namespaces)


def compile_(source, filename, mode):
    """Stand for ``compile`` in attrs."""
    CODE[source, filename] = builtins.compile(source, filename, mode)
    return CODE[source, filename]


dataclasses.exec, _make.compile = execute, compile_
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from appliance.cli import commands  # noqa: E402

for name in commands.list_commands(None):
    commands.get_command(None, name)  # imports it, and whatever it imports makes its classes

if len(CODE) < 100:
    sys.exit("dataclasses and attrs do not compile as they did: look at packaging/harvest.py and runtime_hook.py")
# Each piece by itself, under its digest: only those that a command needs are loaded, and no text stays in memory.
pieces = {sha256(repr(source).encode()).digest(): marshal.dumps(code) for source, code in CODE.items()}
#: Which distributions are asked for their version, by a library, at each start.
versions = {name: metadata.version(name) for name in ("trio",)}
Path(sys.argv[1], "precompiled").write_bytes(marshal.dumps((dict(sorted(pieces.items())), versions)))
