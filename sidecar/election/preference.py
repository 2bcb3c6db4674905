"""Giving way to a higher priority: since when everybody stands where they stand."""

from __future__ import annotations

from sidecar.core.handover import PRIORITY_INTERVAL, PRIORITY_SETTLED, preferred
from sidecar.core.lease import NEVER
from sidecar.core.queue import Entry, QueueReplica
from sidecar.election.election import Election
from sidecar.election.ports import Clock

LOOK_EVERY = 1.0
"""Seconds between two looks while somebody outranks the leader."""


class Preference:
    """Whom a leader of one priority prefers to itself."""

    def __init__(self, priority: int, clock: Clock) -> None:
        self._priority = priority
        self._clock = clock
        self._moved_at = NEVER
        self._places: dict[tuple[bytes, int], tuple[int, float]] = {}

    def note_places(self, replica: QueueReplica) -> None:
        """Remember since when each candidate stands in its present place."""
        now = self._clock.now()
        places: dict[tuple[bytes, int], tuple[int, float]] = {}
        for index, entry in enumerate(replica.entries):
            name = (entry.key, entry.token)
            known = self._places.get(name)
            places[name] = known if known is not None and known[0] == index else (index, now)
        self._places = places

    def note_move(self) -> None:
        """Remember that the leader has just given way."""
        self._moved_at = self._clock.now()

    def is_outranked(self, replica: QueueReplica) -> bool:
        """Whether anybody in the queue has a higher priority."""
        return any((e.proposal.priority or 0) > self._priority for e in replica.entries)

    def choice(self, election: Election, *, led_since: float | None) -> Entry | None:
        """Return whom the acting leader should give way to now, or None.

        Args:
            election: the leader's.
            led_since: when its term began, if it began by such a move; that counts as one.
        """
        replica = election.observer.replica
        if not self.is_outranked(replica):
            return None
        now = self._clock.now()
        last = max(self._moved_at, NEVER if led_since is None else led_since)
        if now - last < PRIORITY_INTERVAL:
            return None
        settled = {
            place for place, (_, seen) in self._places.items() if now - seen >= PRIORITY_SETTLED
        }
        return preferred(replica, election.key.encode(), self._priority, settled)
