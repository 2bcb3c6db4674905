"""Watching an election: a replica of its queue, kept true across every way a watch can fail.

A watch alone is not to be trusted: it can end, fall silent, or (in some versions of etcd) skip
a delete when it is opened at a compacted revision. So after every opening the whole range is
read, and only then are newer events applied; now and then it is read again; and a proof that
contradicts the replica makes it read at once. Nothing ever resumes from an old revision, so
compaction cannot hurt.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Self

from sidecar.core.keys import Layout
from sidecar.core.queue import Entry, QueueReplica
from sidecar.core.state import Leader
from sidecar.core.store import Batch, KeyValue
from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.contact import Contact
from sidecar.election.feed import Feed
from sidecar.election.ports import Clock, Coordinator, Meter, NoMeter, SystemClock
from sidecar.errors import CoordinatorError, PermissionDenied, Rejected, Unavailable

log = logging.getLogger(__name__)


PROBE_EVERY = 2.0
"""Seconds without any answer after which the observer asks for one, to find a dead endpoint."""

_REREAD_EVERY = 50.0
_READ_LIMIT = 5.0
_DOUBT_GRACE = 0.25
"""Seconds for an event to arrive that a read has seen the effect of."""


def leader_of(entry: Entry | None) -> Leader | None:
    """Return the first of a queue as people know it."""
    if entry is None:
        return None
    key = entry.key.decode(errors="replace")
    return Leader(entry.proposal.id, entry.proposal.address, entry.token, key)


class Observer:
    """Follows one election without standing in it; an async context manager.

    Args:
        coordinator: the store.
        name: the election's name.
        reread_every: seconds between two reads of the whole range, jittered.
        probe_every: seconds without any answer after which it asks for one.

    Raises:
        ValueError: the name cannot be an election's.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        name: str,
        *,
        clock: Clock | None = None,
        meter: Meter | None = None,
        contact: Contact | None = None,
        rng: random.Random | None = None,
        reread_every: float = _REREAD_EVERY,
        probe_every: float = PROBE_EVERY,
    ) -> None:
        self.layout = Layout(name)
        self.replica = QueueReplica(self.layout)
        self.leader: Feed[Leader | None] = Feed(None)
        self.transitions = 0
        self._coordinator = coordinator
        self._meter = meter or NoMeter()
        self._contact = contact or Contact(clock or SystemClock(), self._meter)
        self._rng = rng or random.SystemRandom()
        self._reread_every = reread_every
        self._probe_every = probe_every
        self._listeners: list[Callable[[], None]] = []
        self._on_answer: list[Callable[[], None]] = []
        self._synced = asyncio.Event()
        self._looked = asyncio.Event()
        self._refusal: Rejected | None = None
        self._doubt = asyncio.Event()
        self._doubted: tuple[Mapping[bytes, KeyValue | None], int] = ({}, 0)
        self._tasks = Background()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start(self._follow(), name=f"observer-{self.layout.name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._tasks.__aexit__(kind, exc, traceback)

    @property
    def trouble(self) -> str:
        """What is wrong with the store at present, or ""."""
        return self._contact.trouble

    async def synced(self) -> None:
        """Wait until the replica holds the queue for the first time."""
        await self._synced.wait()

    async def looked(self) -> None:
        """Wait until the replica holds the queue, or the store has refused to show it.

        Raises:
            Rejected: it has refused. The observer goes on trying all the same.
        """
        await self._looked.wait()
        if self._refusal is not None:
            raise self._refusal

    async def observe(self) -> AsyncIterator[Leader | None]:
        """Yield who leads, the present one first, then the latest after each change.

        May skip leaders in between; always ends up at the latest. None: nobody stands. It
        survives lost watches, compaction and outages, and never ends by itself.
        """
        await self.synced()
        async for leader in self.leader.follow():
            yield leader

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every change of the replica; return what undoes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def listen_to_answers(self, listener: Callable[[], None]) -> None:
        """Call `listener` when a silent store has answered: it is not out of reach."""
        self._on_answer.append(listener)

    def compare(self, found: Mapping[bytes, KeyValue | None], revision: int) -> None:
        """Hold what a linearizable read at `revision` has shown against the replica.

        If they differ and no event explains it in a moment, the watch has gone silent: the whole
        range is read again.
        """
        if self.replica.is_synced and not self._agrees(found, revision):
            self._doubted = (found, revision)
            self._doubt.set()

    def _agrees(self, found: Mapping[bytes, KeyValue | None], revision: int) -> bool:
        return self.replica.revision >= revision or self.replica.agrees_with(found)

    async def _follow(self) -> None:
        backoff = Backoff(self._rng)
        layout = self.layout
        while True:
            try:
                async with self._coordinator.watch(
                    layout.start, layout.end, start_revision=0
                ) as batches:
                    await self._reread()
                    backoff.reset()
                    await self._apply_until_lost(batches)
            except PermissionDenied as exc:
                self._is_refused(PermissionDenied(f"{exc}; needed: {layout.grant_command}"))
            except Rejected as exc:
                self._is_refused(exc)
            except CoordinatorError as exc:
                self._contact.failed("watch", exc)
            await backoff.wait()

    def _is_refused(self, exc: Rejected) -> None:
        self._contact.failed("watch", exc)
        self._refusal = exc
        self._looked.set()

    async def _apply_until_lost(self, batches: AsyncIterator[Batch]) -> None:
        lost: CoordinatorError | None = None
        async with asyncio.TaskGroup() as group:
            checks = [
                group.create_task(self._reread_now_and_then(), name="observer-reread"),
                group.create_task(self._reread_on_doubt(), name="observer-doubt"),
                group.create_task(self._probe(), name="observer-probe"),
            ]
            try:
                async for batch in batches:
                    if self.replica.apply(batch):
                        self._tell()
            except CoordinatorError as exc:
                lost = exc
            for check in checks:
                check.cancel()
        raise lost or Unavailable("the watch ended")

    async def _reread(self) -> None:
        known = self.replica.revision
        reply = await self._coordinator.read(
            self.layout.start, self.layout.end, timeout=_READ_LIMIT
        )
        self._contact.answered()
        header = reply.header
        if self.replica.cluster_id not in (0, header.cluster_id) or header.revision < known:
            log.error(
                "the store went back or was replaced revision=%d known=%d cluster=%x",
                header.revision,
                known,
                header.cluster_id,
            )
        elif header.revision < self.replica.revision:
            return  # the watch has brought newer events meanwhile
        self.replica.replace(header, reply.kvs)
        self._refusal = None
        self._synced.set()
        self._looked.set()
        self._tell()

    async def _reread_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._reread_every * self._rng.uniform(0.8, 1.2))
            await self._reread_if_possible()

    async def _reread_on_doubt(self) -> None:
        while True:
            await self._doubt.wait()
            await asyncio.sleep(_DOUBT_GRACE)
            self._doubt.clear()
            if not self._agrees(*self._doubted):
                log.warning("watch is silent, reading again revision=%d", self.replica.revision)
                await self._reread_if_possible()

    async def _probe(self) -> None:
        """Find a dead endpoint also while nobody renews a lease on it."""
        while True:
            await asyncio.sleep(self._probe_every * self._rng.uniform(0.8, 1.0))
            if self._contact.silent_for() < self._probe_every:
                continue
            try:
                await self._coordinator.read(
                    self.layout.pause, self.layout.pause + b"\0", timeout=PROBE_EVERY
                )
            except CoordinatorError as exc:
                self._contact.failed("probe", exc)
            else:
                self._contact.answered()
                for listener in self._on_answer:
                    listener()

    async def _reread_if_possible(self) -> None:
        try:
            await self._reread()
        except CoordinatorError as exc:
            self._contact.failed("read", exc)

    def _tell(self) -> None:
        # In a pause whoever is first only keeps its place.
        leader = None if self.replica.is_paused else leader_of(self.replica.first)
        if leader != self.leader.value:
            old = self.leader.value
            if (old and old.token) != (leader and leader.token):
                self.transitions += 1
                self._meter.leader_changed()
            self.leader.publish(leader)
        for listener in list(self._listeners):
            listener()
