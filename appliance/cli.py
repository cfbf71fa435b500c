"""The command line: every command, its options, and the exit status of whatever goes wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import trio

from appliance import __version__, client, config, logs
from appliance.errors import ApplianceError, CommandError, first_of
from appliance.live import access
from appliance.model import Topic
from appliance.ops.check import examine
from appliance.protocol import json as strict_json
from appliance.protocol import requests, tokens
from appliance.serve import Announcement, serve
from appliance.store import offline, schema, topics
from appliance.store.secrecy import Secrecy

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_URL: Final = "ws://localhost:6336/live"
#: Tokens that commands make for themselves live so long, seconds.
OWN_TOKEN_S: Final = 3600.0
#: Who acts when an administrator works with the file itself.
ADMINISTRATOR: Final = "administrator"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main() -> None:
    """Run the command line and exit."""
    try:
        status = commands.main(standalone_mode=False, prog_name="live-appliance")
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        help_for = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "live-appliance"
        click.echo(f"live-appliance: {error.format_message()} (see {help_for} --help)", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ApplianceError as error:
        sys.exit(_complain(error))
    except BaseExceptionGroup as group:
        own, rest = group.split(ApplianceError)
        if own is None or rest is not None:
            raise
        sys.exit(_complain(first_of(own)))


def _complain(error: BaseException) -> int:
    click.echo(f"live-appliance: {error}", err=True)
    return error.exit_status if isinstance(error, CommandError) else 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def commands() -> None:
    """Turn a SQLite file into a realtime backend.

    Every committed change of every table reaches WebSocket subscribers, whoever wrote it.
    """


# -- serve -----------------------------------------------------------------------------------------------


def _config_option(command: F) -> F:
    return click.option(
        "--config", "config_file", type=click.Path(path_type=Path), envvar="LIVE_APPLIANCE_CONFIG",
        help="TOML file with settings.",
    )(command)  # fmt: skip


def _setting_options(command: F) -> F:
    for each in reversed(config.settings()):
        words = f"{each.metadata['help']}  [default: {_shown(each.default)}]"
        if each.metadata["choices"]:
            words = f"{each.metadata['help']}  [{'|'.join(each.metadata['choices'])}; default: {each.default}]"
        if str(each.type) == "bool":
            flag = config.flag(each)
            decorate = click.option(f"{flag}/--no-{flag[2:]}", each.name, default=None, help=words)
        else:
            several = str(each.type) == "tuple[str, ...]"
            metavar = {"int": "N", "float": "N", "Path": "FILE", "Path | None": "FILE"}.get(str(each.type), "TEXT")
            decorate = click.option(
                config.flag(each), each.name, type=str, default=None, multiple=several, metavar=metavar, help=words
            )
        command = decorate(command)
    return command


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return " ".join(default) or "none"
    return "none" if default is None else str(default)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and value != ()}


@commands.command("serve")
@_config_option
@_setting_options
def serve_command(config_file: Path | None, **options: object) -> None:
    """Serve a SQLite file until stopped.

    Settings come from these flags, else from LIVE_APPLIANCE_<NAME>, else from the configuration file.
    """
    settings = config.load(_given(options), os.environ, config_file)
    logs.configure(settings.log_format, settings.log_level)
    trio.run(serve, settings, lambda announcement: _announce(settings, announcement))


def _announce(settings: config.Config, announcement: Announcement) -> None:
    host, port = announcement.addresses[0]
    name = "localhost" if host in ("127.0.0.1", "::1", "0.0.0.0", "::") else host  # noqa: S104 – only compared
    url = f"{'wss' if announcement.secure else 'ws'}://{f'[{name}]' if ':' in name else name}:{port}/live"
    click.echo(f"live-appliance {__version__} serves {settings.db}")
    click.echo(f"  live:   {url}")
    click.echo(f"  try it: {_line_to_paste(settings.db, url, announcement.tables)}")
    if sys.stdout.isatty():
        token = _token(announcement.secret, ADMINISTRATOR, admin=True, ttl_s=OWN_TOKEN_S)
        click.echo(f"  token:  {token}  (an administrator's, for one hour)")
    sys.stdout.flush()


def _line_to_paste(db: Path, url: str, tables: list[str] | tuple[str, ...] | Any) -> str:
    """Give a shell line that shows a change arriving; where there are tables already, it changes none of them."""
    program, file = shlex.quote(_program()), shlex.quote(str(db))
    where = "" if url == DEFAULT_URL else f" --url {shlex.quote(url)}"
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
    """Name this program as it was called, so that a line can be pasted."""
    called = sys.argv[0]
    return "live-appliance" if shutil.which("live-appliance") or not called else called


# -- tokens ----------------------------------------------------------------------------------------------


def _db_option(command: F) -> F:
    return click.option(
        "--db", type=click.Path(path_type=Path), envvar="LIVE_APPLIANCE_DB", required=True, help="The SQLite file.",
    )(command)  # fmt: skip


@commands.group()
def token() -> None:
    """Make tokens."""


@token.command("create")
@_db_option
@click.option("--admin", is_flag=True, help="The token of an administrator, who may do everything.")
@click.option("--subject", metavar="ID", default=None, help="Whom the token stands for (its sub).")
@click.option("--ttl", default="72h", show_default=True, help="How long it is valid: 30m, 72h, 7d.")
def token_create(db: Path, admin: bool, subject: str | None, ttl: str) -> None:
    """Print a token (JWT) signed with the store's own secret, and nothing else."""
    if not admin and subject is None:
        raise click.UsageError("say whom the token is for: --subject ID, or --admin for an administrator")
    if subject is not None and not 1 <= len(subject) <= 128:
        raise click.UsageError("--subject must have 1 to 128 characters")
    with offline.open_store(db) as store:
        secret = str(schema.get(store, "secret"))
    click.echo(_token(secret, subject or ADMINISTRATOR, admin=admin, ttl_s=_seconds(ttl)))


