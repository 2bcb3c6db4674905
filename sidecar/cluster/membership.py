"""Taking members in and out of a running etcd, one at a time, each time with a quorum's consent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from sidecar.cluster.api import ApiError
from sidecar.cluster.plan import Plan
from sidecar.cluster.replicas import Replicas
from sidecar.cluster.sizing import next_to_remove, own_learner
from sidecar.election.ports import Clock
from sidecar.errors import CoordinatorError, Refused
from sidecar.etcd.admin import Admin, Cluster

T = TypeVar("T")

_AGAIN = 1.0  # seconds
_ROLE_TAKES = 5.0  # seconds until every API server knows of a Role that Helm made a moment ago


class Patience:
    """Tries again until a time; then the last reason becomes a refusal.

    Args:
        within: seconds for all that is tried.
        say: takes each new reason.
    """

    def __init__(self, clock: Clock, within: float, say: Callable[[str], None]) -> None:
        self._clock = clock
        self._within = within
        self._ends = clock.now() + within
        self._say = say
        self._told = ""

    async def until(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what the attempt returns, once etcd lets it.

        Raises:
            Refused: not within the time; says why of the last try.
        """
        while True:
            try:
                return await attempt()
            except CoordinatorError as exc:
                await self.wait(str(exc), exc)

    async def heard(self, question: Callable[[], T]) -> T:
        """Return the API server's answer to a question that blocks.

        Raises:
            ApiError: it refused for good, as it does without a permission.
            Refused: it did not answer within the time.
        """
        asked_at = self._clock.now()
        while True:
            try:
                return await asyncio.to_thread(question)
            except ApiError as exc:
                is_new = self._clock.now() < asked_at + _ROLE_TAKES
                if exc.is_definite and not (exc.is_forbidden and is_new):
                    raise
                await self.wait(str(exc), exc)

    async def wait(self, why: str, cause: BaseException | None = None) -> None:
        """Wait a moment for something.

        Raises:
            Refused: the time is over.
        """
        if self._clock.now() >= self._ends:
            raise Refused(f"waited {self._within:g} s in vain: {why}") from cause
        if why != self._told:
            self._told = why
            self._say(f"waiting: {why}")
        await asyncio.sleep(_AGAIN)


async def promote_own(plan: Plan, name: str, cluster: Cluster, patience: Patience) -> bool:
    """Let the own member vote once it has caught up; False: it votes already.

    Raises:
        Refused: not within the patience.
    """
    url = plan.peer_url_of(name)
    while True:
        listed = await patience.until(partial(cluster.ask, Admin.members))
        own = own_learner(listed.members, url)
        if own is None and any(url in m.peer_urls and m.has_started for m in listed.members):
            return False
        if own is None:
            await patience.wait(f"{name} is not a member yet")
            continue
        try:
            await cluster.ask(partial(Admin.promote, member=own.id))
        except CoordinatorError as exc:
            await patience.wait(str(exc), exc)  # if only the answer was lost, the list tells
        else:
            return True


async def shrink(
    plan: Plan,
    to: int,
    *,
    cluster: Cluster,
    replicas: Replicas,
    patience: Patience,
    say: Callable[[str], None],
) -> int:
    """Remove all members of ordinals from `to` on, the highest first, each with its pod.

    After each removal the next waits until a quorum answers, so that one failure is survived at
    any time.

    Returns:
        How many were removed.

    Raises:
        ApiError: Kubernetes refused; what was removed stays so.
        Refused: etcd or Kubernetes did not let it within the patience; as before.
    """
    asked: set[int] = set()
    while True:
        listed = await patience.until(partial(cluster.ask, Admin.members))
        surplus = next_to_remove(listed.members, plan.stateful_set, to)
        if surplus is None:
            await _lower(replicas, to, patience)
            return len(asked)
        number, member = surplus
        asked.add(member.id)
        try:
            await cluster.ask(partial(Admin.remove, member=member.id))
        except CoordinatorError as exc:
            await patience.wait(str(exc), exc)  # if only the answer was lost, the list tells
            continue
        say(f"removed {member.name or 'a member that never started'} ({member.id:x})")
        await _lower(replicas, number, patience)


async def _lower(replicas: Replicas, to: int, patience: Patience) -> None:
    """Have no more pods than this, and wait until those beyond are about to go."""
    while not await patience.heard(partial(replicas.lower, to)):
        await patience.wait("the StatefulSet's controller has not seen its new size yet")
