"""What a pod shall show, what it shows, and whether the one may be written over the other. Pure.

Why a patch that comes late does no harm
----------------------------------------
A patch whose answer was never heard may land at any later time: it may hang in a buffer of a frozen
process or of a proxy, be sent twice, or wait in the API server. So every patch names the `uid` and
the `resourceVersion` that it was decided upon, and the API server, which changes the version with
every write, takes it on exactly that one and else answers 409. Hence: whatever was written later
than the version a patch was decided upon, be it by us, by a restart of this sidecar, or by an
operator who repaired the label, is never overwritten by that patch; and one that is sent twice
takes effect once. A pod of the same name that was made after us has another `uid`.

The version alone does not help who *reads* first and then writes what is no longer true. There the
term decides: a leader never writes over a larger term. A follower may: it says what is safe, it
holds the lock of the status directory, so no other process of this pod is at work, and what it
finds there is a predecessor's last word. It never makes the term smaller.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROLE = "leader-sidecar.io/role"
TERM = "leader-sidecar.io/term"
COST = "controller.kubernetes.io/pod-deletion-cost"

LEADER, FOLLOWER = "leader", "follower"
_LEADERS_COST = "1000"  # a ReplicaSet deletes pods of lower cost first; without one it is 0
_LONGEST_TERM = 19  # digits of etcd's largest revision


@dataclass(frozen=True, slots=True)
class Marks:
    """What the pod shall show.

    Attributes:
        role: `LEADER` or `FOLLOWER`.
        term: the fencing token of the own term that runs, or of the last one; 0: there was none.
    """

    role: str
    term: int


@dataclass(frozen=True, slots=True)
class Pod:
    """What the API server shows of the pod, at one version of it.

    Attributes:
        term: as in `Marks`; 0 also for an annotation that is no token.
    """

    uid: str
    version: str
    role: str | None = None
    term: int = 0
    cost: str | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Pod:
        """Read an object of the API.

        Raises:
            ValueError: it is none.
        """
        try:
            metadata = document["metadata"]
            labels = metadata.get("labels") or {}
            annotations = metadata.get("annotations") or {}
            return cls(
                uid=str(metadata["uid"]),
                version=str(metadata["resourceVersion"]),
                role=labels.get(ROLE),
                term=_term(annotations.get(TERM)),
                cost=annotations.get(COST),
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError("the answer is no object of the API") from exc


class Verdict(enum.Enum):
    """What to do about a pod."""

    WRITE = enum.auto()
    DONE = enum.auto()  # it shows what it shall
    OUTDATED = enum.auto()  # it shows a term after the one that shall be written
    REPLACED = enum.auto()  # it is another pod of the same name


def judge(wanted: Marks, found: Pod, uid: str, *, may_shrink: bool = False) -> Verdict:
    """Decide what to do.

    Args:
        wanted: what the pod shall show.
        found: what it shows.
        uid: the own pod's.
        may_shrink: tokens may have gone back (`--accept-token-reset`).
    """
    if found.uid != uid:
        return Verdict.REPLACED
    if wanted.role == LEADER and found.term > wanted.term and not may_shrink:
        return Verdict.OUTDATED
    target = _target(wanted, found, may_shrink=may_shrink)
    shown = (found.role, found.term, found.cost)
    return Verdict.DONE if shown == (target.role, target.term, _cost(target)) else Verdict.WRITE


def patch(wanted: Marks, found: Pod, *, may_shrink: bool = False) -> dict[str, Any]:
    """Return the merge patch that makes `found` show what is wanted, on this version alone."""
    target = _target(wanted, found, may_shrink=may_shrink)
    return {
        "metadata": {
            "uid": found.uid,
            "resourceVersion": found.version,
            "labels": {ROLE: target.role},
            "annotations": {
                TERM: str(target.term) if target.term else None,
                COST: _cost(target),
            },
        }
    }


def _target(wanted: Marks, found: Pod, *, may_shrink: bool) -> Marks:
    if wanted.role == LEADER or (may_shrink and wanted.term):
        return wanted
    return Marks(FOLLOWER, max(wanted.term, found.term))


def _cost(marks: Marks) -> str | None:
    return _LEADERS_COST if marks.role == LEADER else None


def _term(text: object) -> int:
    if not isinstance(text, str) or len(text) > _LONGEST_TERM:
        return 0
    return int(text) if text.isascii() and text.isdigit() else 0
