"""Keys from the store and from files: what is taken, and what would be a hole and is refused."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import BadConfiguration, CommandError, Unauthorized
from appliance.protocol.signatures import jwt, load_cryptography
from appliance.protocol.tokens import ALGORITHMS, ISSUER, NO_KEY, Issuer, Keyring, issue
from appliance.store.access import issuer_keys, keys
from appliance.store.file import connections, schema

load_cryptography()  # the tests sign as other issuers do

THEIRS = Issuer("https://issuer.example")
RSA = rsa.generate_private_key(65537, 2048)
SHORT = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
SECRET = b"a secret of another issuer, long enough"
#: A public key of an algorithm that nobody has heard of.
UNHEARD_OF = b"-----BEGIN PUBLIC KEY-----\nMAswBQYDKgMEAwIAAA==\n-----END PUBLIC KEY-----\n"
CLAIMS = {"sub": "ann", "iss": THEIRS.name, "exp": 2_000_000_000}
NOW = 1_999_999_000.0


def pem(private: Any) -> bytes:
    made: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made


def private_pem(private: Any) -> bytes:
    made: bytes = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made


def number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()


def jwk(private: rsa.RSAPrivateKey, **more: Any) -> dict[str, Any]:
    public = private.public_key().public_numbers()
    return {"kty": "RSA", "n": number(public.n), "e": number(public.e), **more}


def jwks(path: Path, *each: Any) -> str:
    path.write_text(json.dumps({"keys": list(each)}))
    return str(path)


def test_the_stores_secret_rotates_with_two_at_once(tmp_path: Path) -> None:
    db = connections.open_file(tmp_path / "a.db", busy_timeout_s=5)
    schema.prepare(db)

    def token() -> str:
        return issue(keys.Secrets().signing(db), subject="r", now=NOW, ttl_s=60, token_id="t")

    def valid(text: str) -> bool:
        try:
            return Keyring(keys.Secrets().keys(db)).verify(text, NOW).issuer == ISSUER
        except Unauthorized:
            return False

    first = token()
    keys.rotate(db, drop=False)
    second = token()
    assert (valid(first), valid(second)) == (True, True)
    keys.rotate(db, drop=False)
    third = token()
    assert (valid(first), valid(second), valid(third)) == (False, True, True)
    generation = schema.generation(db)
    keys.rotate(db, drop=True)
    assert (valid(second), valid(third), valid(token())) == (False, False, True)
    assert schema.generation(db) > generation
    db.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connections.open_file(tmp_path / "store.db", busy_timeout_s=5)) as db:
        schema.prepare(db)
        yield db


def signed(secret: str) -> str:
    return issue(secret, subject="r", now=NOW, ttl_s=60, token_id="t")


def test_the_first_secret_of_a_file_signs_and_all_verify(store: sqlite3.Connection, tmp_path: Path) -> None:
    file, new, old = tmp_path / "secret", "new-secret" * 4, "old-secret" * 4
    file.write_text(f"\n  {new}\r\n{old}\n\n")
    secrets = keys.for_command(store, file)
    assert (secrets.given, secrets.signing(store)) == ((new, old), new)
    keyring = Keyring(secrets.keys(store))
    assert [keyring.verify(signed(each), NOW).subject for each in (new, old)] == ["r", "r"]
    with pytest.raises(Unauthorized):
        keyring.verify(signed(keys.Secrets().signing(store)), NOW)


def test_commands_ask_for_the_file_that_the_server_signs_with(store: sqlite3.Connection, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("a-secret" * 4)
    assert keys.for_command(store, None).given == ()
    keys.Secrets(("a-secret" * 4,)).note(store)
    with pytest.raises(CommandError, match="--secret-file"):
        keys.for_command(store, None)
    with pytest.raises(CommandError, match="reload"):
        keys.rotate(store, drop=False)
    assert keys.for_command(store, file).given == ("a-secret" * 4,)
    keys.Secrets().note(store)
    assert keys.for_command(store, None).given == ()


@pytest.mark.parametrize("content", [
    b"", b"\n\n", b"short", b"secret--" * 4 + b"\nshort", b"\xff" * 40, b"secret--" * (1 << 14), private_pem(EC),
    pem(RSA), b"secret--" * 4 + b"\n" + b"s" * 40, b"01" * 40,
])  # fmt: skip
def test_a_file_without_good_secrets_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(BadConfiguration, match=str(file)) as refused:
        keys.given(file)
    assert "secret--" not in str(refused.value)


@pytest.mark.parametrize(("algorithm", "private"), [("RS256", RSA), ("ES256", EC), ("EdDSA", ED)])
@pytest.mark.parametrize("dress", [bytes, lambda each: each.replace(b"\n", b"\r\n"), lambda each: each + b"\n\n"])
def test_a_public_key_in_a_file_verifies(tmp_path: Path, algorithm: str, private: Any, dress: Any) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(dress(pem(private)))
    (key,) = keys.external([f"{algorithm}:{path}"], THEIRS)
    assert Keyring((key,)).verify(jwt.encode(CLAIMS, private, algorithm), NOW).subject == "ann"


@pytest.mark.parametrize(
    "now",
    [
        replace(THEIRS, name="https://other.example"),
        replace(THEIRS, checked=False),
        replace(THEIRS, audience="shop"),
        replace(THEIRS, accounts=True),
        replace(THEIRS, groups="roles"),
        replace(THEIRS, admin="owner"),
        None,
    ],
)
def test_who_came_in_while_an_issuer_was_judged_otherwise_is_to_come_anew(tmp_path: Path, now: Issuer | None) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    before, same = (Keyring(keys.external([f"HS256:{tmp_path / 'secret'}"], THEIRS)) for _ in range(2))
    principal = before.verify(jwt.encode(CLAIMS, SECRET, "HS256"), NOW)
    assert same.refusal(principal, NOW) == ""
    after = Keyring(keys.external([f"HS256:{tmp_path / 'secret'}"], now) if now is not None else ())
    assert after.refusal(principal, NOW) == NO_KEY


@pytest.mark.parametrize("issued", [{}, {"iat": NOW - 100}])
def test_who_came_in_while_tokens_might_live_longer_is_to_come_anew(tmp_path: Path, issued: dict[str, float]) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    found = keys.external([f"HS256:{tmp_path / 'secret'}"], THEIRS)
    principal = Keyring(found).verify(jwt.encode(CLAIMS | issued, SECRET, "HS256"), NOW)
    assert Keyring(found, lifetime_s=1100).refusal(principal, NOW) == ""
    assert "longer than the 999 s" in Keyring(found, lifetime_s=999).refusal(principal, NOW)


@pytest.mark.parametrize("content", [SECRET + b"\r\n", b"\xef\xbb\xbf" + SECRET])
def test_a_secret_in_a_file_verifies_without_what_an_editor_puts_around_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert keys.given(path) == (SECRET.decode(),)
    (key,) = keys.external([f"HS256:{path}"], THEIRS)
    assert Keyring((key,)).verify(jwt.encode(CLAIMS, SECRET, "HS256"), NOW).subject == "ann"


@pytest.mark.parametrize(
    ("algorithm", "content", "words"),
    [
        ("HS256", b"short", "shorter than 32"),
        ("HS256", b"", "shorter than 32"),
        *(("HS256", each * 20, "again and again") for each in (b"  ", bytes(2), b"\xff\xff", b"abc", b"01234")),
        ("HS256", pem(RSA), "is no secret"),
        ("HS256", b" \n\t" + pem(RSA).replace(b"\n", b"\r\n") + b"  ", "is no secret"),
        ("HS256", pem(RSA).replace(b"\n", b""), "is no secret"),
        ("HS256", json.dumps(jwk(RSA)).encode(), "is no secret"),
        ("HS256", RSA.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "is no secret"),
        ("HS256", RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "is no secret"),
        ("HS256", b"\n".join(pem(RSA).splitlines()[1:-1]), "is no secret"),
        ("RS256", pem(SHORT), "1024 bits"),
        ("RS256", pem(EC), "another kind"),
        ("ES256", pem(RSA), "another kind"),
        ("EdDSA", pem(EC), "another kind"),
        ("ES256", pem(P384), "P-256"),
        ("RS256", pem(dsa.generate_private_key(2048)), "another kind"),
        ("RS256", private_pem(RSA), "private key"),
        ("RS256", UNHEARD_OF, "another kind"),
        ("RS256", b"nonsense", "not a public key"),
        ("RS256", SECRET, "not a public key"),
    ],
)
def test_a_file_that_is_no_such_key_is_refused(tmp_path: Path, algorithm: str, content: bytes, words: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(BadConfiguration, match=words) as caught:
        keys.external([f"{algorithm}:{path}"], THEIRS)
    assert len(content) < 16 or content[10:40].decode("latin-1") not in str(caught.value)


def test_what_is_no_key_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * (issuer_keys.FILE_LIMIT + 1))
    for each in ("key.pem", "HS512:key", "none:key", f"HS256:{tmp_path / 'missing'}", f"RS256:{tmp_path}",
                 f"HS256:{tmp_path / 'long'}"):  # fmt: skip
        with pytest.raises(BadConfiguration):
            keys.external([each], THEIRS)


def test_a_jwks_file_has_keys_with_kids_and_what_is_not_for_us_is_passed_over(tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 2048)
    path = jwks(
        tmp_path / "jwks.json",
        jwk(RSA, kid="one", alg="RS256", use="sig"),
        jwk(other, kid="two"),
        jwk(other, kid="enc", use="enc"),
        jwk(other, kid="one", key_ops=["encrypt"]),
        jwk(other, kid="ops", key_ops="verify"),
        jwk(RSA, kid="one", key_ops=["verify"]),
        {"kty": "EC", "crv": "P-521", "alg": "ES512", "x": "AA", "y": "AA"},
        {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET).decode().rstrip("="), "kid": "shared", "alg": "HS256"},
    )
    found = keys.external([path], THEIRS)
    assert [(each.kid, each.algorithm) for each in found] == [
        ("one", "RS256"), ("two", "RS256"), ("one", "RS256"), ("shared", "HS256"),
    ]  # fmt: skip
    keyring = Keyring(found)
    assert keyring.verify(jwt.encode(CLAIMS, other, "RS256", {"kid": "two"}), NOW).subject == "ann"
    for token in (jwt.encode(CLAIMS, other, "RS256", {"kid": "one"}), jwt.encode(CLAIMS, other, "RS256", {"kid": "x"})):
        with pytest.raises(Unauthorized):
            keyring.verify(token, NOW)


@pytest.mark.parametrize("other", [
    {"kty": "oct", "alg": "none", "k": number(1 << 300)}, {"kty": "oct", "alg": "HS512", "k": 5}, {"kty": None}, {},
    {"kty": "oct", "alg": ["HS256"]}, {"kty": ["RSA"], "alg": {"a": 1}}, {"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"},
    {"kty": "OKP", "crv": "X25519", "x": "AA"}, {"kty": "OKP", "crv": ["Ed25519"]}, {"kty": "EC", "crv": "P-384"},
    {"kty": "OKP", "crv": "Ed448", "alg": "EdDSA", "x": "AA"}, 1, None, [],
])  # fmt: skip
def test_a_key_of_another_kind_in_a_set_is_passed_over(tmp_path: Path, other: Any) -> None:
    (key,) = keys.external([jwks(tmp_path / "jwks.json", other, jwk(RSA, kid="one", alg=None), other)], THEIRS)
    assert (key.kid, key.algorithm) == ("one", "RS256")
    with pytest.raises(BadConfiguration, match=r"jwks\.json holds no key"):
        keys.external([jwks(tmp_path / "jwks.json", other)], THEIRS)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8), st.lists(st.text()),
    st.sampled_from(["", "AQ", "AQAB", "A" * 43, "_" * 43, "-" * 400, "P-256", "P-521", "Ed25519", "Ed448", "none"]),
    st.sampled_from([*ALGORITHMS, "HS512", "ES512", "PS256", "RSA", "EC", "OKP", "oct"]),
)  # fmt: skip
MEMBERS = st.sampled_from(["kty", "alg", "crv", "k", "n", "e", "d", "p", "q", "dp", "dq", "qi", "oth", "x", "y", "kid"])
SOUND: list[dict[str, Any]] = [
    *(dict(as_jwk.to_jwk(key, as_dict=True)) for as_jwk, private in
      ((jwt.algorithms.RSAAlgorithm, RSA), (jwt.algorithms.ECAlgorithm, EC), (jwt.algorithms.OKPAlgorithm, ED))
      for key in (private, private.public_key())),
    {"kty": "oct", "k": number(int.from_bytes(SECRET))},
]  # fmt: skip


@given(st.sampled_from(SOUND), st.dictionaries(MEMBERS, ODD, max_size=4), st.sets(MEMBERS, max_size=2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_a_key_of_a_set_holds_it_is_taken_or_refused(
    tmp_path: Path, sound: dict[str, Any], odd: dict[str, Any], without: set[str]
) -> None:
    made = {name: value for name, value in (sound | odd).items() if name not in without}
    with suppress(BadConfiguration):
        (key,) = keys.external([jwks(tmp_path / "jwks.json", made)], THEIRS)
        assert key.algorithm in ALGORITHMS


@pytest.mark.parametrize("content", [
    "nonsense", "[]", "{}", '{"keys":{}}', '{"keys":[]}', '{"keys":[{"kty":"RSA","alg":"RS256"}]}',
    json.dumps({"keys": [jwk(SHORT)]}), '{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}', '{"keys":[1]}',
    json.dumps({"keys": [{"kty": "oct", "k": "A" * 43}]}),
    json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}]}),
    json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AQ" + "A" * 41}]}),
    json.dumps({"keys": [jwk(RSA, kid="a"), jwk(rsa.generate_private_key(65537, 2048), kid="a")]}),
    json.dumps({"keys": [jwk(RSA, key_ops=["encrypt"])]}), json.dumps({"keys": [jwk(RSA, use="enc")]}),
    '{"keys":[],"keys":[]}', json.dumps({"keys": [jwk(RSA, alg="PS256")]}), '{"keys":' + "[" * 10_000,
])  # fmt: skip
def test_a_jwks_file_without_a_sound_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(content)
    with pytest.raises(BadConfiguration, match=r"jwks\.json"):
        keys.external([str(path)], THEIRS)
