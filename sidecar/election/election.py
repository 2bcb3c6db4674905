"""`Election`: one candidate of one election, on one session.

Everything that etcd's Go package `concurrency.Election` does, plus what it leaves out: the own
key is watched while waiting and while leading, a lost answer never leaves a key behind, and
whether one leads is asked of the clock each time. What may be done in which phase is in
`sidecar.core.candidacy`; here are the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

from sidecar.core import transactions
from sidecar.core.candidacy import Candidacy, Phase, Step, has_lost_key, holds_first, may_act
from sidecar.core.codec import decode_proposal
from sidecar.core.handover import HandoverPlan, plan_handover
from sidecar.core.lease import NEVER
from sidecar.core.queue import Entry
from sidecar.core.state import Leader, Reason
from sidecar.core.store import Header, KeyValue, Put, Txn, TxnReply
from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.feed import Feed
from sidecar.election.observer import Observer, leader_of
from sidecar.election.session import EXPIRED, Session
from sidecar.errors import (
    LeaseNotFound,
    NoLeader,
    NotLeader,
    Refused,
    Rejected,
    StoreFull,
    Unavailable,
)

log = logging.getLogger(__name__)

_MOVE_TRIES = 3
_ASK_AGAIN_TTLS = 10


class Election:
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
        self.session = session
        self.least_token = least_token
        self.ended: Reason | None = None
        self.changed: Feed[int] = Feed(0)
        self._own_observer = observer is None
        self.observer = observer or Observer(
            session.coordinator,
            name,
            clock=session.clock,
            meter=session.meter,
            contact=session.contact,
            rng=session.rng,
            reread_every=10 * session.ttl,
        )
        self.layout = self.observer.layout
        self._candidacy = Candidacy()
        self._header: Header | None = None
        self._value = b""
        self._asked_token = 0
        self._paused_at = 0
        # On a lease that was taken up, a key under our name may be the one to resume.
        self._may_clean = not session.is_taken_up
        self._uncleaned: set[tuple[bytes, int]] = set()
        self._cleaning = asyncio.Event()
        self._tasks = Background()
        self._unlisten: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        if self._own_observer:
            await self.observer.__aenter__()
        await self._tasks.__aenter__()
        self._tasks.start(self._clean(), name="election-cleaner")
        self._unlisten = self.observer.listen(self._queue_changed)
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
            await self._tasks.__aexit__(kind, exc, traceback)
            if self._own_observer:
                await self.observer.__aexit__(kind, exc, traceback)

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
        if reply.succeeded:
            self._stood(key, reply.header)
            return True
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
        self._candidacy = self._candidacy.stood(key, token or header.revision)
        self._may_clean = True
        self.ended = None

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
        self._candidacy = self._candidacy.after(Step.CAMPAIGN_SENT).stood(wanted, rev)
        self._may_clean = True
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

    # --- leaving ------------------------------------------------------------------------

    def step_down(self) -> None:
        """Stop acting, at once, and keep the key: nobody else leads until it is given up."""
        if self.phase is Phase.STANDING:
            self._candidacy = self._candidacy.after(Step.STEP_DOWN)
            self._pulse()

    async def resign(self, *, epilogue: Sequence[Put] = ()) -> None:
        """Give the key up, leading or waiting; without a candidacy it does nothing.

        Repeated until the store has answered, or the lease is gone. It never acts again on this
        token, whatever becomes of the request.

        Args:
            epilogue: written with the delete, where the store takes it.
        """
        if self.phase in (Phase.OUT, Phase.CAMPAIGNING):
            return
        own = self._candidacy
        await self._give_up(
            transactions.give_up(own.key, own.token, epilogue),
            plain=transactions.give_up(own.key, own.token),
        )

    async def handover(self, to: str = "") -> Entry:
        """Resign in favour of a candidate (its id or key; "" for the next in the queue).

        Returns:
            The candidate that leads next.

        Raises:
            NotLeader: this candidate does not lead.
            Refused: why it cannot be handed over to; this candidate goes on leading.
        """
        target = await self.clear_way(to)
        self.step_down()
        await self.hand_over(target)
        return target

    async def clear_way(self, to: str = "") -> Entry:
        """Move, while acting, so many waiters that the rest goes with the own key.

        Raises:
            NotLeader: this candidate does not lead.
            Refused: why it cannot be handed over to.
        """
        for _ in range(_MOVE_TRIES):
            own = self.entry
            if own is None or not self.is_leader():
                raise NotLeader("only the leader can hand over")
            plan = plan_handover(self.observer.replica, own.key, to)
            moved = True
            for batch in plan.batches:
                if not self.is_leader():
                    raise NotLeader("only the leader can hand over")
                reply = await self._call(transactions.move(own, batch))
                moved = moved and reply.succeeded
                if not moved:
                    break
                await self._until_seen(reply.header.revision)
            if moved:
                return plan.target
        raise Refused("the queue changed three times while it was being cleared; try again")

    async def _until_seen(self, revision: int) -> None:
        """Wait until the replica has what was done at `revision`, or cannot any more."""
        try:
            async with asyncio.timeout(self.session.call_limit):
                await self.until(
                    lambda: self.observer.replica.revision >= revision or not self.is_leader()
                )
        except TimeoutError as exc:
            raise Unavailable("the watch does not show what was done") from exc

    async def hand_over(self, target: Entry, *, epilogue: Sequence[Put] = ()) -> bool:
        """Give the key up so that `target` is next; if that is refused, resign plainly.

        Returns:
            Whether the target got it; False: the key was given up to whoever is next.
        """
        if self.phase in (Phase.OUT, Phase.CAMPAIGNING):
            return False
        own = self.entry
        key, token = self._candidacy.key, self._candidacy.token
        resign = transactions.give_up(key, token)
        plan: HandoverPlan | None = None
        with contextlib.suppress(Refused):
            plan = plan_handover(self.observer.replica, key, target.key)
        if own is None or plan is None or plan.batches or plan.target.token != target.token:
            await self._give_up(transactions.give_up(key, token, epilogue), plain=resign)
            return False
        txn = transactions.hand_over(own, plan.last, plan.target, epilogue)
        return await self._give_up(txn, plain=resign)

    async def _give_up(self, txn: Txn, *, plain: Txn) -> bool:
        """Send what removes the own key until a definite answer; return whether `txn` did it."""
        token = self._candidacy.token
        self._candidacy = self._candidacy.after(Step.GIVE_UP_SENT)
        self._tell_siblings()
        self._pulse()
        backoff = Backoff(self.session.rng)
        attempt, done = txn, True
        while self._candidacy.token == token and not self.session.lost.is_set:
            try:
                reply = await self._call(attempt)
            except Unavailable as exc:
                self.session.contact.failed("resign", exc)
                await backoff.wait()
            except (StoreFull, LeaseNotFound, Rejected) as exc:
                if attempt is plain:
                    self.session.contact.failed("resign", exc)
                    await backoff.wait()
                attempt, done = plain, False
            else:
                if not reply.succeeded and attempt is not plain:
                    attempt, done = plain, False
                    continue
                self._header = reply.header
                break
        if self._candidacy.token == token:
            self._lose_key(token, Reason.RESIGNED)
        return done

    async def _withdraw(self) -> None:
        """Leave no key behind: bounded, for the way out of a cancelled or failed campaign."""
        if self.phase is Phase.CAMPAIGNING:
            self.session.lose("campaign abandoned")
        self.step_down()
        try:
            async with asyncio.timeout(self.session.ttl):
                await self.resign()
        except TimeoutError:
            self.session.lose("resign was not answered")

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

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on this election holds; it is checked after every change."""
        version = self.changed.version
        while not condition():
            version = await self.changed.changed(version)

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
    def _siblings(self) -> list[Election]:
        """Other objects for this very candidacy: same session, same election, so the same key."""
        return [
            subject
            for subject in self.session.subjects
            if isinstance(subject, Election) and subject is not self
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

    # --- calls --------------------------------------------------------------------------

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

    async def _call(self, txn: Txn) -> TxnReply:
        reply = await self.session.coordinator.txn(txn, timeout=self.session.call_limit)
        self.session.contact.answered()
        return reply

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

    def _lose_key(self, token: int, reason: Reason = Reason.KEY_GONE) -> None:
        if self._candidacy.token != token or not token:
            return
        given_up = self._candidacy.phase is Phase.GIVING_UP
        self.ended = Reason.RESIGNED if given_up else reason
        self._candidacy = self._candidacy.after(Step.KEY_GONE)
        self._pulse()

    def _pulse(self) -> None:
        self.changed.publish(self.changed.value + 1)
