"""How a candidate behaves, and what it tells before it knows anything."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.codec import Proposal
from sidecar.core.state import ElectionState
from sidecar.election.ports import Clock


@dataclass(frozen=True, slots=True)
class CandidateConfig:
    """How a candidate behaves.

    Attributes:
        election: the election's name.
        proposal: what it says of itself; priority 0 means that it only observes.
        ttl: seconds.
        margin: seconds, or None for the least safe one.
        drain: seconds between saying that it follows and giving the key up.
        least_token: never act with a fencing token below this one.
    """

    election: str
    proposal: Proposal
    ttl: float = 5.0
    margin: float | None = None
    drain: float = 0.0
    least_token: int = 0


def initial_state(config: CandidateConfig, clock: Clock) -> ElectionState:
    """Return what a candidate tells before it knows anything."""
    return ElectionState(config.election, config.proposal.id, since=clock.wall())
