"""The paths of the HTTP API."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import BaseRoute, Route

from appliance.live.fanout.hub import Hub
from appliance.live.session.accounts import Accounts
from appliance.live.tail.tail import Tail
from appliance.protocol.values import ValueOptions
from appliance.store.store import Store
from appliance.web.api.actions import Actions
from appliance.web.api.caller import Authority
from appliance.web.api.description import Description
from appliance.web.api.entrance import Entrance, Rates
from appliance.web.api.messages import Messages
from appliance.web.api.tables import Tables


class _Rest(PathConvertor):
    """All that is left of a path. ``path`` of Starlette ends at a line feed, which names may hold."""

    regex = "(?s:.*)"


register_url_convertor("rest", _Rest())


def paths(
    store: Store,
    hub: Hub,
    tail: Tail,
    authority: Authority,
    accounts: Accounts,
    options: ValueOptions,
    *,
    query_s: float,
    message_bytes: int,
    rates: Rates,
) -> Sequence[BaseRoute]:
    """Make the routes.

    ``query_s``: how long a query may be looked for, seconds; ``message_bytes``: how long a message may be; ``rates``:
    how often one may ask.
    """
    entrance = Entrance(authority, rates)
    actions = Actions(accounts, entrance)
    messages = Messages(store, hub, tail, entrance, message_bytes)
    return [
        Route("/action/user_account/signup", actions.sign_up, methods=["POST"]),
        Route("/action/user_account/signin", actions.sign_in, methods=["POST"]),
        Route("/setup", actions.setup, methods=["GET", "POST"]),
        Route("/live/topics/{topic:rest}/messages", messages.publish, methods=["POST"]),
        Route("/openapi.json", Description(store, entrance, query_s).openapi),
        Route("/api/{names:rest}", Tables(store, entrance, accounts, options, query_s=query_s)),
    ]