def _token(secret: str, subject: str, *, admin: bool, ttl_s: float) -> str:
    return tokens.issue(secret, subject=subject, admin=admin, now=time.time(), ttl_s=ttl_s, token_id=str(uuid.uuid4()))


def _seconds(text: str) -> float:
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not (number.isascii() and number.isdecimal()) or int(number) == 0:
        raise click.UsageError(f"--ttl must be a number with s, m, h or d, such as 72h, not {text!r}")
    return float(int(number) * _UNITS[unit])


# -- tables ----------------------------------------------------------------------------------------------


@commands.group()
def table() -> None:
    """List tables, and choose which are watched."""


@table.command("list")
@_db_option
@_config_option
def table_list(db: Path, config_file: Path | None) -> None:
    """List the tables, whether they are watched, and what is not captured of them."""
    settings = config.load({}, os.environ, config_file)
    with offline.open_store(db) as store:
        found = offline.tables(store, Secrecy(settings.secret_columns, settings.reveal))
    for each in found:
        state = (
            "watched"
            if each.watched and each.captured
            else "watched from the next serve"
            if each.watched
            else "not watched"
        )
        key = f"key {', '.join(each.key)}" if each.key else "no key"
        secret = f"; never captured: {', '.join(each.secret)}" if each.secret else ""
        click.echo(f"{each.name}: {state}; {key}{secret}")
        for warning in each.warnings:
            click.echo(f"  warning: {warning}")


@table.command("watch")
@click.argument("name")
@_db_option
def table_watch(name: str, db: Path) -> None:
    """Watch a table again that was taken off the watch."""
    with offline.open_store(db) as store:
        offline.set_watched(store, name, True)


@table.command("unwatch")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Take everything of live-appliance out of the file.")
@_db_option
def table_unwatch(name: str | None, everything: bool, db: Path) -> None:
    """Watch a table no more; with --all remove every trigger and _appliance_ table and restore the journal mode."""
    if everything == (name is not None):
        raise click.UsageError("name a table, or give --all")
    if everything:
        offline.release(db)
        return
    with offline.open_store(db) as store:
        offline.set_watched(store, str(name), False)


# -- topics ----------------------------------------------------------------------------------------------


@commands.group()
def topic() -> None:
    """List, create and destroy user topics."""


@topic.command("list")
@_db_option
def topic_list(db: Path) -> None:
    """List the user topics."""
    with offline.open_store(db) as store:
        for each in topics.topics(store):
            click.echo(each.name if each.durable else f"{each.name} (not durable)")


@topic.command("create")
@click.argument("name")
@_db_option
@click.option("--durable/--no-durable", default=True, show_default=True, help="Keep its messages in the store.")
def topic_create(name: str, db: Path, durable: bool) -> None:
    """Create a user topic."""
    checked = requests.topic_name(name)
    with offline.open_store(db) as store, schema.transaction(store):
        topics.create(store, Topic(checked, durable, access.TOPIC_PERMISSION, ADMINISTRATOR))


