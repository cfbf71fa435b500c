"""``history``: what has happened to a row."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from appliance.cli.options import db_option
from appliance.errors import ApplianceError
from appliance.model import JSON
from appliance.protocol import frames
from appliance.protocol import json as strict_json
from appliance.protocol.frames import Form
from appliance.protocol.values import ValueOptions
from appliance.store import offline
from appliance.store.file import texts
from appliance.store.outbox import history as rows
from appliance.store.outbox import retention
from appliance.store.outbox.retention import Kept


@click.command("history", context_settings={"ignore_unknown_options": True})
@click.argument("table")
@click.argument("key")
@db_option
def history_command(table: str, key: str, db: Path) -> None:
    """Print what has happened to a row, one JSON text a line.

    It goes as far back as events are kept. KEY is the primary key's value, or a JSON list of the values of several
    columns. An update says what the columns that changed were before.
    """
    with offline.open_made(db) as store:
        store.text_factory = texts.text
        kept = retention.kept(store)
        options = ValueOptions()
        for change in rows.history(store, table, _key(key)):
            click.echo(frames.change(change, options, Form(change.op, old_data=True)))
    click.echo(_beginning(kept), err=True)


def _key(text: str) -> list[JSON]:
    if not text.startswith("["):
        return [text]
    try:
        found = strict_json.decode(text)
    except ApplianceError as error:
        raise click.UsageError(f"KEY is not a JSON list: {error}") from error
    assert isinstance(found, list)  # noqa: S101 – it begins with [
    return found


def _beginning(kept: Kept) -> str:
    if kept.rows == 0:
        return "no events are kept"
    since = ""
    if kept.since is not None:
        moment = datetime.datetime.fromtimestamp(kept.since, datetime.UTC)
        since = f", committed {moment:%Y-%m-%dT%H:%M:%SZ} or later"
    return f"events are kept from EventId {kept.oldest + 1} on{since}; what was before is not known"
