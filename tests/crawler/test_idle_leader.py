"""A leader whom nobody calls still notices what happens, in virtual time."""

import asyncio
import itertools

import pytest
from crawler import crawler_pb2 as pb
from crawler import keys
from crawler.leader import Leader
from crawler.records import Node, Resource, Spec
from crawler.view import END, START

from sidecar.core.store import Delete, Put, RangeReply, Txn
from tests.crawler.sim_leader import Stage, soon, spec, stage
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.sim_network import Weather

pytestmark = pytest.mark.sim

TTL = 5.0
LEASE = 4711
CHECKED_WITHIN = 80.0
"""Virtual seconds: from one check to the next, and what comes after it."""
NOTICED_WITHIN = 6.0
"""Virtual seconds: a probe is due in two, takes two, and the watch is opened elsewhere."""


def worker(on: Stage) -> None:
    """Register a Worker, on a lease that nobody renews."""
    on.etcd.grant(LEASE, TTL)
    key = keys.node(keys.REGISTRY, keys.WORKER_SERVICE, "1")
    node = Node(keys.WORKER_SERVICE, "1", "w:1")
    on.etcd.txn(Txn(then=(Put(key, node.encode(), LEASE),)))


def test_the_death_of_a_worker_is_noticed_behind_a_dead_endpoint() -> None:
    with stage() as on:

        async def body() -> None:
            worker(on)
            async with on.leading() as (leader, _):
                assert (await leader.add(spec(), soon())).id == "1"
                on.sim.cut(on.process, 0)  # nobody is told, as with a machine that died
                await asyncio.sleep(TTL + NOTICED_WITHIN)
                listed = await leader.nodes(pb.ListNodesRequest(), soon())
                assert list(listed.nodes) == []

        on.run(body)


async def names(leader: Leader) -> list[str]:
    listed = await leader.list(pb.ListResourcesRequest(page_size=9), soon())
    return [resource.spec.name for resource in listed.resources]


@pytest.mark.parametrize("missed", ["delete", "put"])
def test_what_no_watch_has_told_is_found(missed: str) -> None:
    with stage() as on:

        async def body() -> None:
            store = on.coordinator()
            async with on.leading(store) as (leader, _):
                for name in ("a", "b"):
                    await leader.add(spec(name), soon())
                record = Resource(Spec("c", ("http://c.example/",)), token=1)
                missing = Delete(keys.resource("a")), Put(keys.resource("c"), record.encode())
                on.sim.silence_watch(on.process)
                on.etcd.txn(Txn(then=(missing[missed == "put"],)))
                await asyncio.sleep(NOTICED_WITHIN)
                assert await names(leader) == ["a", "b"]
                await asyncio.sleep(CHECKED_WITHIN)
                assert await names(leader) == (["b"] if missed == "delete" else ["a", "b", "c"])

        on.run(body)


class Counting(FakeCoordinator):
    """A way to the store that counts the reads of every resource with its value."""

    reads = 0

    async def read(
        self, key: bytes, end: bytes, *, timeout: float, keys_only: bool = False
    ) -> RangeReply:
        self.reads += (key, end, keys_only) == (START, END, False)
        return await super().read(key, end, timeout=timeout, keys_only=keys_only)


def test_what_the_watch_tells_in_time_is_not_read_again() -> None:
    """Not even what is no resource, and while there is a write at every moment."""
    with stage() as on:

        async def body() -> None:
            on.etcd.txn(Txn(then=(Put(START + b"junk", b"{"),)))
            store = Counting(on.process, on.sim.cluster, on.sim.network)
            async with on.leading(store) as (leader, _):
                on.sim.set_weather(Weather(least=0.1, most=0.4))  # the watch is always late
                end = soon(15 * CHECKED_WITHIN)
                for number in itertools.takewhile(lambda _: soon(0) < end, itertools.count()):
                    await leader.add(spec(request_id=f"r-{number}"), soon())
                    await leader.delete(pb.DeleteResourceRequest(name="news"), soon())
                assert store.reads == 1

        on.run(body)
