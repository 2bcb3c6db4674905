"""What people are told by Events: transitions only, each once. Pure.

An Event's name is made of what happened and of the term, or of the moment of the condition's
transition, so one that is sent twice, by a retry or by another replica, is there once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.operator.facts import Pod
from sidecar.operator.names import API_VERSION, KIND, MANAGER
from sidecar.operator.spec import Election
from sidecar.operator.status import stamp
from sidecar.operator.view import View

_LONGEST = 1000  # characters of a message
_LONGEST_NAME = 180  # characters of the object's name in an Event's
_WAIT_FOR_GAP = 1.0
"""Seconds that the word of a new leader is waited for, which makes the gap known."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something to tell.

    Attributes:
        what: the Event's reason.
        mark: makes the Event's name: what happens again has another one.
        pod: whom it is about; None for the Election.
    """

    what: str
    message: str
    mark: str
    is_warning: bool = False
    pod: Pod | None = None


def conditions_changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Happening]:
    """Return what two statuses, one after the other, tell."""
    before, after = _by_type(old), _by_type(new)
    found: list[Happening] = []
    for type_, told in _TOLD.items():
        was, now = before.get(type_), after.get(type_)
        if now is None or now["status"] == "Unknown":
            continue
        known = str(was["status"]) if was is not None else ""
        if known == now["status"] or (known in {"", "Unknown"} and now["status"] == told.usual):
            continue
        what = told.usually if now["status"] == told.usual else told.otherwise
        mark = re.sub(r"\D", "", str(now["lastTransitionTime"]))
        is_warning = now["status"] != told.usual and told.warns
        found.append(Happening(what, now.get("message") or told.words[what], mark, is_warning))
    return found


@dataclass(frozen=True, slots=True)
class _Told:
    usual: str
    usually: str
    otherwise: str
    warns: bool
    words: Mapping[str, str]


_TOLD = {
    "LeaderPresent": _Told(
        "True", "LeaderBack", "LeaderLost", True, {"LeaderBack": "somebody leads again"}
    ),
    "StoreReachable": _Told(
        "True", "StoreReachable", "StoreUnreachable", True, {"StoreReachable": "etcd answers again"}
    ),
    "SingleLeader": _Told(
        "True", "LabelsAgree", "LabelsDiffer", True, {"LabelsAgree": "labels agree with etcd again"}
    ),
    "ServiceFollows": _Told(
        "True",
        "ServiceFollows",
        "ServiceAstray",
        True,
        {"ServiceFollows": "the Service follows the leader again"},
    ),
    "Paused": _Told(
        "False",
        "Resumed",
        "Paused",
        False,
        {"Resumed": "the election goes on", "Paused": "nobody leads until it goes on"},
    ),
}


def _by_type(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {c["type"]: c for c in status.get("conditions") or ()}


class Gaps:
    """For how long nobody led, by one clock: from the end of a key to the next leader's word.

    A new leader writes itself into the history as soon as it acts; that is its word. Who leads
    when the operator begins is news where the last replica has told of somebody else.

    Args:
        told: the status as the last replica left it; it shows the term told of last, or, where
            nobody led, its history does.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        history: Sequence[Mapping[str, Any]] = told.get("history") or ({},)
        leader = told.get("leader") or history[0]
        self._last = (
            int(told.get("token") or history[0].get("token") or 0),
            str(leader.get("id", "")),
        )
        self._token: int | None = None
        self._before = ""
        self._lost_at: float | None = None
        self._changed_at = 0.0
        self._gap: float | None = None
        self._is_told = True

    @property
    def last(self) -> float | None:
        """Seconds of the last gap, or None."""
        return self._gap

    def note(self, view: View, now: float) -> None:
        """Take in what the queue shows at `now`, seconds on a clock that runs on."""
        if not view.is_known:
            return
        token, first = view.token, self._token is None
        if token != self._token:
            if self._token:
                self._lost_at = now
            self._token, self._changed_at, self._gap = token, now, None
            self._is_told = not token or (first and self._last[0] in {0, token})
            if view.leader is not None:
                self._before = self._last_before(view)
                self._last = token, view.leader.proposal.id
        has_spoken = view.term(token) is not None
        if token and has_spoken and self._gap is None and self._lost_at is not None:
            self._gap = max(0.0, now - self._lost_at)

    def _last_before(self, view: View) -> str:
        """Return who led before the present term: whoever we saw last, or did not see at all."""
        token, id_ = self._last
        between = [(r.token, r.id) for r in view.history if token < r.token < view.token]
        return max(between, default=(token, id_))[1]

    def tell(self, view: View, now: float) -> tuple[Happening | None, float | None]:
        """Return the change of the leader, once, and else after how many seconds to ask again."""
        leader = view.leader
        if self._is_told or leader is None or leader.token != self._token:
            return None, None
        left = self._changed_at + _WAIT_FOR_GAP - now
        if self._gap is None and self._lost_at is not None and left > 0:
            return None, left
        self._is_told = True
        record = view.term(leader.token)
        words = [f"{leader.proposal.id} leads with fencing token {leader.token}"]
        if self._before and self._before != leader.proposal.id:
            words.append(f"after {self._before}")
        if record is not None and record.before:
            words.append(f"whose term ended by {record.before}")
        if self._gap is not None:
            words.append(f"after {self._gap * 1000:.0f} ms without a leader")
        return Happening("LeaderChanged", ", ".join(words), str(leader.token)), None


def event(happening: Happening, election: Election, now: float, reporter: str) -> dict[str, Any]:
    """Return the Event to create, at `now` (wall clock), reported by the pod `reporter`."""
    at = stamp(now)
    about, name = _about(happening, election)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", happening.what).lower()
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{name[:_LONGEST_NAME].rstrip('-.')}.{words}.{happening.mark}",
            "namespace": election.namespace,
        },
        "involvedObject": about,
        "type": "Warning" if happening.is_warning else "Normal",
        "reason": happening.what,
        "message": happening.message[:_LONGEST],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "reportingInstance": reporter,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


def _about(happening: Happening, election: Election) -> tuple[dict[str, Any], str]:
    pod = happening.pod
    if pod is not None:
        about = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
        return about | {"namespace": pod.namespace}, pod.name
    about = {"apiVersion": API_VERSION, "kind": KIND, "name": election.name, "uid": election.uid}
    return about | {"namespace": election.namespace}, election.name
