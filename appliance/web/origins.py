"""Whose pages may use the server: the list ``allowed_origins``, as browsers write origins (RFC 6454, section 6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from appliance.errors import BadConfiguration

#: Stands for pages of any origin.
ANY: Final = "*"
#: What a page without an origin of its own sends: of a file, or in a sandbox.
NULL: Final = "null"
#: Scheme, host, port. Schemes of browsers' extensions and of apps are like those of sites.
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?/?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def read_origins(given: Iterable[str]) -> frozenset[str]:
    """Give origins as a browser sends them, in lower case; ``ANY`` and ``NULL`` stand for themselves.

    Raises ``BadConfiguration`` for what no browser sends, and what therefore would never match.
    """
    return frozenset(map(_read, given))


def _read(text: str) -> str:
    lowered = text.lower()
    if lowered in (ANY, NULL):
        return lowered
    found = _ORIGIN.fullmatch(lowered)
    if found is None:
        raise BadConfiguration(
            f"--allowed-origins must be scheme://host or scheme://host:port as a browser sends it, such as "
            f"https://shop.example.com, or {ANY} for any, not {text!r}"
        )
    scheme, host, port = found.groups()
    return f"{scheme}://{host}" + (f":{port}" if port and port != _DEFAULT_PORTS.get(scheme) else "")
