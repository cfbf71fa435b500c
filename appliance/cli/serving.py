"""``serve``: the server itself, and what it says when it is ready."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import trio

from appliance import __version__, config, logs
from appliance.cli.options import DEFAULT_URL, OWN_TOKEN_S, F, config_option, duration, own_token
from appliance.protocol.tokens import ADMINISTRATOR
from appliance.serve import Announcement, serve
from appliance.signals import Reload


def setting_options(command: F) -> F:
    """Give a command one option for each setting."""
    for each in reversed(config.settings()):
        flag, several = config.flag(each), str(each.type) == "tuple[str, ...]"
        notes = ["|".join(each.metadata["choices"])] if each.metadata["choices"] else []
        notes += ["may be repeated"] if several else []
        notes.append(f"default: {_shown(each.default, flag)}")
        words = f"{each.metadata['help']}  [{'; '.join(notes)}]"
        if str(each.type) == "bool":
            decorate = click.option(f"{flag}/--no-{flag[2:]}", each.name, default=None, help=words)
        else:
            metavar = {"int": "N", "float": "N", "Path": "FILE", "Path | None": "FILE"}.get(str(each.type), "TEXT")
            decorate = click.option(
                flag, each.name, type=str, default=None, multiple=several, metavar=metavar, help=words
            )
        command = decorate(command)
    return command


def _shown(default: object, flag: str) -> str:
    if isinstance(default, bool):
        return flag[2:] if default else f"no-{flag[2:]}"
    if isinstance(default, tuple):
        return " ".join(default) or "none"
    if isinstance(default, float):
        return f"{default:.15g}"  # 259200, as one writes it
    return "none" if default in (None, "") else str(default)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and value != ()}


@click.command("serve")
@config_option
@setting_options
def serve_command(config_file: Path | None, **options: object) -> None:
    """Serve a SQLite file until stopped.

    One port answers /live (WebSocket), /api/<table>, /openapi.json, /healthz, /readyz and, to administrators, /metrics.
    SIGTERM stops it in order; SIGHUP reads settings, keys and the certificate again and drops only who would not be let
    in any more.

    Settings come from these flags, else from LIVE_APPLIANCE_<NAME>, else from the configuration file.
    """
    given = _given(options)

    def read() -> config.Config:
        return config.load(given, os.environ, config_file)

    settings = read()
    logs.configure(settings.log_format, settings.log_level)
    faulthandler.enable()  # the watchdog ends a stuck server by SIGABRT: say where it was stuck
    trio.run(serve, Reload(settings, read), lambda announcement: _announce(settings, announcement))


def _announce(settings: config.Config, announcement: Announcement) -> None:
    """Print what a person should know; that nobody reads it, or there is no room for it, keeps nobody from serving."""
    with contextlib.suppress(OSError):
        for line in _greeting(settings, announcement):
            click.echo(line)


def _greeting(settings: config.Config, announcement: Announcement) -> Iterator[str]:
    host, port = announcement.addresses[0]
    name = "localhost" if host in ("127.0.0.1", "::1", "0.0.0.0", "::") else host  # noqa: S104 – only compared
    url = f"{'wss' if announcement.secure else 'ws'}://{f'[{name}]' if ':' in name else name}:{port}/live"
    yield f"live-appliance {__version__} serves {settings.db}"
    yield f"  live:   {url}"
    if announcement.setup_code is not None:
        link = f"{_http(url)}/setup?code={announcement.setup_code}"
        yield f"  setup:  {link}  (makes the first administrator's account)"
    yield f"  try it: {_line_to_paste(settings, url, announcement.tables)}"
    if sys.stdout.isatty():
        ttl_s = min(OWN_TOKEN_S, settings.token_lifetime_s)
        token = own_token(announcement.secret, ADMINISTRATOR, admin=True, ttl_s=ttl_s)
        yield f"  token:  {token}  (an administrator's, for {duration(ttl_s)})"


def _http(url: str) -> str:
    """Give the HTTP address of the server whose WebSocket is at ``url``."""
    return "http" + url.removeprefix("ws").removesuffix("/live")


def _line_to_paste(settings: config.Config, url: str, tables: Sequence[str]) -> str:
    """Give a shell line that shows a change arriving, in whatever folder; where there are tables, it changes none."""
    program, file = _program(), shlex.quote(str(settings.db.absolute()))
    where = "" if url == DEFAULT_URL else f" --url {shlex.quote(url)}"
    for name, path in (("--cafile", settings.tls_cert), ("--secret-file", settings.secret_file)):
        where += f" {name} {shlex.quote(str(path.absolute()))}" if path is not None else ""
    if tables:
        return f"{program} tail {shlex.quote(tables[0])} --db {file}{where}   # then change a row of it"
    shell = "sqlite3" if shutil.which("sqlite3") else _PYTHON_SHELL
    return (
        f'{shell} {file} "CREATE TABLE hello(text)"; '
        f"(sleep 2; {shell} {file} \"INSERT INTO hello VALUES('world')\") & "
        f"{program} tail hello --db {file}{where} --wait --count 1"
    )


_PYTHON_SHELL: Final = (
    "python3 -c 'import sqlite3,sys; d=sqlite3.connect(sys.argv[1]); d.execute(sys.argv[2]); d.commit()'"
)


def _program() -> str:
    """Name this program as a shell finds it, from whatever folder."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return shlex.join([sys.executable, "-m", "appliance"])
    if "/" not in sys.argv[0]:  # the shell has found it
        return shlex.quote(called.name or "live-appliance")
    found = shutil.which("live-appliance")
    same = found is not None and Path(found).resolve() == called.resolve()
    return "live-appliance" if same else shlex.quote(str(called.absolute()))
