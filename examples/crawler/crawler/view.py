"""What the leader knows of the store: read at the start of its term, then followed by a watch.

It is a cache and nothing more: every write is a transaction that requires what was read to be
still so, and a write's effect shows here only once the watch has told it.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import heapq
import itertools
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

from crawler import keys
from crawler.records import Node, Resource
from sidecar.core.store import Batch, KeyValue
from sidecar.election import Coordinator
from sidecar.election.backoff import Backoff
from sidecar.errors import Compacted, CoordinatorError

log = logging.getLogger(__name__)

_READ_WITHIN = 5.0
_SILENCE = 2.0
"""Seconds after which a watch is given up that has told nothing, and not of a known change."""

START = keys.RESOURCES.encode()
END = keys.prefix_end(START)


@dataclass(frozen=True, slots=True)
class Known:
    """A resource as it was written at a revision."""

    resource: Resource
    revision: int


class View:
    """Every resource, how many each Worker has, and the living Workers."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.nodes: Mapping[str, Node] = {}
        self.unsettled = asyncio.Event()
        self._coordinator = coordinator
        self._known: dict[str, Known] = {}
        self._names: list[str] = []  # sorted
        self._loads: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self._revision = 0
        self._heard_at = 0.0
        # Woken one by one, each by its own revision: with hundreds of calls at once, all of them at
        # every change was more work than the changes.
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._filled = asyncio.Event()
        self._is_over = False
        self._watch: asyncio.Timeout | None = None

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: str) -> Known | None:
        """Return a resource, None where there is none."""
        return self._known.get(name)

    def page(self, after: str, size: int) -> tuple[list[Known], bool]:
        """Return resources in the order of names, and whether there are more."""
        first = bisect.bisect_right(self._names, after)
        names = self._names[first : first + size]
        return [self._known[name] for name in names], first + size < len(self._names)

    def placement(self) -> dict[str, str]:
        """Return the Worker of each resource; "" for none."""
        return {name: known.resource.worker for name, known in self._known.items()}

    def load(self, worker: str) -> int:
        """Return how many resources a Worker has."""
        return self._loads[worker]

    @contextlib.contextmanager
    def reserve(self) -> Iterator[str]:
        """Choose the least loaded living Worker, and count what it is about to get.

        Yields "" where none lives.
        """
        worker = min(self.nodes, key=lambda one: self._loads[one] + self._reserved[one], default="")
        self._reserved[worker] += 1
        try:
            yield worker
        finally:
            self._reserved[worker] -= 1

    def workers_changed(self, nodes: Mapping[str, Node]) -> None:
        """Take the living Workers from here on."""
        if nodes.keys() != self.nodes.keys():
            self.unsettled.set()
        self.nodes = nodes

    def close(self) -> None:
        """Let nobody wait for a watch that has ended with its term."""
        self._is_over = True
        self._tell(self._revision)

    async def filled(self) -> None:
        """Wait until the store was read for the first time."""
        await self._filled.wait()

    async def reached(self, revision: int) -> None:
        """Wait until a change of a resource at this revision shows, or the term is over."""
        loop = asyncio.get_running_loop()
        while self._revision < revision and not self._is_over:
            told = loop.create_future()
            heapq.heappush(self._waiting, (revision, next(self._numbers), told))
            try:
                async with asyncio.timeout(_SILENCE):
                    await told
            except TimeoutError:
                self._doubt_watch(loop.time())

    async def follow(self) -> None:
        """Keep it true, across outages of etcd, until cancelled.

        A watch that is lost goes on where it was: to read everything again would cost most when
        there is least time for it.
        """
        backoff = Backoff(random.SystemRandom())
        is_read = False
        while True:
            heard_at = self._heard_at
            try:
                if not is_read:
                    await self._read()
                    is_read = True
                await self._apply_until_silent()
                is_read = False
            except CoordinatorError as exc:
                if self._heard_at != heard_at:
                    backoff.reset()
                is_read = is_read and not isinstance(exc, Compacted)
                log.info("watch lost error=%s", exc)
                await backoff.wait()

    async def _read(self) -> None:
        reply = await self._coordinator.read(START, END, timeout=_READ_WITHIN)
        self._known.clear()
        self._names.clear()
        self._loads.clear()
        for kv in reply.kvs:
            self._put(kv)
        self._tell(reply.header.revision)
        self.unsettled.set()
        self._filled.set()

    async def _apply_until_silent(self) -> None:
        watch = self._coordinator.watch(START, END, start_revision=self._revision + 1)
        try:
            async with watch as batches, asyncio.timeout(None) as self._watch:
                await self._apply(batches)
        except TimeoutError:
            pass  # `reached` has given it up
        finally:
            self._watch = None

    async def _apply(self, batches: AsyncIterator[Batch]) -> None:
        async for batch in batches:
            for event in batch.events:
                self._drop(event.kv.key)
                if not event.deleted:
                    self._put(event.kv)
            if batch.events:
                self._tell(batch.revision)

    def _put(self, kv: KeyValue) -> None:
        name, resource = keys.resource_of(kv.key), Resource.decode(kv.value)
        if name is None or resource is None or resource.spec.name != name:
            log.warning("no resource, ignored key=%r", kv.key)
            return
        bisect.insort(self._names, name)
        self._known[name] = Known(resource, kv.mod_revision)
        self._loads[resource.worker] += 1
        if self.nodes and resource.worker not in self.nodes:
            self.unsettled.set()

    def _drop(self, key: bytes) -> None:
        name = keys.resource_of(key) or ""
        known = self._known.pop(name, None)
        if known is not None:
            self._loads[known.resource.worker] -= 1
            del self._names[bisect.bisect_left(self._names, name)]

    def _tell(self, revision: int) -> None:
        self._revision = revision
        self._heard_at = asyncio.get_running_loop().time()
        while self._waiting and (self._waiting[0][0] <= revision or self._is_over):
            _, _, told = heapq.heappop(self._waiting)
            if not told.done():
                told.set_result(None)

    def _doubt_watch(self, now: float) -> None:
        """Give a watch up that has told nothing while there was something to tell."""
        if self._watch is not None and now - self._heard_at > _SILENCE:
            log.warning("watch is silent, reading again revision=%d", self._revision)
            self._watch.reschedule(now)
            self._watch = None
