"""Requests: what is understood, and what is said about what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import BadJson, BadRequest, UnknownMethod
from appliance.protocol import quick
from appliance.protocol.json import decode, encode
from appliance.protocol.requests import (
    METHODS,
    Authenticate,
    CreateTopic,
    DestroyTopic,
    ListTopic,
    NewMessage,
    Ping,
    Refused,
    Request,
    Subscribe,
    Unsubscribe,
    parse,
    topic_name,
)


def ask(method: str, attributes: object = None, **more: object) -> Request:
    frame: dict[str, Any] = {"method": method, **more}
    if attributes is not None:
        frame["attributes"] = attributes
    return parse(json.dumps(frame))


def refusal(text: str | bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        parse(text)
    return caught.value


def bad(method: str, attributes: object = None, **more: object) -> str:
    with pytest.raises(Refused) as caught:
        ask(method, attributes, **more)
    assert isinstance(caught.value.error, BadRequest)
    return caught.value.error.message


def test_every_method_becomes_its_struct() -> None:
    assert ask("list-topic") == ListTopic(object_type="topic-list")
    assert ask("create-topic", {"name": "a"}) == CreateTopic(object_type="create-topic", name="a", durable=True)
    assert ask("create-topic", {"name": "a", "durable": False}).durable is False
    assert ask("destroy-topic", {"name": "a"}) == DestroyTopic(object_type="destroy-topic", name="a")
    assert ask("subscribe", {"topic": "a", "filters": {"b": 1}}) == Subscribe(
        object_type="subscribe", topic="a", filters={"b": 1}
    )
    assert ask("unsubscribe", {"topic": "a"}) == Unsubscribe(object_type="unsubscribe", topic="a")
    assert ask("new-message", {"topic": "a", "message": None}) == NewMessage(
        object_type="new-message", topic="a", message=b"null"
    )
    assert ask("authenticate", {"token": "x"}) == Authenticate(object_type="authenticate", token="x")
    assert ask("ping") == Ping(object_type="ping")
    assert set(METHODS) == {
        "list-topic", "create-topic", "destroy-topic", "subscribe", "unsubscribe", "new-message", "authenticate",
        "ping",
    }  # fmt: skip


@pytest.mark.parametrize("given_id", ["7", "", 7, -1.5, "x" * 128, 2**63 - 1])
def test_an_id_is_kept(given_id: object) -> None:
    assert ask("ping", id=given_id).id == given_id


@pytest.mark.parametrize("given_id", [None, True, [], {}, "x" * 129])
def test_a_bad_id_is_refused_and_not_echoed(given_id: object) -> None:
    with pytest.raises(Refused) as caught:
        ask("list-topic", id=given_id)
    assert (caught.value.id, caught.value.object_type) == (None, "topic-list")
    assert '"id"' in caught.value.error.message


@pytest.mark.parametrize(
    "fault",
    ["12345678901234567890", "1e999", "NaN", '{"a":1,"a":2}', r'"\ud800"', "[" * 40 + "]" * 40],
)
def test_what_is_not_taken_as_json_is_answered_with_its_id(fault: str) -> None:
    refused = refusal(f'{{"method":"new-message","id":"mine","attributes":{{"topic":"t","message":{fault}}}}}')
    assert isinstance(refused.error, BadJson)
    assert (refused.id, refused.object_type) == ("mine", "new-message")
    itself = refusal(f'{{"method":"ping","id":{fault}}}')
    assert isinstance(itself.error, BadJson)
    assert (itself.id, itself.object_type) == (None, "ping")


NO_UTF_8 = b'{"method":"new-message","attributes":{"topic":"t\xff","message":1}}'


@pytest.mark.parametrize("text", ['{"id":1', "", "[" * 100_000, '[{"id":1,"id":2}]', b"\xff", NO_UTF_8])
def test_what_nobody_takes_as_a_request_is_answered_without(text: str | bytes) -> None:
    refused = refusal(text)
    assert (refused.id, refused.object_type) == (None, None)


def test_payload_stands_for_attributes() -> None:
    assert ask("subscribe", payload={"topic": "a"}).topic == "a"
    assert ask("subscribe", {"topic": "a"}, payload={"topic": "a"}).topic == "a"
    assert "differ" in bad("subscribe", {"topic": "a"}, payload={"topic": "b"})
    assert "differ" in bad("create-topic", {"name": "a", "durable": True}, payload={"name": "a", "durable": 1})
    assert "differ" in bad("ping", {}, payload={"x": 1})
    assert "payload" in bad("ping", payload=[])


def test_type_stands_for_the_topic_of_subscribe() -> None:
    assert ask("subscribe", type="a") == ask("subscribe", {"topic": "a"})
    assert ask("subscribe", {"topic": "A"}, type="a").topic == "A"
    assert ask("subscribe", type="a", payload={"filters": {"x": 1}}).topic == "a"
    assert "differ" in bad("subscribe", {"topic": "a"}, type="b")
    assert "topic" in bad("subscribe", {"topic": 1}, type="b")


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"subscribe"}))
def test_elsewhere_a_type_is_accepted_if_it_is_a_string(method: str) -> None:
    attributes = {"name": "a", "topic": "a", "message": 1, "token": "x"}
    wanted = {name: attributes[name] for name in METHODS[method].required}
    assert ask(method, wanted, type="anything") == ask(method, wanted)
    assert '"type"' in bad(method, wanted, type=1)


def test_what_is_unknown_is_named_with_the_nearest() -> None:
    assert (
        bad("subscribe", {"topic": "a", "filter": {}})
        == '"filter" is not an attribute of subscribe; did you mean "filters"?'
    )
    assert bad("ping", {"x": 1}) == '"x" is not an attribute of ping: there are none'
    assert 'did you mean "attributes"' in bad("ping", atributes={})
    refused = refusal('{"method":"subscrbe","id":7}')
    assert isinstance(refused.error, UnknownMethod)
    assert 'did you mean "subscribe"' in refused.error.message
    assert all(name in refused.error.message for name in METHODS)
    assert (refused.id, refused.object_type) == (7, "subscrbe")


@pytest.mark.parametrize(
    ("text", "error", "object_type"),
    [
        ("", BadJson, None),
        ("[]", BadRequest, None),
        ("null", BadRequest, None),
        ("{}", BadRequest, None),
        ('{"method":1}', BadRequest, None),
        ('{"method":null}', BadRequest, None),
        ('{"method":""}', UnknownMethod, ""),
        ('{"method":"%s"}' % ("x" * 10_000), UnknownMethod, None),
        ('{"method":"List-Topic"}', UnknownMethod, "List-Topic"),
        ('{"method":"subscribe"}', BadRequest, "subscribe"),
        ('{"method":"subscribe","attributes":null}', BadRequest, "subscribe"),
        ('{"method":"subscribe","attributes":[]}', BadRequest, "subscribe"),
        ('{"method":"subscribe","attributes":{"topic":1}}', BadRequest, "subscribe"),
        ('{"method":"subscribe","attributes":{"topic":"a","filters":[]}}', BadRequest, "subscribe"),
        ('{"method":"subscribe","attributes":{"topic":"a","filters":null}}', BadRequest, "subscribe"),
        ('{"method":"create-topic","attributes":{"name":"a","durable":1}}', BadRequest, "create-topic"),
        ('{"method":"new-message","attributes":{"topic":"a"}}', BadRequest, "new-message"),
        ('{"method":"list-topic","attributes":{"x":1}}', BadRequest, "topic-list"),
        ('{"method":"ping","method":"ping"}', BadJson, "ping"),
    ],
)
def test_what_is_no_request_is_refused(text: str, error: type[Exception], object_type: str | None) -> None:
    refused = refusal(text)
    assert type(refused.error) is error
    assert refused.object_type == object_type
    assert len(refused.error.message) < 400


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "a\nb", "a\0", "a\x7f", "a\x85", "_appliance", "_APPLIANCE_outbox", 1, None]
)
def test_a_new_topic_cannot_have_these_names(name: object) -> None:
    assert '"name"' in bad("create-topic", {"name": name})


@pytest.mark.parametrize("name", ["a", "x" * 128, "_applianc", "räum 1", "../etc", '"'])
def test_a_new_topic_can_have_these_names(name: str) -> None:
    assert ask("create-topic", {"name": name}).name == name


def test_only_create_topic_is_bound_by_the_rule_for_names() -> None:
    assert ask("subscribe", {"topic": "x" * 500 + "\n"}).topic == "x" * 500 + "\n"


@pytest.mark.parametrize(
    ("method", "attributes", "named"),
    [
        ("create-topic", {"name": "a", "permission": 1 << 21}, '"permission" must be permission bits'),
        ("create-topic", {"name": "a", "permission": True}, '"permission" must be permission bits'),
        ("new-message", {"topic": "a", "message": 1, "key": ""}, '"key" must have 1 to 255 printable'),
        (
            "new-message",
            {"topic": "a", "message": 1, "key": "k" * 256},
            '"key" must have 1 to 255 printable',
        ),
        ("new-message", {"topic": "a", "message": 1, "key": "a\nb"}, '"key" must have 1 to 255 printable'),
        ("subscribe", {"topic": "a", "since": 1}, '"since" and "epoch" belong together'),
        ("subscribe", {"topic": "a", "epoch": "e"}, '"since" and "epoch" belong together'),
        ("subscribe", {"topic": "a", "since": -1, "epoch": "e"}, '"since" must be an EventId'),
        ("subscribe", {"topic": "a", "since": True, "epoch": "e"}, '"since" must be an EventId'),
        ("subscribe", {"topic": "a", "since": "1", "epoch": "e"}, '"since" must be an EventId'),
        ("subscribe", {"topic": "a", "old": 0}, '"old" must be true or false'),
    ],
)
def test_an_attribute_out_of_its_range_is_named(method: str, attributes: dict[str, object], named: str) -> None:
    assert named in bad(method, attributes)


def test_what_is_left_out_asks_for_nothing() -> None:
    assert ask("subscribe", {"topic": "a", "old": False, "snapshot": False}) == ask("subscribe", {"topic": "a"})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["topic", "name", "filters", "message", "durable", "key", "since", "token", "x"]),
        inner,
        max_size=3,
    ),
    max_leaves=8,
)  # fmt: skip
FRAMES = st.dictionaries(
    st.sampled_from(["method", "attributes", "payload", "type", "id", "extra"]),
    JSON_VALUES | st.sampled_from([*METHODS, "methd"]),
    max_size=5,
)


@given(st.text() | JSON_VALUES.map(json.dumps) | FRAMES.map(json.dumps) | st.binary())
def test_any_text_is_a_request_or_is_refused(text: str | bytes) -> None:
    try:
        outcome: object = parse(text)
    except Refused as refused:
        outcome = refused.error
    assert isinstance(outcome, (BadJson, BadRequest, UnknownMethod, *(row.struct for row in METHODS.values())))


def pairs(value: st.SearchStrategy[str], *keys: str) -> st.SearchStrategy[str]:
    """Write objects of which keys may be missing, doubled, or others."""
    named = st.one_of([st.builds(lambda text, key=key: f'"{key}":{text}', value) for key in keys])
    return st.lists(named, max_size=5).map(lambda parts: "{" + ",".join(parts) + "}")


SOME = st.sampled_from(
    ['"a"', '"é"', '"a\\"b"', "1", "1.0", "1e999", str(2**63), "null", "true", '{"a":1,"a":2}', "[[[]]]"]
)
MESSAGES = st.one_of(
    SOME,
    JSON_VALUES.map(json.dumps),
    JSON_VALUES.map(lambda value: json.dumps(value, ensure_ascii=False)),
    pairs(SOME, "a", "b"),
)
ATTRIBUTES = st.one_of(
    st.builds(lambda topic, message: f'{{"topic":{topic},"message":{message}}}', SOME, MESSAGES),
    pairs(MESSAGES, "topic", "message", "key"),
)
SENT = st.builds(
    lambda head, attributes, tail: f'{{{head}"attributes": {attributes}{tail}}}',
    st.sampled_from(['"method":"new-message",', '"method":"ping",', '"method" : "new-message" , "id":"é",', ""]),
    ATTRIBUTES,
    st.one_of(
        st.just(""),
        SOME.map(lambda text: f',"id":{text}'),
        MESSAGES.map(lambda text: f',"payload":{text}'),
        st.just(',"method":"new-message"'),
    ),
)


@settings(max_examples=500)
@given(SENT, st.booleans())
def test_what_is_read_quickly_is_read_as_ever(text: str, as_bytes: bool) -> None:
    sent = quick.sent(text.encode() if as_bytes else text)
    if sent is None:
        return
    topic, message, id_ = sent
    frame = decode(text)
    assert isinstance(frame, dict)
    assert (frame["method"], frame.get("id")) == ("new-message", id_)
    assert frame["attributes"] == {"topic": topic, "message": decode(message)}
    assert message == encode(frame["attributes"]["message"])
    assert frame.keys() <= {"method", "attributes", "id"}


def test_a_plain_message_is_read_quickly() -> None:
    assert quick.sent('{"method":"new-message","id":"7","attributes":{"message":{"a":1.5},"topic":"b"}}') == (
        "b", b'{"a":1.5}', "7",
    )  # fmt: skip


def test_a_command_may_ask_whether_a_topic_can_have_a_name() -> None:
    assert topic_name("räum") == "räum"
    for name in ("", "_Appliance", "a\udcff"):
        with pytest.raises(BadRequest):
            topic_name(name)
