"""Compile, once for all, what libraries write and compile at every start of the program: harvest.py BUILD.

dataclasses and attrs make the methods of a class by compiling source text, some six hundred pieces, and modules compile
some eighty regular expressions: a seventh of the start. They are the same each time, so the program carries them
compiled (runtime_hook.py); what is not among them is compiled as ever.
"""

import builtins
import dataclasses
import json
import marshal
import sys
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from re import _compiler

import stand_ins  # so that the same is imported as in the program
from attr import _make

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(sys.argv[1])
CODE = {}
EXPRESSIONS = {}
compile_expression = _compiler.compile


def execute(source, *namespaces):
    """Stand for ``exec`` in dataclasses."""
    CODE.setdefault(source, builtins.compile(source, "<string>", "exec"))
    builtins.exec(CODE[source], *namespaces)


def compile_(source, filename, mode):
    """Stand for ``compile`` in attrs."""
    CODE[source, filename] = builtins.compile(source, filename, mode)
    return CODE[source, filename]


class Engine:
    """Stands for the module that executes regular expressions, ``_sre``; notes what it is given."""

    def __init__(self, engine):
        self.engine, self.given = engine, None

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def compile(self, pattern, flags, code, *groups):
        """Take the compiled form of an expression."""
        self.given = (pattern, int(flags), list(map(int, code)), *groups)  # numbers that have names are no code
        return self.engine.compile(*self.given)


def expression(pattern, flags=0):
    """Stand for the compiler of regular expressions."""
    made = compile_expression(pattern, flags)
    if isinstance(pattern, str | bytes):
        EXPRESSIONS[pattern, int(flags)] = _compiler._sre.given
    return made


dataclasses.exec, _make.compile = execute, compile_
_compiler._sre, _compiler.compile = Engine(_compiler._sre), expression
sys.path.insert(0, str(ROOT))
from appliance.cli import commands  # noqa: E402

commands.get_command(None, "serve")  # imports it, and whatever it imports makes its classes
if used := [name for name in stand_ins.STAND_INS if not isinstance(sys.modules[name], stand_ins.StandIn)]:
    sys.exit(f"a start has come to use {', '.join(used)}: look at packaging/stand_ins.py")
at_start = sorted(name for name, module in sys.modules.items() if getattr(module, "__spec__", None) is not None)
for name in commands.list_commands(None):
    commands.get_command(None, name)

if len(CODE) < 100 or len(EXPRESSIONS) < 20:
    sys.exit("what libraries compile at the start has changed: look at packaging/harvest.py and runtime_hook.py")
#: Which distributions are asked for their version, by a library, at each start.
versions = {name: metadata.version(name) for name in ("trio",)}
# Each piece by itself, under its digest: only those that a command needs are loaded, and no text stays in memory.
places, pieces = {}, b""
for source, compiled in {**CODE, **EXPRESSIONS}.items():
    piece = marshal.dumps(compiled)
    places[sha256(repr(source).encode()).digest()[:16]] = (len(pieces), len(piece))
    pieces += piece
head = marshal.dumps((dict(sorted(places.items())), versions))
(BUILD / "precompiled").write_bytes(len(head).to_bytes(8, "big") + head + pieces)
(BUILD / "at-start.json").write_text(json.dumps(at_start))
