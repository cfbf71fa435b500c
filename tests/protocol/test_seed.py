"""Every JSON example of the seed (comments stripped): requests are understood, sample payloads are what is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.errors import UnknownMethod
from appliance.model import Affinity, Change, Column, Image, Message, Op, Shape
from appliance.protocol import frames
from appliance.protocol.filters import compile_table
from appliance.protocol.requests import (
    CreateTopic,
    DestroyTopic,
    ListTopic,
    NewMessage,
    Refused,
    Request,
    Subscribe,
    Unsubscribe,
    parse,
)
from appliance.protocol.values import ValueOptions

GENERIC_BLOCK = '{"method": "", "type": "", "payload": {}}'

LIST = """{
  "method": "list-topic"
}"""

LIST_RESPONSE = """{
  "MessageSource": "system",
  "EventType": "response",
  "ObjectType": "topic-list",
  "EventData": {
    "topics": [
      "task_task_id_has_usergroup_usergroup_id",
      "timeline",
      "application",
      "json_schema_json_schema_id_has_usergroup_usergroup_id",
      "plan_plan_id_has_usergroup_usergroup_id",
      "mail_account",
      "stream",
      "user_otp_account",
      "outbox_outbox_id_has_usergroup_usergroup_id",
      "oauth_token_oauth_token_id_has_usergroup_usergroup_id",
      "stream_stream_id_has_usergroup_usergroup_id",
      "deployment_deployment_id_has_usergroup_usergroup_id",
      "feed_feed_id_has_usergroup_usergroup_id",
      "smd_smd_id_has_usergroup_usergroup_id",
      "site_site_id_has_usergroup_usergroup_id",
      "timeline_timeline_id_has_usergroup_usergroup_id",
      "tab_eygurbe",
      "screen_screen_id_has_usergroup_usergroup_id",
      "mail_server",
      "certificate",
      "data_exchange",
      "document_document_id_has_usergroup_usergroup_id",
      "oauth_token",
      "calendar_calendar_id_has_usergroup_usergroup_id",
      "tab_nuqymzy",
      "outbox",
      "screen",
      "integration_integration_id_has_usergroup_usergroup_id",
      "oauth_connect",
      "user_payment_user_payment_id_has_usergroup_usergroup_id",
      "mail",
      "world",
      "mail_account_mail_account_id_has_usergroup_usergroup_id",
      "mail_box",
      "world_world_id_has_usergroup_usergroup_id",
      "user_account_user_account_id_has_usergroup_usergroup_id",
      "tab_nuqymzy_tab_nuqymzy_id_has_usergroup_usergroup_id",
      "calendar",
      "smd",
      "user_payment",
      "action",
      "task",
      "site",
      "integration",
      "starter_app_starter_app_id_has_usergroup_usergroup_id",
      "plan",
      "usergroup",
      "tab_eygurbe_tab_eygurbe_id_has_usergroup_usergroup_id",
      "deployment",
      "starter_app",
      "json_schema",
      "user_otp_account_user_otp_account_id_has_usergroup_usergroup_id",
      "feed",
      "cloud_store_cloud_store_id_has_usergroup_usergroup_id",
      "world_world_id_has_smd_smd_id",
      "certificate_certificate_id_has_usergroup_usergroup_id",
      "mail_mail_id_has_usergroup_usergroup_id",
      "action_action_id_has_usergroup_usergroup_id",
      "data_exchange_data_exchange_id_has_usergroup_usergroup_id",
      "user_account",
      "application_application_id_has_usergroup_usergroup_id",
      "document",
      "oauth_connect_oauth_connect_id_has_usergroup_usergroup_id",
      "cloud_store",
      "mail_server_mail_server_id_has_usergroup_usergroup_id",
      "mail_box_mail_box_id_has_usergroup_usergroup_id"
    ]
  }
}"""

CREATE_TOPIC = """{
  "method": "create-topic",
  "attributes": {
    "name": "<new_topic_name>"
  }
}"""

DESTROY_TOPIC = """{
  "method": "destroy-topic",
  "attributes": {
    "name": "<topic_name>"
  }
}"""

SUBSCRIBE = """{
  "method": "subscribe",
  "attributes": {
    "topic": "user_account"
  }
}"""

CREATE_EVENT = """{
  "MessageSource": "database",
  "EventType": "create",
  "ObjectType": "user_account",
  "EventData": {
    "__type": "user_account",
    "confirmed": false,
    "created_at": "2021-03-13T13:47:07.954634Z",
    "email": "asdf@asfd.cm",
    "name": "asdf",
    "password": "$2a$11$HbH5o1s6ThsMJ9ft/.uljO9.T.od/tR0RFtep50Ef5mzymI6kNlW.",
    "permission": 2097057,
    "reference_id": "004cc6b6-8b9b-4d51-936a-128133b21d04",
    "updated_at": null,
    "user_account_id": "ee655e01-98a5-4761-bc93-b7a15e2b5847",
    "version": 1
  }
}"""

UPDATE_EVENT = """{
  "MessageSource": "database",
  "EventType": "update",
  "ObjectType": "user_account",
  "EventData": {
    "__type": "user_account",
    "confirmed": false,
    "created_at": "2021-03-13T13:47:07.954634Z",
    "email": "asdf@asfd.cm",
    "name": "asdf",
    "password": "$2a$11$U83vQU5A3Xq2Gcphb52XOej8H9p1GbFKerpkoSesbx674qZfBjJdu",
    "permission": 2097057,
    "reference_id": "004cc6b6-8b9b-4d51-936a-128133b21d04",
    "updated_at": "2021-03-13T13:48:21.258962Z",
    "user_account_id": "ee655e01-98a5-4761-bc93-b7a15e2b5847",
    "version": 2
  }
}"""

SUBSCRIBE_WITH_FILTERS = """{
  "method": "subscribe",
  "attributes": {
    "topic": "user_account",
    "filters": {
      "EventType": "update",
      "<column_name>": "<filter_value>"
    }
  }
}"""

UNSUBSCRIBE = """{
  "method": "unsubscribe",
  "attributes": {
    "topic": "<topic_name>"
  }
}"""

NEW_MESSAGE = """{
  "method": "new-message",
  "attributes": {
    "topic": "test",
    "message": {
      "hello": "world"
    }
  }
}"""

FILTERS = {"EventType": "update", "<column_name>": "<filter_value>"}


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        (LIST, ListTopic(object_type="topic-list")),
        (CREATE_TOPIC, CreateTopic(object_type="create-topic", name="<new_topic_name>")),
        (DESTROY_TOPIC, DestroyTopic(object_type="destroy-topic", name="<topic_name>")),
        (SUBSCRIBE, Subscribe(object_type="subscribe", topic="user_account")),
        (SUBSCRIBE_WITH_FILTERS, Subscribe(object_type="subscribe", topic="user_account", filters=FILTERS)),
        (UNSUBSCRIBE, Unsubscribe(object_type="unsubscribe", topic="<topic_name>")),
        (NEW_MESSAGE, NewMessage(object_type="new-message", topic="test", message=b'{"hello":"world"}')),
    ],
)
def test_a_request_of_the_seed_is_understood_in_both_spellings(text: str, request_: Request) -> None:
    assert parse(text) == request_
    assert parse(text.replace('"attributes"', '"payload"')) == request_


def test_the_generic_block_is_understood_once_it_names_a_method() -> None:
    with pytest.raises(Refused) as caught:
        parse(GENERIC_BLOCK)
    assert isinstance(caught.value.error, UnknownMethod)
    named = GENERIC_BLOCK.replace('"method": ""', '"method": "subscribe"').replace('"type": ""', '"type": "world"')
    assert parse(named) == Subscribe(object_type="subscribe", topic="world")
    listing = GENERIC_BLOCK.replace('"method": ""', '"method": "list-topic"')
    assert parse(listing) == ListTopic(object_type="topic-list")


def test_the_list_is_sent_as_in_the_seed() -> None:
    sample = json.loads(LIST_RESPONSE)
    assert same_text(frames.response("topic-list", sample["EventData"]), sample)


@pytest.mark.parametrize(("text", "op"), [(CREATE_EVENT, Op.CREATE), (UPDATE_EVENT, Op.UPDATE)])
def test_an_event_is_sent_as_in_the_seed_with_its_position_and_key_behind(text: str, op: Op) -> None:
    sample = json.loads(text)
    now = {name: value for name, value in sample["EventData"].items() if name != "__type"}
    shape = user_account(*now)
    image = Image(tuple(int(value) if isinstance(value, bool) else value for value in now.values()))
    sent = frames.change(Change(9, op, shape, image, image if op is Op.UPDATE else None), ValueOptions())
    assert same_text(sent, sample | {"EventId": 9, "Key": [now["reference_id"]]})


def test_a_message_is_sent_in_the_envelope_of_the_seed() -> None:
    sent = json.loads(frames.message(Message(1, "test", "somebody", b'{"hello":"world"}')))
    assert list(sent)[:4] == list(json.loads(CREATE_EVENT))
    assert sent["EventData"] == {"hello": "world"}


def test_the_filters_of_the_seed_do_what_its_comments_say() -> None:
    wanted = compile_table(FILTERS, Shape(1, "user_account", (Column("<column_name>", "TEXT", Affinity.TEXT),)))
    assert wanted.matches(Op.UPDATE, Image(("<filter_value>",)))
    assert not wanted.matches(Op.CREATE, Image(("<filter_value>",)))
    assert not wanted.matches(Op.UPDATE, Image(("another",)))


def user_account(*names: str) -> Shape:
    declared = {"confirmed": "BOOLEAN", "permission": "INTEGER", "version": "INTEGER"}
    columns = (Column(name, declared.get(name, "TEXT"), Affinity.of(declared.get(name, "TEXT"))) for name in names)
    return Shape(1, "user_account", tuple(columns), (names.index("reference_id"),))


def same_text(sent: bytes, sample: dict[str, Any]) -> bool:
    """Whether the bytes are the sample's, white space aside: same keys, values and order."""
    return sent == json.dumps(sample, separators=(",", ":")).encode()
