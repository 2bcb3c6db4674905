"""What a candidate tells the world: one frozen snapshot.

A snapshot says *leader* together with its deadline, and nobody may use one without the other:
`ElectionState.at` turns it into what is true at a given moment.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from sidecar.core.lease import NEVER


class Role(enum.StrEnum):
    """What the candidate is at the moment."""

    LEADER = "leader"
    FOLLOWER = "follower"
    OBSERVER = "observer"


class Link(enum.StrEnum):
    """How the candidate stands with the store.

    SUSPENDED: it has not answered in time, and the own key may live. LOST: the lease is gone.
    """

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


class Reason(enum.StrEnum):
    """Why the role is what it is: how a term began or ended."""

    STARTING = "starting"
    WAITING = "waiting"
    ELECTED = "elected"
    RESUMED = "resumed"
    RESIGNED = "resigned"
    HANDOVER = "handover"
    PRIORITY = "priority"
    PAUSED = "paused"
    UNHEALTHY = "unhealthy"
    RETIRED = "retired"
    SHUTDOWN = "shutdown"
    DEADLINE_PASSED = "deadline_passed"
    KEY_GONE = "key_gone"
    SESSION_LOST = "session_lost"
    TOKEN_WENT_BACK = "token_went_back"  # noqa: S105 - a fencing token is no secret
    STORE_REPLACED = "store_replaced"


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, as the queue says. Whether it still acts is known only to itself."""

    id: str
    address: str
    token: int
    key: str


@dataclass(frozen=True, slots=True)
class ElectionState:
    """One candidate's view of its election at one moment.

    Attributes:
        election: the election's name.
        id: the own id.
        role: LEADER only together with `token`, `key` and `deadline`.
        token: the fencing token of the own term, or 0.
        key: the own key in a term, or "".
        deadline: until when the own term may be acted on, CLOCK_BOOTTIME seconds.
        leader: who leads, or None when nobody does or it is not known.
        since: wall clock of the last change of role, seconds since 1970.
        transitions: changes of the leader seen by this process.
        candidates: ids in queue order.
        reason: why the role is what it is.
        link: how it stands with the store.
        is_registered: whether the own key stands in the queue.
        is_paused: whether the election is paused.
        is_duplicate: whether an older candidate stands with the same id.
        kept_until: in a term that is acted on no more, and whose key is not yet given up: until
            when that key stands for certain, CLOCK_BOOTTIME seconds. Nobody else acts before.
    """

    election: str
    id: str
    role: Role = Role.FOLLOWER
    token: int = 0
    key: str = ""
    deadline: float = NEVER
    leader: Leader | None = None
    since: float = 0.0
    transitions: int = 0
    candidates: tuple[str, ...] = ()
    reason: Reason = Reason.STARTING
    link: Link = Link.LOST
    is_registered: bool = False
    is_paused: bool = False
    is_duplicate: bool = False
    kept_until: float = NEVER

    def is_leader(self, now: float) -> bool:
        """Whether the term in this snapshot may still be acted on at `now` (CLOCK_BOOTTIME)."""
        return self.role is Role.LEADER and now < self.deadline

    def at(self, now: float) -> ElectionState:
        """Return what is true at `now`: past its deadline a leader is a suspended follower."""
        if self.role is not Role.LEADER or now < self.deadline:
            return self
        return replace(
            self,
            role=Role.FOLLOWER,
            token=0,
            key="",
            deadline=NEVER,
            leader=None,
            reason=Reason.DEADLINE_PASSED,
            link=Link.SUSPENDED,
        )
