"""Whoever follows a mirror is told which keys have changed, however the mirror heard of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from crawler import mirror as mirror_module
from crawler.keys import prefix_end
from crawler.mirror import Mirror

from sidecar.core.store import Batch, Delete, Put, Txn
from sidecar.etcd import EtcdCoordinator
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions

SOON = 60.0  # seconds; generous, most of it takes milliseconds
A, B, C = (f"/mirror/{name}".encode() for name in "abc")

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster() -> Iterator[EtcdCluster]:
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as made:
        yield made


class Deaf(EtcdCoordinator):
    """Its watches tell nothing."""

    @asynccontextmanager
    async def watch(
        self, start: bytes, end: bytes, *, start_revision: int
    ) -> AsyncIterator[AsyncIterator[Batch]]:
        async with super().watch(start, end, start_revision=start_revision):
            yield _silence()


async def _silence() -> AsyncIterator[Batch]:
    await asyncio.Event().wait()
    yield Batch(0, ())


@pytest.mark.parametrize("kind", [EtcdCoordinator, Deaf])
async def test_each_change_is_told_once_by_its_key(
    cluster: EtcdCluster, kind: type[EtcdCoordinator], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is Deaf:
        monkeypatch.setattr(mirror_module, "_OPEN_AGAIN", 0.1)
    async with asyncio.timeout(SOON), kind(cluster.endpoints) as etcd:
        await etcd.txn(Txn(then=(Put(A, b"1"), Put(B, b"1"))), timeout=SOON)
        async with Mirror(etcd, b"/mirror/", prefix_end(b"/mirror/")) as mirror:
            changes = mirror.changes()
            assert set(await anext(changes)) == {A, B}
            await etcd.txn(Txn(then=(Put(A, b"2"), Delete(B), Put(C, b"1"))), timeout=SOON)
            told = await anext(changes)
            assert set(told) == {A, B, C}
            assert {key: kv.value for key, kv in mirror.kvs.items()} == {A: b"2", C: b"1"}
            await etcd.txn(Txn(then=(Put(C, b"2"),)), timeout=SOON)
            assert set(await anext(changes)) == {C}
