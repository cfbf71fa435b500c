"""``backup`` and ``restore``."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.options import db_option
from appliance.ops.backup import Copy, backup, restore


@click.command("backup")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@db_option
@click.option("--force", is_flag=True, help="Replace DEST if it is there.")
def backup_command(destination: Path, db: Path, force: bool) -> None:
    """Copy the store to the file DEST, and verify the copy.

    The copy is of one moment; the server goes on.
    """
    copy = backup(db, destination, force=force)
    click.echo(f"{copy.path}: {_words(copy)}")


@click.command("restore")
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@db_option
def restore_command(source: Path, db: Path) -> None:
    """Put a copy of the backup SRC in the place of the store.

    No server may run meanwhile. The old file is kept.
    """
    copy, kept = restore(source, db)
    click.echo(f"{copy.path}: {_words(copy)}; the next serve begins a new epoch")
    if kept is not None:
        click.echo(f"the file that was there is kept as {kept}")


def _words(copy: Copy) -> str:
    events = "not a store yet" if copy.position is None else f"up to event {copy.position}"
    unchecked = ", ".join(f"{table} ({reason})" for table, reason in copy.unchecked.items())
    verified = f"verified but for what only an application can check: {unchecked}" if unchecked else "verified"
    return f"{copy.bytes} bytes, {verified}, {events}"
