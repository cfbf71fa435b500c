"""The paths of the HTTP API."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from appliance.live.hub import Hub
from appliance.protocol.values import ValueOptions
from appliance.store.store import Store
from appliance.web.api.caller import Authority
from appliance.web.api.description import Description
from appliance.web.api.messages import Messages
from appliance.web.api.tables import Tables


def paths(
    store: Store, hub: Hub, authority: Authority, options: ValueOptions, *, query_s: float
) -> Sequence[BaseRoute]:
    """Make the routes. ``query_s``: how long one query may be looked for, seconds."""
    return [
        Route("/live/topics/{topic:path}/messages", Messages(store, hub, authority).publish, methods=["POST"]),
        Route("/openapi.json", Description(store, authority, query_s).openapi),
        Route("/api/{rest:path}", Tables(store, authority, options, query_s=query_s)),
    ]
