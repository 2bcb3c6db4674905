"""What a Worker does for one resource: crawl it, keep the results, and crawl it again later."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from crawler.crawl import Pace, crawl
from crawler.fetch import Fetcher
from crawler.registry import Place, Registry
from crawler.results import Ledger, Written
from crawler.tasks import Task
from crawler.worker_metrics import WorkerMetrics
from sidecar.election import Coordinator
from sidecar.election.backoff import Backoff
from sidecar.errors import CoordinatorError

_WRITE_EVERY = 1.0  # seconds; a fast crawl must not be a write per page


@dataclass(frozen=True, slots=True)
class Jobs:
    """What all jobs of a Worker have in common.

    Attributes:
        again: seconds from the end of one crawl of a resource to its next.
    """

    worker: str
    coordinator: Coordinator
    registry: Registry
    fetcher: Fetcher
    metrics: WorkerMetrics
    again: float

    async def run(self, task: Task, place: Place) -> None:
        """Crawl a resource until cancelled; nothing is fetched or written without the lease.

        Every request and every write looks at the clock first. A process that was frozen runs
        what came over its sockets before any overdue timer: it stops there, and the timer that
        ends this task comes next.
        """
        ledger = Ledger(self.coordinator, task.spec.name, self.worker, place)
        await _insist(ledger.load)
        pace = Pace(task.spec.rate)

        async def turn() -> None:
            await pace.turn()
            await self.registry.stands(place)

        while True:
            await self._crawl_once(task, ledger, turn)
            await _insist(lambda: self._write(task, ledger))
            await asyncio.sleep(self.again)

    async def _crawl_once(
        self, task: Task, ledger: Ledger, turn: Callable[[], Awaitable[None]]
    ) -> None:
        now = asyncio.get_running_loop().time
        written_at = now()
        async with contextlib.aclosing(crawl(self.fetcher, task.spec, turn)) as pages:
            async for found in pages:
                page = found.page
                self.metrics.page(page.status, page.size, found.seconds)
                ledger.add(page)
                if now() - written_at >= _WRITE_EVERY:
                    written_at = now()
                    with contextlib.suppress(CoordinatorError):  # the next write carries it
                        await self._write(task, ledger)

    async def _write(self, task: Task, ledger: Ledger) -> None:
        """Write the results; where the assignment has changed, once we know of its change."""
        while not ledger.is_written:
            await self.registry.stands(ledger.place)
            version, revision = task.revision.version, task.revision.value
            try:
                result = await ledger.write(revision)
            except CoordinatorError:
                self.metrics.wrote("unanswered")
                raise
            self.metrics.wrote(result.value)
            if result is Written.REFUSED:
                # Moved: then this task is about to be cancelled. Or only written anew.
                await task.revision.changed(version)


async def _insist(attempt: Callable[[], Awaitable[None]]) -> None:
    """Try until etcd has answered."""
    backoff = Backoff(random.SystemRandom())
    while True:
        try:
            await attempt()
        except CoordinatorError:
            await backoff.wait()
        else:
            return
