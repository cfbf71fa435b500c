"""What the descriptions of all paths have in common: errors, the forms of values that JSON has none for, the token."""

from __future__ import annotations

from typing import Any, Final

from appliance.protocol.json import INTEGER_MAX, INTEGER_MIN
from appliance.store.access.accounts import NAME_LIMIT
from appliance.store.access.passwords import LONGEST, SHORTEST
from appliance.store.tables.standard import USER_ACCOUNT, USERGROUP, WORLD

Schema = dict[str, Any]

_BASE64: Final = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

COMPONENTS: Final[Schema] = {
    "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
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
