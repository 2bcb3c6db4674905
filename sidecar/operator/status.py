"""The status of an Election: what etcd says, and how far Kubernetes agrees. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.core.codec import TermRecord
from sidecar.core.queue import Entry
from sidecar.operator.facts import Pod
from sidecar.operator.spec import Election
from sidecar.operator.view import View, pods_of

SHOWN_CANDIDATES = 100
SHOWN_TERMS = 10
_LONGEST = 1000  # characters of a message

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Astray:
    """Why a Service does not follow the leader: the reason and the message of its condition."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Seen:
    """All that a status is made of.

    Attributes:
        wrong: names of pods whose labels have disagreed for longer than they may.
        late: names of pods that show a term which etcd does not know.
        problem: why the Election cannot be followed at all, or "".
        service: the Service that shows the leader, or "".
        astray: why the Service does not follow the leader, or None: it does.
        move: the last planned move, as it stands in the status.
        paused_by_spec: whether the pause is ours.
    """

    election: Election
    view: View
    pods: Sequence[Pod] = ()
    wrong: Sequence[str] = ()
    late: Sequence[str] = ()
    problem: str = ""
    service: str = ""
    astray: Astray | None = None
    move: Mapping[str, Any] | None = None
    paused_by_spec: bool = False


def stamp(wall: float) -> str:
    """Return a time as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall))


def status_of(seen: Seen, now: float) -> Status:
    """Return the whole status.

    Args:
        seen: what there is; `seen.election.status` is the status up to now.
        now: wall clock, seconds since 1970.
    """
    old, view = seen.election.status, seen.view
    status: Status = {"observedGeneration": seen.election.generation}
    if view.is_known and not seen.problem:
        status |= _followed(seen, now)
    else:
        kept = ("leader", "token", "since", "candidates", "candidateCount", "history")
        status |= {name: old[name] for name in kept if name in old}
    if not status.get("transitions"):
        status["transitions"] = int(old.get("transitions") or 0)
    if seen.paused_by_spec:
        status["pausedBySpec"] = True
    if seen.service:
        status["service"] = seen.service
    if seen.move:
        status["move"] = dict(seen.move)
    status["conditions"] = _conditions(seen, now)
    status["health"] = _health(seen)
    return status


def change(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes `new` of `old`; empty where they are the same."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        if name not in old:
            patch[name] = value
        elif isinstance(value, Mapping) and isinstance(old[name], Mapping):
            if inner := change(old[name], value):
                patch[name] = inner
        elif value != old[name]:
            patch[name] = value
    return patch


def _followed(seen: Seen, now: float) -> Status:
    old, view = seen.election.status, seen.view
    standing = pods_of(view, seen.pods)
    leader = view.leader
    token = view.token
    status: Status = {
        "transitions": _transitions(old, view),
        "candidateCount": len(view.entries),
        "candidates": [_candidate(e, standing) for e in view.entries[:SHOWN_CANDIDATES]],
        "history": [_term(record) for record in view.history[:SHOWN_TERMS]],
    }
    if leader is not None:
        record = view.term(token)
        if record is not None:
            since = stamp(record.since)
        else:
            since = (
                str(old["since"]) if old.get("token") == token and "since" in old else stamp(now)
            )
        status |= {"leader": _candidate(leader, standing), "token": token, "since": since}
    return status


def _transitions(old: Mapping[str, Any], view: View) -> int:
    counted, known = int(old.get("transitions") or 0), int(old.get("token") or 0)
    if not known and old.get("history"):
        known = int(old["history"][0].get("token") or 0)
    if not view.token or view.token == known:
        return counted
    begun = {r.token for r in view.history if known < r.token < view.token} if known else set()
    return counted + len(begun) + 1


def _candidate(entry: Entry, standing: Mapping[bytes, Pod]) -> Status:
    pod = standing.get(entry.key)
    fields = {
        "id": entry.proposal.id,
        "pod": pod.name if pod else "",
        "node": pod.node if pod else "",
        "address": entry.proposal.address,
    }
    return {name: value for name, value in fields.items() if value}


def _term(record: TermRecord) -> Status:
    fields = {
        "token": record.token,
        "id": record.id,
        "from": stamp(record.since),
        "until": "" if record.until is None else stamp(record.until),
        "reason": record.reason,
    }
    return {name: value for name, value in fields.items() if value}


def _health(seen: Seen) -> str:
    if seen.problem:
        return "Invalid"
    if seen.view.trouble or not seen.view.is_known:
        return "StoreUnreachable"
    if seen.view.is_paused:
        return "Paused"
    if seen.view.leader is None:
        return "NoLeader"
    if seen.wrong or seen.late:
        return "LabelsDiffer"
    return "ServiceAstray" if seen.astray else "Healthy"


def _conditions(seen: Seen, now: float) -> list[Status]:
    view = seen.view
    if seen.problem:
        unknown = ("Unknown", "Invalid", seen.problem)
        found = dict.fromkeys(
            ("LeaderPresent", "SingleLeader", "StoreReachable", "Paused"), unknown
        )
    elif view.trouble or not view.is_known:
        why = view.trouble or "no answer yet"
        found = dict.fromkeys(
            ("LeaderPresent", "SingleLeader", "Paused"), ("Unknown", "StoreUnreachable", "")
        )
        # What an outage looks like changes from try to try; the first account of it stays.
        found["StoreReachable"] = ("False", "NoAnswer", _first_account(seen, why))
    else:
        found = {
            "LeaderPresent": _present(view),
            "SingleLeader": _single(seen),
            "StoreReachable": ("True", "Answers", ""),
            "Paused": _paused(seen),
        }
    if seen.election.service is not None or seen.astray or (seen.problem and seen.service):
        found["ServiceFollows"] = _service(seen)
    return [_condition(seen, type_, said, now) for type_, said in sorted(found.items())]


def _first_account(seen: Seen, why: str) -> str:
    old = _old_condition(seen.election.status, "StoreReachable")
    if old.get("status") == "False" and old.get("message"):
        return str(old["message"])
    return why


def _present(view: View) -> tuple[str, str, str]:
    if view.leader is not None:
        return "True", "Elected", ""
    if view.is_paused:
        return "False", "Paused", "the election is paused"
    return "False", "NoCandidate", "nobody stands in the election"


def _single(seen: Seen) -> tuple[str, str, str]:
    if seen.wrong:
        return "False", "LabelsDiffer", f"labels disagree with etcd: {', '.join(seen.wrong)}"
    if seen.late:
        return (
            "False",
            "NewerTermSeen",
            f"a term that etcd does not know is shown by {', '.join(seen.late)}: was it restored?",
        )
    return "True", "LabelsAgree", ""


def _service(seen: Seen) -> tuple[str, str, str]:
    if seen.astray:
        return "False", seen.astray.reason, seen.astray.message
    if seen.problem:
        return "Unknown", "Invalid", seen.problem
    if seen.view.trouble or not seen.view.is_known:
        return "Unknown", "StoreUnreachable", ""
    return "True", "Written", ""


def _paused(seen: Seen) -> tuple[str, str, str]:
    wants = seen.election.paused is True
    if seen.view.is_paused:
        if seen.paused_by_spec or wants:
            return "True", "PausedBySpec", ""
        return "True", "PausedElsewhere", "leader-sidecar resume, or whoever paused it, ends this"
    return ("False", "Pausing", "the pause is asked for") if wants else ("False", "Running", "")


def _condition(seen: Seen, type_: str, said: tuple[str, str, str], now: float) -> Status:
    status, reason, message = said
    old = _old_condition(seen.election.status, type_)
    is_same = old.get("status") == status and "lastTransitionTime" in old
    return {
        "type": type_,
        "status": status,
        "observedGeneration": seen.election.generation,
        "lastTransitionTime": old["lastTransitionTime"] if is_same else stamp(now),
        "reason": reason,
        "message": message[:_LONGEST],
    }


def _old_condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    conditions = status.get("conditions") or ()
    return next((c for c in conditions if c.get("type") == type_), {})
