"""What the forwarder counts. Whoever exposes it reads these numbers, from any thread."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field


class Refusal(enum.StrEnum):
    """Why a connection was closed without having reached a leader."""

    NO_LEADER = "no_leader"
    UNREACHABLE = "unreachable"
    TOO_MANY = "too_many"
    NO_RESOURCES = "no_resources"
    LOOP = "loop"
    CLIENT_GONE = "client_gone"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(slots=True)
class Tally:
    """The bytes that went one way."""

    bytes: int = 0


@dataclass(slots=True)
class ForwardMeter:
    """The numbers of one forwarder.

    Attributes:
        open: connections that are there now, waiting ones included.
        accepted: connections since the start.
        to_leader: what clients sent.
        to_client: what leaders answered.
        outlived: connections that were closed because their term was over.
        refused: by reason.
        waited: called with the seconds that a connection took to reach the leader.
    """

    open: int = 0
    accepted: int = 0
    to_leader: Tally = field(default_factory=Tally)
    to_client: Tally = field(default_factory=Tally)
    outlived: int = 0
    refused: dict[str, int] = field(default_factory=lambda: {str(reason): 0 for reason in Refusal})
    waited: Callable[[float], None] = lambda _: None

    def refuse(self, reason: Refusal) -> None:
        """Count a connection that was closed without having reached a leader."""
        self.refused[reason] += 1
