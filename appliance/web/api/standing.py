"""What is described whatever tables there are: sending messages, signing up and signing in."""

from __future__ import annotations

from typing import Final

from appliance.protocol.requests import KEY_LIMIT
from appliance.store.access.accounts import NAME_LIMIT
from appliance.store.access.passwords import LONGEST, SHORTEST
from appliance.web.api.actions import SIGN_IN, SIGN_UP, Form
from appliance.web.api.components import Schema

_JSON: Final = "application/json"


def _json(schema: Schema) -> Schema:
    return {"content": {_JSON: {"schema": schema}}}


_REFUSAL: Final[Schema] = {"description": "A refusal"} | _json({"$ref": "#/components/schemas/error"})


def _publish() -> Schema:
    topic = {"name": "topic", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Sent again with the same key, the message is delivered once; durable topics only. "
        "Printable ASCII, bare as described here or in quotation marks.",
        # A header's value neither begins nor ends with a space (RFC 9110, section 5.5).
        "schema": {"type": "string", "minLength": 1, "maxLength": KEY_LIMIT, "pattern": "^[!#-~]([ -~]*[!-~])?$"},
    }
    sent: Schema = {
        "type": "object",
        "required": ["topic", "EventId"],
        "properties": {"topic": {"type": "string"}, "EventId": {"type": ["integer", "null"]}},
    }
    replayed = {"description": "true: it was committed before", "schema": {"type": "string"}}
    return {
        "tags": ["messages"],
        "operationId": "send_message",
        "parameters": [topic, key],
        "requestBody": {"required": True} | _json({"description": "any JSON value"}),
        "responses": {
            "201": {"description": "It is committed", "headers": {"Idempotency-Replayed": replayed}} | _json(sent),
            "default": _REFUSAL,
        },
    }


#: What of an account signing up takes surely.
_TAKEN: Final[Schema] = {
    "email": {"type": "string", "format": "email"},
    "password": {"type": "string", "description": f"{SHORTEST} to {LONGEST} bytes in UTF-8"},
    "passwordConfirm": {"type": "string", "description": "the same once more"},
    "name": {"type": "string", "maxLength": NAME_LIMIT},
}


def _action(name: str, form: Form, described: str) -> Schema:
    attributes: Schema = {
        "type": "object",
        "required": list(form.required),
        "properties": {each: _TAKEN[each] for each in (*form.required, *form.optional)},
        "additionalProperties": False,
    }
    asked: Schema = {"type": "object", "required": ["attributes"], "properties": {"attributes": attributes}}
    done: Schema = {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["ResponseType", "Attributes"],
            "properties": {"ResponseType": {"type": "string"}, "Attributes": {"type": "object"}},
        },
    }
    return {
        "tags": ["accounts"],
        "operationId": name,
        "security": [],
        "requestBody": {"required": True} | _json(asked),
        "responses": {"200": {"description": described} | _json(done), "default": _REFUSAL},
    }


STANDING: Final[Schema] = {
    "/live/topics/{topic}/messages": {"post": _publish()},
    "/action/user_account/signup": {"post": _action("sign_up", SIGN_UP, "The account is made")},
    "/action/user_account/signin": {
        "post": _action("sign_in", SIGN_IN, "The token is the value of the entry client.store.set whose key is token")
    },
}
