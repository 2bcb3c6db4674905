"""A leader whom nobody calls still notices what happens, in virtual time."""

import asyncio

import pytest
from crawler import crawler_pb2 as pb
from crawler import keys
from crawler.records import Node

from sidecar.core.store import Put, Txn
from tests.crawler.sim_leader import Stage, soon, spec, stage

pytestmark = pytest.mark.sim

TTL = 5.0
LEASE = 4711
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
