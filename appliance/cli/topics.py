"""``topic``: user topics."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.options import db_option
from appliance.model import Topic
from appliance.protocol import permissions, requests
from appliance.protocol.tokens import ADMINISTRATOR
from appliance.store import offline, schema, topics


@click.group()
def topic() -> None:
    """List, create and destroy user topics."""


@topic.command("list")
@db_option
def topic_list(db: Path) -> None:
    """List the user topics."""
    with offline.open_store(db) as store:
        for each in topics.topics(store):
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
        topics.destroy(store, name)
