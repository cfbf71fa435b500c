"""The configuration: every setting with its default, its bounds and its words, in one table.

Where a setting comes from: a flag over ``LIVE_APPLIANCE_<NAME>`` over the TOML file over the default. All of it is
checked before anything begins; a name that is not known is refused with the nearest one that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from appliance.errors import BadConfiguration

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

ENVIRONMENT_PREFIX: Final = "LIVE_APPLIANCE_"
#: Variables with our prefix that are not settings of the server.
OTHER_VARIABLES: Final = ("LIVE_APPLIANCE_CONFIG", "LIVE_APPLIANCE_TOKEN", "LIVE_APPLIANCE_URL")

#: What the service manager calls the secret that it hands over (systemd.exec(5), LoadCredential=).
SECRET_CREDENTIAL: Final = "secret"  # noqa: S105 – a name

#: Columns that are never captured, in any table, unless revealed.
SECRET_COLUMNS: Final = (
    "password", "passwd", "secret", "token", "hash", "api_key",
    "*_password", "*_secret", "*_token", "*_hash", "*_key", "otp*",
)  # fmt: skip


def setting(
    default: Any,
    words: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """Declare a setting: its default, what it is for, what it may be, and whether a running server takes it up."""
    found = {"help": words, "least": least, "most": most, "choices": choices, "live": live}
    return field(default=default, metadata=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of ``serve``. Names that end in ``_s`` are seconds, in ``_bytes`` bytes."""

    db: Path = setting(Path("live.db"), "The SQLite file; made when there is none.")
    host: tuple[str, ...] = setting(("127.0.0.1", "::1"), "Addresses to listen on.")
    port: int = setting(6336, "The port to listen on; 0 takes a free one.", least=0, most=65535)
    tls_cert: Path | None = setting(None, "Certificate chain (PEM): the port then speaks TLS (wss, https).", live=True)
    tls_key: Path | None = setting(None, "Private key of the certificate (PEM).", live=True)
    allowed_origins: tuple[str, ...] = setting(
        (), "Origins, besides the server's own, whose pages may use it: scheme://host[:port], or * for any.", live=True
    )
    secret_columns: tuple[str, ...] = setting(
        SECRET_COLUMNS,
        "Columns that are never captured: names, patterns with *, or table.column. A key column, or one that the "
        "rights on a standard table stand on, only by table.column.",
    )
    reveal: tuple[str, ...] = setting((), "Columns to capture though their names say secret: table.column.")
    accounts: bool = setting(True, "Keep users, groups and what is granted in tables of the file, made if missing.")
    secret_file: Path | None = setting(
        None,
        "File of secrets, one a line: the first signs tokens instead of the store's own, all verify. "
        "Else $CREDENTIALS_DIRECTORY/secret, if it is there.",
        live=True,
    )
    signup: bool = setting(True, "Let anybody make an account; without it only administrators do.", live=True)
    token_ttl_s: float = setting(
        72 * 3600.0, "How long the token of somebody who signs in is good.", least=1, live=True
    )
    guests: bool = setting(False, "Let clients without a token in; they see what everybody may.", live=True)
    token_lifetime_s: float = setting(
        366 * 86400.0,
        "The longest life of any token; one that was made for longer is refused.",
        least=1,
        most=100 * 366 * 86400,
        live=True,
    )
    jwt_keys: tuple[str, ...] = setting(
        (),
        "Keys of another issuer's tokens: ALGORITHM:FILE (a public key in PEM, or a secret), or a JWKS file (.json).",
        live=True,
    )
    jwt_issuer: str = setting("", "What those tokens' iss must be; without it, it is not looked at.", live=True)
    jwt_audience: str = setting("", "What their aud must be, or hold; without it, it is not looked at.", live=True)
    jwt_groups_claim: str = setting("groups", "Their claim that names groups; a.b is the claim b in a.", live=True)
    jwt_admin_claim: str = setting(
        "admin", "Their claim that is true for administrators; a.b is the claim b in a.", live=True
    )
    jwt_accounts: bool = setting(False, "Their sub is the reference_id of an account of this store.", live=True)
    big_integers: str = setting("number", "How integers beyond ±(2^53−1) are sent.", choices=("number", "string"))
    synchronous: str = setting(
        "normal",
        "SQLite's synchronous for our own commits: full survives a power cut with every acknowledged message.",
        choices=("normal", "full"),
    )
    checkpoint: str = setting(
        "auto",
        "Who moves the WAL into the file: auto, the server and whoever commits; none, only others (Litestream).",
        choices=("auto", "none"),
    )
    busy_timeout_s: float = setting(5.0, "How long to wait for another program's lock.", least=0.1, most=60)
    inotify: bool = setting(True, "Let the system announce writes (Linux); without it the file is polled.")
    trusted_proxies: tuple[str, ...] = setting(
        (), "Addresses or networks (CIDR) of proxies whose Forwarded and X-Forwarded headers are believed.", live=True
    )
    metrics_listen: tuple[str, ...] = setting(
        (), "Where to answer /metrics to anybody, host:port; administrators can ask on the main port, too."
    )
    retention_s: float = setting(86_400.0, "For how long events are kept to be resumed from.", least=1)
    retention_rows: int = setting(
        1_000_000, "How many rows of events are kept, also while no server runs; an update takes two.", least=1000
    )
    retention_bytes: int = setting(1 << 30, "About how many bytes of events are kept.", least=64 << 10)
    ready_lag_s: float = setting(10.0, "Time that events may wait in the file before /readyz says so.", least=1)
    ready_lag_rows: int = setting(100_000, "Rows of events that may wait before /readyz says so.", least=1)
    ready_free_bytes: int = setting(64 << 20, "Free space on the disk below which /readyz says so.", least=0)
    log_format: str = setting("text", "How log lines on stderr look.", choices=("text", "json"), live=True)
    log_level: str = setting(
        "info", "The least serious log line to write.", choices=("debug", "info", "warning", "error"), live=True
    )
    connections: int = setting(20_000, "Connections at a time.", least=1, most=1_000_000, live=True)
    connections_per_user: int = setting(1000, "Connections of one user at a time.", least=1, live=True)
    guest_connections: int = setting(100, "Connections without a token from one address at a time.", least=1, live=True)
    guest_requests_per_s: float = setting(
        50.0, "Requests a second of one connection without a token; by HTTP, of one address.", least=0.1, live=True
    )
    guest_request_burst: int = setting(
        200, "Requests that one connection without a token may send at once; by HTTP, one address.", least=1, live=True
    )
    subscriptions: int = setting(128, "Subscriptions of one connection.", least=1, most=100_000, live=True)
    user_topics: int = setting(1000, "Topics that one user may own.", least=0, live=True)
    requests_per_s: float = setting(
        1000.0, "Requests a second of one connection; by HTTP, of one user.", least=0.1, live=True
    )
    request_burst: int = setting(
        2000, "Requests that one connection may send at once; by HTTP, one user.", least=1, live=True
    )
    message_bytes: int = setting(
        1 << 20, "The longest frame or message from a client.", least=1024, most=64 << 20, live=True
    )
    message_fragments: int = setting(1024, "Fragments that a message may come in.", least=1, live=True)
    event_bytes: int = setting(1 << 20, "The largest row that is sent whole.", least=1024, most=1 << 20)
    unsent_bytes: int = setting(1 << 20, "Data that may wait for one slow reader.", least=64 << 10, live=True)
    unsent_total_bytes: int = setting(
        256 << 20, "Data that may wait for all readers together.", least=64 << 10, live=True
    )
    head_bytes: int = setting(16 << 10, "The largest head of an HTTP request.", least=1024, most=1 << 20, live=True)
    head_s: float = setting(10.0, "Time for a client to send a request's head.", least=0.1, live=True)
    body_bytes: int = setting(8 << 20, "The largest body of an HTTP request.", least=1024, live=True)
    handshake_s: float = setting(10.0, "Time for a handshake, of TLS and of the WebSocket.", least=0.1, live=True)
    write_s: float = setting(
        30.0, "Time in which a client must take something of what is sent to it.", least=1, live=True
    )
    query_s: float = setting(2.0, "Time for one query of the HTTP API.", least=0.1, most=60, live=True)
    ping_every_s: float = setting(25.0, "Silence after which a client is pinged.", least=1, live=True)
    pong_within_s: float = setting(10.0, "Time for it to answer.", least=1, live=True)

    def part(self, kind: type[T]) -> T:
        """Give a part of the server what it is set by: a dataclass with settings, by their names, among its fields."""
        known = {each.name for each in settings()}
        return kind(**{each.name: getattr(self, each.name) for each in fields(kind) if each.name in known})


