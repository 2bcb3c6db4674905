"""When a program's health lets its candidate stand: the arithmetic of probes.

    NEVER_HEALTHY --good probe--> HEALTHY --N bad probes in a row--> UNHEALTHY
                                     ^                                   |
                                     +--3 good probes in a row, and      |
                                        the time of standing back is over+

Only a healthy candidate stands in the queue. A program that is about to fail again must not take
the leadership back at once, so whoever left stands back: 10 s counted from leaving, doubled (up to
5 min) each time it leaves again within 10 min of the time before.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

GOOD_TO_RETURN = 3
"""Good probes in a row that an unhealthy program needs to come back."""

SHORTEST_WAIT = 10.0
LONGEST_WAIT = 300.0
MEMORY = 600.0
"""Seconds: the waits after leaving the queue, and how long a leaving counts against the next."""


class Health(enum.StrEnum):
    """What the probes say of the program."""

    NEVER_HEALTHY = "never_healthy"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class HealthGate:
    """What the probes so far amount to; each probe makes a new one.

    Attributes:
        failures: bad probes in a row that make a healthy program unhealthy, at least 1.
        health: whether the candidate may stand; only `Health.HEALTHY` means yes.
        row: good probes in a row if positive, bad ones if negative.
        left_at: when it last became unhealthy, or None if it never did.
        wait: seconds to stand back from `left_at` on.

    Raises:
        ValueError: `failures` is below 1.
    """

    failures: int
    health: Health = Health.NEVER_HEALTHY
    row: int = 0
    left_at: float | None = None
    wait: float = 0.0

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise ValueError(f"failures must be at least 1, not {self.failures}")

    @property
    def may_stand(self) -> bool:
        """Whether the candidate may stand in the queue."""
        return self.health is Health.HEALTHY

    def after(self, *, is_good: bool, now: float) -> HealthGate:
        """Return the gate after one more probe, which ended at `now` (seconds, any clock)."""
        row = max(self.row, 0) + 1 if is_good else min(self.row, 0) - 1
        if self.health is Health.HEALTHY and row <= -self.failures:
            wait = self._next_wait(now)
            return HealthGate(self.failures, Health.UNHEALTHY, row, left_at=now, wait=wait)
        if row >= self._needed and now >= self.returns_at:
            return replace(self, health=Health.HEALTHY, row=row)
        return replace(self, row=row)

    @property
    def returns_at(self) -> float:
        """The earliest moment at which it may come back."""
        return float("-inf") if self.left_at is None else self.left_at + self.wait

    @property
    def _needed(self) -> int:
        return 1 if self.health is Health.NEVER_HEALTHY else GOOD_TO_RETURN

    def _next_wait(self, now: float) -> float:
        if self.left_at is None or now - self.left_at > MEMORY:
            return SHORTEST_WAIT
        return min(2 * self.wait, LONGEST_WAIT)
