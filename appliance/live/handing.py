"""From who is to be told what to the receivers: one stroke each, and frames in the order of their events."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeAlias

from appliance.live.subscribers import Receiver, Subscription

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
        payload = b"".join(own)
        for subscription in tuple(members_of[who]):
            if not subscription.receiver.deliver(payload):
                _left(subscription.receiver, {subscription: len(own)}, passing)
        return
    several: dict[Receiver, list[Hashable]] = {}
    for who, members in members_of.items():
        for subscription in members:
            several.setdefault(subscription.receiver, []).append(who)
    payloads: dict[tuple[Hashable, ...], bytes] = {}
    for receiver, all_of_it in several.items():
        whose = tuple(all_of_it)
        joint = payloads.get(whose)
        if joint is None:
            if len(whose) == 1:
                joint = b"".join(frames_of[whose[0]])
            else:
                wanted = frozenset(whose)
                joint = b"".join([frame for who, _, frame in due if who in wanted])
            payloads[whose] = joint
        if not receiver.deliver(joint):
            missed = {
                each: len(frames_of[who]) for who in whose for each in members_of[who] if each.receiver is receiver
            }
            _left(receiver, missed, passing)


def _left(receiver: Receiver, missed: Mapping[Subscription, int], passing: bool) -> None:
    if not passing:
        receiver.fall_behind()
        return
    for subscription, count in missed.items():
        receiver.missed(subscription.topic, count)
