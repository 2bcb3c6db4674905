"""`Candidate`: stands in an election for as long as it may, and steps down in order.

Where `Election` is one candidacy for a program that campaigns itself, this is the life of a
sidecar's candidate: it stands again after every loss, follows the health of its program, obeys
commands to the leader, and gives way to higher priority. The order of a step-down is the heart
of it (`_leave`):

1. it stops acting, in the same instant for everybody who asks;
2. it is told to the outputs;
3. the drain time passes;
4. once nobody can still believe in it (`Keeper.settle`), the key is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.core import transactions
from sidecar.core.candidacy import Phase
from sidecar.core.codec import Action, Answer, Proposal, Request, TermRecord, encode_proposal
from sidecar.core.queue import Entry
from sidecar.core.state import ElectionState, Reason, Role
from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.chronicle import Chronicle
from sidecar.election.contact import Contact
from sidecar.election.election import Election
from sidecar.election.feed import Feed
from sidecar.election.observer import Observer
from sidecar.election.ports import (
    Clock,
    Coordinator,
    Keeper,
    Meter,
    NoKeeper,
    NoMeter,
    Standing,
    SystemClock,
)
from sidecar.election.preference import LOOK_EVERY, Preference
from sidecar.election.session import Session
from sidecar.election.telling import Telling
from sidecar.errors import (
    CoordinatorError,
    NotLeader,
    Refused,
    Rejected,
    SessionLost,
    SidecarError,
    Unavailable,
)

log = logging.getLogger(__name__)

_ANSWER_LIMIT = 1.0
_HOLDS_NO_KEY = (Phase.OUT, Phase.CAMPAIGNING)

_TURNS_WITHIN = 15.0
"""Seconds without the end of any call after which the loops count as stuck, at the least."""

_LAST_WORDS = 1.0
"""Seconds to tell the store that a lease is no longer needed."""

_RESUME_TTLS = 2
"""TTLs after which a resume without an answer is given up: the lease has ended by then."""


@dataclass(frozen=True, slots=True)
class CandidateConfig:
    """How a candidate behaves.

    Attributes:
        election: the election's name.
        proposal: what it says of itself; priority 0 means that it only observes.
        ttl: seconds.
        margin: seconds, or None for the least safe one.
        drain: seconds between saying that it follows and giving the key up.
        least_token: never act with a fencing token below this one.
    """

    election: str
    proposal: Proposal
    ttl: float = 5.0
    margin: float | None = None
    drain: float = 0.0
    least_token: int = 0


def initial_state(config: CandidateConfig, clock: Clock) -> ElectionState:
    """Return what a candidate tells before it knows anything."""
    return ElectionState(config.election, config.proposal.id, since=clock.wall())


class Candidate:
    """A candidate that stands until it is stopped.

    Attributes:
        state: what it tells the world, newest value.
        given_back: once `left`: whether its last key was given up for certain.
        left: set once it has left the queue for good.
        is_ending: whether `stop` was called.
        contact: how it stands with the store; for others that call it too.
        decided: set once it is known whether a former term is resumed; until then the outputs
            leave what a former process told as it is.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        config: CandidateConfig,
        *,
        keeper: Keeper | None = None,
        clock: Clock | None = None,
        meter: Meter | None = None,
        rng: random.Random | None = None,
        state: Feed[ElectionState] | None = None,
    ) -> None:
        self.config = config
        self.given_back = True
        self._coordinator = coordinator
        self._keeper: Keeper = keeper or NoKeeper()
        self._clock: Clock = clock or SystemClock()
        self._meter: Meter = meter or NoMeter()
        self._rng = rng or random.SystemRandom()
        self.contact = Contact(self._clock, self._meter)
        self.observer = Observer(
            coordinator,
            config.election,
            clock=self._clock,
            meter=self._meter,
            contact=self.contact,
            rng=self._rng,
            reread_every=10 * config.ttl,
        )
        self.state = state or Feed(initial_state(config, self._clock))
        self._least_token = config.least_token
        self._election: Election | None = None
        self._tasks = Background()
        self._pulse: Feed[int] = Feed(0)
        self._stop: Reason | None = None
        self._back: Reason | None = None
        self._keep_key = False
        self.is_ending = False
        self._skip_drain = asyncio.Event()
        self.decided = asyncio.Event()
        self.left = asyncio.Event()
        self._telling = Telling(
            self.state,
            observer=self.observer,
            contact=self.contact,
            clock=self._clock,
            meter=self._meter,
            idle_role=Role.OBSERVER if config.proposal.priority == 0 else Role.FOLLOWER,
            silence=config.ttl,
        )
        self._chronicle = Chronicle(config.proposal.id, keeper=self._keeper, clock=self._clock)
        self._preference = Preference(config.proposal.priority or 0, self._clock)
        self._answered: set[str] = set()

    # --- what others ask of it ------------------------------------------------------------

    def is_leader(self) -> bool:
        """Whether this candidate may act as the leader at this very moment."""
        return self._election is not None and self._election.is_leader()

    def is_turning(self) -> bool:
        """Whether its loops still call the store, answered or not."""
        return self.contact.untried_for() < max(3 * self.config.ttl, _TURNS_WITHIN)

    def history(self) -> Sequence[TermRecord]:
        """Return the last terms, oldest first."""
        return [record for _, record in sorted(self.observer.replica.history.items())]

    def stand_back(self, reason: Reason = Reason.UNHEALTHY) -> None:
        """Leave the queue, in order where it leads, until `stand_again`."""
        self._back = reason
        self._wake()

    def stand_again(self) -> None:
        """Stand (again) from now on."""
        self._back = None
        self._wake()

    def retire(self, *, keep_key: bool = False) -> None:
        """Step down in order and never stand again; `run` goes on observing until `stop`.

        With `keep_key` it stops acting, and the key is given up only at `stop`.
        """
        self._stop = self._stop or Reason.RETIRED
        self._keep_key = keep_key and not self.is_ending
        self._wake()

    def stop(self) -> None:
        """Step down in order and let `run` return."""
        self._stop = self._stop or Reason.SHUTDOWN
        self.is_ending = True
        self._keep_key = False
        self._wake()

    def hurry(self) -> None:
        """Skip what is left of the drain time."""
        self._skip_drain.set()
        self._wake()

    # --- its life -------------------------------------------------------------------------

    async def run(self, *, former: Standing | None = None, may_resume: bool = True) -> None:
        """Stand until stopped; survives every outage of the store.

        Args:
            former: the candidacy that a former process of this sidecar has left behind.
            may_resume: whether to take it up again; else its lease is ended.
        """
        self.observer.listen(self._wake)
        async with self.observer, self._tasks:
            self._tasks.start(self._tell_in_time(), name="candidate-clock")
            self._tasks.start(self._note_terms(), name="candidate-history")
            if self.config.proposal.priority == 0:
                if former is not None:
                    await self._resume(former, may_resume=False)
                self.decided.set()
                await self._until(lambda: self._stop is not None)
            else:
                await self._stand_until_stopped(former, may_resume=may_resume)
            self.left.set()
            await self._until(lambda: self.is_ending)
        self._telling.reason = self._stop or self._telling.reason
        self._tell()

    async def _stand_until_stopped(self, former: Standing | None, *, may_resume: bool) -> None:
        if former is not None:
            await self._resume(former, may_resume=may_resume)
        self.decided.set()
        backoff = Backoff(self._rng)
        while self._stop is None:
            await self._until(lambda: self._stop is not None or self._back is None)
            session = self._session()
            try:
                if await self._while_wanted(session.grant()):
                    await self._on_session(session, self._serve)
                else:
                    await session.close(within=_LAST_WORDS)
                backoff.reset()
            except SessionLost:
                self._wake()
            except SidecarError as exc:
                self.contact.failed("campaign", exc)
                await self._while_wanted(backoff.wait())

    def _session(self, resume: Standing | None = None) -> Session:
        config = self.config
        self._telling.campaign_begins()
        return Session(
            self._coordinator,
            ttl=resume.ttl if resume else config.ttl,
            margin=config.margin,
            lease=resume.lease if resume else None,
            clock=self._clock,
            meter=self._meter,
            contact=self.contact,
            rng=self._rng,
        )

    async def _on_session(
        self, session: Session, serve: Callable[[Election], Coroutine[Any, Any, None]]
    ) -> None:
        async with session:
            election = Election(session, self.config.election, observer=self.observer)
            election.least_token = self._least_token
            election.changed.listen(self._wake)
            self._election = election
            try:
                async with election:
                    try:
                        await serve(election)
                        await session.close(within=_LAST_WORDS)
                        session.orphan()  # where the store did not answer, the lease ends alone
                    except BaseException:
                        # Whatever went wrong: no key is given up out of order, neither the own
                        # one nor that of a predecessor whose status may still be believed.
                        if session.is_taken_up or election.phase not in _HOLDS_NO_KEY:
                            session.orphan()
                        raise
            finally:
                self._election = None
                self._tell()

    async def _resume(self, standing: Standing, *, may_resume: bool) -> None:
        """Take up the old candidacy and serve on, or make sure that its lease ends."""
        try:
            await self._on_session(
                self._session(standing),
                lambda election: self._take_up(election, standing, may_resume=may_resume),
            )
        except SessionLost:
            self._wake()
        except SidecarError as exc:
            self.contact.failed("campaign", exc)

    async def _take_up(self, election: Election, standing: Standing, *, may_resume: bool) -> None:
        try:
            async with asyncio.timeout(_RESUME_TTLS * standing.ttl):
                await self._try_to_resume(election, standing, may_resume=may_resume)
        except (TimeoutError, CoordinatorError) as exc:
            # No answer, or a no: by now the lease has ended, or will.
            log.warning("former term not resumed error=%s", str(exc) or "no answer in time")
            election.session.orphan()
        if election.phase is Phase.STANDING:  # also when nobody wants it any more: _serve leaves
            self._tell()
            self.decided.set()
            await self._serve(election)
            return
        self.decided.set()  # from here on the outputs say follower
        self._telling.reason = Reason.WAITING
        self._tell()
        if not await self._nobody_believes():
            election.session.orphan()

    async def _try_to_resume(
        self, election: Election, standing: Standing, *, may_resume: bool
    ) -> None:
        replica = self.observer.replica
        await self._until(lambda: replica.is_synced or self._stop is not None)
        is_same_store = replica.cluster_id == standing.cluster_id
        if may_resume and is_same_store and self._stop is None:
            self._telling.resumed_token = standing.token
            await self._while_wanted(self._resume_key(election, standing))

    async def _resume_key(self, election: Election, standing: Standing) -> None:
        if await election.resume(standing.key, standing.token):
            entry = election.entry
            if entry is None or entry.proposal != self.config.proposal:
                with contextlib.suppress(CoordinatorError, NotLeader):
                    await election.proclaim(encode_proposal(self.config.proposal))

    async def _serve(self, election: Election) -> None:
        """Stand, and do what comes up, until the session is lost or nobody wants to stand."""
        replica = self.observer.replica
        while True:
            version = self._pulse.version
            election.session.raise_if_lost()
            if election.phase is Phase.OUT:
                if not self._wants():
                    return
                await self._join(election)
                continue
            duty = self._duty(election)
            if duty is not None:
                await duty
                continue
            outranked = election.is_leader() and self._preference.is_outranked(replica)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY if outranked else None):
                    await self._pulse.changed(version)

    async def _join(self, election: Election) -> None:
        """Stand in the queue; given up when nobody wants to stand any more."""
        self._telling.campaign_begins()
        election.least_token = self._least_token
        if await self._while_wanted(election.stand(encode_proposal(self.config.proposal))):
            self._telling.reason = Reason.WAITING
            self._tell()

    def _duty(self, election: Election) -> Coroutine[Any, Any, None] | None:
        """Return what has to be done now, the most urgent first, or None."""
        reason = self._stop or self._back
        if reason is None and self.observer.replica.is_paused and self._telling.has_led(election):
            reason = Reason.PAUSED
        if reason is not None:
            return self._leave(election, reason)
        if not election.is_leader():
            return None
        for nonce, request in self.observer.replica.requests.items():
            if nonce not in self._answered:
                return self._obey(election, nonce, request)
        by_priority = self._chronicle.came_by_priority(election.rev)
        target = self._preference.choice(
            election, led_since=self._telling.led_since if by_priority else None
        )
        return None if target is None else self._leave(election, Reason.PRIORITY, target)

    # --- stepping down ----------------------------------------------------------------------

    async def _leave(
        self,
        election: Election,
        reason: Reason,
        target: Entry | None = None,
        pinned: Entry | None = None,
    ) -> None:
        """Step down in order, and give the key up."""
        now = self._clock.now()
        # Not is_leader(): a pause, which ends the acting by itself, is a reason to drain as well.
        was_leading = self._telling.has_led(election) and now < election.deadline
        has_led = self._telling.has_led(election)
        token = election.rev
        self._telling.reason = reason
        election.step_down()
        self._tell()
        if was_leading:
            await self._drain(election)
        if not await self._nobody_believes():
            log.error("session.json cannot be removed, the lease is left to end by itself")
            self.given_back = False
            election.session.orphan()
            return
        epilogue = self._chronicle.ended(election, reason) if has_led else ()
        if pinned is not None and pinned.lease:
            epilogue = (*epilogue, transactions.pin(self.observer.layout, pinned))
        try:
            async with asyncio.timeout(election.session.ttl):
                if target is not None:
                    await election.hand_over(target, epilogue=epilogue)
                else:
                    await election.resign(epilogue=epilogue)
        except TimeoutError:
            log.warning("no answer to the resign, the lease is left to end by itself")
            election.session.orphan()
        self.given_back = election.ended is Reason.RESIGNED
        if reason is Reason.PRIORITY:
            self._preference.note_move()
        log.debug("key given up token=%d reason=%s", token, reason)

    async def _nobody_believes(self) -> bool:
        """Wait until nobody takes us for the leader; False: a restart may yet do so."""
        forgotten: list[bool] = []

        async def forget() -> None:
            forgotten.append(await self._keeper.forget())

        async with asyncio.TaskGroup() as group:
            group.create_task(forget(), name="candidate-forget")
            group.create_task(_awaited(self._keeper.settle()), name="candidate-settle")
        return forgotten[0]

    async def _drain(self, election: Election) -> None:
        """Let the drain time pass, as long as the key is safe and nobody is in a hurry."""
        await self._until(lambda: not self._keep_key or election.phase is not Phase.STOPPING)
        ends_at = self._clock.now() + self.config.drain
        while not (self._skip_drain.is_set() or election.phase is not Phase.STOPPING):
            # Renewals go on meanwhile and move the session's deadline, so it is read each time.
            left = min(ends_at, election.session.deadline) - self._clock.now()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._until(
                        lambda: self._skip_drain.is_set() or election.phase is not Phase.STOPPING
                    )

    # --- commands ---------------------------------------------------------------------------

    async def _obey(self, election: Election, nonce: str, request: Request) -> None:
        """Carry out a command to the leader of this very term, and answer it."""
        self._answered = {nonce, *self._answered.intersection(self.observer.replica.requests)}
        if request.token != election.rev or not request.lease:
            return  # it is for a term that is over, or nobody waits for the answer
        target: Entry | None = None
        try:
            if request.action is Action.HANDOVER:
                target = await election.clear_way(request.to)
        except (Refused, NotLeader) as exc:
            await self._answer(nonce, request, Answer(accepted=False, reason=str(exc)))
            return
        except (Unavailable, Rejected) as exc:
            answer = Answer(accepted=False, reason=f"the store did not move the waiters: {exc}")
            await self._answer(nonce, request, answer)
            return
        is_current = request.token == election.rev
        if is_current and await self._answer(nonce, request, Answer(accepted=True)):
            await self._resign_for(election, request, target)

    async def _resign_for(self, election: Election, request: Request, target: Entry | None) -> None:
        if request.token != election.rev:
            return  # the term has ended while it was answered
        waiters = self.observer.replica.entries[1:]
        next_one = target or (waiters[0] if waiters else None)
        pinned = next_one if next_one and not next_one.proposal.is_foreign else None
        reason = Reason.HANDOVER if request.action is Action.HANDOVER else Reason.RESIGNED
        await self._leave(election, reason, target, pinned)

    async def _answer(self, nonce: str, request: Request, answer: Answer) -> bool:
        """Answer on the asker's lease; False when that lease, and so the asker, is gone."""
        txn = transactions.answer(self.observer.layout, nonce, request.lease, answer)
        try:
            await self._coordinator.txn(txn, timeout=_ANSWER_LIMIT)
        except Rejected as exc:
            log.info("request not answered nonce=%s error=%s", nonce, exc)
            return False
        except Unavailable as exc:
            self.contact.failed("answer", exc)
        return True

    # --- telling ----------------------------------------------------------------------------

    def _wake(self) -> None:
        self._tell()
        self._pulse.publish(self._pulse.value + 1)

    def _tell(self) -> None:
        """Take in what has changed, and publish what is true now."""
        self._preference.note_places(self.observer.replica)
        self._note_token()
        self._telling.tell(self._election, least_token=self._least_token)

    def _note_token(self) -> None:
        first = self.observer.replica.first
        if first is not None and first.token > self._least_token:
            self._least_token = first.token
            if self._election is not None:
                self._election.least_token = first.token
            self._keeper.saw(first.token, self.observer.replica.cluster_id)

    async def _tell_in_time(self) -> None:
        """Publish when a deadline passes although nothing happens."""
        while True:
            version = self._pulse.version
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._telling.next_change(self._election)):
                    await self._pulse.changed(version)
            self._tell()

    async def _note_terms(self) -> None:
        while True:
            version = self._pulse.version
            election = self._election
            if election is not None:
                await self._chronicle.note(election, has_led=self._telling.has_led(election))
            await self._pulse.changed(version)

    # --- waiting ----------------------------------------------------------------------------

    def _wants(self) -> bool:
        return self._stop is None and self._back is None

    async def _until(self, condition: Callable[[], bool]) -> None:
        version = self._pulse.version
        while not condition():
            version = await self._pulse.changed(version)

    async def _while_wanted(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do some work, cancelled when nobody wants to stand any more; say whether it ended.

        Raises:
            SidecarError: what the work raised.
        """
        failure: list[SidecarError] = []
        ended = False

        async def guarded() -> None:
            nonlocal ended
            try:
                await work
                ended = True
            except SidecarError as exc:
                failure.append(exc)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(guarded(), name="candidate-work")
            guard = group.create_task(
                self._until(lambda: not self._wants()), name="candidate-guard"
            )
            task.add_done_callback(lambda _: guard.cancel())
            guard.add_done_callback(lambda _: task.cancel())
        if failure:
            raise failure[0]
        return ended


async def _awaited(work: Awaitable[None]) -> None:
    await work
