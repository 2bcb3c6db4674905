"""The stores that every case of the contract runs on: the fake, and real etcd."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import pytest

from sidecar.election.ports import Coordinator
from sidecar.etcd import EtcdCoordinator
from tests.support.binaries import VERSIONS, require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.sim_world import Simulation

Compact = Callable[[int], Awaitable[None]]
Case = Callable[[Coordinator, Compact], Awaitable[None]]

CASE_WITHIN = 60.0  # seconds; generous, a case takes one or two lease times at most


class Store(Protocol):
    """Where a case runs."""

    def run(self, case: Case) -> None:
        """Run a case with a coordinator, and a way to compact the store up to a revision."""


class FakeStore:
    """The fake, in virtual time."""

    def run(self, case: Case) -> None:
        with Simulation(seed=1) as sim:
            process = sim.process("contract")

            async def idle() -> None:
                await asyncio.get_running_loop().create_future()

            async def compact(revision: int) -> None:
                sim.compact(revision)

            async def body() -> None:
                await case(sim.coordinator(process), compact)

            process.start(lambda _: idle())
            sim.complete(process, body(), CASE_WITHIN)


class RealStore:
    """An etcd with one member."""

    def __init__(self, cluster: EtcdCluster) -> None:
        self._cluster = cluster

    def run(self, case: Case) -> None:
        asyncio.run(self._run(case))

    async def _run(self, case: Case) -> None:
        async def compact(revision: int) -> None:
            await asyncio.to_thread(self._cluster.etcdctl, "compaction", str(revision))

        async with asyncio.timeout(CASE_WITHIN), EtcdCoordinator(self._cluster.endpoints) as etcd:
            await case(etcd, compact)


@pytest.fixture(scope="module", params=["fake", *(f"etcd-{version}" for version in VERSIONS)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    wanted: str = request.param
    if wanted == "fake":
        yield FakeStore()
        return
    version = wanted.removeprefix("etcd-")
    require_etcd(version)
    with EtcdCluster(EtcdOptions(version=version, no_fsync=True)) as cluster:
        yield RealStore(cluster)
