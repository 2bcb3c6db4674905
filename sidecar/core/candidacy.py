"""One candidacy from its first request to its end, and the rule that says who may act.

Rule 1: everything that affects *who may act, and when* is in this file.

A candidacy is named by its key **and** the revision that created it (the fencing token). The
same key created again is another candidacy with another token. It goes through five phases::

                 campaign_sent            stood
        OUT ───────────────▶ CAMPAIGNING ───────▶ STANDING ──┐ step_down
         ▲ ▲                   │  refused             │       ▼
         │ └───────────────────┘                      │   STOPPING
         │                                            │       │
         │                            give_up_sent    ▼       ▼ give_up_sent
         └────────────────────────────────────────── GIVING_UP
              key_gone, lease_lost (from any phase)

What each phase is for:

* **OUT**: no request of ours that could create a key is under way, and we hold no key.
* **CAMPAIGNING**: the Txn that creates the key was sent, and no answer was heard. It may take
  effect at any time. The way out is to send the same Txn again, on the same lease, and adopt
  what it finds; or to revoke the lease, on which a late put then fails.
* **STANDING**: the key exists as far as we know. This is the only phase that may act.
* **STOPPING**: we have stopped acting, and keep the key until nobody can still believe in us
  (the status file, a child process). Nobody else can lead meanwhile: that is its purpose.
* **GIVING_UP**: a request that can remove the key was *sent*. Whatever becomes of it, the
  candidacy never acts again: the request may take effect at any later time, and from then on
  somebody else leads. It is repeated until a definite answer, or the lease is revoked or ends.

Why may_act asks for so much:

* *own key with its create revision, first in the replica*: the queue decides who leads. Being
  first is stable, so a replica that lags behind can be wrong only about our own key's end.
* *deadline not passed*: covers exactly that end. While the deadline stands, the store keeps our
  lease, and with it our key, whatever the replica has not heard yet. The deadline comes from a
  proof (a renewal **and** a linearizable read of the own key after it, under one raft term);
  a renewal alone proves only the lease, and a deposed leader of the store may answer one.
* *the clock is asked at each use*: a flag that a timer clears is wrong after a freeze, because
  an event loop runs waiting callbacks before overdue timers.
* *no pause key*, and *a token not below the largest ever seen*: a store restored from an older
  backup may hand out tokens that fencing has already passed.

Each rule has a switch in `model/`, which shows what goes wrong without it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from sidecar.core.lease import NEVER
from sidecar.core.queue import QueueReplica

_GIVEN_UP_KEPT = 16


class Phase(enum.Enum):
    """Where a candidacy stands; see the module's docstring."""

    OUT = "out"
    CAMPAIGNING = "campaigning"
    STANDING = "standing"
    STOPPING = "stopping"
    GIVING_UP = "giving_up"


class Step(enum.Enum):
    """What can happen to a candidacy."""

    CAMPAIGN_SENT = "campaign_sent"
    STOOD = "stood"
    REFUSED = "refused"
    STEP_DOWN = "step_down"
    GIVE_UP_SENT = "give_up_sent"
    KEY_GONE = "key_gone"
    LEASE_LOST = "lease_lost"


TRANSITIONS: dict[Phase, dict[Step, Phase]] = {
    Phase.OUT: {
        Step.CAMPAIGN_SENT: Phase.CAMPAIGNING,
        Step.LEASE_LOST: Phase.OUT,
    },
    Phase.CAMPAIGNING: {
        Step.CAMPAIGN_SENT: Phase.CAMPAIGNING,  # the same Txn again, after a lost answer
        Step.STOOD: Phase.STANDING,
        Step.REFUSED: Phase.OUT,
        Step.LEASE_LOST: Phase.OUT,
    },
    Phase.STANDING: {
        Step.STEP_DOWN: Phase.STOPPING,
        Step.GIVE_UP_SENT: Phase.GIVING_UP,
        Step.KEY_GONE: Phase.OUT,
        Step.LEASE_LOST: Phase.OUT,
    },
    Phase.STOPPING: {
        Step.STEP_DOWN: Phase.STOPPING,
        Step.GIVE_UP_SENT: Phase.GIVING_UP,
        Step.KEY_GONE: Phase.OUT,
        Step.LEASE_LOST: Phase.OUT,
    },
    Phase.GIVING_UP: {
        Step.STEP_DOWN: Phase.GIVING_UP,
        Step.GIVE_UP_SENT: Phase.GIVING_UP,  # repeated until a definite answer
        Step.KEY_GONE: Phase.OUT,
        Step.LEASE_LOST: Phase.OUT,
    },
}


