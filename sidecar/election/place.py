"""The own place in an election's queue: what is true of it now, and what comes in about it.

The base of `Election`: it holds the candidacy and keeps it true to what proofs and the watch show.
Every change goes through `sidecar.core.candidacy`, and whoever waits is woken after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sidecar.core import transactions
from sidecar.core.candidacy import Candidacy, Phase, Step, has_lost_key, holds_first, may_act
from sidecar.core.queue import Entry
from sidecar.core.state import Reason
from sidecar.core.store import Header, KeyValue, Txn, TxnReply
from sidecar.election.backoff import Backoff
from sidecar.election.feed import Feed
from sidecar.election.observer import Observer
from sidecar.election.session import Session
from sidecar.errors import Rejected, Unavailable

log = logging.getLogger(__name__)


class Place:
    """One candidate's place, in the queue or out of it; a subject of its session's proofs.

    Attributes:
        session: the lease to stand on.
        observer: follows the queue.
        least_token: it never acts with a fencing token below this one.
        ended: how the last candidacy ended, or None.
        changed: grows with every change but a mere refresh.
        refreshed: grows with every proof that moves a deadline which has not passed.
    """

    def __init__(self, session: Session, observer: Observer, *, least_token: int) -> None:
        self.session = session
        self.observer = observer
        self.layout = observer.layout
        self.least_token = least_token
        self.ended: Reason | None = None
        self.changed: Feed[int] = Feed(0)
        self.refreshed: Feed[int] = Feed(0)
        self._candidacy = Candidacy()
        self._removal = Txn()
        self._header: Header | None = None
        self._asked_token = 0
        # On a lease that was taken up, a key under our name may be the one to resume.
        self._may_clean = not session.is_taken_up
        self._uncleaned: set[tuple[bytes, int]] = set()
        self._cleaning = asyncio.Event()

    # --- what is true now ---------------------------------------------------------------

    def is_leader(self) -> bool:
        """Whether this candidate may act as the leader at this very moment.

        Computed from the clock at each call. Ask again before every effect, and fence the effect
        with `rev`: the process may be frozen between the answer and what is done with it.
        """
        return not self.session.lost.is_set and may_act(
            self._candidacy,
            self.observer.replica,
            now=self.session.clock.now(),
            least_token=self.least_token,
        )

    @property
    def is_first(self) -> bool:
        """Whether the own key is first in the queue, acting or not."""
        return holds_first(self._candidacy, self.observer.replica)

    @property
    def phase(self) -> Phase:
        """Where the candidacy stands."""
        return self._candidacy.phase

    @property
    def key(self) -> str:
        """The own key, or ""."""
        return self._candidacy.key.decode()

    @property
    def rev(self) -> int:
        """The fencing token: the revision that created the own key, or 0."""
        return self._candidacy.token

    @property
    def deadline(self) -> float:
        """Until when the last proof lets this candidate act (CLOCK_BOOTTIME seconds)."""
        return self._candidacy.deadline

    @property
    def header(self) -> Header | None:
        """The header of the last successful campaign, proclaim or resign."""
        return self._header

    @property
    def entry(self) -> Entry | None:
        """The own place in the queue as the replica shows it."""
        entry = self.observer.replica.find(self._candidacy.key)
        return entry if entry is not None and entry.token == self._candidacy.token else None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on this election holds; it is checked after every change."""
        version = self.changed.version
        while not condition():
            version = await self.changed.changed(version)

    def _take_place(self, key: bytes, token: int) -> None:
        """Stand on a key from now on, and be ready to give it up at a moment's notice."""
        self._candidacy = self._candidacy.stood(key, token)
        self._removal = self.session.coordinator.prepare(transactions.give_up(key, token))
        self._may_clean = True
        self.ended = None

    # --- what comes in ------------------------------------------------------------------

    def proof_keys(self) -> tuple[bytes, ...]:
        """Return what a proof has to read for this candidate."""
        own = self._candidacy.key or None
        self._asked_token = self._candidacy.token
        first = self.observer.replica.first
        return transactions.proof_keys(self.layout, own, first.key if first else None)

    def proven(self, keys: tuple[bytes, ...], read: TxnReply, deadline: float) -> None:
        """Take a proof: what a linearizable read after the renewal has shown."""
        found = {key: (kvs[0] if kvs else None) for key, kvs in zip(keys, read.ranges, strict=True)}
        self.observer.compare(found, read.header.revision)
        own = self._candidacy
        if not own.token or own.token != self._asked_token:
            return  # the read was sent for another candidacy than the present one
        shown = found[own.key]
        if shown is None or (shown.create_revision, shown.lease) != (own.token, self.session.lease):
            self._lose_key(own.token)
        elif found[self.layout.pause] is None:
            self._candidacy = own.proven(deadline)
            if own.deadline > self.session.clock.now():
                # Only more of what was true already: nobody waits for that.
                self.refreshed.publish(self.refreshed.value + 1)
                return
        self._pulse()

    def lease_lost(self, reason: str) -> None:
        """Learn that the session is lost."""
        if self._candidacy.token:
            self.ended = Reason.SESSION_LOST
        if self._candidacy.phase is not Phase.OUT:
            log.warning("session lost key=%s reason=%s", self.key or "none", reason)
        self._candidacy = self._candidacy.after(Step.LEASE_LOST)
        self._pulse()

    def _queue_changed(self) -> None:
        if has_lost_key(self._candidacy, self.observer.replica):
            self._lose_key(self._candidacy.token)
        self._find_unwanted()
        if self.is_first and self._candidacy.deadline <= self.session.clock.now():
            self.session.prove_soon()
        self._pulse()

    def _find_unwanted(self) -> None:
        """Have a key under our name deleted that no candidacy of ours knows of.

        It is what a doubled or late campaign leaves behind after a resign.
        """
        if self.phase is not Phase.OUT or self.session.lost.is_set or not self._may_clean:
            return
        if any(sibling.phase is not Phase.OUT for sibling in self._siblings):
            return
        entry = self.observer.replica.find(self.layout.candidate(self.session.lease))
        if entry is not None and self._candidacy.may_adopt(entry.key, entry.token):
            self._uncleaned.add((entry.key, entry.token))
            self._cleaning.set()

    @property
    def _siblings(self) -> list[Place]:
        """Other objects for this very candidacy: same session, same election, so the same key."""
        if len(self.session.subjects) <= 1:
            return []
        return [
            subject
            for subject in self.session.subjects
            if isinstance(subject, Place) and subject is not self
            if subject.layout == self.layout
        ]

    def _tell_siblings(self) -> None:
        """What was given up through one object must not be acted on through another."""
        for sibling in self._siblings:
            for key, token in self._candidacy.given_up:
                sibling._candidacy = sibling._candidacy.gives_up(key, token)  # noqa: SLF001
            sibling._pulse()  # noqa: SLF001

    async def _clean(self) -> None:
        while True:
            await self._cleaning.wait()
            self._cleaning.clear()
            while self._uncleaned:
                key, token = self._uncleaned.pop()
                if self.phase is Phase.OUT:
                    await self._delete(KeyValue(key, b"", token, token, self.session.lease))

    async def _delete(self, kv: KeyValue) -> None:
        """Delete a key of ours that we do not stand on; from here on it is never adopted."""
        self._candidacy = self._candidacy.gives_up(kv.key, kv.create_revision)
        self._tell_siblings()
        log.warning("deleting a key of ours key=%s rev=%d", kv.key.decode(), kv.create_revision)
        txn = transactions.give_up(kv.key, kv.create_revision)
        backoff = Backoff(self.session.rng)
        while not self.session.lost.is_set:
            try:
                await self._call(txn)
            except (Unavailable, Rejected) as exc:
                self.session.contact.failed("clean-up", exc)
                await backoff.wait()
            else:
                return

    # --- the rest -----------------------------------------------------------------------

    async def _call(self, txn: Txn) -> TxnReply:
        reply = await self.session.coordinator.txn(txn, timeout=self.session.call_limit)
        self.session.contact.answered()
        return reply

    def _lose_key(self, token: int, reason: Reason = Reason.KEY_GONE) -> None:
        if self._candidacy.token != token or not token:
            return
        given_up = self._candidacy.phase is Phase.GIVING_UP
        self.ended = Reason.RESIGNED if given_up else reason
        self._candidacy = self._candidacy.after(Step.KEY_GONE)
        self._pulse()

    def _pulse(self) -> None:
        self.changed.publish(self.changed.value + 1)
