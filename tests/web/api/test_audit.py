"""What is done to accounts, groups and grants by HTTP is in the log, without a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog

from appliance.protocol.permissions import GROUP_SHIFT, ROW_DEFAULT, Verb
from appliance.store.tables.making import NewColumn
from appliance.store.tables.standard import USERS, join_table
from tests.web.api.application import served

PASSWORD = "correct horse"


async def test_each_write_that_rights_stand_on_is_logged_and_no_other(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables={"todo": (NewColumn("title", "text"),)}) as live:
        with structlog.testing.capture_logs() as lines:
            made = await live.create("user_account", email="new@example.com", password=PASSWORD)
            account = made.json()["data"]["id"]
            await live.change("user_account", account, password=PASSWORD + "2")
            await live.change("user_account", account, name="new")  # it is called so already
            member = {"user_account_id": "bob", "usergroup_id": USERS}
            ((world,),) = live.sql("SELECT reference_id FROM world WHERE table_name = 'todo'")
            await live.change("world", world, permission=3)
            read = int(Verb.READ) << GROUP_SHIFT
            grant = await live.create(join_table("world"), world_id=world, usergroup_id=USERS, permission=read)
            await live.ask("DELETE", f"/api/user_account/{account}")
            await live.create("todo", "ann", title="a row of hers")
            await live.change("world", world, "ann", permission=0)  # refused
            await live.create(join_table("user_account"), **member)  # refused: he is in it

    def line(deed: str, table: str, row: str, *columns: str, **more: Any) -> dict[str, Any]:
        said = {"event": "rights_changed", "log_level": "info", "deed": deed, "table": table, "row": row}
        said |= {"columns": columns, "bits": ROW_DEFAULT, "joined": None, "group": None, "by": "administrator"}
        return said | more

    assert [each for each in lines if each["event"] == "rights_changed"] == [
        line("create", "user_account", account, "email", "password", "permission"),
        line("change", "user_account", account, "password"),
        line("change", "world", world, "permission", bits=3),
        line("create", join_table("world"), grant.json()["data"]["id"], "permission", "usergroup_id", "world_id",
             bits=read, joined=world, group=USERS),
        line("delete", "user_account", account),
    ]  # fmt: skip
    assert PASSWORD not in str(lines)
    assert "$2b$" not in str(lines)


async def test_why_sqlite_could_not_do_a_write_is_in_the_log_only(tmp_path: Path) -> None:
    async with served(tmp_path / "live.db", tables={"todo": (NewColumn("title", "text"),)}) as live:
        live.sql("CREATE TRIGGER own AFTER INSERT ON todo BEGIN SELECT nowhere FROM todo; END")
        with structlog.testing.capture_logs() as lines:
            refused = await live.create("todo", title="a canary")
    (said,) = [each["error"] for each in lines if each["event"] == "request_failed"]
    assert (refused.status_code, said.rpartition(": ")[2]) == (500, "nowhere")
    assert "nowhere" not in refused.text
    assert "canary" not in str(lines)
