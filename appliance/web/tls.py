"""TLS: a certificate and its key, checked when they are read, and read again without dropping a connection."""

from __future__ import annotations

import ssl
from pathlib import Path

from appliance.errors import BadConfiguration


class Certificate:
    """A server's certificate chain and private key, in two PEM files.

    ``context`` serves new handshakes; connections that are open keep the one they began with. Raises
    ``BadConfiguration`` when the files cannot serve.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self.context = context(chain, key)


def context(chain: Path, key: Path) -> ssl.SSLContext:
    """Make a server's TLS context: TLS 1.2 at least, HTTP/1.1 only."""
    for option, path in (("--tls-cert", chain), ("--tls-key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise BadConfiguration(f"{option}: {path} cannot be read: {error.strerror}") from None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION  # so that what is written never waits for what is read
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(chain, key, password=_refuse_password)
    except _Encrypted:
        raise BadConfiguration(
            f"--tls-key: {key} is encrypted; decrypt it (openssl pkey -in KEY -out PLAIN) and let nobody else read it"
        ) from None
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):  # the latter: a key of another kind
            message = f"--tls-key: {key} is not the key of the certificate in {chain}"
        else:
            message = f"--tls-cert, --tls-key: {chain} and {key} do not hold a certificate and a key in PEM form"
        raise BadConfiguration(message) from None
    return made


class _Encrypted(Exception):
    pass


def _refuse_password() -> str:
    raise _Encrypted
