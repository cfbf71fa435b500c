"""PyJWT, with the package ``cryptography`` only where a key asks for it.

PyJWT imports ``cryptography`` wherever it is installed: 9 MiB of memory and a tenth of a second in every command, for
RSA and elliptic curves. A store that knows no keys but its own secrets has no use for either. Whoever uses PyJWT takes
it from here.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

_hidden = "cryptography" not in sys.modules
if _hidden:
    sys.modules["cryptography"] = None  # type: ignore[assignment]  # as documented: it then cannot be imported
try:
    import jwt
    import jwt.algorithms
    import jwt.api_jwk
    import jwt.utils
finally:
    if _hidden:
        del sys.modules["cryptography"]

__all__ = ["jwt", "load_cryptography", "verifier"]


def load_cryptography() -> None:
    """Let PyJWT know RSA and elliptic curves from now on."""
    if not jwt.algorithms.has_crypto:
        # All that looked for it runs once more, in its own namespace and in the order in which one imports another.
        for module in (jwt.utils, jwt.algorithms, jwt.api_jwk, jwt.api_jws, jwt.api_jwt, jwt):
            importlib.reload(module)


@functools.cache
def verifier(algorithm: str) -> Algorithm:
    """Give what verifies the signatures of an algorithm, by its name in RFC 7518 or 8037."""
    if algorithm in jwt.algorithms.requires_cryptography:
        load_cryptography()
    return jwt.algorithms.get_default_algorithms()[algorithm]
