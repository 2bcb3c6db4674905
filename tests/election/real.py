"""A real etcd for the tests of the library: candidates and observers on it, and etcdctl."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sidecar.core.state import Leader
from sidecar.election import Election, Observer, Session
from sidecar.etcd import EtcdCoordinator
from tests.support.etcd_cluster import EtcdCluster

SOON = 60.0  # seconds; generous, most of it takes milliseconds


@asynccontextmanager
async def connected(cluster: EtcdCluster, member: int = 0) -> AsyncIterator[EtcdCoordinator]:
    """Connect to one member alone, as the clients in etcd's tests are."""
    endpoint = cluster.endpoints[member]
    async with asyncio.timeout(SOON), EtcdCoordinator(endpoint) as etcd:
        yield etcd


@asynccontextmanager
async def candidate(
    cluster: EtcdCluster, name: str, member: int = 0, *, ttl: float = 5.0
) -> AsyncIterator[Election]:
    """Open a session and an election of its own on one member."""
    async with (
        connected(cluster, member) as etcd,
        Session(etcd, ttl=ttl) as session,
        Election(session, name) as election,
    ):
        yield election


async def first_seen(etcd: EtcdCoordinator, name: str) -> Leader | None:
    """Return the first word of an observer that was opened for it."""
    async with Observer(etcd, name) as observer:
        async for leader in observer.observe():
            return leader
    raise AssertionError("an observer never ends")


async def etcdctl(cluster: EtcdCluster, *arguments: str) -> str:
    return (await asyncio.to_thread(cluster.etcdctl, *arguments)).stdout


async def keys(cluster: EtcdCluster, name: str) -> list[str]:
    got = await etcdctl(cluster, "get", f"{name}/", "--prefix", "--keys-only")
    return got.split()
