"""What is to be done before a pod is evicted. Pure.

The eviction is held for a moment while the leader hands over, and then allowed: it is never our
business to keep a pod. A disruption budget that refuses the eviction anyway makes a handover vain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.operator.facts import Pod
from sidecar.operator.moves import EVICTION, Move, Scene, target
from sidecar.operator.spec import read_selector
from sidecar.operator.view import pod_of_leader


@dataclass(frozen=True, slots=True)
class Eviction:
    """A request to evict a pod."""

    namespace: str
    name: str
    is_dry_run: bool


def read_eviction(request: Mapping[str, Any]) -> Eviction:
    """Read the request of an AdmissionReview."""
    body = request.get("object") or {}
    options = body.get("deleteOptions") or {}
    is_dry_run = bool(request.get("dryRun")) or "All" in (options.get("dryRun") or ())
    name = request.get("name") or (body.get("metadata") or {}).get("name") or ""
    return Eviction(str(request.get("namespace", "")), str(name), is_dry_run)


def is_refused_anyway(pod: Pod, budgets: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a disruption budget allows no eviction of the pod, so that it stays for now."""
    for budget in budgets:
        spec, status = budget.get("spec") or {}, budget.get("status") or {}
        selector = spec.get("selector")
        # An empty selector of a policy/v1 budget selects every pod.
        covers = selector == {} or read_selector(selector).matches(pod.labels)
        if covers and int(status.get("disruptionsAllowed") or 0) == 0:
            return True
    return False


def move_before(scene: Scene, pod: Pod) -> Move | None:
    """Return the handover to ask for before the pod goes, or None: it does not lead."""
    leader = scene.view.leader
    if leader is None or leader.proposal.is_foreign or not scene.view.is_known:
        return None
    behind = pod_of_leader(scene.view, scene.pods)
    if behind is None or behind.uid != pod.uid:
        return None
    # Whoever shares the node is likely to be evicted next.
    found = target(scene, but_not=(pod.uid, pod.node)) or target(scene, but_not=(pod.uid,))
    return None if found is None else Move(EVICTION, leader.token, found)
