"""What a Worker may write, on a real etcd: each condition of a write alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from crawler import keys
from crawler.records import Assignment, Page, Results, Spec
from crawler.registry import Place
from crawler.results import PAGES_KEPT, Ledger, Written

from sidecar.core.store import Delete, Op, Put, Txn, TxnReply
from sidecar.errors import Unavailable
from sidecar.etcd import EtcdCoordinator
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions

pytestmark = pytest.mark.integration

SOON = 60.0
PLACE = b"/micro/registry/crawler.worker/1"


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as made:
        yield made


class Case:
    """A resource that a Worker has, and what etcd holds of it."""

    def __init__(self, etcd: EtcdCoordinator, name: str) -> None:
        self.etcd = etcd
        self.name = name
        self.assigned_at = 0

    async def do(self, *then: Op) -> int:
        return (await self.etcd.txn(Txn(then=then), timeout=SOON)).header.revision

    async def assign(self) -> None:
        value = Assignment(Spec(self.name), "1").encode()
        self.assigned_at = await self.do(Put(keys.assignment("1", self.name), value))

    async def ledger(self) -> Ledger:
        await self.do(Delete(PLACE))
        place = Place(PLACE, await self.do(Put(PLACE, b"{}")))
        ledger = Ledger(self.etcd, self.name, "1", place)
        await ledger.load()
        ledger.add(Page("http://x.test/", 200))
        return ledger

    async def stored(self) -> Results | None:
        key = keys.results(self.name)
        reply = await self.etcd.read(key, key + b"\0", timeout=SOON)
        return Results.decode(reply.kvs[0].value) if reply.kvs else None


@asynccontextmanager
async def resource(cluster: EtcdCluster, name: str) -> AsyncIterator[Case]:
    async with asyncio.timeout(SOON), EtcdCoordinator(cluster.endpoints) as etcd:
        case = Case(etcd, name)
        await case.assign()
        yield case


async def test_pages_are_counted_and_the_last_ones_kept(cluster: EtcdCluster) -> None:
    async with resource(cluster, "kept") as case:
        ledger = await case.ledger()
        for number in range(2 * PAGES_KEPT):
            ledger.add(Page(f"http://x.test/{number}", 200))
        assert await ledger.write(case.assigned_at) is Written.DONE
        assert ledger.is_written
        found = await case.stored()
        assert found == ledger.value
        assert found is not None
        assert found.fetched == 2 * PAGES_KEPT + 1
        assert [page.url for page in found.pages[::19]] == ["http://x.test/20", "http://x.test/39"]


async def test_the_counter_goes_on_where_another_worker_has_left_it(cluster: EtcdCluster) -> None:
    async with resource(cluster, "goes-on") as case:
        await case.do(Put(keys.results("goes-on"), Results("goes-on", "7", fetched=41).encode()))
        ledger = await case.ledger()
        assert await ledger.write(case.assigned_at) is Written.DONE
        found = await case.stored()
        assert found is not None
        assert (found.worker, found.fetched) == ("1", 42)


async def test_a_resource_that_moved_is_not_written(cluster: EtcdCluster) -> None:
    async with resource(cluster, "moved") as case:
        ledger = await case.ledger()
        await case.do(Delete(keys.assignment("1", "moved")))
        assert await ledger.write(case.assigned_at) is Written.REFUSED
        assert not ledger.is_written
        assert await case.stored() is None


async def test_a_resource_that_moved_away_and_came_back_is_not_written_as_before(
    cluster: EtcdCluster,
) -> None:
    async with resource(cluster, "back") as case:
        ledger = await case.ledger()
        before = case.assigned_at
        await case.do(Delete(keys.assignment("1", "back")))
        await case.assign()
        assert await ledger.write(before) is Written.REFUSED
        assert await ledger.write(case.assigned_at) is Written.DONE


async def test_nothing_is_written_once_the_registration_is_gone(cluster: EtcdCluster) -> None:
    async with resource(cluster, "gone") as case:
        ledger = await case.ledger()
        await case.do(Delete(PLACE))
        assert await ledger.write(case.assigned_at) is Written.REFUSED
        await case.do(Put(PLACE, b"{}"))  # the same Worker again, but not the same registration
        assert await ledger.write(case.assigned_at) is Written.REFUSED
        assert await case.stored() is None


class Unheard:
    """A store whose next answer is lost after it took effect."""

    def __init__(self, etcd: EtcdCoordinator) -> None:
        self._etcd = etcd
        self.is_lost = True

    async def txn(self, txn: Txn, *, timeout: float) -> TxnReply:
        reply = await self._etcd.txn(txn, timeout=timeout)
        if self.is_lost:
            self.is_lost = False
            raise Unavailable("lost on its way back")
        return reply


async def test_a_write_whose_answer_was_lost_does_not_stop_the_next(
    cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with resource(cluster, "unheard") as case:
        ledger = await case.ledger()
        with monkeypatch.context() as patched:
            patched.setattr(ledger, "_coordinator", Unheard(case.etcd))
            with pytest.raises(Unavailable):
                await ledger.write(case.assigned_at)
        ledger.add(Page("http://x.test/2", 200))
        assert await ledger.write(case.assigned_at) is Written.DONE
        found = await case.stored()
        assert found is not None
        assert found.fetched == 2


class Late:
    """A store that takes a transaction up, and carries it out long after its caller gave up."""

    def __init__(self) -> None:
        self.held: list[Txn] = []

    async def txn(self, txn: Txn, *, timeout: float) -> TxnReply:
        self.held.append(txn)
        raise Unavailable("still on its way")


async def test_a_late_write_does_not_land_on_top_of_a_later_one(
    cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with resource(cluster, "late") as case:
        ledger = await case.ledger()
        late = Late()
        with monkeypatch.context() as patched:
            patched.setattr(ledger, "_coordinator", late)
            with pytest.raises(Unavailable):
                await ledger.write(case.assigned_at)
        ledger.add(Page("http://x.test/2", 200))
        assert await ledger.write(case.assigned_at) is Written.DONE
        (txn,) = late.held
        assert not (await case.etcd.txn(txn, timeout=SOON)).succeeded
        found = await case.stored()
        assert found is not None
        assert found.fetched == 2
