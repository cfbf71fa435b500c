from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from appliance.errors import BadConfiguration
from appliance.web.tls import Certificate, context
from tests.e2e.certificates import write_certificate
from tests.web.doors import open_door


def trusting(chain: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(chain))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def test_requests_are_answered_over_tls_and_only_in_http_1_1(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "localhost")
    async with open_door(certificate=Certificate(chain, key)) as opened:
        client = await opened.connect_tls(trusting(chain))
        async with client.stream:
            assert (await client.get("/a"))[2] == b"hello /a"
            assert (await client.get("/b"))[2] == b"hello /b"
            assert client.stream.selected_alpn_protocol() == "http/1.1"  # type: ignore[attr-defined]


async def test_a_new_certificate_serves_new_connections_and_drops_none(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "localhost")
    certificate = Certificate(chain, key)
    old = trusting(chain)
    async with open_door(certificate=certificate) as opened:
        before = await opened.connect_tls(old)
        write_certificate(tmp_path, "localhost")
        certificate.context = context(chain, key)
        after = await opened.connect_tls(trusting(chain))
        async with before.stream, after.stream:
            assert (await before.get())[0] == 200
            assert (await after.get())[0] == 200


def test_files_that_do_not_serve_are_named(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "localhost")
    other, _ = write_certificate(tmp_path, "other")
    _, locked = write_certificate(tmp_path, "locked", password=b"secret")
    of_another_kind = tmp_path / "rsa.key"
    of_another_kind.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("hello")
    for files, words in (
        ((tmp_path / "absent", key), "--tls-cert: .*absent cannot be read: No such file"),
        ((chain, tmp_path / "absent"), "--tls-key: .*absent cannot be read"),
        ((other, key), "not the key of the certificate"),
        ((chain, of_another_kind), "not the key of the certificate"),
        ((nonsense, key), "do not hold a certificate"),
        ((tmp_path / "locked.crt", locked), "is encrypted"),
    ):
        with pytest.raises(BadConfiguration, match=words):
            Certificate(*files)
