"""Run in the one-file program before its own first line: what is never or seldom used is not imported at the start.

harvest.py runs it, too: so it sees which modules a start imports.
"""

# ruff: noqa: E402 – what is imported here must not bring what is to be stood for
import gc

gc.disable()  # modules are no garbage; the first command that is imported has it look again (cli/__init__.py)

import importlib
import sys
import types
import typing
from types import ModuleType


class StandIn(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name):
        """Give what the module has; of a function that others import by its name, a stand-in, too."""
        if name.startswith("__"):
            raise AttributeError(name)
        if name in FUNCTIONS.get(self.__name__, ()):
            return lambda *arguments, **options: getattr(self.whole(), name)(*arguments, **options)
        return getattr(self.whole(), name)

    def whole(self):
        """Give the module."""
        package = self.__name__.partition(".")[0]
        for each in [each for each in STAND_INS if each.partition(".")[0] == package]:
            if isinstance(sys.modules[each], StandIn):
                del sys.modules[each]
        module = importlib.import_module(self.__name__)
        # Whoever has imported the stand-in keeps it: from now on it answers as quickly as the module does.
        self.__dict__.update({key: value for key, value in vars(module).items() if not key.startswith("__")})
        return module


class TypingExtensions(StandIn):
    """Has what typing has, too, and the few things besides that are said of a type and then looked at by nobody."""

    TypeIs = getattr(typing, "TypeIs", typing.TypeGuard)

    @staticmethod
    def TypeVar(name, *constraints, default=None, **options):  # noqa: N802 – it stands for the class
        """Make a type variable; what it is by default is for who checks types."""
        return typing.TypeVar(name, *constraints, **options)

    @staticmethod
    def deprecated(reason, **options):
        """Leave what is deprecated as it is."""
        return lambda thing: thing

    def __getattr__(self, name):
        """Give what typing has by that name, else what the module has."""
        return getattr(typing, name) if name in typing.__all__ else super().__getattr__(name)


class Validators(StandIn):
    """Has the one validator of attrs that a class here is made with, outcome's ``Error``."""

    @staticmethod
    def instance_of(kind):
        """Give a validator."""

        def validate(instance, attribute, value):
            if not isinstance(value, kind):
                raise TypeError(f"{attribute.name} must be {kind!r}, not {value!r}")

        return validate


class Gettext(StandIn):
    """Leaves click's messages as they are: to look for a translation, which there is none of, takes locale, too."""

    @staticmethod
    def gettext(message):
        """Give a message."""
        return message

    @staticmethod
    def ngettext(one, several, number):
        """Give the message for a number."""
        return one if number == 1 else several


class Subprocess(StandIn):
    """Has the numbers that asyncio takes over; with the module comes locale."""

    PIPE, STDOUT, DEVNULL = -1, -2, -3


class Dis(StandIn):
    """Has the flags of code objects, which inspect makes names of."""

    COMPILER_FLAG_NAMES = types.MappingProxyType({
        1: "OPTIMIZED", 2: "NEWLOCALS", 4: "VARARGS", 8: "VARKEYWORDS", 16: "NESTED", 32: "GENERATOR", 64: "NOFREE",
        128: "COROUTINE", 256: "ITERABLE_COROUTINE", 512: "ASYNC_GENERATOR",
    })  # fmt: skip


class Ast(StandIn):
    """Has the class that inspect derives its reader of sources from."""

    NodeVisitor = object


#: Functions that are imported by name: of starlette for files, cookies and dates, of PyJWT for dates, of msgspec for
#: schemas in JSON.
FUNCTIONS = {
    "calendar": ("timegm",),
    "email.utils": ("format_datetime", "formatdate"),
    "mimetypes": ("guess_type",),
    "msgspec._json_schema": ("schema", "schema_components"),
}
#: Those that are imported by name as well as by way of their package: of http, the words for a status and cookies.
OF_PACKAGES = ("anyio.abc", "anyio.to_thread", "email.utils", "http.client", "http.cookies")
#: anyio and html are starlette's: functions that are not async, pages that show an error. ssl is trio's: TLS, and with
#: it OpenSSL; idna, too: names of hosts that are not ASCII. tokenize is for who reads sources, of which there are
#: none: inspect, linecache. difflib finds what somebody meant who wrote something else.
WHOLE = (
    "anyio", "asyncio.sslproto", "calendar", "difflib", "html", "idna", "mimetypes", "msgspec._json_schema",
    "msgspec.inspect", "ssl", "structlog.stdlib", "structlog.threadlocal", "tokenize",
)  # fmt: skip
STAND_INS = {
    **dict.fromkeys((*WHOLE, *OF_PACKAGES), StandIn),
    "ast": Ast,
    "attr.validators": Validators,
    "dis": Dis,
    "gettext": Gettext,
    "subprocess": Subprocess,
    "typing_extensions": TypingExtensions,
}
for name, kind in STAND_INS.items():
    sys.modules[name] = kind(name)
for name in OF_PACKAGES:
    parent, _, own = name.rpartition(".")
    setattr(importlib.import_module(parent), own, sys.modules[name])

#: What nobody here uses, ever: trio-asyncio's loop that is not async, keys that PyJWT fetches by HTTP, trio's DTLS;
#: starlette's forms, structlog's loggers that are pickled or tested.
NEVER = {
    "greenlet": (),
    "jwt.jwks_client": ("PyJWKClient",),
    "pickle": ("PicklingError",),
    "starlette.formparsers": ("FormParser", "MultiPartException", "MultiPartParser"),
    "structlog.testing": ("ReturnLogger", "ReturnLoggerFactory"),
    "trio._dtls": ("DTLSChannel", "DTLSChannelStatistics", "DTLSEndpoint"),
}
for name, things in NEVER.items():
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__dict__.update(dict.fromkeys(things))

# ctypes.util asks /sbin/ldconfig, a program, for what is certain on every Linux with a glibc.
LIBRARIES = {"c": "libc.so.6", "pthread": "libpthread.so.0"}
util = importlib.import_module("ctypes.util")
search = util.find_library


def find_library(name):
    """Stand for ``ctypes.util.find_library``."""
    return LIBRARIES.get(name) or search(name)


util.find_library = find_library
