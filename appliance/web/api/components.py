"""What the descriptions of all paths have in common: errors, the forms of values that JSON has none for, the token."""

from __future__ import annotations

from typing import Any, Final

from appliance.protocol.json import INTEGER_MAX, INTEGER_MIN
from appliance.protocol.operators import ITEMS_LIMIT, OPERATORS
from appliance.store.access.accounts import NAME_LIMIT
from appliance.store.access.passwords import LONGEST, SHORTEST
from appliance.store.tables.standard import USER_ACCOUNT, USERGROUP, WORLD

Schema = dict[str, Any]

_BASE64: Final = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

#: Operators by what they take.
_EQUALITIES, _LISTS, _SEARCHES, _YES_OR_NO = ("eq", "ne"), ("in", "nin"), ("contains", "startswith"), "null"


def _version(name: str, described: str) -> Schema:
    return {"name": name, "in": "header", "description": described, "schema": {"type": "string"}}


def _written(name: str) -> Schema:
    """Describe an operator's operand in a query, where all is text."""
    described = {"description": OPERATORS[name].sql}
    if name == _YES_OR_NO:
        return {"enum": ["true", "false"]} | described
    if name in _LISTS:
        return {"type": "string", "description": f"{OPERATORS[name].sql}; commas between the values, or a JSON list"}
    return {"type": "string"} | described


def _condition(ordered: list[str]) -> Schema:
    """Describe what a filter in JSON wants of one column, whose values compare with these types."""
    value: Schema = {"type": [*ordered, "null"]}
    values: Schema = {"type": "array", "items": value, "maxItems": ITEMS_LIMIT}

    def operand(name: str) -> Schema:
        if name in _LISTS:
            return values
        if name in _SEARCHES or name == _YES_OR_NO:
            return {"type": "string" if name in _SEARCHES else "boolean"}
        return value if name in _EQUALITIES else {"type": ordered}

    operators: Schema = {
        "type": "object",
        "minProperties": 1,
        "properties": {name: operand(name) for name in OPERATORS},
        "additionalProperties": False,
    }
    return {"anyOf": [value, values, operators]}


COMPONENTS: Final[Schema] = {
    "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    "parameters": {
        "if_match": _version("If-Match", "Only if the row still has this ETag; else 412."),
        "if_none_match": _version("If-None-Match", "Only if the row has another ETag by now; else 304."),
    },
    "schemas": {
        "errors": {
            "type": "object",
            "required": ["errors"],
            "properties": {
                "errors": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["status", "code", "title", "detail"],
                        "properties": {
                            "status": {"type": "string"},
                            "code": {"type": "string"},
                            "title": {"type": "string"},
                            "detail": {"type": "string"},
                            "source": {
                                "type": "object",
                                "properties": {each: {"type": "string"} for each in ("pointer", "parameter", "header")},
                            },
                        },
                    },
                }
            },
        },
        "error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["code", "message"],
                    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
                }
            },
        },
        "blob": {
            "type": "object",
            "required": ["$blob"],
            "properties": {"$blob": {"type": "string", "contentEncoding": "base64", "pattern": _BASE64}},
            "additionalProperties": False,
        },
        "real": {
            "type": "object",
            "required": ["$real"],
            "properties": {"$real": {"enum": ["Infinity", "-Infinity"]}},
            "additionalProperties": False,
        },
        "operators": {
            "type": "object",
            "description": "filter[column][operator]=operand; filter[column]=operand is eq.",
            "properties": {name: _written(name) for name in OPERATORS},
            "additionalProperties": False,
        },
        "condition": _condition(["string", "number", "boolean"]),
        "text_condition": _condition(["string", "number"]),
    },
}

#: What columns of a STRICT table take (https://sqlite.org/stricttables.html); ANY takes what all others do.
STRICT: Final[dict[str, Schema]] = {
    **{key: {"type": "integer", "minimum": INTEGER_MIN, "maximum": INTEGER_MAX} for key in ("INT", "INTEGER")},
    "REAL": {"type": "number"},
    "TEXT": {"type": ["string", "number"]},
    "BLOB": {"$ref": "#/components/schemas/blob"},
}

#: What columns of the system tables surely take, by table and column: a little less than they do.
SYSTEM: Final[dict[tuple[str, str], Schema]] = {
    (USER_ACCOUNT, "email"): {"type": "string", "pattern": "^[a-z0-9]{1,64}@[a-z0-9]{1,63}\\.[a-z]{2,16}$"},
    (USER_ACCOUNT, "name"): {"type": "string", "pattern": f"^[ -~]{{0,{NAME_LIMIT}}}$"},
    (USER_ACCOUNT, "password"): {
        "type": ["string", "null"],
        "pattern": f"^[ -~]{{{SHORTEST},{LONGEST}}}$",
        "description": "null: there is none, and nobody signs in",
    },
    (USERGROUP, "name"): {"type": "string", "pattern": f"^[A-Z][a-z0-9 -]{{0,{NAME_LIMIT - 2}}}[0-9]$"},
    (WORLD, "owner_column"): {"type": ["string", "null"], "description": "a column of the table"},
}
