"""`Candidate`: stands in an election for as long as it may, and steps down in order.

Where `Election` is one candidacy for a program that campaigns itself, this is the life of a
sidecar's candidate: it takes up its own term after a restart, stands again after every loss,
follows the health of its program, obeys commands to the leader, and gives way to higher priority.
How it steps down is in `stepping_down`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from sidecar.core.candidacy import Phase
from sidecar.core.codec import TermRecord, encode_proposal
from sidecar.core.state import Reason
from sidecar.election.backoff import Backoff
from sidecar.election.config import CandidateConfig, initial_state
from sidecar.election.election import Election
from sidecar.election.ports import Standing
from sidecar.election.preference import LOOK_EVERY
from sidecar.election.session import Session
from sidecar.election.stepping_down import SteppingDown
from sidecar.errors import CoordinatorError, NotLeader, SessionLost, SidecarError

log = logging.getLogger(__name__)

__all__ = ["Candidate", "CandidateConfig", "initial_state"]

_HOLDS_NO_KEY = (Phase.OUT, Phase.CAMPAIGNING)

_TURNS_WITHIN = 15.0
"""Seconds without the end of any call after which the loops count as stuck, at the least."""

_LAST_WORDS = 1.0
"""Seconds to tell the store that a lease is no longer needed."""

_RESUME_TTLS = 2
"""TTLs after which a resume without an answer is given up: the lease has ended by then."""


class Candidate(SteppingDown):
    """A candidate that stands until it is stopped; see `SteppingDown` for its attributes."""

    # --- what others ask of it ------------------------------------------------------------

    def is_turning(self) -> bool:
        """Whether its loops still call the store, answered or not."""
        return self.contact.untried_for() < max(3 * self.config.ttl, _TURNS_WITHIN)

    def history(self) -> Sequence[TermRecord]:
        """Return the last terms, oldest first."""
        return [record for _, record in sorted(self.observer.replica.history.items())]

    # --- its life -------------------------------------------------------------------------

    async def run(self, *, former: Standing | None = None, may_resume: bool = True) -> None:
        """Stand until stopped; survives every outage of the store.

        Args:
            former: the candidacy that a former process of this sidecar has left behind.
            may_resume: whether to take it up again; else its lease is ended.
        """
        self.observer.listen(self._wake)
        self.observer.listen_to_answers(self._tell)
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
            election.refreshed.listen(self._tell)
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

    # --- telling ----------------------------------------------------------------------------

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
