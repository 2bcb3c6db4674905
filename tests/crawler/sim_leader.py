"""A term of a Master on a simulated etcd, in virtual time, with every fault it knows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import cast

from crawler import crawler_pb2 as pb
from crawler import keys
from crawler.fence import Fence
from crawler.leader import Leader
from crawler.master_metrics import Metrics
from crawler.probing import probe

from sidecar.client import Leadership, Term
from sidecar.core.store import Delete, Put, Txn
from sidecar.election.background import Background
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.sim_process import Process
from tests.support.sim_world import Simulation

LIMIT = 3600.0  # virtual seconds
_ELECTION_KEY = "/resources/election/1"


@dataclass
class Says:
    """What the sidecar says: the token, or None."""

    token: int | None


class Stage:
    """A simulated etcd and one process on it."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.process: Process = sim.process("master")
        self.process.start(lambda _: _idle())
        self.etcd = sim.etcd

    def run(self, body: Callable[[], Awaitable[None]]) -> None:
        """Run a test's body in virtual time."""

        async def run() -> None:
            await body()

        self.sim.complete(self.process, run(), LIMIT)

    def coordinator(self) -> FakeCoordinator:
        """Return a way to the store of its own."""
        return self.sim.coordinator(self.process)

    def term(self) -> tuple[Says, Term]:
        """Begin a term: the leader's key is put anew."""
        key = _ELECTION_KEY.encode()
        self.etcd.txn(Txn(then=(Delete(key),)))
        token = self.etcd.txn(Txn(then=(Put(key, b"{}"),))).header.revision
        return Says(token), Term(token, _ELECTION_KEY, 0.0)

    @asynccontextmanager
    async def leading(
        self, coordinator: FakeCoordinator | None = None
    ) -> AsyncIterator[tuple[Leader, Says]]:
        """Lead for a new term, on a store that is probed, as a Master does."""
        says, term = self.term()
        store = coordinator or self.coordinator()
        fence = Fence(store, cast(Leadership, says), term)
        async with Background() as tasks, Leader(store, keys.REGISTRY, fence, Metrics()) as leader:
            tasks.start(probe(store), name="probe")
            await leader.list(pb.ListResourcesRequest(page_size=1), 0)  # it has begun
            yield leader, says

    def stored(self, name: str) -> bool:
        """Whether a resource is in etcd."""
        return self.etcd.get(keys.resource(name)) is not None


@contextmanager
def stage() -> Iterator[Stage]:
    """Set the stage for one test."""
    with Simulation(seed=1) as sim:
        yield Stage(sim)


def soon(seconds: float = 60.0) -> float:
    """Return a deadline of the event loop's clock."""
    return asyncio.get_running_loop().time() + seconds


def spec(name: str = "news", request_id: str = "r-1") -> pb.ResourceSpec:
    """Return a request to add a resource."""
    return pb.ResourceSpec(name=name, urls=[f"http://{name}.example/"], request_id=request_id)


async def _idle() -> None:
    await asyncio.get_running_loop().create_future()
