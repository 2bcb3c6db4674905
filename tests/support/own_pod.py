"""One pod that tells what a feed says, to an API server of the tests' own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry

from sidecar.core.state import ElectionState
from sidecar.election.feed import Feed
from sidecar.election.ports import SystemClock
from sidecar.kube.label import RESULTS
from sidecar.kube.pod import OwnPod
from sidecar.outputs.health import OutputErrors
from sidecar.outputs.pod_metrics import PodMetrics
from tests.support.kube_api import KubeApi
from tests.support.outputs import ELECTION, FOLLOWER, LONG, leading, stepped_down, until

CLOCK = SystemClock()


@dataclass
class Rig:
    """One pod that tells what its feed says."""

    api: KubeApi
    feed: Feed[ElectionState]
    pod: OwnPod
    registry: CollectorRegistry
    failures: list[str]

    def lead(self, token: int = 8123, seconds: float = LONG) -> None:
        self.feed.publish(leading(CLOCK.now() + seconds, token))

    def step_down(self) -> None:
        self.feed.publish(stepped_down(self.feed.value))

    async def shows(self, *told: str | None) -> None:
        """Wait until the pod shows role, term and cost."""
        await until(lambda: self.api.marks == told, f"the pod shows {told}")

    def value(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(
            f"leader_election_pod_{name}", {"name": ELECTION} | labels
        )
        return found or 0.0

    def patches(self, result: str) -> float:
        return self.value("patches_total", result=result)


@asynccontextmanager
async def telling(
    api: KubeApi,
    *,
    state: ElectionState = FOLLOWER,
    drain: float = 0.0,
    may_shrink: bool = False,
    uid: str | None = None,
) -> AsyncIterator[Rig]:
    """Run an own pod until the block ends."""
    registry = CollectorRegistry()
    failures: list[str] = []
    feed = Feed(state)
    access = api.access if uid is None else replace(api.access, uid=uid)
    pod = OwnPod(
        access,
        feed,
        CLOCK,
        may_shrink=may_shrink,
        drain=drain,
        failures=OutputErrors(failures.append),
        meter=PodMetrics(registry, ELECTION, RESULTS),
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pod.run())
        try:
            yield Rig(api, feed, pod, registry, failures)
        finally:
            await pod.finish()  # as a sidecar does that ends
            task.cancel()