class IllegalStep(RuntimeError):
    """A step that the phase does not know: a bug in the caller, never bad input."""

    def __init__(self, phase: Phase, step: Step) -> None:
        super().__init__(f"a candidacy that is {phase.value} cannot take the step {step.value}")


@dataclass(frozen=True, slots=True)
class Candidacy:
    """The state of one candidate in one election, changed only by `after`, `stood`, `proven`.

    Attributes:
        key: the own key, or b"" while there is none.
        token: the revision that created it, the fencing token, or 0.
        deadline: until when the last proof lets it act (CLOCK_BOOTTIME seconds).
        given_up: every (key, token) for which a request that can remove it was sent.
    """

    phase: Phase = Phase.OUT
    key: bytes = b""
    token: int = 0
    deadline: float = NEVER
    given_up: frozenset[tuple[bytes, int]] = field(default_factory=frozenset)

    def after(self, step: Step) -> Candidacy:
        """Return the candidacy after a step.

        Raises:
            IllegalStep: the phase does not know the step (`STOOD` goes through `stood`).
        """
        phase = TRANSITIONS[self.phase].get(step)
        if phase is None or step is Step.STOOD:
            raise IllegalStep(self.phase, step)
        given_up = self.given_up
        if step is Step.GIVE_UP_SENT:
            given_up = _with(given_up, self.key, self.token)
        if phase in (Phase.OUT, Phase.CAMPAIGNING):
            return Candidacy(phase, given_up=given_up)
        return Candidacy(phase, self.key, self.token, self.deadline, given_up)

    def stood(self, key: bytes, token: int) -> Candidacy:
        """Return the candidacy that a campaign's answer, or a resume, has established.

        It may not act yet: its deadline waits for the first proof.

        Raises:
            IllegalStep: no campaign is under way, or this key was given up before.
        """
        if Step.STOOD not in TRANSITIONS[self.phase] or not self.may_adopt(key, token):
            raise IllegalStep(self.phase, Step.STOOD)
        return Candidacy(Phase.STANDING, key, token, given_up=self.given_up)

    def may_adopt(self, key: bytes, token: int) -> bool:
        """Whether a key found under our name may become ours: never one that was given up."""
        return (key, token) not in self.given_up

    def proven(self, deadline: float) -> Candidacy:
        """Return the candidacy after a proof; an older proof never takes a newer one back."""
        return replace(self, deadline=max(self.deadline, deadline))

    def gives_up(self, key: bytes, token: int) -> Candidacy:
        """Return the candidacy after a removing request for a key it does not stand on."""
        return replace(self, given_up=_with(self.given_up, key, token))


def _with(
    given_up: frozenset[tuple[bytes, int]], key: bytes, token: int
) -> frozenset[tuple[bytes, int]]:
    """Add one more; only the newest are kept, since older requests have had their answer."""
    all_of_them = given_up | {(key, token)}
    if len(all_of_them) <= _GIVEN_UP_KEPT:
        return all_of_them
    return all_of_them - {min(all_of_them, key=lambda name: name[1])}


def holds_first(candidacy: Candidacy, replica: QueueReplica) -> bool:
    """Whether the own key, with its create revision, is first in the replica."""
    first = replica.first
    return (
        candidacy.token != 0
        and first is not None
        and (first.key, first.token) == (candidacy.key, candidacy.token)
    )


def may_act(
    candidacy: Candidacy, replica: QueueReplica, *, now: float, least_token: int = 0
) -> bool:
    """Whether this candidate may act as the leader at `now` (CLOCK_BOOTTIME seconds).

    Args:
        candidacy: the own candidacy.
        replica: what its watch knows of the queue.
        now: read from the clock for this very question.
        least_token: the largest token ever seen in this election.
    """
    return (
        candidacy.phase is Phase.STANDING
        and candidacy.may_adopt(candidacy.key, candidacy.token)
        and now < candidacy.deadline
        and holds_first(candidacy, replica)
        and not replica.is_paused
        and candidacy.token >= least_token
    )


def has_lost_key(candidacy: Candidacy, replica: QueueReplica) -> bool:
    """Whether the replica, no older than the candidacy, no longer shows its key."""
    if candidacy.token == 0 or replica.revision < candidacy.token:
        return False
    entry = replica.find(candidacy.key)
    return entry is None or entry.token != candidacy.token
