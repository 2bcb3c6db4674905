"""Writes that only the leader of this very term can make.

Every transaction requires the leader's key in the election to have been created at the revision
that is the fencing token. A Master that was frozen and wakes up in the belief to lead writes
nothing, whatever its clock, its cache or its status file say.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import NamedTuple

from crawler.problems import not_the_leader, refused, unanswered
from sidecar.client import Leadership, Term
from sidecar.core.store import Delete, Guard, KeyValue, Put, Range, Txn, Unchanged
from sidecar.election import Coordinator
from sidecar.election.backoff import Backoff
from sidecar.errors import Rejected, Unavailable

_TRY_WITHIN = 2.0


class Written(NamedTuple):
    """The answer to a write.

    Attributes:
        is_done: False when a condition did not hold; then nothing was written.
        revision: of the store, which is that of the write when there was one.
        is_repeated: whether an earlier try of it went unanswered, and may have been done.
        found: what each key to read holds when a condition did not hold; None: it is absent.
    """

    is_done: bool
    revision: int
    is_repeated: bool = False
    found: tuple[KeyValue | None, ...] = ()


class Fence:
    """The right to write, for one term."""

    def __init__(self, coordinator: Coordinator, leadership: Leadership, term: Term) -> None:
        self.token = term.token
        self._key = term.key.encode()
        self._guard = Guard(self._key, term.token)
        self._coordinator = coordinator
        self._leadership = leadership
        self._rng = random.SystemRandom()

    def holds(self) -> bool:
        """Say whether the sidecar still says so; the store has the last word."""
        return self._leadership.token == self.token

    async def write(
        self,
        unchanged: Sequence[Unchanged],
        then: Sequence[Put | Delete],
        *,
        read: Sequence[bytes],
        deadline: float,
    ) -> Written:
        """Write if this term goes on and everything is as it was read, else read some keys.

        While the store does not answer, the same transaction is sent again. So one of its tries
        can arrive long after the answer, as long as the term goes on. Only the caller's conditions
        keep it from taking effect twice: where that would harm, a success must change something
        that one of them names, and nobody may change that back. Then the answer after an unheard
        success is "not done", and what is found tells it.

        Args:
            unchanged: what must be as it was read. That a key is absent can come true again;
                a revision cannot.
            then: what to write.
            read: the keys to look at when a condition does not hold.
            deadline: of the event loop's clock.

        Raises:
            Problem: the term is over, the store did not answer in time, or refuses the write.
        """
        conditions: list[Guard | Unchanged] = [self._guard, *unchanged]
        looks = (Range(self._key), *map(Range, read))
        txn = Txn(tuple(conditions), tuple(then), looks)
        backoff = Backoff(self._rng)
        is_untouched = True
        while True:
            left = deadline - asyncio.get_running_loop().time()
            if not self.holds():
                raise not_the_leader(is_untouched=is_untouched)
            if left <= 0:
                raise unanswered("etcd")
            try:
                reply = await self._coordinator.txn(txn, timeout=min(left, _TRY_WITHIN))
            except Unavailable:
                is_untouched = False
                await backoff.wait()
                continue
            except Rejected as exc:
                raise refused(exc, is_untouched=is_untouched) from exc
            if reply.succeeded:
                return Written(True, reply.header.revision, not is_untouched)
            leader, *found = reply.ranges
            if [kv.create_revision for kv in leader] != [self.token]:
                raise not_the_leader(is_untouched=is_untouched)
            kvs = tuple(kvs[0] if kvs else None for kvs in found)
            return Written(False, reply.header.revision, not is_untouched, kvs)
