"""What has happened, in the order in which it happened, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.core.state import Reason
from sidecar.demo.ledger import Interval, Ledger
from sidecar.election.ports import Clock

_KEPT = 200


@dataclass(frozen=True, slots=True)
class Event:
    """One line: when (CLOCK_BOOTTIME seconds), what, and for how long nobody led before it."""

    at: float
    text: str
    gap: float | None = None


class Story:
    """Events from the ledger, and what the demo itself did."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._events: list[Event] = []
        self._begun = 0
        self._unended: list[Interval] = []
        self._broken = 0

    def say(self, text: str) -> None:
        """Add what is done now."""
        self._add(Event(self._clock.now(), text))

    def follow(self) -> None:
        """Add what the ledger has learnt since the last call."""
        new = self._ledger.intervals[self._begun :]
        for number, interval in enumerate(new, self._begun):
            verb = "goes on in the same term" if interval.goes_on else "leads"
            text = f"{interval.id} {verb}, token {interval.token}"
            self._add(Event(interval.start, text, interval.gap if number else None))
        self._begun += len(new)
        self._unended += new
        for interval in [known for known in self._unended if known.end is not None]:
            self._unended.remove(interval)
            self._add(Event(interval.end or 0.0, f"{interval.id} {_ending(interval.why)}"))
        for promise in self._ledger.broken[self._broken :]:
            self.say(f"BROKEN PROMISE: {promise}")
        self._broken = len(self._ledger.broken)

    def last(self, count: int) -> Sequence[Event]:
        """Return the last events, the latest at the end."""
        return self._events[-count:] if count > 0 else []

    def _add(self, event: Event) -> None:
        self._events.append(event)
        # What sidecars say comes with their own stamps, which are a little older.
        self._events.sort(key=lambda known: known.at)
        del self._events[:-_KEPT]


def _ending(why: str) -> str:
    if why in {"expired", Reason.DEADLINE_PASSED}:
        return "stopped acting: deadline passed"
    # A status file tells the present: who queues again before we look no longer says why it left.
    return "stepped down" if why == Reason.WAITING else f"stepped down: {why.replace('_', ' ')}"
