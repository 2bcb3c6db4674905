"""Who comes next when a leader hands over on purpose, and what has to be moved for it.

The queue is ordered by create revision and cannot be reordered. So a handover to a named
candidate deletes the keys of the waiters before it, whose owners see that and queue again
behind it. Foreign keys are never deleted: a Go program that waits takes itself for the leader
when its key is deleted (etcd issue 11777).
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.queue import Entry, QueueReplica
from sidecar.errors import Refused

BATCH_LIMIT = 60
"""Waiters deleted in one transaction: each costs a guard and a delete, and etcd allows 128."""

PRIORITY_SETTLED = 10.0
"""Seconds a candidate must have stood in its present place before priority may choose it."""

PRIORITY_INTERVAL = 60.0
"""Seconds between two moves by priority."""


@dataclass(frozen=True, slots=True)
class HandoverPlan:
    """What a handover deletes, in order.

    Attributes:
        target: who leads next.
        batches: waiters to move beforehand, one transaction each.
        last: waiters that go in the same transaction as the own key.
    """

    target: Entry
    batches: tuple[tuple[Entry, ...], ...] = ()
    last: tuple[Entry, ...] = ()


def plan_handover(replica: QueueReplica, own_key: bytes, to: str | bytes) -> HandoverPlan:
    """Plan the handover from the first in the queue.

    Args:
        replica: the queue.
        own_key: the key of the candidate that hands over.
        to: the next one's id or key, or as bytes its key; "" for the next in the queue.

    Raises:
        Refused: nobody to hand over to, an ambiguous id, a foreign key in between, or the own
            key is not first.
    """
    entries = replica.entries
    if not entries or entries[0].key != own_key:
        raise Refused("only the candidate that is first in the queue can hand over")
    waiters = entries[1:]
    target = _next(waiters) if not to else _named(entries, own_key, to)
    before = waiters[: waiters.index(target)]
    foreign = next((w for w in before if w.proposal.is_foreign), None)
    if foreign is not None:
        raise Refused(
            f"{foreign.proposal.id!r} stands before {to!r} and was put there by another program; "
            "its key must not be deleted: stop that program, or hand over without --to"
        )
    split = max(len(before) - BATCH_LIMIT, 0)
    moved, last = before[:split], before[split:]
    batches = tuple(moved[n : n + BATCH_LIMIT] for n in range(0, len(moved), BATCH_LIMIT))
    return HandoverPlan(target, batches, last)


def preferred(
    replica: QueueReplica, own_key: bytes, own_priority: int, settled: set[tuple[bytes, int]]
) -> Entry | None:
    """Return the waiter that priority puts in the leader's place, or None.

    Args:
        replica: the queue; it must show the own key first.
        own_key: the leader's key.
        own_priority: the leader's priority.
        settled: (key, token) of those that stood `PRIORITY_SETTLED` seconds where they stand.
    """
    entries = replica.entries
    if not entries or entries[0].key != own_key or replica.pin is not None:
        return None
    best: Entry | None = None
    best_priority = own_priority
    for entry in entries[1:]:
        if entry.proposal.priority is None:
            break  # never past a foreign key
        if (entry.key, entry.token) in settled and entry.proposal.priority > best_priority:
            best, best_priority = entry, entry.proposal.priority
    return best


def _next(waiters: tuple[Entry, ...]) -> Entry:
    if not waiters:
        raise Refused("nobody else stands in the election; start another candidate first")
    return waiters[0]


def _named(entries: tuple[Entry, ...], own_key: bytes, to: str | bytes) -> Entry:
    key = to if isinstance(to, bytes) else to.encode(errors="replace")
    by_key = [entry for entry in entries if entry.key == key]
    found = by_key or [entry for entry in entries if entry.proposal.id == to]
    if not found:
        standing = ", ".join(entry.proposal.id for entry in entries[1:]) or "nobody"
        raise Refused(f"no candidate {to!r} stands; waiting: {standing}")
    if len(found) > 1:
        keys = ", ".join(entry.key.decode(errors="replace") for entry in found)
        raise Refused(f"{to!r} stands more than once; name one of the keys: {keys}")
    if found[0].key == own_key:
        raise Refused(f"{to!r} leads already")
    return found[0]
