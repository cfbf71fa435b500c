"""What several commands share: options, the token a command makes for itself, and how durations are read."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from appliance.protocol import tokens

F = TypeVar("F", bound=Callable[..., Any])

#: Where a server is found unless it was told otherwise.
DEFAULT_URL: Final = "ws://localhost:6336/live"
#: Tokens that commands make for themselves live so long, seconds.
OWN_TOKEN_S: Final = 3600.0
#: A longer number is no duration.
_DIGITS: Final = 12
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def config_option(command: F) -> F:
    """Give a command the option ``--config``."""
    return click.option(
        "--config", "config_file", type=click.Path(path_type=Path), envvar="LIVE_APPLIANCE_CONFIG",
        show_envvar=True, help="TOML file with settings.",
    )(command)  # fmt: skip


def db_option(command: F) -> F:
    """Give a command the option ``--db``, which it needs."""
    return click.option(
        "--db", type=click.Path(path_type=Path), envvar="LIVE_APPLIANCE_DB", show_envvar=True,
        required=True, help="The SQLite file.",
    )(command)  # fmt: skip


def secret_file_option(command: F) -> F:
    """Give a command the option ``--secret-file``."""
    return click.option(
        "--secret-file", type=click.Path(path_type=Path), default=None, envvar="LIVE_APPLIANCE_SECRET_FILE",
        show_envvar=True, help="The secret that tokens are signed with, where the server has it from a file.",
    )(command)  # fmt: skip


def own_token(secret: str, subject: str, *, admin: bool, ttl_s: float) -> str:
    """Sign a token with the store's own secret, valid from now on."""
    return tokens.issue(secret, subject=subject, admin=admin, now=time.time(), ttl_s=ttl_s, token_id=str(uuid.uuid4()))


def seconds(text: str) -> int:
    """Read a duration such as ``72h``. Raises ``click.UsageError``."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdecimal()) or not 0 < len(number) <= _DIGITS:
        raise click.UsageError(f"--ttl must be a number with s, m, h or d, such as 72h, not {text!r}")
    if int(number) == 0:
        raise click.UsageError("--ttl must be longer than nothing")
    return int(number) * _UNITS[unit]


def duration(seconds: float) -> str:
    """Write a duration as ``seconds`` reads it, with the largest unit in which it is a whole number."""
    whole = int(seconds)
    unit = next(unit for unit in reversed(_UNITS) if whole % _UNITS[unit] == 0)
    return f"{whole // _UNITS[unit]}{unit}"
