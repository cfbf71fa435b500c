"""``check`` and ``version``: the store and the program themselves."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import click

from appliance import __version__, config
from appliance.cli.options import config_option, db_option
from appliance.errors import BadConfiguration
from appliance.ops import check, machine
from appliance.ops.build import commit
from appliance.store import offline
from appliance.store.tables.secrecy import Secrecy


@click.command("check")
@db_option
@config_option
@click.option("--socket", is_flag=True, help="A socket unit opens the port: do not examine it.")
def check_command(db: Path, config_file: Path | None, socket: bool) -> int:
    """Examine a store and the machine, and say what to do.

    Changes nothing. Status 1: a problem; 78: a server would not begin; 0: warnings at most.
    """
    from appliance import wiring  # most of a server, which version does not need

    settings = config.load({}, os.environ, config_file)
    findings = check.examine(db, Secrecy(settings.secret_columns, settings.reveal))
    findings += [check.Finding("unusable", words) for words in wiring.refusals(settings)]
    addresses = [] if socket else [(host, settings.port) for host in settings.host]
    with contextlib.suppress(BadConfiguration):  # said above
        addresses += wiring.metrics_addresses(settings)
    setup = machine.Setup(
        database=db,
        addresses=addresses,
        chain=settings.tls_cert,
        key=settings.tls_key,
        secret=settings.secret_file,
        connections=settings.connections,
        inotify=settings.inotify,
        served=_is_served(db),
    )
    findings += machine.examine(setup)
    for finding in findings:
        click.echo(f"{finding.grade}: {finding.words}")
    return max((finding.exit_status for finding in findings), default=0)


def _is_served(db: Path) -> bool:
    try:
        return db.exists() and offline.is_served(db)
    except OSError:  # it cannot be looked at, which was said
        return False


@click.command("version")
def version_command() -> None:
    """Print the versions of this, Python and SQLite, and the commit."""
    python = ".".join(map(str, sys.version_info[:3]))
    origin = f"commit {commit()}" if commit() else "from source"
    click.echo(f"live-appliance {__version__} (Python {python}, SQLite {sqlite3.sqlite_version}, {origin})")
