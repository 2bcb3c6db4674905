"""`Election`: one candidate of one election, on one session.

Everything that etcd's Go package `concurrency.Election` does, plus what it leaves out: the own
key is watched while waiting and while leading, a lost answer never leaves a key behind, and
whether one leads is asked of the clock each time. What may be done in which phase is in
`sidecar.core.candidacy`; here and in `leaving` are the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from sidecar.core import transactions
from sidecar.core.candidacy import Phase, Step
from sidecar.core.codec import decode_proposal
from sidecar.core.lease import NEVER
from sidecar.core.queue import Entry
from sidecar.core.state import Leader
from sidecar.core.store import Header, KeyValue, Txn, TxnReply
from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.leaving import Leaving
from sidecar.election.observer import Observer, leader_of
from sidecar.election.session import EXPIRED, Session
from sidecar.errors import LeaseNotFound, NoLeader, NotLeader, Rejected, Unavailable

_ASK_AGAIN_TTLS = 10


class Election(Leaving):
    """One candidate; an async context manager that follows the queue while it is open.

    Not for concurrent calls of its methods by several tasks; `is_leader`, `key`, `rev` and
    `observe` may be used by anybody at any time. Two objects for one name on one session share
    one key, as with etcd's package: the second one's `campaign` proclaims, and what one of them
    gives up, none of them acts on.

    Args:
        session: the lease to stand on.
        name: the election's name, as for `--election`.
        observer: an open observer of the same election to share; by default an own one.
        least_token: never act with a fencing token below this one.

    Attributes:
        is_following: whether it is open, so that `changed` grows with every change of the queue.

    Raises:
        ValueError: the name cannot be an election's.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        *,
        observer: Observer | None = None,
        least_token: int = 0,
    ) -> None:
        self._own_observer = observer is None
        if observer is None:
            observer = Observer(
                session.coordinator,
                name,
                clock=session.clock,
                meter=session.meter,
                contact=session.contact,
                rng=session.rng,
                reread_every=10 * session.ttl,
            )
        super().__init__(session, observer, least_token=least_token)
        self._value = b""
        self._paused_at = 0
        self._tasks = Background()
        self._unlisten: Callable[[], None] = lambda: None
        self.is_following = False

    async def __aenter__(self) -> Self:
        if self._own_observer:
            await self.observer.__aenter__()
        await self._tasks.__aenter__()
        self._tasks.start(self._clean(), name="election-cleaner")
        self._unlisten = self.observer.listen(self._queue_changed)
        self.is_following = True
        self.session.attach(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._withdraw()
        finally:
            self.session.detach(self)
            self._unlisten()
            self.is_following = False
            await self._tasks.__aexit__(kind, exc, traceback)
            if self._own_observer:
                await self.observer.__aexit__(kind, exc, traceback)

    # --- joining ------------------------------------------------------------------------

    async def campaign(self, value: bytes | str) -> None:
        """Stand for leadership and return once this candidate leads.

        When its place is taken from it while it waits (a handover moved it), it queues again.
        Cancelled, it withdraws.

        Raises:
            SessionLost: the lease is gone.
            Rejected: the store refuses the key.
        """
        backoff = Backoff(self.session.rng)
        try:
            while True:
                await self.stand(value)
                await self.until(lambda: self.is_leader() or self.phase is not Phase.STANDING)
                if self.is_leader():
                    return
                self.session.raise_if_lost()
                await backoff.wait()
        except BaseException:
            await self._withdraw()
            raise

    async def stand(self, value: bytes | str) -> None:
        """Join the queue and return once the own key stands in it, first or not.

        While the election is paused, it waits for the end of the pause. An answer that is lost is
        followed by the same request on the same lease, which finds what the first one did.

        Raises:
            SessionLost: the lease is gone.
            Rejected: the store refuses the key.
        """
        self._value = value.encode() if isinstance(value, str) else value
        if self.phase is Phase.STANDING:
            await self.proclaim(self._value)
            return
        if self.phase in (Phase.STOPPING, Phase.GIVING_UP):
            raise NotLeader("the last term is not given up yet; resign first")
        self.session.raise_if_lost()
        try:
            while not await self._try_to_stand():
                await self._until_unpaused()
        except BaseException:
            if self.phase is Phase.CAMPAIGNING:
                # The request may take effect later. On a lease that is never renewed again,
                # and is revoked at the end of the session, that does no harm.
                self.session.lose("campaign abandoned")
            raise
        self.session.prove_soon()
        self._pulse()

    async def _try_to_stand(self) -> bool:
        """Send the campaign until it is answered; False when the election is paused."""
        session = self.session
        key = self.layout.candidate(session.lease)
        txn = transactions.campaign(self.layout, key, self._value, session.lease)
        self._candidacy = self._candidacy.after(Step.CAMPAIGN_SENT)
        reply = await self._answered("campaign", txn)
        own: KeyValue | None
        if reply.succeeded:
            token = reply.header.revision
            if self._candidacy.may_adopt(key, token):
                self._stood(key, reply.header)
                return True
            # A restored store has come round to a revision at which we gave this key up before.
            own = KeyValue(key, self._value, token, token, session.lease)
        else:
            own = reply.ranges[0][0] if reply.ranges[0] else None
        if own is None:
            self._paused_at = reply.ranges[1][0].mod_revision if reply.ranges[1] else 0
            self._candidacy = self._candidacy.after(Step.REFUSED)
            return False
        if own.lease == session.lease and self._may_become_ours(key, own.create_revision):
            self._stood(key, reply.header, own.create_revision)
            if own.value != self._value:
                await self.proclaim(self._value)
            return True
        await self._delete(own)
        self.session.raise_if_lost()
        self._candidacy = self._candidacy.after(Step.REFUSED)
        return await self._try_to_stand()

    def _may_become_ours(self, key: bytes, token: int) -> bool:
        """Whether a key that was found may be stood on.

        Not one with a token that may never act: a restored store brings such keys back. It is
        deleted, and the next one gets a larger token.
        """
        return self._candidacy.may_adopt(key, token) and token >= self.least_token

    def _stood(self, key: bytes, header: Header, token: int = 0) -> None:
        self._header = header
        self._take_place(key, token or header.revision)

    async def resume(self, key: str, rev: int) -> bool:
        """Take up the candidacy that a former process left on this session's lease.

        Returns:
            Whether the key still stands with this create revision on this lease; if not, the
            candidacy is out and `campaign` may follow.

        Raises:
            SessionLost: the lease is gone.
        """
        self.session.raise_if_lost()
        wanted = key.encode()
        found = await self._read(wanted)
        self.session.raise_if_lost()
        if found is None or (found.create_revision, found.lease) != (rev, self.session.lease):
            return False
        if not self._may_become_ours(wanted, rev):
            return False
        self._value = found.value
        self._candidacy = self._candidacy.after(Step.CAMPAIGN_SENT)
        self._take_place(wanted, rev)
        self.session.prove_soon()
        await self.until(
            lambda: (
                self.phase is not Phase.STANDING
                or (self._candidacy.deadline > NEVER and self.observer.replica.is_synced)
                or self.observer.replica.is_paused
            )
        )
        self.session.raise_if_lost()
        return self.phase is Phase.STANDING

    async def proclaim(self, value: bytes | str) -> None:
        """Replace the published value within the term.

        Raises:
            NotLeader: the own key does not stand (any more).
            Unavailable: no answer; the value may have been replaced.
        """
        if self.phase is not Phase.STANDING:
            raise NotLeader("proclaim needs a candidacy that stands; campaign first")
        self._value = value.encode() if isinstance(value, str) else value
        own = self._candidacy
        txn = transactions.proclaim(own.key, own.token, self._value, self.session.lease)
        reply = await self._call(txn)
        if not reply.succeeded:
            self._lose_key(own.token)
            raise NotLeader("the own key is gone")
        self._header = reply.header

    async def _answered(self, what: str, txn: Txn) -> TxnReply:
        """Send a campaign until it is answered.

        A refusal counts only when no earlier try is unanswered: that one may yet take effect.
        """
        backoff = Backoff(self.session.rng)
        unanswered = False
        while True:
            try:
                reply = await self._call(txn)
            except LeaseNotFound:
                self.session.lose(EXPIRED)
            except Unavailable as exc:
                unanswered = True
                self.session.contact.failed(what, exc)
            except Rejected as exc:
                self.session.raise_if_lost()
                if not unanswered:
                    self._candidacy = self._candidacy.after(Step.REFUSED)
                    raise
                self.session.contact.failed(what, exc)
            else:
                # The answer may come after the lease has ended: then it says nothing any more.
                self.session.raise_if_lost()
                return reply
            self.session.raise_if_lost()
            await backoff.wait()
            self.session.raise_if_lost()

    async def _read(self, key: bytes) -> KeyValue | None:
        backoff = Backoff(self.session.rng)
        while True:
            self.session.raise_if_lost()
            try:
                reply = await self.session.coordinator.read(
                    key, key + b"\0", timeout=self.session.call_limit
                )
            except Unavailable as exc:
                self.session.contact.failed("read", exc)
                await backoff.wait()
            else:
                self.session.contact.answered()
                return reply.kvs[0] if reply.kvs else None

    async def _until_unpaused(self) -> None:
        replica = self.observer.replica
        # Bounded, because a store that was restored may never reach that revision again.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ASK_AGAIN_TTLS * self.session.ttl):
                await self.until(
                    lambda: (
                        self.session.lost.is_set
                        or (replica.revision >= self._paused_at and not replica.is_paused)
                    )
                )
        self.session.raise_if_lost()

    # --- observing ----------------------------------------------------------------------

    async def leader(self) -> Leader:
        """Ask the store who leads now.

        Raises:
            NoLeader: nobody stands.
            Unavailable: no answer.
        """
        reply = await self.session.coordinator.read(
            self.layout.candidates,
            self.layout.end,
            timeout=self.session.call_limit,
        )
        if not reply.kvs:
            raise NoLeader(f"nobody stands in {self.layout.name}")
        kv = min(reply.kvs, key=lambda kv: (kv.create_revision, kv.key))
        entry = Entry(kv.key, kv.create_revision, kv.lease, decode_proposal(kv.key, kv.value))
        leader = leader_of(entry)
        assert leader is not None  # noqa: S101 - an entry always names somebody
        return leader

    def observe(self) -> AsyncIterator[Leader | None]:
        """Yield who leads; see `Observer.observe`."""
        return self.observer.observe()
