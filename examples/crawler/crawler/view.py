"""What the leader knows of the store: read at the start of its term, then followed by a watch.

It is a cache and nothing more: every write is a transaction that requires what was read to be
still so, and a write's effect shows here only once the watch has told it.

A watch that is lost goes on where it was, and some versions of etcd skip a delete then. So now and
then the keys in the store, without their values, are held against what is known.
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

_CHECK_EVERY = 60.0
_GRACE = 1.0
"""Seconds for the watch to tell what a check has seen; later it never will."""

START = keys.RESOURCES.encode()
END = keys.prefix_end(START)


@dataclass(frozen=True, slots=True)
class Known:
    """A resource as it was written at a revision; `added_at` is its key's create revision."""

    resource: Resource
    revision: int
    added_at: int


class View:
    """Every resource, how many each Worker has, and the living Workers."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.nodes: Mapping[str, Node] = {}
        self.unsettled = asyncio.Event()
        self._coordinator = coordinator
        self._known: dict[str, Known] = {}
        self._stored: dict[bytes, int] = {}  # of each key, also where it holds no resource
        self._names: list[str] = []  # sorted
        self._loads: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self._expected: dict[str, list[str]] = {}  # the Workers of resources that do not show yet
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
    def reserve(self, name: str) -> Iterator[str]:
        """Choose the least loaded living Worker for a resource, and count what it is about to get.

        It is counted until the resource shows, and not twice from then on. Yields "" where no
        Worker lives.
        """
        worker = min(self.nodes, key=lambda one: self._loads[one] + self._reserved[one], default="")
        self._reserved[worker] += 1
        self._expected.setdefault(name, []).append(worker)
        try:
            yield worker
        finally:
            if worker in self._expected.get(name, ()):
                self._expected[name].remove(worker)
                self._reserved[worker] -= 1
            if not self._expected.get(name, True):
                del self._expected[name]

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

    async def check(self) -> None:
        """Find what no watch has told, until cancelled."""
        rng = random.SystemRandom()
        while True:
            await asyncio.sleep(_CHECK_EVERY * rng.uniform(0.8, 1.2))
            try:
                doubts = await self._doubts()
                if doubts:
                    await asyncio.sleep(_GRACE)
                    doubts &= await self._doubts()
            except CoordinatorError as exc:
                log.debug("check failed error=%s", exc)
                continue
            if doubts:
                self._give_watch_up("the watch has missed something")

    async def _doubts(self) -> set[tuple[bytes, int, int]]:
        """Return (key, revision in the store, revision here) where the two differ; 0: absent.

        Where neither has changed until a second look, the watch is not just late.
        """
        reply = await self._coordinator.read(START, END, timeout=_READ_WITHIN, keys_only=True)
        found, here = {kv.key: kv.mod_revision for kv in reply.kvs}, self._stored
        if found == here:
            return set()
        return {
            (key, found.get(key, 0), here.get(key, 0))
            for key in found.keys() | here.keys()
            if found.get(key) != here.get(key)
        }

    async def _read(self) -> None:
        reply = await self._coordinator.read(START, END, timeout=_READ_WITHIN)
        self._known.clear()
        self._stored.clear()
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
            pass  # it was given up
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
        self._stored[kv.key] = kv.mod_revision
        name, resource = keys.resource_of(kv.key), Resource.decode(kv.value)
        if name is None or resource is None or resource.spec.name != name:
            log.warning("no resource, ignored key=%r", kv.key)
            return
        self._reserved.subtract(self._expected.pop(name, ()))
        bisect.insort(self._names, name)
        self._known[name] = Known(resource, kv.mod_revision, kv.create_revision)
        self._loads[resource.worker] += 1
        if self.nodes and resource.worker not in self.nodes:
            self.unsettled.set()

    def _drop(self, key: bytes) -> None:
        self._stored.pop(key, None)
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
        if now - self._heard_at > _SILENCE:
            self._give_watch_up("the watch is silent")

    def _give_watch_up(self, why: str) -> None:
        if self._watch is not None:
            log.warning("reading again reason=%r revision=%d", why, self._revision)
            self._watch.reschedule(asyncio.get_running_loop().time())
            self._watch = None
