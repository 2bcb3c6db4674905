"""What a range of keys in etcd holds, kept true across every way a watch can fail.

A watch alone is not to be trusted: it can end, fall silent, or start at a revision that is no
longer kept. So each opening is followed by a read of the whole range, and now and then the watch is
opened anew. Nothing ever resumes from an old revision.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Collection
from types import TracebackType
from typing import Self

from sidecar.core.store import Batch, KeyValue
from sidecar.election import Coordinator
from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.feed import Feed
from sidecar.errors import CoordinatorError

log = logging.getLogger(__name__)

_READ_WITHIN = 5.0
_OPEN_AGAIN = 50.0
"""Seconds after which a watch is opened anew, whatever it says."""


class Mirror:
    """The range [start, end) as of the latest event; an async context manager.

    A dead endpoint is found by whoever else calls the same coordinator, and somebody must, every
    few seconds: a session does with its renewals, a leader with its probes. The watch then moves
    with it.

    Attributes:
        kvs: what the range holds; the same mapping all the time, so look at it without awaiting
            in between, or copy it.
        version: grows with every change of `kvs`.
    """

    def __init__(self, coordinator: Coordinator, start: bytes, end: bytes) -> None:
        self.kvs: dict[bytes, KeyValue] = {}
        self.version = Feed(0)
        self._coordinator = coordinator
        self._start, self._end = start, end
        self._unseen: set[bytes] | None = None  # by whoever follows the changes
        self._revision = 0
        self._rng = random.SystemRandom()
        self._synced = asyncio.Event()
        self._tasks = Background()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        name = f"mirror-{self._start.decode(errors='replace')}"
        self._tasks.start(self._follow(), name=name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._tasks.__aexit__(kind, exc, traceback)

    async def synced(self) -> None:
        """Wait until the range was read for the first time."""
        await self._synced.wait()

    async def changes(self) -> AsyncIterator[Collection[bytes]]:
        """Yield the keys that there are, then those that have changed; never ends by itself.

        For one caller: what it has been told of is not told again.
        """
        await self.synced()
        self._unseen = set(self.kvs)
        async for _ in self.version.follow():
            changed, self._unseen = self._unseen, set()
            yield changed

    async def _follow(self) -> None:
        backoff = Backoff(self._rng)
        while True:
            try:
                async with self._coordinator.watch(
                    self._start, self._end, start_revision=0
                ) as batches:
                    await self._read()
                    backoff.reset()
                    await self._apply_for_a_while(batches)
            except CoordinatorError as exc:
                log.debug("watch lost start=%r error=%s", self._start, exc)
                await backoff.wait()

    async def _read(self) -> None:
        reply = await self._coordinator.read(self._start, self._end, timeout=_READ_WITHIN)
        found = {kv.key: kv for kv in reply.kvs}
        self._revision = reply.header.revision
        if found != self.kvs:
            known = self.kvs.copy()
            self.kvs.clear()
            self.kvs.update(found)
            either = found.keys() | known.keys()
            self._tell({key for key in either if found.get(key) != known.get(key)})
        self._synced.set()

    async def _apply_for_a_while(self, batches: AsyncIterator[Batch]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OPEN_AGAIN * self._rng.uniform(0.8, 1.2)):
                async for batch in batches:
                    self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        # What the read has shown already comes again where the watch was opened before it.
        fresh = [event for event in batch.events if event.kv.mod_revision > self._revision]
        for event in fresh:
            if event.deleted:
                self.kvs.pop(event.kv.key, None)
            else:
                self.kvs[event.kv.key] = event.kv
        if fresh:
            self._revision = batch.revision
            self._tell({event.kv.key for event in fresh})

    def _tell(self, changed: Collection[bytes]) -> None:
        if self._unseen is not None:
            self._unseen.update(changed)
        self.version.publish(self.version.value + 1)