def flag(setting: Field[Any]) -> str:
    """Give the command-line flag of a setting."""
    return "--" + setting.name.replace("_", "-")


def variable(setting: Field[Any]) -> str:
    """Give the environment variable of a setting."""
    return ENVIRONMENT_PREFIX + setting.name.upper()


def settings() -> tuple[Field[Any], ...]:
    """Give every setting, in the order of the reference."""
    return fields(Config)


def load(flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None) -> Config:
    """Put the configuration together.

    ``flags`` holds what was given on the command line, by setting name, as strings, numbers or tuples of strings.
    In the environment a list is written with commas. Raises ``BadConfiguration``, naming the setting and its source.
    """
    known = {each.name: each for each in settings()}
    found: dict[str, object] = {}
    if file is not None:
        for name, value in _read(file).items():
            if name not in known:
                raise BadConfiguration(f'{file}: there is no setting "{name}"{_nearest(name, known)}')
            found[name] = _checked(known[name], value, f'{file}: "{name}"')
    by_variable = {variable(each): each for each in known.values()}
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and name not in OTHER_VARIABLES:
            if name not in by_variable:
                raise BadConfiguration(f"there is no setting for the variable {name}{_nearest(name, by_variable)}")
            each = by_variable[name]
            found[each.name] = _checked(each, _split(each, text), name)
    for name, value in flags.items():
        found[name] = _checked(known[name], value, flag(known[name]))
    config = Config(**found)  # type: ignore[arg-type]
    _check_together(config)
    if config.secret_file is None and (credentials := environment.get("CREDENTIALS_DIRECTORY")):
        handed = Path(credentials, SECRET_CREDENTIAL)
        try:
            return replace(config, secret_file=handed) if handed.exists() else config
        except OSError as error:
            raise BadConfiguration(f"{handed} cannot be looked at ({error.strerror}); the service manager is to hand "
                                   "it to this user (LoadCredential=)") from error  # fmt: skip
    return config


