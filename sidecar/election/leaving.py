"""Leaving the queue: stepping down, resigning, handing over.

From the moment that a request which can remove the key is sent, the candidacy never acts again,
whatever becomes of the request; it is repeated until a definite answer, or the lease is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from sidecar.core import transactions
from sidecar.core.candidacy import Phase, Step
from sidecar.core.handover import HandoverPlan, plan_handover
from sidecar.core.queue import Entry
from sidecar.core.state import Reason
from sidecar.core.store import Put, Txn
from sidecar.election.backoff import Backoff
from sidecar.election.place import Place
from sidecar.errors import NotLeader, Refused, Rejected, Unavailable

_MOVE_TRIES = 3


class Leaving(Place):
    """A place that can be left."""

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
        await self._give_up(self._removal_with(epilogue))

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
        plan: HandoverPlan | None = None
        with contextlib.suppress(Refused):
            plan = plan_handover(self.observer.replica, self._candidacy.key, target.key)
        if own is None or plan is None or plan.batches or plan.target.token != target.token:
            await self._give_up(self._removal_with(epilogue))
            return False
        return await self._give_up(transactions.hand_over(own, plan.last, plan.target, epilogue))

    def _removal_with(self, epilogue: Sequence[Put]) -> Txn:
        if not epilogue:
            return self._removal
        return transactions.give_up(self._candidacy.key, self._candidacy.token, epilogue)

    async def _give_up(self, txn: Txn) -> bool:
        """Send what removes the own key, at last without anything beside it, until it is answered.

        Returns:
            Whether `txn` did it.
        """
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
            except Rejected as exc:  # also: no space for the epilogue, a pin on a dead lease
                if not done:
                    self.session.contact.failed("resign", exc)
                    await backoff.wait()
                attempt, done = self._removal, False
            else:
                if not reply.succeeded and attempt is not self._removal:
                    attempt, done = self._removal, False
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
