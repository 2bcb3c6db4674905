"""What anybody who reaches the store may ask of an election: resign, hand over, pause, resume.

A request is a key on the asker's own lease, put only if the term it is for still runs. The
leader answers on the same lease, so everything goes when the asker does: with a refusal, or, where
a drain comes first, that it was heard. In any case the asker waits until the queue shows that it
happened, which without a drain is all the answer there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable

from sidecar.core import transactions
from sidecar.core.codec import VERSION, Action, Request
from sidecar.core.keys import Layout
from sidecar.core.queue import Entry
from sidecar.core.state import Leader
from sidecar.core.store import Delete, Guard, Put, Txn
from sidecar.election.backoff import Backoff
from sidecar.election.observer import Observer, leader_of
from sidecar.election.ports import Clock, Coordinator, SystemClock
from sidecar.errors import (
    CoordinatorError,
    LeaseExists,
    NoLeader,
    Refused,
    Unavailable,
    Underway,
)

_ASKER_TTL = 30.0
_CALL_LIMIT = 2.0
_NONCE_BITS = 64


class Commands:
    """Commands to one election.

    Args:
        coordinator: the store, open.
        name: the election's name.
        within: seconds after which a command counts as not carried out.
        drain: seconds for which one that the leader has accepted is waited for besides.

    Raises:
        ValueError: the name cannot be an election's.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        name: str,
        *,
        within: float = 30.0,
        drain: float = 0.0,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._coordinator = coordinator
        self._within = within
        self._drain = drain
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._layout = Layout(name)

    async def resign(self) -> Leader | None:
        """Have the leader resign and queue again; return who leads then (None: nobody).

        Raises:
            NoLeader: nobody leads.
            Refused: the leader refused, or changed meanwhile; says why.
            Rejected: the store does not let us.
            Unavailable: the store, or the leader, did not answer in time; `Underway`: it has
                accepted, and drains yet.
        """
        return await self._ask(Action.RESIGN, "")

    async def handover(self, to: str = "", *, token: int = 0) -> Leader | None:
        """Have the leader hand over to a candidate's id or key; "": to the next in the queue.

        With `token` the leader of that term alone is asked: whoever leads after it is let be.

        Raises:
            NoLeader: nobody leads.
            Refused: the leader refused, or changed meanwhile; says why.
            Unavailable: the store, or the leader, did not answer in time; `Underway`: it has
                accepted, and drains yet.
        """
        return await self._ask(Action.HANDOVER, to, token)

    async def pause(self, *, duration: float | None = None) -> bool:
        """Let nobody act until `resume`, or for `duration` seconds; False: it was paused already.

        Returns once the leader has given its key up.

        Raises:
            Refused: another program stands in the election, which knows nothing of pauses.
            Unavailable: the store, or the leader, did not answer in time.
        """
        async with self._watching() as observer, self._bounded("pause", observer):
            await observer.looked()
            replica = observer.replica
            foreign = next((e for e in replica.entries if e.proposal.is_foreign), None)
            if foreign is not None:
                raise Refused(
                    f"{foreign.proposal.id!r} was put by another program, which would go on "
                    "acting through a pause; stop it first"
                )
            first = replica.first
            lease = 0 if duration is None else await self._grant(duration)
            value = json.dumps({"v": VERSION, "since": self._clock.wall()}).encode()
            pause = self._layout.pause
            txn = Txn(guards=(Guard(pause, 0),), then=(Put(pause, value, lease),))
            reply = await self._coordinator.txn(txn, timeout=_CALL_LIMIT)
            if not reply.succeeded and lease:
                await self._revoke(lease)
            if first is not None and reply.succeeded:
                done = reply.header.revision
                await self._until(observer, lambda: replica.revision >= done)
                await self._until(
                    observer, lambda: _is_gone(observer, first) or not replica.is_paused
                )
            return reply.succeeded

    async def resume(self) -> bool:
        """End a pause; False: there was none.

        Raises:
            Unavailable: the store did not answer in time.
        """
        async with self._bounded("resume", None):
            pause = self._layout.pause
            txn = Txn(guards=(Guard(pause, 0),), otherwise=(Delete(pause),))
            reply = await self._coordinator.txn(txn, timeout=_CALL_LIMIT)
            return not reply.succeeded

    async def first(self, *, within: float = 0.0) -> Leader | None:
        """Return who stands first in the queue: who leads, or in a pause who leads after it.

        None: nobody stands, nor has come to stand `within` so many seconds.

        Raises:
            Rejected: the store does not let us look.
            Unavailable: the store did not answer in time.
        """
        async with self._watching() as observer, self._bounded("a look", observer):
            await observer.looked()
            replica = observer.replica
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._until(observer, lambda: replica.first is not None)
            return leader_of(replica.first)

    async def standing(self) -> tuple[str, ...]:
        """Return the ids of all candidates in the order of the queue, who leads first.

        Raises:
            Rejected: the store does not let us look.
            Unavailable: the store did not answer in time.
        """
        async with self._watching() as observer, self._bounded("a look", observer):
            await observer.looked()
            return tuple(entry.proposal.id for entry in observer.replica.entries)

    async def _ask(self, action: Action, to: str, token: int = 0) -> Leader | None:
        async with self._watching() as observer, self._bounded(action.value, observer) as limit:
            lease = await self._grant(_ASKER_TTL)  # while the observer reads the queue
            try:
                await observer.looked()
                if observer.replica.is_paused:
                    raise Refused("the election is paused, so nobody leads; resume it first")
                first = observer.replica.first
                if first is None:
                    raise NoLeader(f"nobody stands in {self._layout.name}")
                if token not in {0, first.token}:
                    raise Refused(f"the term {token} is over: {first.proposal.id!r} leads now")
                if first.proposal.is_foreign:
                    raise Refused(
                        f"{first.proposal.id!r} leads and was put by another program, which "
                        "knows no commands"
                    )
                request = Request(action, first.token, to, lease)
                return await self._ask_leader(observer, first, request, limit)
            finally:
                await self._revoke(lease)

    async def _ask_leader(
        self, observer: Observer, first: Entry, request: Request, limit: asyncio.Timeout
    ) -> Leader | None:
        nonce = f"{self._rng.getrandbits(_NONCE_BITS):016x}"
        answers = observer.replica
        txn = transactions.ask(self._layout, nonce, first.key, request)
        reply = await self._coordinator.txn(txn, timeout=_CALL_LIMIT)
        if not reply.succeeded:
            raise Refused(f"{first.proposal.id!r} does not lead any more; look and ask again")
        await self._until(observer, lambda: nonce in answers.answers or _is_gone(observer, first))
        answer = answers.answers.get(nonce)
        if answer is not None and not answer.accepted:
            raise Refused(answer.reason)
        if answer is not None:
            await self._drained(request.action, observer, first, limit)
        return leader_of(observer.replica.first)

    async def _drained(
        self, action: Action, observer: Observer, first: Entry, limit: asyncio.Timeout
    ) -> None:
        """Wait until the leader has moved that has accepted to; it leads for as long as it drains.

        Raises:
            Underway: that takes longer than a command may.
        """
        ends_at = (limit.when() or 0.0) + self._drain
        limit.reschedule(None)  # or it would say that nobody has answered
        try:
            async with asyncio.timeout_at(ends_at):
                await self._until(observer, lambda: _is_gone(observer, first))
        except TimeoutError as exc:
            why = f" ({observer.trouble})" if observer.trouble else ""
            said = f"{first.proposal.id!r} has accepted, and was not through with its drain within"
            raise Underway(f"{action.value}: {said} {self._within + self._drain:g} s{why}") from exc

    async def _grant(self, ttl: float) -> int:
        """Create a lease; tried until the command's time is over."""
        backoff = Backoff(self._rng)
        while True:
            # A new id for each try: one that took effect unheard ends by itself.
            lease = self._rng.getrandbits(62) + 1
            try:
                await self._coordinator.grant(lease, ttl, timeout=_CALL_LIMIT)
            except LeaseExists:
                continue
            except Unavailable:
                await backoff.wait()
            else:
                return lease

    async def _revoke(self, lease: int) -> None:
        # It ends by itself in half a minute; what was done is done.
        with contextlib.suppress(CoordinatorError):
            await self._coordinator.revoke(lease, timeout=_CALL_LIMIT)

    def _watching(self) -> Observer:
        name = self._layout.name
        return Observer(self._coordinator, name, clock=self._clock, rng=self._rng)

    async def _until(self, observer: Observer, condition: Callable[[], bool]) -> None:
        changed = asyncio.Event()
        unlisten = observer.listen(changed.set)
        try:
            while not condition():
                changed.clear()
                await changed.wait()
        finally:
            unlisten()

    @contextlib.asynccontextmanager
    async def _bounded(
        self, what: str, observer: Observer | None
    ) -> AsyncIterator[asyncio.Timeout]:
        try:
            async with asyncio.timeout(self._within) as limit:
                yield limit
        except TimeoutError as exc:
            why = observer.trouble if observer is not None else ""
            said = f"{what} was not carried out within {self._within:g} s"
            raise Unavailable(f"{said}: {why}" if why else said) from exc


def _is_gone(observer: Observer, entry: Entry) -> bool:
    standing = observer.replica.find(entry.key)
    return standing is None or standing.token != entry.token
