"""``user`` and ``group``: who there is, and who belongs to what."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import structlog

from appliance.cli.options import db_option
from appliance.cli.output import tell
from appliance.errors import CommandError
from appliance.store import offline
from appliance.store.access import accounts, passwords
from appliance.store.file import schema
from appliance.store.tables import standard

log = structlog.get_logger()


@contextmanager
def changing(db: Path) -> Iterator[sqlite3.Connection]:
    """Open a store with system tables, in a transaction; if that takes the last administrator away, say so."""
    with offline.open_store(db) as store:
        standard.prepare(store)
        with schema.transaction(store):
            had = accounts.has_administrator(store)
            yield store
            gone = had and not accounts.has_administrator(store)
            if gone:  # a link that was printed before there was one is not to be good again
                accounts.end_setup(store)
    if gone:
        tell("no administrator is left; make one with `user add --admin`, or with the link that the next serve prints")


def _new_hash(from_stdin: bool) -> str:
    """Get a new password, the first line of the input or what a person types twice, and give its hash."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        raise click.UsageError("there is nobody to ask for the password: write it to the input, with --password-stdin")
    return passwords.hash_password(password)


_password_option = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="Read the password from the input instead of asking."
)


@click.group()
def user() -> None:
    """Make, list and remove accounts."""


@user.command("add")
@click.argument("email")
@db_option
@click.option("--name", default="", help="What the user is called; else what stands before the @.")
@click.option("--admin", is_flag=True, help="Make it an administrator.")
@_password_option
def user_add(email: str, db: Path, name: str, admin: bool, from_stdin: bool) -> None:
    """Make an account and print its reference_id."""
    hashed = _new_hash(from_stdin)
    with changing(db) as store:
        made = accounts.add(store, email, hashed, name=name, admin=admin, confirmed=True)
    log.info("user_added", user=made.reference_id, admin=admin, by=os.getuid())
    click.echo(made.reference_id)


@user.command("list")
@db_option
def user_list(db: Path) -> None:
    """List the accounts with their reference_ids and groups."""
    with offline.open_store(db, make=False) as store:
        found = accounts.accounts(store) if standard.is_prepared(store) else []
    for each, groups in found:
        click.echo(f"{each.email}  {each.reference_id}  {', '.join(groups)}")


@user.command("remove")
@click.argument("email")
@db_option
def user_remove(email: str, db: Path) -> None:
    """Delete an account; its open connections end. What it owns stays."""
    with changing(db) as store:
        gone = accounts.remove(store, email)
    log.info("user_removed", user=gone.reference_id, by=os.getuid())


@user.command("password")
@click.argument("email")
@db_option
@_password_option
def user_password(email: str, db: Path, from_stdin: bool) -> None:
    """Give an account another password; all its tokens end."""
    hashed = _new_hash(from_stdin)
    with changing(db) as store:
        changed = accounts.set_password(store, email, hashed)
    log.info("password_changed", user=changed.reference_id, by=os.getuid())


@click.group()
def group() -> None:
    """Make groups, and put users into them."""


@group.command("add")
@click.argument("name")
@db_option
def group_add(name: str, db: Path) -> None:
    """Make a group and print its reference_id."""
    with changing(db) as store:
        made = accounts.add_group(store, name)
    log.info("group_added", group=made, by=os.getuid())
    click.echo(made)


@group.command("list")
@db_option
def group_list(db: Path) -> None:
    """List the groups with the number of their members."""
    with offline.open_store(db, make=False) as store:
        found = accounts.groups(store) if standard.is_prepared(store) else []
    for name, members in found:
        click.echo(f"{name}  {members}")


@group.command("remove")
@click.argument("name")
@db_option
def group_remove(name: str, db: Path) -> None:
    """Delete a group, its memberships, and what was granted to it."""
    with changing(db) as store:
        gone = accounts.group_named(store, name)
        accounts.remove_group(store, name)
    log.info("group_removed", group=gone, by=os.getuid())


@group.command("join")
@click.argument("name")
@click.argument("email")
@db_option
def group_join(name: str, email: str, db: Path) -> None:
    """Put a user into a group; `administrators` has all rights."""
    with changing(db) as store:
        into, member = accounts.group_named(store, name), accounts.known(store, email)
        accounts.join(store, member.reference_id, into)
    log.info("group_joined", group=into, user=member.reference_id, by=os.getuid())


@group.command("leave")
@click.argument("name")
@click.argument("email")
@db_option
def group_leave(name: str, email: str, db: Path) -> None:
    """Take a user out of a group, with effect before the next event."""
    with changing(db) as store:
        out_of, member = accounts.group_named(store, name), accounts.known(store, email)
        if not accounts.leave(store, member.reference_id, out_of):
            raise CommandError(f"{email} is not in {name}; `live-appliance user list` says who is")
    log.info("group_left", group=out_of, user=member.reference_id, by=os.getuid())
