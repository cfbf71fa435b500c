"""``tail`` and ``publish``: clients of a running server."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
import trio

from appliance import client
from appliance.cli.options import DEFAULT_URL, OWN_TOKEN_S, F, own_token, secret_file_option
from appliance.cli.output import Unprinted, tell
from appliance.errors import ApplianceError, CommandError, first_of
from appliance.model import Position
from appliance.protocol import json as strict_json
from appliance.protocol.tokens import ADMINISTRATOR
from appliance.store import offline
from appliance.store.access import keys

#: A position has no more.
_DIGITS: Final = 19
#: The exit status after a signal is its number and this.
SIGNALLED: Final = 128


def _url(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        parts = urlsplit(value)
        if parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0:
            return value
    except ValueError:  # the brackets of an IPv6 address, or the port
        pass
    raise click.BadParameter(f"it takes ws://HOST:PORT/live, or wss:// for TLS, not {value!r}")


def _trust(_: click.Context, __: click.Parameter, file: str | None) -> ssl.SSLContext | None:
    if file is None:
        return None
    try:
        trust = ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        raise click.BadParameter(f"{file} is no certificate in PEM") from None
    except OSError as error:
        raise click.BadParameter(f"{file} cannot be read: {error.strerror}") from None
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may be the server's own, without its root
    return trust


def client_options(command: F) -> F:
    """Give a command the options that every client has: where the server is, and the token."""
    for decorate in (
        secret_file_option,
        click.option(
            "--cafile", "trust", default=None, metavar="FILE", callback=_trust,
            help="Trust this certificate (PEM) for wss.",
        ),
        click.option(
            "--db", type=click.Path(path_type=Path), default=None, envvar="LIVE_APPLIANCE_DB",
            help="Make the token with the secret of this store.",
        ),
        click.option(
            "--token", default=None, envvar="LIVE_APPLIANCE_TOKEN", metavar="JWT",
            help="The token; better in LIVE_APPLIANCE_TOKEN, which no process list shows.",
        ),
        click.option(
            "--url", default=DEFAULT_URL, show_default=True, envvar="LIVE_APPLIANCE_URL", callback=_url
        ),
    ):  # fmt: skip
        command = decorate(command)
    return command


def client_token(given: str | None, db: Path | None, secret_file: Path | None) -> Callable[[], str]:
    """Give what gives the token for each connection, and raises ``CommandError`` where the store has none.

    Raises ``click.UsageError`` where none was given, and no store, or what can be none: two of them, or the log's line.
    """
    if given and given.strip():
        found = given.strip()
        if not found.isascii() or not found.isprintable() or " " in found:
            raise click.UsageError("the token is none: there is white space in it, or what no token has")
        return lambda: found
    if db is None:
        raise click.UsageError("give a token (LIVE_APPLIANCE_TOKEN or --token), or the store with --db FILE")

    def make() -> str:
        with offline.open_made(db) as store:
            secret = keys.for_command(store, secret_file).signing(store)
            return own_token(secret, ADMINISTRATOR, admin=True, ttl_s=OWN_TOKEN_S)

    return make


@click.command("tail")
@click.argument("topic_name", metavar="TOPIC")
@click.option(
    "--filter", "filters", multiple=True, metavar="K=V", help="EventType or a column, and its value; or JSON."
)
@click.option("--since", default=None, metavar="EPOCH.ID", help="Go on from this position, as Ctrl-C prints it.")
@click.option("--snapshot", is_flag=True, help="First the rows that are there, then their changes.")
@click.option("--old", is_flag=True, help="With each update the former values of what it changed.")
@click.option("--count", type=click.IntRange(min=1), default=None, help="Stop after so many events.")
@click.option("--wait", is_flag=True, help="Wait for the topic if it is not there yet.")
@client_options
@click.pass_context
def tail_command(
    context: click.Context, topic_name: str, filters: tuple[str, ...], since: str | None, snapshot: bool, old: bool,
    count: int | None, wait: bool, url: str, token: str | None, db: Path | None, trust: ssl.SSLContext | None,
    secret_file: Path | None,
) -> None:  # fmt: skip
    """Print a topic's events as they come, one JSON text a line.

    Connects again by itself and goes on where it was. Ctrl-C says where to go on from, and so does SIGTERM.
    """
    wish = client.Wish(topic_name, _filters(filters), _position(since), snapshot, old)
    key = client_token(token, db, secret_file)
    tail = client.Tail(url, key, wish, _print_line, tell, trust=trust, renews=not token)

    async def run() -> int:
        """Run until there is enough; give the signal that came before, or 0."""
        came = 0
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:

                async def enough() -> None:
                    await tail.run(count=count, wait=wait)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(enough)
                async for number in signals:
                    came = number
                    nursery.cancel_scope.cancel()
        return came

    try:
        came = trio.run(run)
    except* CommandError as group:
        # Who comes back does not want to have missed anything. How far it was read where nobody reads any more, nobody
        # knows.
        if str(first_of(group)) and tail.position != wish.since:
            _note_position(tail)
        raise
    if came:
        _note_position(tail)
        context.exit(SIGNALLED + came)


def _note_position(tail: client.Tail) -> None:
    if tail.position is not None:
        tell(f"to go on from here: --since {tail.position.epoch}.{tail.position.id}")


def _position(given: str | None) -> Position | None:
    if given is None:
        return None
    epoch, dot, number = given.rpartition(".")
    if not dot or not epoch or not (number.isascii() and number.isdecimal() and len(number) <= _DIGITS):
        raise click.UsageError(f"--since takes EPOCH.ID, as Ctrl-C prints it, not {given!r}")
    return Position(epoch, int(number))


def _print_line(text: str) -> None:
    """Print a line and be sure that it is out. Raises ``Unprinted``."""
    try:
        click.echo(text.encode())  # which flushes; JSON is UTF-8, whatever the locale
    except OSError as error:
        raise Unprinted(error) from None


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


@click.command("publish")
@click.argument("topic_name", metavar="TOPIC")
@click.argument("message", metavar="JSON")
@client_options
def publish_command(
    topic_name: str, message: str, url: str, token: str | None, db: Path | None, trust: ssl.SSLContext | None,
    secret_file: Path | None,
) -> None:  # fmt: skip
    """Send a message to a user topic, and print its EventId.

    It is committed then.
    """
    body = _json(message, "the message")
    key = client_token(token, db, secret_file)()

    async def run() -> dict[str, Any]:
        return await client.publish(url, key, topic_name, body, trust)

    click.echo(json.dumps(trio.run(run)["EventId"]))


def _json(text: str, what: str) -> object:
    try:
        return strict_json.decode(text)
    except ApplianceError as error:
        raise click.UsageError(f"{what} is not JSON: {error}; quote strings: '\"text\"'") from error
