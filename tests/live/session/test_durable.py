"""Durable messages: who may send one is decided to the last moment."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from appliance.errors import Forbidden, RequestError, Unauthorized
from appliance.live.replay import lapse
from appliance.live.session import durable
from appliance.model import Principal, Topic
from appliance.protocol.permissions import GROUP_SHIFT, Verb
from appliance.protocol.tokens import ISSUER
from appliance.store.access import callers
from appliance.store.outbox import topics
from appliance.store.tables import standard
from tests.web.api.application import served

ANN = Principal(ISSUER, "ann", admin=False, expires_at=float("inf"), token_id="ann's", registered=True)
OPEN = Topic("open", durable=True, permission=Verb.PEEK | Verb.EXECUTE << GROUP_SHIFT, owner="bob")
NEXT_GENERATION = "UPDATE _appliance_meta SET value = value + 1 WHERE name = 'generation'"

#: What another process commits between the decision and the message, and how that ends.
BETWEEN: dict[str, tuple[tuple[str, ...], type[RequestError] | None]] = {
    "nothing": ((), None),
    "rows": (("INSERT INTO t VALUES(1)",), None),
    "rights of others": (("DELETE FROM user_account WHERE reference_id = 'bob'",), None),
    "the token": (("INSERT INTO _appliance_revoked VALUES('ann''s', 9e9)", NEXT_GENERATION), Unauthorized),
    "the account": (("DELETE FROM user_account WHERE reference_id = 'ann'",), Unauthorized),
    "the group": ((f"DELETE FROM {standard.join_table('user_account')}",), Forbidden),
    "the topic": (("UPDATE _appliance_topic SET permission = 1", NEXT_GENERATION), Forbidden),
    "more than is looked at": ((
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {lapse.UNSEEN + 1}) "
        "INSERT INTO t SELECT i FROM n",
        f"DELETE FROM {standard.join_table('user_account')}",
    ), Forbidden),
}  # fmt: skip


@pytest.mark.parametrize("between", BETWEEN)
async def test_a_message_is_written_if_its_sender_may_in_that_very_transaction(tmp_path: Path, between: str) -> None:
    statements, refused = BETWEEN[between]
    path = tmp_path / "a.db"
    async with served(path, "CREATE TABLE t(a)") as live:
        live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, OPEN)))
        decided = lapse.known(live.hub)
        message = live.store.send(durable.message("open", ANN, b"1", decided=decided))
        with closing(sqlite3.connect(path, isolation_level=None)) as another:
            for statement in statements:
                another.execute(statement)
        if refused is None:
            assert (await live.store.sent(message)).event_id > decided.position
        else:
            with pytest.raises(refused):
                await live.store.sent(message)


async def test_the_store_is_asked_who_the_sender_is_only_where_rights_may_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    async with served(path, "CREATE TABLE t(a)") as live:
        live.hub.add_topic(*await live.store.commit(lambda db: topics.create(db, OPEN)))
        asked = []
        identify = callers.identify
        monkeypatch.setattr(callers, "identify", lambda *given: asked.append(given) or identify(*given))
        decided = lapse.known(live.hub)
        with closing(sqlite3.connect(path, isolation_level=None)) as another:
            for statement, often in (
                ("INSERT INTO t VALUES(1)", 0),
                ("UPDATE usergroup SET name = name || 's' WHERE name = 'users'", 1),
            ):
                another.execute(statement)
                await live.store.sent(live.store.send(durable.message("open", ANN, b"1", decided=decided)))
                assert len(asked) == often
