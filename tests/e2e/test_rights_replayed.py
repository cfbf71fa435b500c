"""A replay tells nobody what nobody could ever have read, whatever of a transaction it brings and leaves out."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.store.tables.standard import join_table
from tests.e2e.live import Client, Live, serving, sql
from tests.e2e.test_rights import GROUP_READ, GUEST_READ, Person, begun, group, insert, join, new_notes, taken_up

pytestmark = pytest.mark.e2e


class Scene:
    """A table, somebody in a group, and the position before all that happens."""

    def __init__(self, live: Live) -> None:
        self.notes = new_notes(live)
        self.group = group(live.db)
        self.person = Person(live.db, self.group)
        taken_up(live)
        with live.client(self.person.token) as client:
            self.begun = client.done("ping")

    def join_sql(self, row: str) -> str:
        into = f"{join_table(self.notes)}({self.notes}_id, usergroup_id, permission)"
        return f"INSERT INTO {into} VALUES('{row}', '{self.group}', {GROUP_READ})"

    def replayed(self, live: Live, **wish: Any) -> list[tuple[str, Any]]:
        with live.client(self.person.token) as client:
            self.resume(client, self.begun, **wish)
            return begun(client)

    def resume(self, client: Client, position: dict[str, Any], **wish: Any) -> None:
        client.done("subscribe", topic=self.notes, since=position["EventId"], epoch=position["epoch"], **wish)

    def happen(self, live: Live) -> None:
        """Do what nobody may learn of, and then what the member may."""
        secret, private = insert(live.db, self.notes, "secret", permission=0), insert(live.db, self.notes, "", None, 0)
        taken_up(live)
        flash = (
            f"INSERT INTO {self.notes}(reference_id, text, permission) VALUES('flash', 'flash', {GUEST_READ});"
            f"UPDATE {self.notes} SET permission = 0 WHERE reference_id = 'flash'"
        )
        draft = f"UPDATE {self.notes} SET text = '{{}}', permission = {{}} WHERE reference_id = '{private}'"
        for statements in (
            f"{self.join_sql(secret)}; DELETE FROM {self.notes} WHERE reference_id = '{secret}'",
            f"{flash}; DELETE FROM {self.notes} WHERE reference_id = 'flash'",
            f"{draft.format('draft', GUEST_READ)}; {draft.format('', 0)}",
            # Longer than a look, and than a page of a replay.
            f"{flash}; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
            f"INSERT INTO {self.notes}(reference_id, text, permission) SELECT i, '', 0 FROM n;"
            f"DELETE FROM {self.notes} WHERE reference_id = 'flash'",
        ):
            sql(live.db, f"PRAGMA foreign_keys = ON; BEGIN; {statements}; COMMIT")
            taken_up(live)
        shared = insert(live.db, self.notes, "shared", permission=0)
        taken_up(live)
        join(live.db, self.notes, shared, self.group)
        taken_up(live)
        sql(live.db, f"PRAGMA foreign_keys = ON; DELETE FROM {self.notes} WHERE reference_id = '{shared}'")
        taken_up(live)


def stopped(live: Live) -> None:
    live.stop()


def killed(live: Live) -> None:
    live.stop(signal.SIGKILL)


SHOWN = [("delete", "shared")]


def test_what_a_transaction_shows_and_hides_again_is_told_in_no_replay(tmp_path: Path) -> None:
    with serving(tmp_path / "shop.db") as live:
        scene = Scene(live)
        scene.happen(live)
        for wish in ({}, {"filters": {"EventType": ["create", "delete"]}}, {"filters": {"text": ["flash", "shared"]}}):
            assert scene.replayed(live, **wish) == SHOWN


@pytest.mark.parametrize("ended", [stopped, killed])
def test_it_is_not_told_after_a_restart_either(tmp_path: Path, ended: Callable[[Live], None]) -> None:
    with serving(tmp_path / "shop.db") as live:
        scene = Scene(live)
        scene.happen(live)
        ended(live)
    with serving(tmp_path / "shop.db") as again:
        for wish in ({}, {"filters": {"EventType": ["create", "delete"]}}, {"filters": {"text": ["flash", "shared"]}}):
            assert scene.replayed(again, **wish) == SHOWN


@pytest.mark.parametrize("ended", [stopped, killed])
def test_who_held_a_row_is_told_that_it_is_gone_though_it_was_joined_to_the_group_just_before(
    tmp_path: Path, ended: Callable[[Live], None]
) -> None:
    with serving(tmp_path / "shop.db") as live:
        scene = Scene(live)
        row = insert(live.db, scene.notes, "held", permission=0)
        with live.client(scene.person.token) as client:
            client.done("subscribe", topic=scene.notes, snapshot=True)
            assert begun(client) == []
            join(live.db, scene.notes, row, scene.group)
            assert client.event()["EventType"] == "create"
            position = client.done("ping")
        ended(live)
        sql(live.db, f"PRAGMA foreign_keys = ON; DELETE FROM {scene.notes} WHERE reference_id = '{row}'")
    with serving(tmp_path / "shop.db") as again, again.client(scene.person.token) as client:
        scene.resume(client, position, snapshot=True)
        assert begun(client) == [("delete", "held")]


def test_what_happened_while_no_server_ran_is_one_transaction(tmp_path: Path) -> None:
    with serving(tmp_path / "shop.db") as live:
        scene = Scene(live)
        row = insert(live.db, scene.notes, "secret", permission=0)
        taken_up(live)
        stopped(live)
        sql(live.db, f"PRAGMA foreign_keys = ON; BEGIN; {scene.join_sql(row)}; DELETE FROM {scene.notes}; COMMIT")
    with serving(tmp_path / "shop.db") as again:
        assert scene.replayed(again) == []
