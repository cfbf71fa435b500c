"""What the Python clients ask; ``seed.js`` asks the same."""

from __future__ import annotations

from typing import Any

REQUESTS: list[dict[str, Any]] = [
    {"method": "list-topic"},
    {"method": "create-topic", "attributes": {"name": "test"}},
    {"method": "subscribe", "attributes": {"topic": "user_account"}},
    {"method": "unsubscribe", "attributes": {"topic": "user_account"}},
    {"method": "subscribe", "attributes": {
        "topic": "user_account", "filters": {"EventType": "update", "version": "2"}}},
    {"method": "subscribe", "type": "test", "payload": {}},
    {"method": "subscribe", "attributes": {"topic": "orders"}},
    {"method": "new-message", "attributes": {"topic": "test", "message": {"hello": "world"}}},
    {"method": "new-message", "attributes": {"topic": "stage", "message": "ready"}},
]  # fmt: skip
