"""The crawler's registry on a real etcd."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest
from crawler.records import Node
from crawler.registry import NodeIdInUse, Registry, living

from sidecar import boottime
from sidecar.election.feed import Feed
from sidecar.etcd import EtcdCoordinator
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions

PREFIX = "/micro/registry"
TTL = 2.0
SOON = 60.0  # seconds; generous, most of it takes milliseconds

pytestmark = pytest.mark.integration

Nodes = Mapping[str, Node]


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as made:
        yield made


@pytest.fixture
def service(request: pytest.FixtureRequest) -> str:
    """Return a name that no other test uses."""
    return f"crawler.{request.node.name}"


@asynccontextmanager
async def connected(cluster: EtcdCluster) -> AsyncIterator[EtcdCoordinator]:
    async with asyncio.timeout(SOON), EtcdCoordinator(cluster.endpoints) as etcd:
        yield etcd


def registry(etcd: EtcdCoordinator, service: str, node_id: str = "1", at: str = "x:1") -> Registry:
    return Registry(etcd, PREFIX, service, node_id, at, {"pid": "7"}, ttl=TTL, endpoints=("Add",))


async def etcdctl(cluster: EtcdCluster, *arguments: str) -> str:
    return (await asyncio.to_thread(cluster.etcdctl, *arguments)).stdout


async def until(feed: Feed[Nodes], condition: Callable[[Nodes], bool]) -> Nodes:
    async for nodes in feed.follow():
        if condition(nodes):
            return nodes
    raise AssertionError("a feed never ends")


async def test_a_node_stands_in_go_micros_layout_on_a_lease(
    cluster: EtcdCluster, service: str
) -> None:
    async with connected(cluster) as etcd, registry(etcd, service, "a/1") as one:
        place = await one.registered()
        got = await etcdctl(cluster, "get", f"{PREFIX}/{service}/a-1", "--write-out=json")
        (kv,) = json.loads(got)["kvs"]
        value = json.loads(
            await etcdctl(cluster, "get", f"{PREFIX}/{service}/a-1", "--print-value-only")
        )
        assert kv["create_revision"] == place.create_revision
        assert kv["lease"] != 0
        assert value == {
            "name": service,
            "version": "latest",
            "metadata": None,
            "endpoints": [{"name": "Add", "request": None, "response": None, "metadata": {}}],
            "nodes": [{"id": "a/1", "address": "x:1", "metadata": {"pid": "7", "ttl": "2"}}],
        }


async def test_a_node_is_gone_as_soon_as_its_program_ends(
    cluster: EtcdCluster, service: str
) -> None:
    async with connected(cluster) as etcd, living(etcd, PREFIX, service) as nodes:
        assert nodes.value == {}
        async with registry(etcd, service) as one:
            found = await until(nodes, lambda seen: "1" in seen)
            assert found["1"].address == "x:1"
            await one.registered()
            assert one.is_registered
        await until(nodes, lambda seen: not seen)
        assert not one.is_registered


async def test_a_deleted_registration_is_put_again(cluster: EtcdCluster, service: str) -> None:
    async with connected(cluster) as etcd, registry(etcd, service) as one:
        first = await one.registered()
        await etcdctl(cluster, "del", first.key.decode())
        await one.lapsed(first)
        second = await one.registered()
        assert second.create_revision > first.create_revision


async def test_a_revoked_lease_is_replaced(cluster: EtcdCluster, service: str) -> None:
    async with connected(cluster) as etcd, registry(etcd, service) as one:
        first = await one.registered()
        got = await etcdctl(cluster, "get", first.key.decode(), "--write-out=json")
        await etcd.revoke(json.loads(got)["kvs"][0]["lease"], timeout=SOON)
        await one.lapsed(first)
        second = await one.registered()
        assert second.create_revision > first.create_revision


async def test_a_registration_survives_that_etcd_was_away(service: str) -> None:
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as own:
        async with connected(own) as etcd, living(etcd, PREFIX, service) as nodes:
            async with registry(etcd, service) as one:
                place = await one.registered()
                before = one.deadline
                own.members[0].kill()
                await one.lapsed(place)
                assert boottime.now() >= before
                assert not one.is_registered
                own.members[0].child.start()
                await one.registered()
                await until(nodes, lambda seen: "1" in seen)
            await until(nodes, lambda seen: not seen)


async def test_an_id_in_use_by_a_living_node_is_refused(cluster: EtcdCluster, service: str) -> None:
    async with connected(cluster) as etcd, registry(etcd, service, at="first:1") as first:
        place = await first.registered()
        with pytest.RaisesGroup(
            pytest.RaisesExc(NodeIdInUse, match=r"'1' is in use .*first:1"), flatten_subgroups=True
        ):
            async with registry(etcd, service, at="second:1") as second:
                await second.registered()
        assert first.place == place
        assert first.is_registered


async def test_a_restarted_program_waits_for_the_key_of_its_earlier_life(
    cluster: EtcdCluster, service: str
) -> None:
    async with connected(cluster) as etcd:
        await etcd.grant(4711, TTL, timeout=SOON)  # nobody renews it, as after a SIGKILL
        key = f"{PREFIX}/{service}/1"
        await etcdctl(cluster, "put", key, "{}", f"--lease={4711:x}")
        async with registry(etcd, service) as one:
            await one.registered()
        assert not await etcdctl(cluster, "get", key)


async def test_what_is_no_node_is_left_out(cluster: EtcdCluster, service: str) -> None:
    async with connected(cluster) as etcd, living(etcd, PREFIX, service) as nodes:
        await etcdctl(cluster, "put", f"{PREFIX}/{service}/junk", "no json")
        async with registry(etcd, service):
            found = await until(nodes, lambda seen: "1" in seen)
        assert list(found) == ["1"]
