"""The keys of another issuer, read from files: secrets, public keys (PEM) and JWK sets (RFC 7517).

Imported only where there are such files: it loads ``cryptography``.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from appliance.errors import BadConfiguration, BadJson
from appliance.model import JSON
from appliance.protocol import json as strict_json
from appliance.protocol.signatures import jwt, load_cryptography
from appliance.protocol.tokens import ALGORITHMS, OTHERS, RSA_BITS, Issuer, Key, weakness
from appliance.protocol.wording import quote

load_cryptography()

#: A longer file of keys is not read, bytes.
FILE_LIMIT: Final = 1 << 20

_PUBLIC: Final[Mapping[str, type[Any]]] = {
    "RS256": RSAPublicKey, "ES256": EllipticCurvePublicKey, "EdDSA": Ed25519PublicKey,
}  # fmt: skip
#: The types of JWK that ``ALGORITHMS`` take: those without a curve, and those with one.
_TYPES: Final = ("oct", "RSA")
_CURVES: Final = (("EC", "P-256"), ("OKP", "Ed25519"))


def read(files: Sequence[str], issuer: Issuer) -> tuple[Key, ...]:
    """Read the keys of another issuer: each ``ALGORITHM:FILE``, a secret or a public key (PEM), or a JWKS file.

    Raises ``BadConfiguration``, naming the file and never what is in it.
    """
    keys: list[Key] = []
    for each in files:
        algorithm, colon, path = each.partition(":")
        if colon and algorithm in ALGORITHMS:
            keys.append(_of_file(algorithm, Path(path), issuer))
        elif each.endswith((".json", ".jwks")):
            keys += _of_jwks(Path(each), issuer)
        else:
            raise BadConfiguration(f"--jwt-keys takes ALGORITHM:FILE ({', '.join(ALGORITHMS)}) or a JWKS file, whose "
                                   f'name ends in .json, not "{each}"')  # fmt: skip
    return tuple(keys)


def _of_file(algorithm: str, path: Path, issuer: Issuer) -> Key:
    content = _read(path)
    if algorithm == "HS256":
        return _shared(content.rstrip(b"\r\n"), path, issuer, None)
    try:
        material = load_pem_public_key(content)
    except UnsupportedAlgorithm as error:
        raise BadConfiguration(f"{path} holds a key of another kind than {algorithm} takes") from error
    except ValueError as error:
        private = " (it holds a private key: give the public one)" if b"PRIVATE KEY" in content else ""
        raise BadConfiguration(f"{path} is not a public key in PEM{private}") from error
    return _public(algorithm, material, path, issuer, None)


def _shared(material: bytes, path: Path, issuer: Issuer, kid: str | None) -> Key:
    if why := weakness(material):
        raise BadConfiguration(f"the secret in {path} {why}; make one with: openssl rand -hex 32")
    try:
        # A public key that is taken for a secret would let everybody sign.
        if b"-----BEGIN" in material:
            raise jwt.InvalidKeyError
        for each in (material, *_unarmoured(material)):
            jwt.get_algorithm_by_name("HS256").prepare_key(each)
    except jwt.InvalidKeyError as error:
        raise BadConfiguration(f"{path} holds a public or private key, which is no secret for HS256; name its own "
                               "algorithm") from error  # fmt: skip
    return Key(_name(material, issuer), "HS256", material, issuer, kid)


def _unarmoured(material: bytes) -> list[bytes]:
    """Give what a text in base64 holds: so issuers show their public keys, too, without the lines around it."""
    try:
        return [base64.b64decode(b"".join(material.split()), validate=True)]
    except binascii.Error:
        return []


def _public(algorithm: str, material: Any, path: Path, issuer: Issuer, kid: str | None) -> Key:
    if not isinstance(material, _PUBLIC[algorithm]):
        raise BadConfiguration(f"{path} holds a key of another kind than {algorithm} takes")
    if isinstance(material, RSAPublicKey) and material.key_size < RSA_BITS:
        raise BadConfiguration(f"the RSA key in {path} has {material.key_size} bits; {RSA_BITS} are the least")
    if isinstance(material, EllipticCurvePublicKey) and not isinstance(material.curve, SECP256R1):
        raise BadConfiguration(f"the key in {path} is on the curve {material.curve.name}; ES256 takes P-256")
    if isinstance(material, Ed25519PublicKey) and weakness(material.public_bytes_raw()):
        # One that was left blank is a point of small order, for which everybody can sign.
        raise BadConfiguration(f"the Ed25519 key in {path} is no key: everybody could sign for it")
    public = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(_name(public, issuer), algorithm, material, issuer, kid)


def _name(material: bytes, issuer: Issuer) -> str:
    # Who came in by a token of this key was judged by what is said of its issuer: with that, the id is another one.
    said = repr(issuer).encode()
    return OTHERS + hashlib.sha256(b"live-appliance key %d %b%b" % (len(said), said, material)).hexdigest()[:16]


def _of_jwks(path: Path, issuer: Issuer) -> list[Key]:
    """Read a JWK set (RFC 7517). Keys that are for something else than to verify, or not for us, are passed over."""
    try:
        found = strict_json.decode(_read(path))
    except BadJson as error:
        raise BadConfiguration(f"{path} is not a JWKS file: {error}") from error
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise BadConfiguration(f'{path} is not a JWKS file: it has no list "keys"')
    keys = [key for each in listed if (key := _of_jwk(each, path, issuer)) is not None]
    if not keys:
        raise BadConfiguration(f"{path} holds no key to verify {', '.join(ALGORITHMS)} with")
    named: dict[tuple[str, str], Key] = {}
    for key in keys:
        # RFC 7517, section 4.5: only keys of different types may have one name.
        if key.kid is not None and named.setdefault((key.kid, key.algorithm), key).id != key.id:
            raise BadConfiguration(f"{path} holds two keys with the kid {quote(key.kid)}; give each its own")
    return keys


def _of_jwk(each: JSON, path: Path, issuer: Issuer) -> Key | None:
    if not isinstance(each, dict) or not _verifies(each) or not _is_ours(each):
        return None
    try:
        read = jwt.PyJWK.from_dict(each)
    except Exception as error:  # each algorithm of PyJWT refuses in its own way, and cryptography in others
        raise BadConfiguration(f"{path} holds a key that cannot be read") from error
    kid = read.key_id if isinstance(read.key_id, str) else None
    if read.algorithm_name == "HS256":
        return _shared(read.key, path, issuer, kid)
    if hasattr(read.key, "private_bytes"):
        raise BadConfiguration(f"{path} holds a private key; give the public one")
    return _public(read.algorithm_name, read.key, path, issuer, kid)


def _verifies(each: Mapping[str, JSON]) -> bool:
    """Whether a key may be used for that (RFC 7517, sections 4.2 and 4.3)."""
    operations = each.get("key_ops", ["verify"])
    return each.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _is_ours(each: Mapping[str, JSON]) -> bool:
    """Whether a key says that it is of a kind that we take. A set may hold any others (RFC 7517, section 5)."""
    kind = each.get("kty")
    return each.get("alg") in (None, *ALGORITHMS) and (kind in _TYPES or (kind, each.get("crv")) in _CURVES)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise BadConfiguration(f"the key file {path} cannot be read: {error.strerror}") from error
    if len(content) > FILE_LIMIT:
        raise BadConfiguration(f"the key file {path} is longer than {FILE_LIMIT} bytes")
    return content.removeprefix(codecs.BOM_UTF8)  # which some editors put before a text
