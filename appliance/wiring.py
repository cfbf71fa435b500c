"""What the configuration says, as the parts of the server take it: files are read and checked, nothing is begun."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from appliance.config import Config
from appliance.errors import BadConfiguration
from appliance.protocol.tokens import ISSUER, Issuer, Key
from appliance.store.access import keys
from appliance.store.outbox.retention import Retention
from appliance.store.store import StoreSettings
from appliance.store.tables.secrecy import Secrecy
from appliance.web import tls
from appliance.web.forwarded import Proxies
from appliance.web.listen import read_address
from appliance.web.origins import read_origins
from appliance.web.tls import Certificate


def store_settings(config: Config) -> StoreSettings:
    """Say how the store is opened. Raises ``BadConfiguration``."""
    path = config.db.resolve()  # SQLite puts the WAL beside the file itself, not beside a link to it
    return StoreSettings(
        path=path,
        called=config.db if config.db != path else None,
        secret=Secrecy(config.secret_columns, config.reveal),
        busy_timeout_s=config.busy_timeout_s,
        synchronous=config.synchronous,
        free_bytes=config.ready_free_bytes,
        checkpoints=config.checkpoint == "auto",
        retention=Retention(config.retention_s, config.retention_rows, config.retention_bytes),
        accounts=config.accounts,
        secrets=keys.given(config.secret_file),
    )


def given_secrets(config: Config, former: tuple[str, ...]) -> tuple[str, ...]:
    """Read the secrets of ours that are in a file again, where there is one. Raises ``BadConfiguration``."""
    found = keys.given(config.secret_file)
    if bool(found) != bool(former):
        raise BadConfiguration("whether tokens are signed with a secret_file cannot change while the server runs: "
                               "restart it")  # fmt: skip
    return found


def external_keys(config: Config) -> tuple[Key, ...]:
    """Read the keys of the other issuer's tokens. Raises ``BadConfiguration``."""
    if config.jwt_issuer == ISSUER and not config.jwt_accounts:
        raise BadConfiguration(
            f'--jwt-issuer cannot be "{ISSUER}": so this server calls itself, and its subjects would be accounts here; '
            "give --jwt-accounts if that is so, or leave it out"
        )
    issuer = Issuer(
        name=config.jwt_issuer or "external",
        checked=bool(config.jwt_issuer),
        audience=config.jwt_audience,
        accounts=config.jwt_accounts,
        groups=config.jwt_groups_claim,
        admin=config.jwt_admin_claim,
    )
    return keys.external(config.jwt_keys, issuer)


def metrics_addresses(config: Config) -> list[tuple[str, int]]:
    """Give where /metrics is answered to anybody, host and port. Raises ``BadConfiguration``."""
    return list(dict.fromkeys(read_address(each) for each in config.metrics_listen))


def origins(config: Config) -> frozenset[str]:
    """Give whose pages may use the server. Raises ``BadConfiguration``."""
    return read_origins(config.allowed_origins)


#: What can be wrong with the configuration though each setting is what it may be.
_CHECKED: Final[tuple[Callable[[Config], object], ...]] = (
    external_keys,
    metrics_addresses,
    origins,
    lambda config: Proxies(config.trusted_proxies),
)


def check(config: Config) -> None:
    """Look at it before anything is begun. Raises ``BadConfiguration``."""
    for part in _CHECKED:
        part(config)


def refusals(config: Config) -> list[str]:
    """Say why no server would begin with this configuration and the keys that it names; nothing if one would."""
    found = []
    for part in _CHECKED:
        try:
            part(config)
        except BadConfiguration as error:
            found.append(str(error))
    return found


def certificate(config: Config) -> Certificate | None:
    """Read the certificate and its key, where there is one. Raises ``BadConfiguration``."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    return Certificate(config.tls_cert, config.tls_key)


def renewed_certificate(config: Config, former: Certificate | None) -> ssl.SSLContext | None:
    """Read the certificate again, where there is one. Raises ``BadConfiguration``."""
    if (former is None) != (config.tls_cert is None):
        raise BadConfiguration("whether the port speaks TLS cannot change while the server runs: restart it")
    if config.tls_cert is None or config.tls_key is None:
        return None
    return tls.context(config.tls_cert, config.tls_key)
