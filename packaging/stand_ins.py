"""Run in the one-file program before its own first line: what is never or seldom used is not imported at the start.

harvest.py runs it, too: so it sees which modules a start imports.
"""

# ruff: noqa: E402 – what is imported here must not bring what is to be stood for
import gc

gc.disable()  # modules are no garbage; the first command that is imported has it look again (cli/__init__.py)

import importlib
import sys
import typing
from types import ModuleType


class StandIn(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name):
        """Give what the module has."""
        if name.startswith("__"):
            raise AttributeError(name)
        package = self.__name__.partition(".")[0]
        for each in [each for each in STAND_INS if each.partition(".")[0] == package]:
            if isinstance(sys.modules[each], StandIn):
                del sys.modules[each]
        module = importlib.import_module(self.__name__)
        # Whoever has imported the stand-in keeps it: from now on it answers as quickly as the module does.
        self.__dict__.update({key: value for key, value in vars(module).items() if not key.startswith("__")})
        return getattr(module, name)


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


#: Those that are imported by name as well as by way of their package: of http, the words for a status and cookies.
OF_PACKAGES = ("anyio.abc", "anyio.to_thread", "http.client", "http.cookies")
#: anyio and html are starlette's: functions that are not async, pages that show an error. ssl is trio's: TLS, and with
#: it OpenSSL; idna, too: names of hosts that are not ASCII.
WHOLE = ("anyio", "asyncio.sslproto", "attr.validators", "html", "idna", "ssl")
STAND_INS = {**dict.fromkeys((*WHOLE, *OF_PACKAGES), StandIn), "typing_extensions": TypingExtensions}
for name, kind in STAND_INS.items():
    sys.modules[name] = kind(name)
for name in OF_PACKAGES:
    parent, _, own = name.rpartition(".")
    setattr(importlib.import_module(parent), own, sys.modules[name])

#: What nobody here uses, ever: trio-asyncio's loop that is not async, keys that PyJWT fetches by HTTP, trio's DTLS.
NEVER = {
    "greenlet": (),
    "jwt.jwks_client": ("PyJWKClient",),
    "trio._dtls": ("DTLSChannel", "DTLSChannelStatistics", "DTLSEndpoint"),
}
for name, things in NEVER.items():
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__dict__.update(dict.fromkeys(things))
