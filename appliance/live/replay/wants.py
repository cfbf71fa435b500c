"""What of the outbox subscriptions want: what SQLite is asked for, before their filters decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from appliance.errors import BadFilter
from appliance.live.fanout.hub import Hub
from appliance.live.fanout.subscribers import Subscription
from appliance.live.matching.access import Sight
from appliance.model import Op, Shape, ascii_fold
from appliance.protocol.filters import RowFilter
from appliance.store.outbox.wanted import Wanted

#: Of more subscriptions at once SQLite is not asked which events they want: everything is read.
ASKED_FOR: Final = 32


def of(hub: Hub, subscriptions: Sequence[Subscription]) -> Wanted:
    """Want what any of some subscriptions wants."""
    if len(subscriptions) > ASKED_FOR:
        return Wanted.everything(hub.shapes.values())
    return Wanted.any_of([_of(hub, each) for each in subscriptions])


def by_table(hub: Hub, subscriptions: Sequence[Subscription]) -> dict[str, list[Subscription]]:
    """Give those that are told of the events of a topic (folded), which may be a table that joins their rows."""
    found: dict[str, list[Subscription]] = {}
    for each in subscriptions:
        found.setdefault(ascii_fold(each.topic), []).append(each)
        if (joining := _joining(hub, each)) is not None:
            found.setdefault(joining, []).append(each)
    return found


def _of(hub: Hub, subscription: Subscription) -> Wanted:
    folded, ending = ascii_fold(subscription.topic), subscription.ending
    is_table = hub.table(folded) is not None if ending is None else ending.begun is None
    if not is_table:
        return Wanted.messages(subscription.topic)
    asked: list[tuple[Shape, RowFilter | None]] = []
    joining = _joining(hub, subscription)
    for shape in hub.shapes.values():
        if ascii_fold(shape.table) == joining:
            asked.append((shape, None))
        elif ascii_fold(shape.table) == folded:
            try:
                asked.append((shape, _with_what_closes(subscription, subscription.audience.row_filter(shape))))
            except BadFilter:
                continue  # of that shape it is told nothing
    return Wanted.rows(asked)


def _with_what_closes(subscription: Subscription, wanted: RowFilter | None) -> RowFilter | None:
    """Want updates beside deletions where these may take a row from its reader that its transaction deletes."""
    by_row = subscription.audience.sight is Sight.BY_ROW
    if wanted is None or not by_row or Op.DELETE not in wanted.events:
        return wanted
    return replace(wanted, events=wanted.events | {Op.UPDATE})


def _joining(hub: Hub, subscription: Subscription) -> str | None:
    """Name (folded) the table that joins a subscription's rows to groups, if it is told of these, too."""
    if not subscription.wish.live_set or subscription.audience.sight is not Sight.BY_ROW:
        return None
    return hub.access.joining(subscription.topic)
