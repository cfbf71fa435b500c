"""Tokens: what is taken, and the list of what is not (RFC 8725, and what has been found in libraries since)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.errors import Unauthorized
from appliance.model import Principal
from appliance.protocol import tokens
from appliance.protocol.signatures import jwt, load_cryptography
from appliance.protocol.tokens import (
    GROUPS_LIMIT,
    ISSUER,
    LEEWAY_S,
    SUBJECT_LIMIT,
    TOKEN_LIMIT,
    Issuer,
    Key,
    Keyring,
    issue,
    key_id,
    own_key,
    verify,
)  # fmt: skip

load_cryptography()  # the tests sign as other issuers do

NOW = 1_800_000_000.5
SECRET = "s3cret" * 8
OTHER = "another" * 8
THEIRS = Issuer("https://issuer.example", audience="shop", groups="groups", admin="admin")

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def b64(text: bytes | str) -> str:
    return base64.urlsafe_b64encode(text if isinstance(text, bytes) else text.encode()).rstrip(b"=").decode()


def signed(payload: Any, header: Any = None, secret: str = SECRET) -> str:
    """Sign with HS256 whatever header and payload these are: texts, or what becomes JSON."""
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    parts = [each if isinstance(each, str) else json.dumps(each) for each in (head, payload)]
    text = ".".join(map(b64, parts))
    return f"{text}.{b64(hmac.digest(secret.encode(), text.encode(), hashlib.sha256))}"


def claims(**changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"sub": "ann", "iss": ISSUER, "iat": int(NOW), "nbf": int(NOW), "exp": int(NOW) + 60}
    return {name: value for name, value in (made | changed).items() if value is not None}


def theirs(**changed: Any) -> dict[str, Any]:
    return claims(**({"iss": THEIRS.name, "aud": "shop"} | changed))


def verified(token: str, *keys: Key, now: float = NOW) -> Principal:
    return Keyring(keys or (own_key(SECRET),)).verify(token, now)


def refused(token: str, *keys: Key, **options: Any) -> str:
    with pytest.raises(Unauthorized) as caught:
        verified(token, *keys, **options)
    message = str(caught.value)
    assert len(token) < 5 or token not in message
    return message


def test_a_token_of_ours_says_whom_it_stands_for() -> None:
    made = issue(SECRET, subject="r1", email="ann@example.com", name="Ann", now=NOW, ttl_s=60, token_id="t1")
    assert verified(made) == Principal(
        issuer=ISSUER, subject="r1", admin=False, expires_at=1_800_000_060, issued_at=1_800_000_000, token_id="t1",
        key_id=key_id(SECRET), registered=True,
    )  # fmt: skip
    assert jwt.decode(made, options={"verify_signature": False}) == {
        "sub": "r1", "email": "ann@example.com", "name": "Ann", "iat": 1_800_000_000, "nbf": 1_800_000_000,
        "exp": 1_800_000_060, "iss": "live-appliance", "jti": "t1",
    }  # fmt: skip


def test_a_token_for_no_account_is_an_administrators_only_if_it_says_so() -> None:
    admin = verified(issue(SECRET, subject="root", admin=True, now=NOW, ttl_s=60, token_id="t"))
    assert (admin.admin, admin.registered) == (True, False)
    assert not verified(issue(SECRET, subject="root", now=NOW, ttl_s=60, token_id="t")).admin
    for value in ("true", 1, [True], {"a": True}, None):
        assert not verified(signed(claims(admin=value))).admin


def test_a_token_is_dated_no_earlier_than_the_account_may_have_one() -> None:
    after = int(NOW) + 1  # the password was changed in this very second
    made = verified(issue(SECRET, subject="r", now=NOW, ttl_s=60, token_id="t", not_before=after))
    assert made.issued_at >= after
    assert verified(issue(SECRET, subject="r", now=NOW, ttl_s=60, token_id="t")).issued_at < after


@pytest.mark.parametrize(
    ("algorithm", "private", "material"),
    [
        ("HS256", SECRET, SECRET.encode()),
        ("RS256", RSA, RSA.public_key()),
        ("ES256", EC, EC.public_key()),
        ("EdDSA", ED, ED.public_key()),
    ],
)
def test_another_issuers_token_is_verified_with_its_key(algorithm: str, private: Any, material: Any) -> None:
    key = Key("k1", algorithm, material, THEIRS, "kid")
    made = jwt.encode(theirs(groups=["editors"], admin=True, jti="j"), private, algorithm, headers={"kid": "kid"})
    found = verified(made, own_key(OTHER), key)
    assert found == Principal(
        issuer=THEIRS.name, subject="ann", admin=True, expires_at=int(NOW) + 60, groups=frozenset(("editors",)),
        issued_at=int(NOW), token_id="j", key_id="k1",
    )  # fmt: skip
    head, payload, signature = made.split(".")
    refused(f"{head}.{payload}.{signature[:-4]}AAAA", key)
    refused(f"{head}.{b64(json.dumps(theirs(sub='bob')))}.{signature}", key)


def test_two_keys_overlap_and_one_that_is_taken_away_verifies_nothing_more() -> None:
    before, after = own_key(OTHER), own_key(SECRET)
    old, new = (issue(each, subject="r", now=NOW, ttl_s=60, token_id="t") for each in (OTHER, SECRET))
    both = Keyring((after, before))
    assert [both.verify(each, NOW).key_id for each in (old, new)] == [before.id, after.id]
    assert both.ids == {before.id, after.id}
    alone = Keyring((after,))
    assert alone.verify(new, NOW).subject == "r"
    assert before.id not in alone.ids
    with pytest.raises(Unauthorized):
        alone.verify(old, NOW)


def test_a_token_names_its_key_or_none() -> None:
    key = own_key(SECRET)
    assert verified(signed(claims()), key).key_id == key.id
    assert verified(signed(claims(), {"alg": "HS256", "kid": key.id}), key).key_id == key.id
    refused(signed(claims(), {"alg": "HS256", "kid": "another"}), key)
    assert verified(signed(claims(), {"alg": "HS256", "kid": "any"}), replace(key, kid=None)).key_id == key.id
    for kid in (None, 1, ["k"], {"k": 1}):
        refused(signed(claims(), {"alg": "HS256", "kid": kid}), key)


@pytest.mark.parametrize("change", [
    lambda kid: "", lambda kid: f" {kid}", lambda kid: kid.upper(), lambda kid: f"{kid}\0", lambda kid: kid[:-1],
    lambda kid: "../../../dev/null", lambda kid: "' OR '1'='1", lambda kid: "https://evil.example/key",
    lambda kid: "x" * 4000, lambda kid: f"{kid}\u200b",
])  # fmt: skip
def test_the_name_of_a_key_is_compared_and_means_nothing_else(change: Any) -> None:
    key = own_key(SECRET)
    assert refused(signed(claims(), {"alg": "HS256", "kid": change(key.id)}), key) == tokens._REFUSED


def test_of_two_keys_with_one_name_each_is_tried() -> None:
    one, another = (Key(name, "HS256", name.encode() * 32, THEIRS, "same") for name in "ab")
    for name in "ab":
        made = signed(theirs(), {"alg": "HS256", "kid": "same"}, name * 32)
        assert verified(made, one, another).key_id == name
    refused(signed(theirs(), {"alg": "HS256", "kid": "same"}, "c" * 32), one, another)


def test_the_issuer_of_a_principal_is_the_keys_never_the_tokens() -> None:
    loose = Issuer("external", checked=False)
    key = Key("k", "HS256", OTHER.encode(), loose)
    found = verified(signed(claims(iss=ISSUER, email="ann@example.com"), secret=OTHER), key)
    assert (found.issuer, found.registered, found.admin) == ("external", False, False)
    accounts = Key("k", "HS256", OTHER.encode(), replace(THEIRS, accounts=True))
    found = verified(signed(theirs(), secret=OTHER), accounts)
    assert (found.issuer, found.registered) == (ISSUER, True)


@pytest.mark.parametrize("changed", [{"iss": ISSUER}, {"iss": None}, {"iss": ["https://issuer.example"]},
                                     {"aud": "other"}, {"aud": None}, {"aud": {"shop": 1}}])  # fmt: skip
def test_a_token_of_another_issuer_or_for_another_audience_is_refused(changed: dict[str, Any]) -> None:
    key = Key("k", "HS256", SECRET.encode(), THEIRS)
    assert verified(signed(theirs(aud=["x", "shop"])), key).subject == "ann"
    refused(signed(theirs(**changed)), key)


def test_claims_may_be_inside_others_or_have_dots_in_their_names() -> None:
    def groups(name: str, **changed: Any) -> frozenset[str]:
        key = Key("k", "HS256", SECRET.encode(), replace(THEIRS, groups=name))
        return verified(signed(theirs(**changed)), key).groups

    assert groups("realm.roles", realm={"roles": ["a", "b"]}) == {"a", "b"}
    assert groups("https://x.example/groups", **{"https://x.example/groups": "a"}) == {"a"}
    assert groups("groups", groups=["a", 1, "", None, "x" * (SUBJECT_LIMIT + 1), ["b"]]) == {"a"}
    assert groups("groups", groups={"a": 1}) == groups("a.b.c", a={"b": 1}) == groups("", groups=["a"]) == frozenset()
    assert len(groups("groups", groups=[f"g{number}" for number in range(GROUPS_LIMIT + 5)])) == GROUPS_LIMIT


# --- what is refused --------------------------------------------------------------------------------------------------

PUBLIC_PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, "HS384", "HS512", "hs256", "RS256",
                                       ["HS256"], {"HS256": 1}, 1, True])  # fmt: skip
def test_an_algorithm_that_is_not_the_keys_is_refused(algorithm: Any) -> None:
    unsigned = signed(claims(), {"alg": algorithm}).rpartition(".")[0]
    for token in (signed(claims(), {"alg": algorithm}), f"{unsigned}.", unsigned, f"{unsigned}.AA"):
        refused(token)
    refused(signed(claims(), {"typ": "JWT"}))


@pytest.mark.parametrize("pem", [PUBLIC_PEM, PUBLIC_PEM.strip(), f" \n{PUBLIC_PEM}", PUBLIC_PEM.replace("\n", "\r\n")])
def test_a_public_key_is_never_taken_for_a_shared_secret(pem: str) -> None:
    key = Key("k", "RS256", RSA.public_key(), THEIRS)
    refused(signed(theirs(), secret=pem), key)
    refused(signed(theirs(), {"alg": "RS256"}, secret=pem), key)
    assert verified(jwt.encode(theirs(), RSA, "RS256"), key).subject == "ann"


@pytest.mark.parametrize("extra", [
    {"crit": ["b64"], "b64": False}, {"crit": ["exp"]}, {"crit": []}, {"crit": None}, {"b64": False}, {"b64": True},
])  # fmt: skip
def test_an_extension_is_refused(extra: dict[str, Any]) -> None:
    assert "extension" in refused(signed(claims(), {"alg": "HS256", **extra}))


def test_keys_that_a_token_brings_along_are_not_used() -> None:
    jwk = {"kty": "oct", "k": b64(OTHER)}
    for extra in ({"jwk": jwk}, {"jku": "https://evil.example/jwks.json"}, {"x5u": "https://evil.example"}):
        refused(signed(claims(), {"alg": "HS256", **extra}, OTHER))


@pytest.mark.parametrize("text", [
    '{"sub":"ann","sub":"bob"}', '{"sub":"ann","exp":NaN}', '{"sub":"ann","exp":1e999}', '{"sub":"ann","exp":Infinity}',
    '{"sub":"\\ud800"}', "[]", '"ann"', "null", "", "{", '{"sub":"ann"}x', "\xff",
    '{"a":' + "[" * 33 + "]" * 33 + "}", '{"a":' + "[" * 5000,
    '{"sub":"ann","exp":' + "9" * 400 + "}",
])  # fmt: skip
def test_claims_that_are_no_strict_json_object_are_refused(text: str) -> None:
    whole = text.replace('"sub":"ann"', f'"sub":"ann","iss":"{ISSUER}","exp":{int(NOW) + 60}', 1)
    refused(signed(text))
    if '"exp":' not in text:
        refused(signed(whole))
    refused(signed(claims(), text.replace('"sub"', '"alg"').replace('"ann"', '"HS256"').replace('"bob"', '"HS256"')))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["1800000060", True, -1, [1], {}, 1e300, (1 << 53), (1 << 63) - 1, "", "NaN"])
def test_a_time_that_is_no_sensible_number_is_refused(name: str, value: Any) -> None:
    refused(signed(claims(**{name: value})))


@pytest.mark.parametrize("changed", [
    {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": ["ann"]}, {"sub": "x" * (SUBJECT_LIMIT + 1)}, {"exp": None},
    {"iss": None}, {"iss": "live-appliance "}, {"iss": [ISSUER]},
])  # fmt: skip
def test_a_claim_that_is_missing_or_of_another_kind_is_refused(changed: dict[str, Any]) -> None:
    refused(signed(claims(**changed)))


@pytest.mark.parametrize(
    "subject", ["änn", "a\u0301nn", "ann\u202e", "𝖆𝖓𝖓", " ann", "ANN", "ann\0", "x" * SUBJECT_LIMIT]
)
def test_a_subject_is_taken_as_it_is_and_is_nobody_else(subject: str) -> None:
    assert verified(signed(claims(sub=subject))).subject == subject != "ann"


@pytest.mark.parametrize("issuer", ["Live-Appliance", "live\u2011appliance", "live-appliance\0", "live-appliance/", ""])
def test_an_issuer_is_compared_character_by_character(issuer: str) -> None:
    assert "iss" in refused(signed(claims(iss=issuer)))


def test_a_time_may_have_a_fraction_and_counts_with_it() -> None:
    assert verified(signed(claims(exp=NOW + 0.25))).expires_at == NOW + 0.25
    assert "expired" in refused(signed(claims(exp=NOW - 0.25)))
    for text in ("1.80000006e9", "1800000060.0"):
        whole = json.dumps(claims()).replace(str(int(NOW) + 60), text)
        assert verified(signed(whole)).expires_at == int(NOW) + 60


@pytest.mark.parametrize("text", [
    "\ufeff{}", "{}\0", "{},", "//\n{}", "{'sub':'ann'}", '{"sub":"ann",}', '{"exp":0x10}', '{"exp":+1}', '{"exp":01}',
    '{"exp":-0.0e}',
])  # fmt: skip
def test_what_a_lenient_reader_would_take_for_json_is_refused(text: str) -> None:
    whole = json.dumps(claims())
    for made in (text, text.replace("{}", whole), text.replace("{", whole[:-1] + ",", 1)):
        assert refused(signed(made)) == tokens._REFUSED


def test_a_signature_of_nothing_is_refused() -> None:
    head, payload, _ = jwt.encode(theirs(), EC, "ES256").split(".")
    key = Key("k", "ES256", EC.public_key(), THEIRS)
    for signature in (
        bytes(64),
        bytes(31) + b"\1" + bytes(32),
        b"\xff" * 64,
        bytes(63),
        bytes(65),
        b"\x30\x06\2\1\0\2\1\0",
    ):
        refused(f"{head}.{payload}.{b64(signature)}", key)


def test_times_are_looked_at_with_a_little_leeway_but_for_the_end() -> None:
    assert verified(signed(claims(exp=int(NOW) + 1))).expires_at == int(NOW) + 1
    assert "expired" in refused(signed(claims(exp=int(NOW))))
    for name in ("nbf", "iat"):
        assert verified(signed(claims(**{name: NOW + LEEWAY_S - 1})))
        assert "not valid yet" in refused(signed(claims(**{name: NOW + LEEWAY_S + 1})))


def test_a_token_lives_no_longer_than_is_allowed() -> None:
    keyring = Keyring((own_key(SECRET),), lifetime_s=60)
    assert keyring.verify(signed(claims()), NOW).subject == "ann"
    forever = [{"exp": int(NOW) + 30, "iat": begun} for begun in (0, 0.0, -0.0, 1)]  # 0 is a time as any other
    for changed in ({"exp": int(NOW) + 61}, {"exp": int(NOW) + 62, "iat": None}, *forever):
        with pytest.raises(Unauthorized, match="lives longer"):
            keyring.verify(signed(claims(**changed)), NOW)
    with pytest.raises(Unauthorized, match="than the 31622400 s that"):
        Keyring((own_key(SECRET),), lifetime_s=31_622_400).verify(signed(claims(exp=int(NOW) + 40_000_000)), NOW)


@pytest.mark.parametrize("change", [
    lambda text: text + "=", lambda text: text + ".", lambda text: "." + text, lambda text: text.replace(".", "..", 1),
    lambda text: text + "\n", lambda text: " " + text, lambda text: text.replace(".", ". ", 1),
    lambda text: text[:-1] + ("B" if text[-1] != "B" else "C"), lambda text: text + ".x.y", lambda text: "",
    lambda text: "." * 2, lambda text: "é" + text, lambda text: text[:-1] + "+", lambda text: f"{text[:-2]}",
])  # fmt: skip
def test_a_text_that_is_not_exactly_a_token_is_refused(change: Any) -> None:
    refused(change(signed(claims())))


def test_a_token_that_is_too_long_is_not_looked_at() -> None:
    assert str(TOKEN_LIMIT) in refused(signed(claims(filler="x" * TOKEN_LIMIT)))


def test_who_has_come_in_is_refused_when_the_token_ends() -> None:
    keyring = Keyring((own_key(SECRET),))
    principal = keyring.verify(signed(claims()), NOW)
    assert keyring.refusal(principal, principal.expires_at - 0.5) == ""
    assert "expired" in keyring.refusal(principal, principal.expires_at)


def test_the_short_way_for_one_secret_is_the_same() -> None:
    assert verify(SECRET, signed(claims()), now=NOW).subject == "ann"
    with pytest.raises(Unauthorized):
        verify(OTHER, signed(claims()), now=NOW)


def test_a_token_that_is_known_ends_when_it_ends_and_its_like_is_still_refused() -> None:
    keyring = Keyring((own_key(SECRET),))
    token = signed(claims())

    assert keyring.verify(token, NOW) == keyring.verify(token, NOW + 1)
    with pytest.raises(Unauthorized, match="expired"):
        keyring.verify(token, NOW + 61)
    with pytest.raises(Unauthorized):
        keyring.verify(signed(claims(), secret=OTHER), NOW)
    with pytest.raises(Unauthorized):
        Keyring((own_key(OTHER),)).verify(token, NOW)


def test_no_more_tokens_are_remembered_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED", 2)
    keyring = Keyring((own_key(SECRET),))
    several = [signed(claims(sub=name)) for name in ("ann", "ben", "cat")]

    for _ in range(2):
        assert [keyring.verify(each, NOW).subject for each in several] == ["ann", "ben", "cat"]
    assert len(keyring._known) == 2


def test_half_a_character_is_no_token() -> None:
    assert refused("\ud800" + signed(claims()))
