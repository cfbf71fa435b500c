"""``topic``: user topics."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from appliance.cli.options import db_option
from appliance.errors import CommandError, UnknownTopic
from appliance.model import Topic, ascii_fold
from appliance.protocol import permissions, requests
from appliance.protocol.tokens import ADMINISTRATOR
from appliance.store import offline
from appliance.store.file import schema
from appliance.store.outbox import topics
from appliance.store.tables import catalog


@click.group()
def topic() -> None:
    """List, create and destroy user topics."""


@topic.command("list")
@db_option
def topic_list(db: Path) -> None:
    """List the user topics."""
    with offline.open_store(db, make=False) as store:
        for each in topics.topics(store) if schema.exists(store) else ():
            click.echo(each.name if each.durable else f"{each.name} (not durable)")


@topic.command("create")
@click.argument("name")
@db_option
@click.option("--durable/--no-durable", default=True, show_default=True, help="Keep its messages in the store.")
def topic_create(name: str, db: Path, durable: bool) -> None:
    """Create a user topic."""
    checked = requests.topic_name(name)
    with offline.open_store(db) as store, schema.transaction(store):
        topics.create(store, Topic(checked, durable, permissions.TOPIC_DEFAULT, ADMINISTRATOR))


@topic.command("destroy")
@click.argument("name")
@db_option
def topic_destroy(name: str, db: Path) -> None:
    """Destroy a user topic; its subscribers are told."""
    with offline.open_store(db) as store, schema.transaction(store):
        try:
            topics.destroy(store, name)
        except UnknownTopic:
            if ascii_fold(name) in {ascii_fold(each.name) for each in catalog.tables(store)}:
                raise CommandError(f'"{name}" is a table, which is a topic for as long as it is watched; to end that: '
                                   f"live-appliance table unwatch {shlex.quote(name)} --db {shlex.quote(str(db))}"
                                   ) from None  # fmt: skip
            raise
