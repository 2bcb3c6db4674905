"""Stepping down in order, for whatever reason, and obeying the commands that ask for it.

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

from sidecar.core import transactions
from sidecar.core.candidacy import Phase
from sidecar.core.codec import Action, Answer, Request
from sidecar.core.queue import Entry
from sidecar.core.state import ElectionState, Reason, Role
from sidecar.election.background import Background
from sidecar.election.chronicle import Chronicle
from sidecar.election.config import CandidateConfig, initial_state
from sidecar.election.contact import Contact
from sidecar.election.election import Election
from sidecar.election.feed import Feed
from sidecar.election.observer import PROBE_EVERY, Observer
from sidecar.election.ports import (
    Clock,
    Coordinator,
    Keeper,
    Meter,
    NoKeeper,
    NoMeter,
    SystemClock,
)
from sidecar.election.preference import Preference
from sidecar.election.telling import Telling
from sidecar.election.wishes import Wishes
from sidecar.errors import NotLeader, Refused, Rejected, Unavailable

log = logging.getLogger(__name__)

_ANSWER_LIMIT = 1.0


class SteppingDown(Wishes):
    """A candidate's parts, and the ways in which its term ends by its own doing.

    Attributes:
        state: what it tells the world, newest value.
        given_back: once `left`: whether its last key was given up for certain.
        left: set once it has left the queue for good.
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
        super().__init__()
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
            # Twice in the time after which a silent store counts as out of reach, and more.
            probe_every=min(PROBE_EVERY, config.ttl / 3),
        )
        self.state = state or Feed(initial_state(config, self._clock))
        self._least_token = config.least_token
        self._election: Election | None = None
        self._tasks = Background()
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

    def is_leader(self) -> bool:
        """Whether this candidate may act as the leader at this very moment."""
        return self._election is not None and self._election.is_leader()

    def _tell(self) -> None:
        """Take in what has changed, and publish what is true now."""
        self._preference.note_places(self.observer.replica)
        is_newer = self._note_token()
        self._telling.tell(self._election, least_token=self._least_token)
        if is_newer:  # after the telling, which is in more of a hurry
            self._keeper.saw(self._least_token, self.observer.replica.cluster_id)

    def _note_token(self) -> bool:
        first = self.observer.replica.first
        if first is None or first.token <= self._least_token:
            return False
        self._least_token = first.token
        if self._election is not None:
            self._election.least_token = first.token
        return True

    # --- in order ---------------------------------------------------------------------------

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
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keeper.settle(), name="candidate-settle")
            return await self._keeper.forget()

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
        if is_current and await self._is_awaited(nonce, request):
            await self._resign_for(election, request, target)

    async def _resign_for(self, election: Election, request: Request, target: Entry | None) -> None:
        if request.token != election.rev:
            return  # the term has ended while it was answered
        waiters = self.observer.replica.entries[1:]
        next_one = target or (waiters[0] if waiters else None)
        pinned = next_one if next_one and not next_one.proposal.is_foreign else None
        reason = Reason.HANDOVER if request.action is Action.HANDOVER else Reason.RESIGNED
        await self._leave(election, reason, target, pinned)

    async def _is_awaited(self, nonce: str, request: Request) -> bool:
        """Whether the asker lives; where a drain comes first, it is told that it is heard.

        Else the change itself is the answer, and one write less lies on the way to it.
        """
        if self.config.drain > 0:
            return await self._answer(nonce, request, Answer(accepted=True))
        key = self.observer.layout.request(nonce)
        try:
            found = await self._coordinator.read(key, key + b"\0", timeout=_ANSWER_LIMIT)
        except Rejected as exc:
            log.info("request not looked at nonce=%s error=%s", nonce, exc)
            return False
        except Unavailable as exc:
            self.contact.failed("answer", exc)
            return True
        if not found.kvs:
            log.info("request not answered nonce=%s error=its asker is gone", nonce)
        return bool(found.kvs)

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
