"""``table``: which tables there are, and which are watched."""

from __future__ import annotations

import os
from pathlib import Path

import click

from appliance import config
from appliance.cli.options import config_option, db_option
from appliance.store import offline
from appliance.store.secrecy import Secrecy


@click.group()
def table() -> None:
    """List tables, and choose which are watched."""


@table.command("list")
@db_option
@config_option
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
    """Watch a table no more; with --all remove every trigger and _appliance_ table and restore the journal mode."""
    if everything == (name is not None):
        raise click.UsageError("name a table, or give --all")
    if everything:
        offline.release(db)
        return
    with offline.open_store(db) as store:
        offline.set_watched(store, str(name), False)