@topic.command("destroy")
@click.argument("name")
@_db_option
def topic_destroy(name: str, db: Path) -> None:
    """Destroy a user topic; its subscribers are told."""
    with offline.open_store(db) as store, schema.transaction(store):
        topics.destroy(store, name)


# -- clients ---------------------------------------------------------------------------------------------


def _client_options(command: F) -> F:
    for decorate in (
        click.option("--cafile", default=None, metavar="FILE", help="Trust this certificate (PEM) for wss."),
        click.option(
            "--db", type=click.Path(path_type=Path), default=None, envvar="LIVE_APPLIANCE_DB",
            help="Make the token with the secret of this store.",
        ),
        click.option(
            "--token", default=None, envvar="LIVE_APPLIANCE_TOKEN", metavar="JWT",
            help="The token; better in LIVE_APPLIANCE_TOKEN, which no process list shows.",
        ),
        click.option("--url", default=DEFAULT_URL, show_default=True, envvar="LIVE_APPLIANCE_URL"),
    ):  # fmt: skip
        command = decorate(command)
    return command


def _client_token(given: str | None, db: Path | None) -> str:
    if given:
        return given.strip()
    if db is None:
        raise click.UsageError("give a token (LIVE_APPLIANCE_TOKEN or --token), or the store with --db FILE")
    with offline.open_store(db) as store:
        return _token(str(schema.get(store, "secret")), ADMINISTRATOR, admin=True, ttl_s=OWN_TOKEN_S)


@commands.command("tail")
@click.argument("topic_name", metavar="TOPIC")
@click.option(
    "--filter", "filters", multiple=True, metavar="K=V", help="EventType or a column, and its value; or JSON."
)
@click.option("--count", type=click.IntRange(min=1), default=None, help="Stop after so many events.")
@click.option("--wait", is_flag=True, help="Wait for the topic if it is not there yet.")
@_client_options
def tail_command(
    topic_name: str, filters: tuple[str, ...], count: int | None, wait: bool, url: str, token: str | None,
    db: Path | None, cafile: str | None,
) -> None:  # fmt: skip
    """Print a topic's events as they come, one JSON text a line."""
    wanted = _filters(filters)
    key = _client_token(token, db)

    async def run() -> None:
        await client.tail(url, key, topic_name, wanted, _print_line, count=count, wait=wait, cafile=cafile)

    trio.run(run)


def _print_line(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()


def _filters(given: tuple[str, ...]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--filter takes column=value, not {each!r}")
        if name in wanted:
            raise click.UsageError(f'--filter {name} stands twice; several values are a list: {name}=["a","b"]')
        wanted[name] = _json(value, "--filter") if value.startswith(("{", "[")) else value
    return wanted


@commands.command("publish")
@click.argument("topic_name", metavar="TOPIC")
@click.argument("message", metavar="JSON")
@_client_options
def publish_command(
    topic_name: str, message: str, url: str, token: str | None, db: Path | None, cafile: str | None
) -> None:
    """Send a message to a user topic and print its EventId, once it is committed."""
    body = _json(message, "the message")
    key = _client_token(token, db)

    async def run() -> dict[str, Any]:
        return await client.publish(url, key, topic_name, body, cafile)

    click.echo(json.dumps(trio.run(run)["EventId"]))


def _json(text: str, what: str) -> object:
    try:
        return strict_json.decode(text)
    except ApplianceError as error:
        raise click.UsageError(f"{what} is not JSON: {error}; quote strings: '\"text\"'") from error


# -- the program itself ----------------------------------------------------------------------------------


@commands.command("check")
@_db_option
@_config_option
def check_command(db: Path, config_file: Path | None) -> int:
    """Examine a store and say what is wrong with it and what to do; changes nothing."""
    settings = config.load({}, os.environ, config_file)
    findings = examine(db, Secrecy(settings.secret_columns, settings.reveal))
    for finding in findings:
        click.echo(f"{finding.grade}: {finding.words}")
    return max((finding.exit_status for finding in findings), default=0)


@commands.command("version")
def version_command() -> None:
    """Print the versions of this program, of Python and of SQLite."""
    python = ".".join(map(str, sys.version_info[:3]))
    click.echo(f"live-appliance {__version__} (Python {python}, SQLite {sqlite3.sqlite_version})")


if __name__ == "__main__":
    main()
