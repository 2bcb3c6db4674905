"""What the election needs from the outside: a clock and a store. Owned here, and narrow.

Another store (Consul, ZooKeeper, a database) is added by implementing `Coordinator`; the
contract tests in `tests/contract/` say what it must do.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from sidecar.core.store import Batch, Proof, RangeReply, Txn, TxnReply


class Clock(Protocol):
    """Where instants come from. Timers are the event loop's: they only wake, never decide."""

    def now(self) -> float:
        """Return CLOCK_BOOTTIME in seconds: it cannot be set, and counts while suspended."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970, for people to read; nothing is decided by it."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> float:
        """Return CLOCK_BOOTTIME in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Return seconds since 1970."""
        return time.time()  # noqa: TID251 - this is the Clock port


class Coordinator(Protocol):
    """A linearizable, revisioned key-value store with leases and a watch.

    Every call raises `sidecar.errors.Unavailable` when it got no answer within `timeout`
    seconds: the request may have taken effect then, may do so later, or never. It raises
    `Rejected` (or one of its kinds) when the store said no. After an `Unavailable` the next call
    goes to another endpoint where there is one; nothing is ever repeated silently.
    """

    @property
    def width(self) -> int:
        """How many endpoints there are to try."""
        ...

    async def grant(self, lease: int, ttl: float, *, timeout: float) -> float:
        """Create the lease with this id; return the granted TTL in seconds (it may be larger).

        Raises:
            LeaseExists: the id is taken.
        """
        ...

    async def revoke(self, lease: int, *, timeout: float) -> None:
        """End the lease and delete every key attached to it; an absent lease is no error."""
        ...

    async def prove(self, lease: int, keys: Sequence[bytes], *, timeout: float) -> Proof:
        """Renew the lease, then read `keys` linearizably on the same channel.

        A lease that is gone is told by `Proof.ttl <= 0`, and then nothing is read.
        """
        ...

    async def txn(self, txn: Txn, *, timeout: float) -> TxnReply:
        """Run one transaction.

        Raises:
            LeaseNotFound: a put names a lease that is gone.
            StoreFull: a put found no space.
        """
        ...

    def prepare(self, txn: Txn) -> Txn:
        """Return the same transaction in a form that is sooner on its way once it is sent."""
        ...

    async def read(
        self, key: bytes, end: bytes, *, timeout: float, keys_only: bool = False
    ) -> RangeReply:
        """Read the whole range [key, end) linearizably at one revision, however large it is."""
        ...

    def watch(
        self, key: bytes, end: bytes, *, start_revision: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Watch [key, end) from `start_revision` (0: from now on).

        Entering waits until the store has confirmed the watch. The iterator yields batches in
        the order of revisions, and ends only by an error: `Unavailable` when the watch or its
        endpoint is lost (also when another call found the endpoint dead), `Compacted`, or
        `Rejected`.
        """
        ...


class Meter(Protocol):
    """Who counts what happens; every method returns at once and raises nothing."""

    def renewed(self, result: str, seconds: float) -> None:
        """A try of a renewal ended: "proven", "unproven", "unavailable", "rejected" or "lost"."""
        ...

    def store_answered(self) -> None:
        """The store has answered something."""
        ...

    def leader_changed(self) -> None:
        """Another candidate, or nobody, leads than before."""
        ...

    def stepped_down(self, reason: str) -> None:
        """The own term ended."""
        ...

    def elected(self, seconds: float) -> None:
        """A campaign succeeded, this long after it began."""
        ...


class NoMeter:
    """Counts nothing."""

    def renewed(self, result: str, seconds: float) -> None:
        """Do nothing."""

    def store_answered(self) -> None:
        """Do nothing."""

    def leader_changed(self) -> None:
        """Do nothing."""

    def stepped_down(self, reason: str) -> None:
        """Do nothing."""

    def elected(self, seconds: float) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a restarted process needs to take up its candidacy again."""

    lease: int
    key: str
    token: int
    ttl: float
    cluster_id: int


class Keeper(Protocol):
    """Who knows what the outside still believes of this candidate, and remembers for it.

    `remember`, `forget` and `saw` take effect in the order of their calls.
    """

    def remember(self, standing: Standing) -> None:
        """Note a candidacy for a restart; returns at once."""
        ...

    async def forget(self) -> bool:
        """Make sure no restart takes the candidacy up; False: that cannot be made sure."""
        ...

    def saw(self, token: int, cluster_id: int) -> None:
        """Note the largest fencing token seen; returns at once."""
        ...

    async def settle(self) -> None:
        """Return when no program can still believe that this candidate leads.

        Called after the state that says so was published, and before the key is given up.
        """
        ...


class NoKeeper:
    """For a candidate that tells nobody outside its own process, and does not resume."""

    def remember(self, standing: Standing) -> None:
        """Do nothing."""

    async def forget(self) -> bool:
        """Nothing was remembered."""
        return True

    def saw(self, token: int, cluster_id: int) -> None:
        """Do nothing."""

    async def settle(self) -> None:
        """Nobody was told."""
