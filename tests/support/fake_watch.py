"""A watch on the fake cluster, as a process sees it and as its member feeds it."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from sidecar.core.store import Batch, Event
from sidecar.errors import Compacted, CoordinatorError, Unavailable
from tests.support.fake_cluster import FakeCluster
from tests.support.sim_network import Fate, Network
from tests.support.sim_process import Process

OPENED_WITHIN = 5.0
"""Seconds that entering a watch waits at most, as in the adapter."""


class FakeWatch:
    """One watch: asynchronous context manager and iterator of batches in one."""

    def __init__(
        self,
        process: Process,
        cluster: FakeCluster,
        network: Network,
        *,
        member: int,
        span: tuple[bytes, bytes],
        start: int,
        channel: int,
        give_up: Callable[[int], None],
    ) -> None:
        self.member = member
        self.channel = channel
        self.is_silent = False
        self.is_closed = False
        self._process = process
        self._cluster = cluster
        self._network = network
        self._span = span
        self._start = start
        self._give_up = give_up
        self._loop = process.loop
        self._next = 0
        self._under_way: deque[tuple[float, Batch]] = deque()
        self._arrived: deque[Batch] = deque()
        self._error: CoordinatorError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_open = False

    async def __aenter__(self) -> Self:
        network = self._network
        fate = network.fate(self._process, "watch", self._start)
        if not fate.loses_request:
            network.carry(self._process, self.member, fate.request_delay, self._create, fate)
        patience = Unavailable(f"the watch was not confirmed within {OPENED_WITHIN} s")
        timer = self._loop.call_later(OPENED_WITHIN, self.drop, patience)
        try:
            await self._wait_for(lambda: self._is_open)
        except BaseException:
            self._close()
            raise
        finally:
            timer.cancel()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        await self._wait_for(lambda: bool(self._arrived))
        return self._arrived.popleft()

    async def _wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._error is not None:
                if isinstance(self._error, Unavailable):
                    self._give_up(self.channel)
                raise self._error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _close(self) -> None:
        self.is_closed = True
        self._error = self._error or Unavailable("the watch is closed")
        if self in self._cluster.streams:
            self._cluster.streams.remove(self)

    # At the member

    def _create(self, fate: Fate) -> None:
        if fate.error is not None:
            self.fail(fate.error)
            return
        self._cluster.serve(self.member, self._begin, self.fail, is_write=False)

    def _begin(self) -> None:
        if self._error is not None or self._loop.is_abandoned:
            return
        cluster = self._cluster
        cluster.streams.append(self)
        self._send(self._opened)
        now = cluster.world.now
        try:
            past = cluster.etcd.since(self._start) if self._start else self._unseen(now)
        except Compacted as error:
            self.fail(error)
            return
        self._next = self._start
        for revision, when, events in past:
            self.offer(revision, when, events)

    def _unseen(self, now: float) -> list[tuple[int, float, tuple[Event, ...]]]:
        """Return what the member has not told its watches yet: "from now on" is *its* now."""
        cluster = self._cluster
        if cluster.visible(self.member, now) == now:
            return []
        past = cluster.etcd.since(max(cluster.etcd.compacted, 1))
        return [told for told in past if cluster.visible(self.member, told[1]) > now]

    def offer(self, revision: int, when: float, events: tuple[Event, ...]) -> None:
        if revision < self._next or self._error is not None:
            return
        if self._loop.is_abandoned:
            self._close()
            return
        key, end = self._span
        seen = tuple(event for event in events if key <= event.kv.key < end)
        if not seen:
            return
        world = self._cluster.world
        due = max(self._cluster.visible(self.member, when), world.now) + self._network.delay()
        if self._under_way:
            due = max(due, self._under_way[-1][0])
        self._under_way.append((due, Batch(revision, seen)))
        world.at(due, self.flush)

    def flush(self) -> None:
        """Deliver what is due, joined in one batch; what meets a cut waits for its end."""
        cluster = self._cluster
        if not self._under_way or self._error is not None or not self._is_open or self.is_silent:
            return
        if self._network.is_cut(self._process, self.member):
            return
        if cluster.is_stalled(self.member):
            return
        revision, events = 0, list[Event]()
        while self._under_way and self._under_way[0][0] <= cluster.world.now:
            batch = self._under_way.popleft()[1]
            revision = batch.revision
            events.extend(batch.events)
        if events:
            self._call(self._take, Batch(revision, tuple(events)))

    def fail(self, error: CoordinatorError) -> None:
        """Break the stream; the process hears of it, unless it is cut off."""
        if self in self._cluster.streams:
            self._cluster.streams.remove(self)
        self._send(self.drop, error)

    def _send(self, deliver: Callable[..., None], *args: Any) -> None:
        self._network.carry(self._process, self.member, 0.0, self._call, deliver, *args)

    def _call(self, deliver: Callable[..., None], *args: Any) -> None:
        if not self._loop.is_abandoned:
            self._process.call(deliver, *args)

    # In the process

    def _opened(self) -> None:
        self._is_open = True
        self._wake()
        self._cluster.world.at(self._cluster.world.now, self.flush)

    def _take(self, batch: Batch) -> None:
        self._arrived.append(batch)
        self._wake()

    def drop(self, error: CoordinatorError) -> None:
        """End the iterator with an error, at the process's end of the stream."""
        if self._error is None:
            self._error = error
            self._wake()
        if self in self._cluster.streams:
            self._cluster.streams.remove(self)
