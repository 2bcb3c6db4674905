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
from collections.abc import AsyncIterator
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

    async def changes(self) -> AsyncIterator[None]:
        """Yield once the range was read, and again after each change; never ends by itself."""
        await self.synced()
        async for _ in self.version.follow():
            yield

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
            self.kvs.clear()
            self.kvs.update(found)
            self._tell()
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
            self._tell()

    def _tell(self) -> None:
        self.version.publish(self.version.value + 1)
