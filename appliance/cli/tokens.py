"""``token``: make, examine and revoke tokens, and change the secret that they are signed with."""

from __future__ import annotations

import os
import re
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import structlog

from appliance import config
from appliance.cli.options import config_option, db_option, duration, seconds, secret_file_option
from appliance.config import Config
from appliance.errors import CommandError, Unauthorized
from appliance.protocol import tokens
from appliance.protocol.signatures import jwt
from appliance.store import offline
from appliance.store.access import accounts, callers, keys
from appliance.store.file import schema
from appliance.wiring import external_keys

log = structlog.get_logger()

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@click.group()
def token() -> None:
    """Make, examine and revoke tokens."""


@token.command("create")
@db_option
@click.option("--user", "email", metavar="EMAIL", default=None, help="The account that the token stands for.")
@click.option("--admin", is_flag=True, help="The token of an administrator, who may do everything.")
@click.option("--subject", metavar="ID", default=None, help="Whom the token stands for (its sub), if not an account.")
@click.option("--ttl", default="72h", show_default=True, help="How long it is valid: 30m, 72h, 7d.")
@config_option
@secret_file_option
def token_create(
    db: Path,
    email: str | None,
    admin: bool,
    subject: str | None,
    ttl: str,
    config_file: Path | None,
    secret_file: Path | None,
) -> None:
    """Print a token (JWT), signed as the server signs its own."""
    if email is not None and (admin or subject is not None):
        raise click.UsageError("--user says all of it: an account's rights are those that its groups have")
    if email is None and not admin and subject is None:
        raise click.UsageError("say whom the token is for: --user EMAIL, --subject ID, or --admin for an administrator")
    if subject is not None and not 1 <= len(subject) <= tokens.SUBJECT_LIMIT:
        raise click.UsageError(f"--subject must have 1 to {tokens.SUBJECT_LIMIT} characters")
    if subject in tokens.NOBODYS or (subject == tokens.ADMINISTRATOR and not admin):
        raise click.UsageError(
            f"--subject {subject} would be taken for the server itself, or for whoever has a token by --admin"
        )
    settings = config.load({}, os.environ, config_file)
    ttl_s, token_id = seconds(ttl), str(uuid.uuid4())
    if ttl_s > settings.token_lifetime_s:
        raise click.UsageError(
            f"--ttl may be {duration(settings.token_lifetime_s)} at most, as the server takes no token for longer "
            "(token_lifetime_s; a server that is configured otherwise is named with --config)"
        )
    now = time.time()  # what ends this account's tokens from here on ends this one, too
    with offline.open_store(db) as store:
        secret = keys.for_command(store, secret_file or settings.secret_file).signing(store)
        if email is not None:
            account: accounts.Account | None = accounts.known(store, email)
        else:  # a token for the subject of an account is one of the account, and ends with it
            account = None if subject is None else accounts.account_of(store, subject)
    if account is not None and admin:
        raise click.UsageError(
            "--subject is an account's: its rights are those that its groups have, administrators one of them"
        )
    of = account.reference_id if account else subject or tokens.ADMINISTRATOR
    made = tokens.issue(
        secret,
        subject=of,
        admin=admin,
        email=account.email if account else None,
        name=account.name if account else None,
        now=now,
        ttl_s=ttl_s,
        token_id=token_id,
        not_before=account.not_before if account else 0,
    )
    log.info("token_created", subject=of, admin=admin, token_id=token_id, ttl_s=ttl_s, by=os.getuid())
    click.echo(made)


@token.command("check")
@click.argument("text", metavar="TOKEN")
@db_option
@config_option
@secret_file_option
def token_check(text: str, db: Path, config_file: Path | None, secret_file: Path | None) -> int:
    """Say whom a token stands for and until when, or what is wrong.

    - reads it from the input.
    """
    settings = config.load({}, os.environ, config_file)
    text = _text(text)
    with offline.open_made(db) as store:
        own = keys.for_command(store, secret_file or settings.secret_file).keys(store)
        keyring = tokens.Keyring((*own, *external_keys(settings)), lifetime_s=settings.token_lifetime_s)
        try:
            principal = keyring.verify(text, time.time())
        except Unauthorized as error:
            click.echo(f"refused: {error}")
            return 1
        (caller,) = callers.identify(store, [principal])
        account = accounts.account_of(store, principal.subject)
    if caller.refused:
        click.echo(f"refused: {caller.refused}")
        return 1
    until = datetime.fromtimestamp(principal.expires_at, UTC).isoformat().replace("+00:00", "Z")
    who = "an administrator" if caller.principal.admin else "a user" if account else "no account"
    click.echo(f"valid: {principal.subject} of {principal.issuer}, {who}, until {until}")
    return 0


@token.command("revoke")
@click.argument("text", metavar="TOKEN", required=False)
@click.option("--user", "email", metavar="EMAIL", default=None, help="End all tokens that this account has.")
@db_option
@config_option
def token_revoke(text: str | None, email: str | None, db: Path, config_file: Path | None) -> None:
    """End a token before its time, or all of a user.

    Open connections end before the next event. The token is given whole (- reads it from the input), or by the jti that
    the log names.
    """
    if (text is None) == (email is None):
        raise click.UsageError("give a token, its jti, or --user EMAIL")
    settings = config.load({}, os.environ, config_file)
    with offline.open_store(db) as store, schema.transaction(store):
        if email is not None:
            account = accounts.known(store, email)
            accounts.end_tokens(store, account.reference_id)
            log.info("tokens_revoked", user=account.reference_id, by=os.getuid())
        else:
            token_id, expires_at = _named(_text(str(text)), settings)
            accounts.revoke(store, token_id, expires_at)
            log.info("token_revoked", token_id=token_id, by=os.getuid())


@token.command("rotate")
@db_option
@click.option("--now", "drop", is_flag=True, help="End all tokens of the secrets before, too.")
def token_rotate(db: Path, drop: bool) -> None:
    """Sign with a new secret from now on.

    Tokens of the one before stay valid until the next rotation.
    """
    with offline.open_store(db) as store, schema.transaction(store):
        keys.rotate(store, drop=drop)
    log.info("secret_rotated", dropped=drop, by=os.getuid())


def _text(given: str) -> str:
    """Take a token from the command line or, which no process list shows, from the input."""
    return sys.stdin.readline().strip() if given == "-" else given.strip()


def _named(text: str, settings: Config) -> tuple[str, float]:
    """Give the jti of a token and when it ends; of a jti alone that is not known, nor which settings its server has.

    Raises ``CommandError``.
    """
    if text.count(".") != 2:
        # Ours are UUIDs. What is neither that nor another issuer's is a slip, and the token would be thought dead.
        if not settings.jwt_keys and not _UUID.fullmatch(text):
            # What has a character too many may be a token all the same, and is not said.
            raise CommandError("this is no token: give a token whole, or the jti that the log names")
        return text, tokens.LAST
    try:
        # Whoever revokes a token has it; whether it is a good one does not matter.
        claims = jwt.decode(text, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        raise CommandError("this is neither a token nor the jti of one") from error
    token_id, expires_at = claims.get("jti"), claims.get("exp")
    if not isinstance(token_id, str) or not token_id:
        raise CommandError("this token has no jti, so it cannot be told from others; rotate the secret or end all of "
                           "the user's tokens with --user")  # fmt: skip
    # Not by the settings: a server that has others, or will, may take it for as long as it says.
    if isinstance(expires_at, (int, float)) and 0 <= expires_at < tokens.LAST:
        return token_id, float(expires_at)
    return token_id, tokens.LAST
