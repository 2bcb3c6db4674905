"""Which pods' labels disagree with etcd, and how they are put right. Pure.

A sidecar labels its own pod. What is left for the operator: pods whose node is gone, whose sidecar
is frozen, that changed while the API server was down, that somebody labelled by hand, and those of
injected sidecars, which may not write their pod at all.

Never against a newer term: a pod that shows a term beyond the revision that the replica of the
queue has reached, has heard of a leader that we have not. Everything else that a patch needs for
safety (uid, version) is in `sidecar.kube.marks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.kube import marks
from sidecar.kube.marks import FOLLOWER, LEADER, Marks, Verdict
from sidecar.operator.facts import Pod
from sidecar.operator.view import View, pods_of

GRACE = 0.3
"""Seconds in which a sidecar may label its own pod before the operator does."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A pod that shows what is not true, and the merge patch that puts it right."""

    pod: Pod
    wanted: Marks
    patch: Mapping[str, Any] = field(repr=False)


def disagreements(view: View, pods: Sequence[Pod]) -> list[Repair]:
    """Return what to put right; nothing where etcd's word is not known."""
    if not view.is_known or view.trouble:
        return []
    standing = pods_of(view, pods)
    leader = standing.get(view.leader.key) if view.leader is not None else None
    queued = {pod.uid for pod in standing.values()}
    found: list[Repair] = []
    for pod in pods:
        if view.is_older_than(pod.marks.term):
            continue
        is_leader = leader is not None and pod.uid == leader.uid
        if not is_leader and not _concerns_us(pod, queued):
            continue
        wanted = Marks(LEADER, view.token) if is_leader else Marks(FOLLOWER, 0)
        # A larger term that is not beyond our revision was never one: it may be made smaller.
        if marks.judge(wanted, pod.marks, pod.uid, may_shrink=is_leader) is Verdict.WRITE:
            patch = marks.patch(wanted, pod.marks, may_shrink=is_leader)
            found.append(Repair(pod, wanted, patch))
    # Nobody says leader too much before somebody says it newly.
    return sorted(found, key=lambda repair: repair.wanted.role == LEADER)


def untold(view: View, pods: Iterable[Pod]) -> list[Pod]:
    """Return the pods that show a term we know nothing of: they are left as they are."""
    if not view.is_known or view.trouble:
        return []
    return [pod for pod in pods if view.is_older_than(pod.marks.term)]


def _concerns_us(pod: Pod, queued: set[str]) -> bool:
    if pod.marks.role == FOLLOWER:
        return pod.marks.cost is not None and (pod.is_ours or pod.uid in queued)
    return pod.marks.role is not None or pod.is_ours or pod.uid in queued


class Patience:
    """Since when each pod disagrees, so that its own sidecar has a chance first."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, Marks], float] = {}

    def due(self, found: Sequence[Repair], now: float) -> tuple[list[Repair], float | None]:
        """Return what to put right now, and after how many seconds to look again, or None.

        Args:
            found: all disagreements.
            now: seconds on any clock that runs on.
        """
        keys = {(repair.pod.uid, repair.wanted) for repair in found}
        self._since = {key: self._since.get(key, now) for key in keys}
        due, later = [], []
        for repair in found:
            left = self._since[repair.pod.uid, repair.wanted] + GRACE - now
            if repair.pod.is_ours or left <= 0:
                due.append(repair)
            else:
                later.append(left)
        return due, min(later, default=None)
