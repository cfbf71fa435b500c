from __future__ import annotations

import subprocess
import sys

import pytest

#: Each in a process of its own: what is imported in this one depends on the tests before.
LOADED = "import sys; print('cryptography' in sys.modules, 'cryptography.x509' in sys.modules)"
SIGNED = """
from appliance.protocol.signatures import jwt, verifier
from cryptography.hazmat.primitives.asymmetric import ec
known = jwt.PyJWTError  # as others have imported it before
key = ec.generate_private_key(ec.SECP256R1())
signature = verifier("ES256").sign(b"text", key)
print(verifier("ES256").verify(b"text", key.public_key(), signature))
print(jwt.PyJWK.from_dict(verifier("ES256").to_jwk(key.public_key(), as_dict=True)).algorithm_name)
print(jwt.decode(jwt.encode({"sub": "ann"}, key, "ES256"), key.public_key(), ["ES256"]))
try:
    jwt.decode("a.b.c", key.public_key(), ["ES256"])
except known as error:
    print("refused")
"""


def printed(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["appliance.cli", "appliance.protocol.tokens", "appliance.store.access.keys"])
def test_cryptography_is_not_loaded_where_no_key_asks_for_it(module: str) -> None:
    script = f"import {module}\nfrom appliance.protocol.signatures import verifier\nverifier('HS256')\n{LOADED}"

    assert printed(script) == "False False\n"


def test_elliptic_curves_are_known_once_they_are_asked_for() -> None:
    assert printed(SIGNED) == "True\nES256\n{'sub': 'ann'}\nrefused\n"
