"""What the descriptions of all paths have in common: errors, the forms of values that JSON has none for, the token."""

from __future__ import annotations

from typing import Any, Final

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
