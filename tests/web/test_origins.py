"""Whose pages may use the server: what the list may hold, and that HTTP and WebSockets read it alike."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.errors import BadConfiguration, Forbidden
from appliance.web.admission import Admission
from appliance.web.origins import read_origins


def admits(allowed: frozenset[str], origin: str) -> bool:
    """Whether a page of an origin may open a WebSocket."""
    nothing: Any = None
    try:
        Admission(nothing, allowed_origins=allowed)._check_origin({"origin": origin, "host": "localhost"}, secure=False)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://shop.example.com", "https://shop.example.com"),
        ("HTTPS://Shop.example.com/", "https://shop.example.com"),
        ("https://shop.example.com:443", "https://shop.example.com"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:80", "http://[::1]"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", "null"),
    ],
)
def test_an_origin_is_read_as_a_browser_sends_it(given: str, sent: str) -> None:
    origins = read_origins([given])

    assert origins == {sent}
    assert admits(origins, sent)
    assert not admits(origins, "https://evil.example")


@pytest.mark.parametrize(
    "given",
    ["shop.example.com", "https://x/path", "https://*.example.com", "https://", "localhost:5173", "https://x?y",
     "https://me@x", "https://x:port", "https://a b", "https://münchen.example", ""],
)  # fmt: skip
def test_what_no_browser_sends_is_refused_with_the_form(given: str) -> None:
    with pytest.raises(BadConfiguration, match="must be scheme://host or scheme://host:port"):
        read_origins([given])


@pytest.mark.parametrize("origin", ["https://anywhere.example", "http://localhost:1", "null", "garbage"])
def test_a_star_is_any_origin(origin: str) -> None:
    assert admits(read_origins(["https://shop.example.com", "*"]), origin)
