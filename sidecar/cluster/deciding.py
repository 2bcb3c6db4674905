"""How a member of etcd begins: pure, from what its init container has seen.

The dangerous case is an empty directory. Such a member may only begin a new cluster when nobody has
data: two halves of one cluster would else forget what they had agreed on. "Nobody answers" is not
enough for that, since the others may be cut off; every member of the plan must say it is empty.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.etcd.admin import MemberInfo, MemberList
from sidecar.etcd.wal import Identity


class Data(enum.Enum):
    """What is known of a member's directory."""

    EMPTY = "empty"
    PRESENT = "present"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Seen:
    """What an init container has seen.

    Attributes:
        name: the own member's name.
        peer_url: where others reach it.
        own_data: whether the own directory holds any.
        identity: whose data it is; None when there is none, or the log does not tell.
        members: what the cluster says; None: nobody answers.
        is_agreed: whether a quorum agreed on that, so that it cannot be outdated.
        others: what is known of each other member of the plan, by its name.
        replaces_lost: whether a member that lost its data may be replaced.
    """

    name: str
    peer_url: str
    own_data: bool
    identity: Identity | None
    members: MemberList | None
    is_agreed: bool
    others: Mapping[str, Data]
    replaces_lost: bool


@dataclass(frozen=True, slots=True)
class Start:
    """Start with the data that is there."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin a new cluster, together with the others."""


@dataclass(frozen=True, slots=True)
class Join:
    """Start empty, as the member that the cluster has in its list already."""

    members: tuple[MemberInfo, ...]


@dataclass(frozen=True, slots=True)
class Add:
    """Have the cluster take this member up as a learner, then look again."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Have the cluster forget the member whose data is lost, then look again."""

    lost: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Move the data away, which is that of a member that was removed, then look again."""

    removed: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after a while."""

    why: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Do nothing: only a person can know what is right."""

    why: str


Decision = Start | Begin | Join | Add | Replace | Discard | Wait | Stop


def decide(seen: Seen) -> Decision:
    """Tell how the member begins."""
    if seen.own_data:
        return _with_data(seen)
    if seen.members is None:
        return _alone(seen)
    own = _own(seen.members, seen.peer_url)
    if own is None:
        return Add() if seen.is_agreed else Wait("to be added takes a quorum, and none answers")
    if not own.has_started:
        return Join(seen.members.members)
    if seen.replaces_lost:
        return (
            Replace(own.id)
            if seen.is_agreed
            else Wait(f"to replace member {own.id:x} takes a quorum, and none answers")
        )
    return Stop(
        f"{seen.name} has an empty directory, and the cluster knows it as member {own.id:x}, which "
        "had data: its volume was lost or exchanged. Set etcd.autoReplaceMember=true to have it "
        f"replaced by an empty member, or do it by hand: etcdctl member remove {own.id:x}, then "
        "delete this pod"
    )


def _with_data(seen: Seen) -> Decision:
    found = seen.identity
    if seen.members is None or found is None:
        return Start()  # a restart of all; etcd itself refuses what it cannot read
    if found.cluster != seen.members.cluster_id:
        return Stop(
            f"the data of {seen.name} is of the cluster {found.cluster:x}, and the members that "
            f"answer are of the cluster {seen.members.cluster_id:x}: the volume is of another "
            "cluster. Delete its PersistentVolumeClaim if its data is not wanted"
        )
    if any(member.id == found.member for member in seen.members.members):
        return Start()
    if not seen.is_agreed:
        return Wait(f"member {found.member:x} may have been removed, and no quorum answers")
    return Discard(found.member)


def _alone(seen: Seen) -> Decision:
    """Nobody answers, and the own directory is empty."""
    holders = [name for name, data in seen.others.items() if data is Data.PRESENT]
    if holders:
        return Wait(f"{', '.join(sorted(holders))} has data, and no member answers")
    unknown = [name for name, data in seen.others.items() if data is Data.UNKNOWN]
    if unknown:
        return Wait(f"nobody knows yet whether {', '.join(sorted(unknown))} has data")
    return Begin()


def _own(listed: MemberList, peer_url: str) -> MemberInfo | None:
    return next((m for m in listed.members if peer_url in m.peer_urls), None)


def initial_cluster(members: Mapping[str, str]) -> str:
    """Return etcd's notation for members and their URLs."""
    return ",".join(f"{name}={url}" for name, url in members.items())
