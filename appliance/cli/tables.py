"""``table``: which tables there are, which are watched, and who may what with them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click
import structlog

from appliance import config
from appliance.cli.options import config_option, db_option
from appliance.cli.users import changing
from appliance.model import ascii_fold, quote_identifier
from appliance.protocol import permissions
from appliance.store import offline
from appliance.store.access import accounts, granting, grants
from appliance.store.tables import making, standard
from appliance.store.tables.secrecy import Secrecy

log = structlog.get_logger()


@click.group()
def table() -> None:
    """List and make tables, choose which are watched, grant and revoke."""


@table.command("list")
@db_option
@config_option
def table_list(db: Path, config_file: Path | None) -> None:
    """List the tables, what is not captured of them, and who may what."""
    settings = config.load({}, os.environ, config_file)
    with offline.open_store(db, make=False) as store:
        found = offline.tables(store, Secrecy(settings.secret_columns, settings.reveal))
        granted = {name: granting.words(store, each) for name, each in grants.read(store).items()}
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
        for line in granted[ascii_fold(each.name)]:
            click.echo(f"  may: {line}")
        for warning in each.warnings:
            click.echo(f"  warning: {warning}")


@table.command("create")
@click.argument("name")
@click.argument("columns", nargs=-1, metavar="COLUMN:TYPE…")
@db_option
@click.option("--permission", type=click.IntRange(0, permissions.MOST), default=permissions.ROW_DEFAULT,
              show_default=True, help="What a new row permits, as the sum of its bits.")  # fmt: skip
@click.option("--owner", metavar="EMAIL", default=None, help="Whose table it is.")
def table_create(name: str, columns: tuple[str, ...], db: Path, permission: int, owner: str | None) -> None:
    """Make a standard table: its rows have owners and permissions.

    They have a reference_id, too, and may be joined to groups. A column is NAME:TYPE, with :required or :unique after
    it if it is to be; the type of a reference is the name of the standard table that it refers to.
    """
    made = granting.columns(columns)
    with changing(db) as store:
        owned_by = None if owner is None else accounts.known(store, owner).reference_id
        making.create(store, name, made, permission=permission, owner=owned_by)
        offline.capture(store)
    click.echo(
        f"{name} is made. By HTTP only administrators add rows to it, unless you let others: "
        f"live-appliance table grant {name} --to users --can create --db {shlex.quote(str(db))}\n"
        "A row that is inserted by SQL has no owner: only administrators see it until its "
        f"user_account_id, its permission or a row in {standard.join_table(name)} lets others"
    )


def _verbs(_: click.Context, __: click.Parameter, value: str) -> int:
    return granting.verbs(value.replace(" ", "").split(","))


_can = f"Of {', '.join(granting.VERBS)}; several with commas."


@table.command("grant")
@click.argument("name")
@db_option
@config_option
@click.option("--to", required=True, metavar="WHOM", help="guests (everybody), users, another group, or owner.")
@click.option("--can", "bits", required=True, metavar="WHAT", callback=_verbs, help=_can)
@click.option(
    "--owner-column", metavar="COLUMN", default=None, help="A plain table's column with the reference_id of the owner."
)
def table_grant(name: str, db: Path, config_file: Path | None, to: str, bits: int, owner_column: str | None) -> None:
    """Let guests, a group or a row's owner do something with a table.

    Prints who may what then.
    """
    settings = config.load({}, os.environ, config_file)
    if owner_column is not None and Secrecy(settings.secret_columns, settings.reveal)(name, owner_column):
        raise click.UsageError(
            f"{owner_column} is a secret column, which is never captured: it cannot say who sees a row"
        )
    with changing(db) as store:
        granting.grant(store, name, to, bits, owner_column=owner_column)
        said = granting.words(store, grants.read(store)[ascii_fold(name)])
    log.info("granted", table=name, to=to, bits=bits, owner_column=owner_column, by=os.getuid())
    click.echo("\n".join(said))


@table.command("revoke")
@click.argument("name")
@db_option
@click.option("--from", "of", required=True, metavar="WHOM", help="guests (everybody), users, another group, or owner.")
@click.option("--can", "bits", default="all", show_default=True, metavar="WHAT", callback=_verbs, help=_can)
def table_revoke(name: str, db: Path, of: str, bits: int) -> None:
    """Take back what was granted, before the next event.

    Prints who may what then.
    """
    with changing(db) as store:
        granting.revoke(store, name, of, bits)
        said = granting.words(store, grants.read(store)[ascii_fold(name)])
    log.info("revoked", table=name, of=of, bits=bits, by=os.getuid())
    click.echo("\n".join(said))


@table.command("watch")
@click.argument("name")
@db_option
def table_watch(name: str, db: Path) -> None:
    """Watch a table again that was taken off the watch."""
    with offline.open_store(db) as store:
        offline.set_watched(store, name, True)


@table.command("unwatch")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Take everything of live-appliance out of the file.")
@db_option
def table_unwatch(name: str | None, everything: bool, db: Path) -> None:
    """Watch a table no more; with --all, remove all of ours.

    --all takes every trigger and _appliance_ table out of the file, and restores the journal mode. It says which tables
    stay, and how to drop them.
    """
    if everything == (name is not None):
        raise click.UsageError("name a table, or give --all")
    if everything:
        if left := offline.release(db):
            drop = "; ".join(f"DROP TABLE {quote_identifier(each)}" for each in left)
            click.echo(
                "accounts, groups and who may what stay in the file, as something was put there. To drop them, too:\n"
                f"  sqlite3 {shlex.quote(str(db))} {shlex.quote(drop)}"
            )
        return
    with offline.open_store(db) as store:
        offline.set_watched(store, str(name), False)
