"""What a subscriber is told unasked: every notice with its reasons, in one table."""

from __future__ import annotations

from typing import Final

from appliance.live.wire.frames import text_frame
from appliance.model import JSON, Position
from appliance.protocol import frames

RESYNC: Final = "resync"
TABLE_DROPPED: Final = "table-dropped"
TOPIC_DESTROYED: Final = "topic-destroyed"
LIVE: Final = "live"
DROPPED: Final = "dropped"

#: By event type: the reasons that it is sent for; those without have none. The reference is tested against it.
NOTICES: Final[dict[str, tuple[str, ...]]] = {
    RESYNC: ("schema", "overrun", "permission"),
    LIVE: (),
    DROPPED: (),
    TOPIC_DESTROYED: ("destroyed", "table", "permission"),
    TABLE_DROPPED: ("dropped", "unwatched", "filter", "permission"),
}


def because(event_type: str, topic: str, reason: str, **more: JSON) -> bytes:
    """Give the frame of a notice that has a reason."""
    if reason not in NOTICES[event_type]:
        raise ValueError(f"{event_type} is not sent because of {reason}")
    return text_frame(frames.notice(event_type, topic, {"reason": reason, **more}))


def live(topic: str, position: Position, count: int) -> bytes:
    """Say that a replay or a snapshot, of ``count`` rows and events, is complete up to a position."""
    return text_frame(frames.notice(LIVE, topic, {"EventId": position.id, "epoch": position.epoch, "count": count}))


def dropped(topic: str, count: int) -> bytes:
    """Say how many messages of a topic that is not durable were not sent."""
    return text_frame(frames.notice(DROPPED, topic, {"count": count}))
