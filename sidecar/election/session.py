"""A session: one lease, kept alive by proofs, and told to its elections when it is lost.

The renewal loop asks for a *proof* each TTL/5: the lease renewed, and after it, on the same
channel, a linearizable read of what the elections on this session live by. Every deadline
counts from the moment before the renewal was sent. The loop only obtains proofs; what one
means for acting is decided in `sidecar.core.candidacy`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Protocol, Self

from sidecar.core.lease import NEVER, Timing
from sidecar.core.store import Proof, TxnReply
from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.contact import Contact
from sidecar.election.ports import Clock, Coordinator, Meter, NoMeter, SystemClock
from sidecar.errors import LeaseExists, LeaseNotFound, Rejected, SessionLost, Unavailable

log = logging.getLogger(__name__)

_LEASE_BITS = 62
_YOUNG = 1.0
"""Seconds after the grant in which a member may not have heard of the lease yet (etcd#6978)."""

_LEAST_CALL = 1.0

EXPIRED = "expired"
"""The reason of a session whose lease the store no longer knows."""


class Subject(Protocol):
    """Whoever lives by a session's proofs: an `Election`."""

    def proof_keys(self) -> tuple[bytes, ...]:
        """Return the keys that the next proof must read."""
        ...

    def proven(self, keys: tuple[bytes, ...], read: TxnReply, deadline: float) -> None:
        """Take a proof: what `keys` held, and until when the lease lets its owner act."""
        ...

    def lease_lost(self, reason: str) -> None:
        """Learn that the lease is gone, or will not be renewed any more."""
        ...


class Loss:
    """The end of a session: awaitable any number of times, yields the reason."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""

    @property
    def is_set(self) -> bool:
        """Whether the session is lost."""
        return self._event.is_set()

    def set(self, reason: str) -> None:
        """Say so, once; later reasons are ignored."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    def __await__(self) -> Generator[None, None, str]:
        yield from self._event.wait().__await__()
        return self.reason


class Session:
    """A lease with its keep-alive; an async context manager that revokes it at the end.

    Entering it grants the lease and keeps trying while the store does not answer (bound it with
    `asyncio.timeout`). With `lease` it takes up an existing one instead, unchecked until the
    first proof.

    Args:
        coordinator: the store.
        ttl: seconds; the store may grant more, and what it granted counts.
        margin: seconds before the lease's end at which acting stops; None: the least safe one.
        lease: an existing lease to take up; one session at a time may live on a lease.

    Attributes:
        is_taken_up: whether the lease existed before, so that keys may hang on it.

    Raises:
        Rejected: the store refused to grant a lease.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        ttl: float = 5.0,
        margin: float | None = None,
        lease: int | None = None,
        clock: Clock | None = None,
        meter: Meter | None = None,
        contact: Contact | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.coordinator = coordinator
        self.clock: Clock = clock or SystemClock()
        self.meter: Meter = meter or NoMeter()
        self.contact = contact or Contact(self.clock, self.meter)
        self.rng = rng or random.SystemRandom()
        self.lost = Loss()
        self.timing = Timing.granted(ttl, margin)
        self._margin = margin
        self._lease = lease or 0
        self.is_taken_up = bool(lease)
        self._granted_at = NEVER
        self._sent_at = NEVER
        self._subjects: list[Subject] = []
        self._kick = asyncio.Event()
        self._tasks = Background()
        self._is_revoked = False
        self._is_orphan = False

    @property
    def lease(self) -> int:
        """The lease's id; 0 before the session is entered."""
        return self._lease

    @property
    def ttl(self) -> float:
        """The granted TTL in seconds."""
        return self.timing.ttl

    @property
    def deadline(self) -> float:
        """Until when the last proof holds (CLOCK_BOOTTIME seconds); `NEVER` before the first."""
        return self.timing.deadline(self._sent_at)

    @property
    def call_limit(self) -> float:
        """Seconds that one write or read may take; a dead endpoint is found sooner by renewals."""
        return max(self.timing.ttl / 2, _LEAST_CALL)

    async def __aenter__(self) -> Self:
        if not self._lease:
            await self.grant()
        await self._tasks.__aenter__()
        self._tasks.start(self._keep(), name=f"session-{self._lease:x}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        finally:
            self.orphan()
            await self._tasks.__aexit__(kind, exc, traceback)

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Whoever lives by this session's proofs."""
        return tuple(self._subjects)

    def attach(self, subject: Subject) -> None:
        """Include a subject in every following proof."""
        self._subjects.append(subject)

    def detach(self, subject: Subject) -> None:
        """Leave a subject out of the following proofs."""
        self._subjects.remove(subject)

    def prove_soon(self) -> None:
        """Do not wait until the next renewal is due."""
        self._kick.set()

    def raise_if_lost(self) -> None:
        """Raise `SessionLost` when the lease is gone."""
        if self.lost.is_set:
            raise SessionLost(self.lost.reason)

    def orphan(self) -> None:
        """Stop renewing and leave the lease to end by itself; what stands on it acts no more."""
        self._is_orphan = True
        self.lose("orphaned")

    def lose(self, reason: str) -> None:
        """Count the lease as gone, for a reason that somebody knows for certain."""
        if self.lost.is_set:
            return
        self.lost.set(reason)
        self._tasks.cancel()
        for subject in list(self._subjects):
            subject.lease_lost(reason)

    async def close(self, *, within: float | None = None) -> bool:
        """Stop acting, revoke the lease, and say whether the store confirmed it.

        An orphaned lease is not revoked: it ends by itself, and nothing else was asked for.

        Args:
            within: seconds to try; by default the TTL, after which the lease has ended anyway.
        """
        if self._is_orphan:
            return False
        self.lose("closed")
        if self._is_revoked or not self._lease or self.lost.reason == EXPIRED:
            return True
        backoff = Backoff(self.rng)
        try:
            async with asyncio.timeout(self.ttl if within is None else within):
                while True:
                    try:
                        await self.coordinator.revoke(self._lease, timeout=self.call_limit)
                    except Unavailable as exc:
                        self.contact.failed("revoke", exc)
                        await backoff.wait()
                    except Rejected as exc:
                        self.contact.failed("revoke", exc)
                        return False
                    else:
                        self._is_revoked = True
                        return True
        except TimeoutError:
            return False

    async def grant(self) -> None:
        """Create the lease under an id of our own choice, so that a retry finds its first try.

        Entering the session does it where it was not done before.

        No deadline comes from a grant: acting waits for the first proof, so it does not matter
        which of several tries has taken effect, or when.
        """
        backoff = Backoff(self.rng)
        tries = 0
        while True:
            if not tries:
                self._lease = self.rng.getrandbits(_LEASE_BITS) + 1
            try:
                ttl = await self.coordinator.grant(
                    self._lease, self.timing.ttl, timeout=self.call_limit
                )
            except Unavailable as exc:
                self.contact.failed("grant", exc)
                tries += 1
                await backoff.wait()
            except LeaseExists:
                if tries:
                    break  # an earlier try took effect; the first renewal tells the TTL
            else:
                if ttl != self.timing.ttl:
                    log.info("etcd grants another ttl asked=%g granted=%g", self.timing.ttl, ttl)
                self.timing = Timing.granted(ttl, self._margin)
                break
        self._granted_at = self.clock.now()
        self.contact.answered()

    async def _keep(self) -> None:
        while True:
            self._kick.clear()
            await self._prove()
            every = self.timing.renew_every * self.rng.uniform(0.95, 1.0)
            try:
                async with asyncio.timeout(self._sent_at + every - self.clock.now()):
                    await self._kick.wait()
            except TimeoutError:
                pass  # the renewal is due

    async def _prove(self) -> None:
        """Try until one proof is obtained, on one endpoint after the other."""
        backoff = Backoff(self.rng)
        tries = 0
        while True:
            sent_at = self.clock.now()
            if await self._try_proof(sent_at, tries):
                return
            tries += 1
            if tries % self.coordinator.width == 0:
                await backoff.wait()

    async def _try_proof(self, sent_at: float, tries: int) -> bool:
        width = self.coordinator.width
        limit = self.timing.try_limit(self.deadline - sent_at, width - tries % width)
        asked = [(subject, subject.proof_keys()) for subject in self._subjects]
        keys = tuple(key for _, keys in asked for key in keys)
        result = "rejected"
        try:
            proof = await self.coordinator.prove(self._lease, keys, timeout=limit)
        except Unavailable as exc:
            result = "unavailable"
            self.contact.failed("renewal", exc)
            return False
        except LeaseNotFound:
            result = "lost"
            self.lose(EXPIRED)
            return False
        except Rejected as exc:
            self.contact.failed("renewal", exc)
            return False
        else:
            self.contact.answered()
            result = self._take(proof, asked, sent_at)
            return result == "proven"
        finally:
            self.meter.renewed(result, self.clock.now() - sent_at)

    def _take(
        self, proof: Proof, asked: Sequence[tuple[Subject, tuple[bytes, ...]]], sent_at: float
    ) -> str:
        if proof.ttl <= 0:
            if sent_at - self._granted_at < _YOUNG:
                return "unproven"
            self.lose(EXPIRED)
            return "lost"
        if proof.read is not None and proof.read.header.raft_term != proof.renewal_term:
            # The store has changed its own leader in between: the renewal may have been
            # answered by the deposed one, which no longer speaks for the cluster.
            return "unproven"
        self.timing = Timing.granted(proof.ttl, self._margin)
        self._sent_at = sent_at
        deadline = self.timing.deadline(sent_at)
        if proof.read is not None:
            header, ranges = proof.read.header, iter(proof.read.ranges)
            for subject, keys in asked:
                part = TxnReply(header, True, tuple(itertools.islice(ranges, len(keys))))
                subject.proven(keys, part, deadline)
        return "proven"
