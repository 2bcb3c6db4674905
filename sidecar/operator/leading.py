"""What only the leading replica does: it watches Kubernetes, and a worker follows each Election."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

from kubernetes.aio.client import Configuration

from sidecar.core.state import ElectionState
from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.feed import Feed
from sidecar.election.ports import Clock
from sidecar.errors import ApiError, NotLeader
from sidecar.operator.api import Api, core_path, election_path
from sidecar.operator.facts import read_node, read_pod
from sidecar.operator.hub import Hub
from sidecar.operator.metrics import OperatorMetrics
from sidecar.operator.moves import TOGETHER
from sidecar.operator.reconciling import ElectionWorker
from sidecar.operator.spec import Election
from sidecar.operator.stores import Stores
from sidecar.operator.tools import Tools
from sidecar.operator.watching import Watch

log = logging.getLogger(__name__)

_SWEEP = 300.0  # seconds between two looks for what the watches have not told


class TermGate:
    """Open as long as the replica leads in the term in which it was made; asks the clock."""

    def __init__(self, feed: Feed[ElectionState], clock: Clock) -> None:
        self._feed = feed
        self._clock = clock
        self.token = feed.value.token

    def __call__(self) -> None:
        """Return where a write may be.

        Raises:
            NotLeader: it may not: this replica leads no more, or in another term.
        """
        if not self.is_open():
            raise NotLeader("this replica of the operator does not lead")

    def is_open(self) -> bool:
        """Whether a write may be."""
        state = self._feed.value
        return state.token == self.token and state.is_leader(self._clock.now())


@dataclass(frozen=True, slots=True)
class Scope:
    """What the operator looks after: these namespaces, or all (and nodes) where there is none.

    Attributes:
        holds_evictions: a webhook does, until the leader has moved.
    """

    namespaces: Sequence[str] = ()
    holds_evictions: bool = False


class Leading:
    """The work of one term; an async context manager.

    Args:
        configuration: of the API client.
        gate: of the term.
        scope: what to look after.
        clock: of this machine.
        metrics: told of everything.
        reporter: name of the own pod.
    """

    def __init__(
        self,
        configuration: Configuration,
        gate: TermGate,
        scope: Scope,
        *,
        clock: Clock,
        metrics: OperatorMetrics,
        reporter: str,
    ) -> None:
        self._configuration = configuration
        self._gate = gate
        self._scope = scope
        self._clock = clock
        self._metrics = metrics
        self._reporter = reporter
        self.has_failed = asyncio.Event()
        self.watch: Watch | None = None

    async def run(self) -> None:
        """Look after all Elections until cancelled, or until the watch has failed."""
        async with (
            Api(self._configuration, self._gate, self._metrics) as api,
            Background() as stores,
            Background() as workers,
        ):
            hub = Hub(
                lambda election: self._hire(election, tools, workers),
                self._clock,
                together=TOGETHER if self._scope.holds_evictions else 0.0,
            )
            if not self._scope.namespaces:
                hub.nodes = {}
            tools = Tools(
                api=api,
                stores=Stores(self._clock, stores),
                clock=self._clock,
                gate=self._gate,
                meter=self._metrics,
                pods=hub.pods_of,
                nodes=lambda: hub.nodes,
                closing=hub.closing,
                keep_pod=hub.pod_answered,
                lose_pod=hub.pod_gone,
                reporter=self._reporter,
            )
            self._metrics.workers = lambda: [
                w for w in hub.workers if isinstance(w, ElectionWorker)
            ]
            await self._look_at_first(api, hub)
            self.watch = Watch(hub, self._scope.namespaces, self._reporter, self.has_failed.set)
            self.watch.start()
            workers.start(self._sweep(api, hub), name="operator-sweep")
            try:
                await self.has_failed.wait()
            finally:
                self.watch.stop()
                self._metrics.workers = tuple

    async def _look_at_first(self, api: Api, hub: Hub) -> None:
        """Take in all nodes and pods before any Election, since kopf brings them in any order.

        A leader would be moved to a node of which it only comes to be known that it is cordoned.
        """
        backoff = Backoff(random.SystemRandom(), longest=30.0, first=0.5)
        while True:
            try:
                if not self._scope.namespaces:
                    async for node in api.each("/api/v1/nodes"):
                        hub.node_seen(read_node(node))
                for namespace in self._scope.namespaces or ("",):
                    async for pod in api.each(core_path(namespace, "pods")):
                        hub.pod_seen(read_pod(pod))
            except ApiError as exc:
                log.warning("pods and nodes cannot be listed error=%s", exc)
                await backoff.wait()
            else:
                return

    def _hire(self, election: Election, tools: Tools, workers: Background) -> ElectionWorker:
        worker = ElectionWorker(election, tools)
        workers.start(worker.run(), name=f"worker-{election.namespace}-{election.name}")
        return worker

    async def _sweep(self, api: Api, hub: Hub) -> None:
        rng = random.SystemRandom()
        while True:
            await asyncio.sleep(_SWEEP * rng.uniform(0.8, 1.2))
            with contextlib.suppress(ApiError, NotLeader):
                before, there = hub.known(), set[str]()
                for namespace in self._scope.namespaces or ("",):
                    there |= await api.uids(core_path(namespace, "pods"))
                    there |= await api.uids(election_path(namespace))
                # What has come since then is not missed.
                hub.forget(before - there)
                if hub.is_deaf(there):
                    log.error("the watches do not tell of what there is; the term ends")
                    self.has_failed.set()
