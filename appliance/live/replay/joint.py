"""What is due of some events to all who are alike: found for the first of them, and kept for the others.

When a thousand fall behind together, as the machine that they are on stood still, each is read for by itself. They have
the same events before them, and most want the same and may see the same; so what they are sent is the same, too, to the
letter. It rests on whose a reader is only where something is that reader's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from appliance.live.fanout.hub import STRETCH, Hub
from appliance.live.fanout.subscribers import Subscription
from appliance.live.matching.access import Reader, Sight
from appliance.live.matching.facts import Facts
from appliance.live.matching.telling import Told
from appliance.model import ascii_fold
from appliance.protocol.permissions import Guarded, Verb

#: For a subscription, so many frames, one behind the other.
Due: TypeAlias = tuple[Subscription, int, bytes]


class Joint(NamedTuple):
    """``frames``, so ``many``, for all who are alike and are none of these ``owners``; ``None``: too long to be kept.

    ``facts`` are what it was decided by: while they are held here, no others have their ``id``.
    """

    frames: bytes | None
    many: int
    owners: frozenset[str]
    facts: Facts


@dataclass(frozen=True, slots=True)
class _Anybody(Reader):
    """Somebody in the same groups who owns nothing; ``owners``: who might have been told something else."""

    owners: set[str] = field(default_factory=set, compare=False)

    def may(self, verb: Verb, on: Guarded) -> bool:
        """Decide as for a reader, and take note of whose it is."""
        if on.owner is not None:
            self.owners.add(on.owner)
        return Reader.may(self, verb, on._replace(owner=None))


def due(
    hub: Hub, subscriptions: Sequence[Subscription], events: Sequence[Told], facts: Facts, moment: tuple[object, ...]
) -> list[Due] | None:
    """Give what is due of these events, as ``Hub.frames`` says of each, where one subscription of many is read for.

    ``None``: that must be found for these by themselves. ``moment``: on what it rests, beside events and ``facts``.
    """
    if not hub.shared.many or len(subscriptions) > 1 or (one := subscriptions[0]).ended or one.owed is not None:
        return None
    topic = ascii_fold(one.topic)
    if any(each.topic != topic for each in events):  # of others it rests on the position, too
        return None
    principal, alike = one.reader.principal, None
    if one.audience.sight is not Sight.ALL:
        alike = (principal.admin, principal.guest, one.reader.groups)
    asked = (one.audience, alike, id(facts), tuple([each.id for each in events]))
    found = hub.shared.at(moment, asked, lambda: _of(hub, one, events, facts))
    if found.frames is None or principal.subject in found.owners:
        return None
    return [(one, found.many, found.frames)] if found.many else []


def _of(hub: Hub, subscription: Subscription, events: Sequence[Told], facts: Facts) -> Joint:
    reader = subscription.reader
    anybody = _Anybody(reader.principal, reader.groups)
    frames: list[bytes] = []
    size = 0
    for told in events:
        some = hub.frames(subscription, told, facts, anybody)
        frames += some
        size += sum(map(len, some))
        if size > STRETCH:
            return Joint(None, 0, frozenset(), facts)
    return Joint(b"".join(frames), len(frames), frozenset(anybody.owners), facts)
