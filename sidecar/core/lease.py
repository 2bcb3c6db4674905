"""Until when a candidate may act: the arithmetic of leases.

The store ends a lease TTL seconds after it *received* the last renewal, on its own clock. We
count from the moment *before* we sent it, on ours, and stop a margin earlier:

    deadline = sent_at + granted TTL - margin

`sent_at` precedes the store's receipt, so the deadline precedes the expiry however long the
answer took. The margin pays for two things, half each: clocks that run at rates up to 5 %
apart (design rule: 10 % of the TTL), and the way from the check to the effect of what was
checked. Clocks are read on CLOCK_BOOTTIME, which also counts while a machine is suspended.

Counting from the reply instead of the request is a classic bug: etcd's own Go client does it
(`deadline = time.Now() + TTL` on receipt), and a simulation with exact expiry turns that into
two acting leaders.
"""

from __future__ import annotations

from dataclasses import dataclass

NEVER = float("-inf")
"""A deadline that has always passed: nothing is proven yet."""

_LEAST_MARGIN = 0.2
_LEAST_TRY = 0.25
_LATE_TRY = 1.0
_RENEWALS_PER_TTL = 5
_TRIES_PER_TTL = 8


def least_margin(ttl: float) -> float:
    """Return the smallest margin (seconds) that keeps the promise for this TTL (seconds)."""
    return max(0.1 * ttl, _LEAST_MARGIN)


@dataclass(frozen=True, slots=True)
class Timing:
    """How one lease is kept: its granted TTL and the margin, both in seconds.

    Raises:
        ValueError: the margin is below `least_margin`, or leaves no time to act.
    """

    ttl: float
    margin: float

    def __post_init__(self) -> None:
        if self.margin < least_margin(self.ttl) - 1e-9:
            raise ValueError(
                f"margin {self.margin:g} s is below {least_margin(self.ttl):g} s, the least for "
                f"a TTL of {self.ttl:g} s"
            )
        if self.margin >= self.ttl:
            raise ValueError(f"margin {self.margin:g} s must be below the TTL, {self.ttl:g} s")

    @classmethod
    def granted(cls, ttl: float, margin: float | None) -> Timing:
        """Take what the store granted; a margin that does not go with it becomes the least one."""
        least = least_margin(ttl)
        if margin is None or not least <= margin < ttl:
            return cls(ttl, least)
        return cls(ttl, margin)

    @property
    def renew_every(self) -> float:
        """Seconds from one renewal to the next."""
        return self.ttl / _RENEWALS_PER_TTL

    def deadline(self, sent_at: float) -> float:
        """Return until when a proof whose renewal was sent at `sent_at` lets its owner act."""
        return sent_at + self.ttl - self.margin

    def try_limit(self, time_left: float, endpoints_left: int) -> float:
        """Return how long (seconds) one try of a renewal may last.

        A silent endpoint must not eat the time that the others would need to answer in. Where no
        time is left there is none to save, and a slow store is given the time to answer at all.
        """
        if time_left <= 0:
            return max(self.ttl / _TRIES_PER_TTL, _LATE_TRY)
        fair_share = time_left / max(endpoints_left, 1)
        return max(min(self.ttl / _TRIES_PER_TTL, fair_share), _LEAST_TRY)
