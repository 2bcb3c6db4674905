"""Only the leader serves: a call is carried out here while this Master leads, else passed on.

A call waits while nobody leads, and is tried again where that is safe, until its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator

from crawler import checks
from crawler import crawler_pb2 as pb
from crawler.calls import Call, Reply
from crawler.master_metrics import Metrics
from crawler.peers import Peers
from crawler.problems import Doubt, Problem, no_leader, not_the_leader, overdue
from crawler.standing import Standing

_AGAIN, _AGAIN_AT_MOST = 0.05, 0.5
"""Seconds until the next try, doubling, where no change of the leader wakes us sooner."""


class Router:
    """Brings every call to the leader."""

    def __init__(self, standing: Standing, peers: Peers, metrics: Metrics) -> None:
        self._standing = standing
        self._peers = peers
        self._metrics = metrics
        self._limits: set[asyncio.Timeout] = set()

    def end_within(self, seconds: float) -> None:
        """Let no call that is here now wait longer than this."""
        end = asyncio.get_running_loop().time() + seconds
        for limit in (limit for limit in self._limits if not limit.expired()):
            limit.reschedule(min(end, limit.when() or end))

    async def route(self, call: Call) -> Reply:
        """Carry a call out or have it carried out.

        Raises:
            Problem: why that failed, for the caller.
        """
        name = call.operation.name
        by, code = "none", "OK"
        with self._metrics.seconds.labels(name).time(), self._metrics.busy.track_inprogress():
            try:
                prepare(call)
                reply = await self._until_done(call)
                by = "leader" if reply.is_forwarded else "self"
            except Problem as problem:
                code = problem.code.name
                raise
            finally:
                self._metrics.calls.labels(name, code, by).inc()
        return reply

    async def _until_done(self, call: Call) -> Reply:
        problem, pause, doubt = overdue(), _AGAIN, Doubt()
        try:
            async with self._limited(call):
                while True:
                    seen = self._standing.seen.version
                    try:
                        with doubt:
                            return await self._once(call)
                    except Problem as exc:
                        self._check_again(call, exc)
                        doubt.note(is_untouched=exc.is_untouched)
                        problem = exc
                    is_news = await self._changed(seen, pause)
                    pause = _AGAIN if is_news else min(2 * pause, _AGAIN_AT_MOST)
                    problem = overdue()
        except TimeoutError:
            raise problem from None

    @contextlib.asynccontextmanager
    async def _limited(self, call: Call) -> AsyncIterator[None]:
        async with asyncio.timeout_at(call.deadline) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    def _check_again(self, call: Call, problem: Problem) -> None:
        """Raise the problem unless the call may be tried again, here or elsewhere."""
        is_ours_to_try = not call.is_forwarded or self._standing.leadership.is_leader()
        is_safe = problem.is_untouched or call.operation.is_idempotent
        if not (problem.is_elsewhere and is_ours_to_try and is_safe):
            raise problem

    async def _once(self, call: Call) -> Reply:
        status = self._standing.leadership.status()
        if status.term is not None:
            leader = self._standing.leader
            if leader is None or leader.token != status.term.token:
                raise not_the_leader()  # for a moment: the term has just begun
            message = await call.operation.perform(leader, call.request, call.deadline)
            return Reply(message, self._standing.master_id)
        if call.is_forwarded:
            raise not_the_leader()
        if status.leader is None or status.leader.id == self._standing.master_id:
            raise no_leader()
        return await self._peers.forward(call, status.leader)

    async def _changed(self, seen: int, within: float) -> bool:
        """Wait for a change of the leader, and say whether there was one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._standing.seen.changed(seen)
                return True
        return False


def prepare(call: Call) -> None:
    """Check a request where it comes in, and give an `AddResource` its id if it has none.

    Raises:
        Problem: the request is wrong.
    """
    match call.request:
        case pb.ResourceSpec() as spec:
            checks.spec(spec)
            spec.request_id = spec.request_id or secrets.token_hex(16)
        case pb.DeleteResourceRequest() | pb.GetResourceRequest() as named:
            checks.name(named.name)
        case pb.ListResourcesRequest() as listed:
            checks.page_size(listed.page_size)
