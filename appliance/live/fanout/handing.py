"""From who is to be told what to the receivers: one stroke each, and frames in the order of their events."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import TypeAlias

from appliance.live.fanout.lane import MANY, Lane, Left
from appliance.live.fanout.subscribers import Receiver, Subscription
from appliance.live.matching.readership import Members

#: Frames for some subscriptions, and what says that they are the same ones as those of another.
Due: TypeAlias = tuple[Hashable, Collection[Subscription], bytes]


def hand_out(due: Sequence[Due], *, passing: bool = False) -> None:
    """Hand frames to all members that they are for, to each receiver all of its own at one stroke, in order."""
    frames_of: dict[Hashable, list[bytes]] = {}
    members_of: dict[Hashable, Collection[Subscription]] = {}
    for who, members, frame in due:
        frames_of.setdefault(who, []).append(frame)
        members_of[who] = members
    if len(frames_of) == 1:
        ((who, own),) = frames_of.items()
        for subscription in _offer(members_of[who], b"".join(own)):
            _left(subscription.receiver, [(subscription, len(own))], passing)
        return
    several: dict[Receiver, list[tuple[Hashable, Subscription]]] = {}
    for who, members in members_of.items():
        for subscription in members:
            several.setdefault(subscription.receiver, []).append((who, subscription))
    alike: dict[tuple[Hashable, ...], list[Subscription]] = {}
    for all_of_it in several.values():
        alike.setdefault(tuple([who for who, _ in all_of_it]), []).append(all_of_it[0][1])
    for whose, some in alike.items():
        if len(whose) == 1:
            joint = b"".join(frames_of[whose[0]])
        else:
            wanted = frozenset(whose)
            joint = b"".join([frame for who, _, frame in due if who in wanted])
        for refused in _offer(some, joint):
            missed = [(each, len(frames_of[who])) for who, each in several[refused.receiver]]
            _left(refused.receiver, missed, passing)


def _offer(members: Collection[Subscription], frames: bytes) -> list[Subscription]:
    """Offer the same frames to the receiver of each of these; give those whose receivers did not take them.

    What an event costs is mostly this, so nothing stands between it and an idle socket.
    """
    lane = _lane(members)
    left = _offer_each(members, frames) if lane is None else lane.offer(frames)
    # First who has a part of a frame, or gets it whatever is done: nothing else can come to him before the rest of it,
    # and ``deliver`` may find that he has ended.
    whole: list[Subscription] = []
    for subscription, sent in left:
        way = subscription.way
        if sent or (way.straight is not None and way.begun):
            way.went(frames, sent)
            way.delivered_alone += 1
        else:
            whole.append(subscription)
    return [each for each in whole if not each.receiver.deliver(frames)]


def _lane(members: Collection[Subscription]) -> Lane | None:
    """Give the lane of members that are many and stay together; whoever comes and goes, it knows."""
    if len(members) < MANY or not isinstance(members, Members):
        return None
    if not isinstance(members.beside, Lane):
        members.beside = Lane(members)
    return members.beside


def _offer_each(members: Collection[Subscription], frames: bytes) -> list[Left]:
    """Send frames to each of these; give to whom they did not go, or not whole."""
    size = len(frames)
    left: list[Left] = []
    for subscription in members:
        way = subscription.way
        sent = 0
        if way.straight is not None:
            try:
                sent = way.straight.send(frames)
            except OSError:  # it is full, or broken
                sent = 0
        if sent == size:
            way.sent_alone += size
            way.delivered_alone += 1
        else:
            left.append((subscription, sent))
    return left


def _left(receiver: Receiver, missed: Iterable[tuple[Subscription, int]], passing: bool) -> None:
    """Have a receiver go on by itself that has not taken so many events of its subscriptions."""
    if not passing:
        receiver.fall_behind()
        return
    for subscription, count in missed:
        receiver.missed(subscription.topic, count)