def _check_together(config: Config) -> None:
    """Refuse what no single setting is wrong in. Raises ``BadConfiguration``."""
    if (config.tls_cert is None) != (config.tls_key is None):
        raise BadConfiguration("--tls-cert and --tls-key belong together: give both, or neither")
    if str(config.db) == ":memory:" or str(config.db).startswith("file:"):
        raise BadConfiguration(f'--db takes the path of a file that can be written, such as shop.db; "{config.db}" '
                               "is none, and there are no URIs")  # fmt: skip
    if not config.host:
        raise BadConfiguration("--host names no address to listen on: give one, such as 127.0.0.1, or leave it out")
    if config.token_ttl_s > config.token_lifetime_s:
        raise BadConfiguration(
            f"--token-ttl-s ({config.token_ttl_s:.0f}) is longer than --token-lifetime-s ({config.token_lifetime_s:.0f}"
            "), so that whoever signs in would be refused: lower the first, or raise the second"
        )


def _read(file: Path) -> dict[str, Any]:
    import tomllib  # most servers have no such file

    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise BadConfiguration(f"the configuration {file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfiguration(f"{file} is not TOML: {error}") from error


def _nearest(name: str, known: Mapping[str, object]) -> str:
    import difflib  # for the one start that goes wrong

    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _split(setting: Field[Any], text: str) -> object:
    if str(setting.type) == "tuple[str, ...]":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _checked(setting: Field[Any], value: object, source: str) -> object:
    """Turn a value into the setting's type. Raises ``BadConfiguration``."""
    converted = _CONVERSIONS[str(setting.type)](value)
    if converted is MISSING:
        raise BadConfiguration(f"{source} must be {_KINDS[str(setting.type)]}, not {value!r}")
    choices, least, most = (setting.metadata[key] for key in ("choices", "least", "most"))
    if choices and converted not in choices:
        raise BadConfiguration(f"{source} must be one of {', '.join(choices)}, not {value!r}")
    if isinstance(converted, (int, float)):
        if least is not None and converted < least:
            raise BadConfiguration(f"{source} must be at least {least}, not {value!r}")
        if most is not None and converted > most:
            raise BadConfiguration(f"{source} must be at most {most}, not {value!r}")
    return converted


def _integer(value: object) -> object:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return MISSING
    return value if isinstance(value, int) and not isinstance(value, bool) else MISSING


def _real(value: object) -> object:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return MISSING
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value - value != 0:
        return MISSING
    return float(value)


def _boolean(value: object) -> object:
    if isinstance(value, str):
        value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(value.lower())
    return value if isinstance(value, bool) else MISSING


def _strings(value: object) -> object:
    if not isinstance(value, (list, tuple)):
        return MISSING
    return tuple(value) if all(isinstance(each, str) and each and "\0" not in each for each in value) else MISSING


def _path(value: object) -> object:
    return Path(value) if isinstance(value, (str, Path)) and str(value) and "\0" not in str(value) else MISSING


_CONVERSIONS = {
    "int": _integer,
    "float": _real,
    "bool": _boolean,
    "str": lambda value: value if isinstance(value, str) else MISSING,
    "tuple[str, ...]": _strings,
    "Path": _path,
    "Path | None": _path,
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a string",
    "tuple[str, ...]": "a list of strings",
    "Path": "a path",
    "Path | None": "a path",
}
