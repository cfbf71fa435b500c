"""``token``: make tokens."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.options import ADMINISTRATOR, db_option, own_token, seconds
from appliance.store import offline, schema


@click.group()
def token() -> None:
    """Make tokens."""


@token.command("create")
@db_option
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
    click.echo(own_token(secret, subject or ADMINISTRATOR, admin=admin, ttl_s=seconds(ttl)))
