"""What is sent, byte for byte."""

from __future__ import annotations

import json

import pytest

from appliance.errors import REQUEST_ERRORS, UnknownTopic
from appliance.model import Affinity, Change, Column, Image, Message, Op, Shape
from appliance.protocol import frames
from appliance.protocol.values import ValueOptions

OPTIONS = ValueOptions()
SHAPE = Shape(1, "todo", (Column("id", "INTEGER", Affinity.INTEGER), Column("note", "TEXT", Affinity.TEXT)), (0,))


def test_a_response_has_the_seeds_envelope() -> None:
    assert frames.response("topic-list", {"topics": ["user_account", "world", "test"]}) == (
        b'{"MessageSource":"system","EventType":"response","ObjectType":"topic-list",'
        b'"EventData":{"topics":["user_account","world","test"]}}'
    )
    assert frames.response("ping", {"EventId": 1}, 7).endswith(b',"EventData":{"EventId":1},"id":7}')
    assert frames.response("ping", {}, "").endswith(b',"id":""}')
    assert frames.response("ping", {}, 0).endswith(b',"id":0}')


def test_an_error_names_its_code_first() -> None:
    assert frames.error(UnknownTopic('there is no topic "usr"', topic="usr"), "subscribe", "7") == (
        b'{"MessageSource":"system","EventType":"error","ObjectType":"subscribe","EventData":{"code":"unknown-topic",'
        b'"message":"there is no topic \\"usr\\"","topic":"usr"},"id":"7"}'
    )
    assert b'"ObjectType":null' in frames.error(UnknownTopic("x"), None)


def test_every_error_can_be_sent() -> None:
    for each in REQUEST_ERRORS:
        assert json.loads(frames.error(each("why"), "ping"))["EventData"] == {"code": each.code, "message": "why"}


def test_a_change_is_the_row_with_its_position_and_key() -> None:
    now, before = Image((1, "now")), Image((1, "before"))
    assert frames.change(Change(5, Op.CREATE, SHAPE, now, None), OPTIONS) == (
        b'{"MessageSource":"database","EventType":"create","ObjectType":"todo",'
        b'"EventData":{"__type":"todo","id":1,"note":"now"},"EventId":5,"Key":[1]}'
    )
    assert frames.change(Change(6, Op.UPDATE, SHAPE, now, before), OPTIONS) == (
        b'{"MessageSource":"database","EventType":"update","ObjectType":"todo",'
        b'"EventData":{"__type":"todo","id":1,"note":"now"},"EventId":6,"Key":[1]}'
    )
    assert frames.change(Change(7, Op.DELETE, SHAPE, None, before), OPTIONS) == (
        b'{"MessageSource":"database","EventType":"delete","ObjectType":"todo",'
        b'"EventData":{"__type":"todo","id":1,"note":"before"},"EventId":7,"Key":[1]}'
    )


def test_an_update_that_changes_the_key_carries_the_old_one() -> None:
    moved = Change(8, Op.UPDATE, SHAPE, Image((2, "a")), Image((1, "a")))
    assert frames.change(moved, OPTIONS).endswith(b',"EventId":8,"Key":[2],"OldKey":[1]}')
    by_rowid = Shape(2, "log", (Column("x", "", Affinity.BLOB),), rowid=True)
    moved = Change(9, Op.UPDATE, by_rowid, Image(("a",), rowid=2), Image(("a",), rowid=1))
    assert frames.change(moved, OPTIONS).endswith(b',"Key":[2],"OldKey":[1]}')
    same = Change(9, Op.UPDATE, by_rowid, Image(("b",), rowid=2), Image(("a",), rowid=2))
    assert b"OldKey" not in frames.change(same, OPTIONS)


def test_a_table_without_a_key_that_can_be_sent_has_no_key() -> None:
    keyless = Shape(3, "secret_key", (Column("x", "", Affinity.BLOB),))
    change = Change(1, Op.UPDATE, keyless, Image((1,)), Image((2,)))
    assert frames.change(change, OPTIONS).endswith(b',"EventData":{"__type":"secret_key","x":1},"EventId":1}')


def test_a_message_carries_its_sender_and_its_position_if_it_has_one() -> None:
    assert frames.message(Message(1043, "test", "004cc6b6", b'{"hello":"world"}')) == (
        b'{"MessageSource":"004cc6b6","EventType":"new-message","ObjectType":"test",'
        b'"EventData":{"hello":"world"},"EventId":1043}'
    )
    assert frames.message(Message(None, 'a"b', "x", b"1")) == (
        b'{"MessageSource":"x","EventType":"new-message","ObjectType":"a\\"b","EventData":1}'
    )


def test_a_notice_is_from_the_system() -> None:
    assert frames.notice("resync", "todo", {"reason": "schema"}) == (
        b'{"MessageSource":"system","EventType":"resync","ObjectType":"todo","EventData":{"reason":"schema"}}'
    )


@pytest.mark.parametrize("given_id", [None, 'a"b', 7, 1.5])
def test_the_quick_reply_is_the_reply(given_id: str | float | None) -> None:
    assert frames.passed('a"b', given_id) == frames.response("new-message", {"topic": 'a"b', "EventId": None}, given_id)
