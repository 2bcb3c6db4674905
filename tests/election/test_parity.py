"""What the tests of etcd's own election package demand, on a real etcd with three members.

Each test is named after its model in `tests/integration/v3_election_test.go` and
`tests/integration/clientv3/concurrency/` of etcd.
"""

import asyncio
import json
from collections.abc import Callable

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.state import Leader
from sidecar.election import Election, Observer, Session
from sidecar.errors import SessionLost
from tests.election.real import SOON, candidate, connected, etcdctl, first_seen
from tests.support.etcd_cluster import EtcdCluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]  # etcd may have to be built


async def leaders(election: Election, wanted: Callable[[Leader], bool]) -> list[Leader]:
    """Return who is observed to lead, up to the wanted one."""
    seen: list[Leader] = []
    async for leader in election.observe():
        if leader is not None:
            seen.append(leader)
            if wanted(leader):
                break
    return seen


async def test_election_wait(cluster: EtcdCluster, name: str) -> None:
    won: asyncio.Queue[str] = asyncio.Queue()
    may_resign = [asyncio.Event() for _ in range(3)]
    seen: list[tuple[str, str]] = []

    async def stand(number: int) -> None:
        async with candidate(cluster, name, number) as election:
            await election.campaign(f"v{number}")
            assert election.is_leader()
            won.put_nowait(f"v{number}")
            await may_resign[number].wait()
            await election.resign()

    async def follow(winner: str, member: int) -> None:
        async with connected(cluster, member) as etcd:
            leader = await first_seen(etcd, name)
            assert leader is not None
            seen.append((winner, leader.id))

    async with asyncio.TaskGroup() as candidates:
        for number in range(3):
            candidates.create_task(stand(number))
        for _ in range(3):
            winner = await won.get()
            async with asyncio.TaskGroup() as followers:
                for member in range(3):
                    followers.create_task(follow(winner, member))
            may_resign[int(winner[1:])].set()
    assert sorted(seen) == sorted((f"v{n}", f"v{n}") for n in range(3) for _ in range(3))


async def test_election_failover(cluster: EtcdCluster, name: str) -> None:
    async with (
        candidate(cluster, name, 0) as first,
        candidate(cluster, name, 1) as second,
        connected(cluster, 2) as third,
        asyncio.TaskGroup() as group,
    ):
        await first.campaign("foo")
        leader = await first_seen(third, name)
        assert leader is not None
        assert leader.id == "foo"
        waiting = group.create_task(second.campaign("bar"))
        await second.until(lambda: second.phase is Phase.STANDING)
        assert await first.session.close()
        await waiting
        assert second.is_leader()
        leader = await first_seen(third, name)
        assert leader is not None
        assert (leader.id, leader.token) == ("bar", second.rev)


async def test_election_session_recampaign(cluster: EtcdCluster, name: str) -> None:
    async with candidate(cluster, name) as first:
        await first.campaign("abc")
        async with Election(first.session, name) as second:
            await second.campaign("def")
            seen = await leaders(second, lambda leader: leader.id == "def")
            assert seen[-1].token == first.rev == second.rev
            assert second.is_leader()


async def test_election_on_prefix_of_existing_key(cluster: EtcdCluster, name: str) -> None:
    await etcdctl(cluster, "put", f"{name}a", "value")
    async with candidate(cluster, name) as election:
        await election.campaign("foo")
        assert election.is_leader()


async def test_election_on_session_restart(cluster: EtcdCluster, name: str) -> None:
    async with (
        candidate(cluster, name) as first,
        candidate(cluster, name, 1) as waiter,
        connected(cluster, 2) as etcd,
        asyncio.TaskGroup() as group,
    ):
        await first.campaign("abc")
        waiting = group.create_task(waiter.campaign("123"))
        await waiter.until(lambda: waiter.phase is Phase.STANDING)
        async with (
            Session(etcd, lease=first.session.lease) as session,
            Election(session, name) as again,
        ):
            await again.campaign("def")  # keeps its place
            assert again.rev == first.rev
            leader = await again.leader()
            assert leader.id == "def"
            assert not waiting.done()
            session.orphan()  # the lease is the first one's to give back
        assert not waiting.done()
        await first.resign()
        await waiting


async def test_election_observe_compacted(cluster: EtcdCluster, name: str) -> None:
    async with candidate(cluster, name) as election, connected(cluster, 1) as etcd:
        await election.campaign("abc")
        await etcdctl(cluster, "put", "/parity-other", "value")
        revision = (await asyncio.to_thread(cluster.header))["revision"]
        await etcdctl(cluster, "compaction", str(revision))
        leader = await first_seen(etcd, name)
        assert leader is not None
        assert leader.id == "abc"


async def test_election_observe_fresh_responses_on_proclaim(
    cluster: EtcdCluster, name: str
) -> None:
    async with candidate(cluster, name) as election:
        seen: list[Leader] = []
        revisions: list[int] = []

        async def observe() -> None:
            async for leader in election.observe():
                if leader is not None:
                    seen.append(leader)
                    heard.release()

        heard = asyncio.Semaphore(0)
        await election.campaign("abc")
        async with asyncio.TaskGroup() as group:
            observing = group.create_task(observe())
            await heard.acquire()
            for value in ("def", "ghi"):
                await election.proclaim(value)
                assert election.header is not None
                revisions.append(election.header.revision)
                await heard.acquire()
            observing.cancel()
        assert [leader.id for leader in seen] == ["abc", "def", "ghi"]
        assert {leader.token for leader in seen} == {election.rev}
        assert len({id(leader) for leader in seen}) == 3  # what was handed out does not change
        assert election.rev < revisions[0] < revisions[1]


async def test_resume_election(cluster: EtcdCluster, name: str) -> None:
    async with candidate(cluster, name) as first:
        await first.campaign("candidate1")
        leader = await first.leader()
        async with Election(first.session, name) as resumed:
            assert await resumed.resume(leader.key, leader.token)
            assert resumed.is_leader()
            seen = await leaders(resumed, lambda leader: leader.id == "candidate1")
            await etcdctl(cluster, "put", "/parity-foo", "bar")
            await resumed.resign()
            await resumed.campaign("candidate2")
            seen += await leaders(resumed, lambda leader: leader.id == "candidate2")
            assert [leader.id for leader in seen] == ["candidate1", "candidate2"]
            assert seen[-1].key.startswith(f"{name}/")
            assert seen[-1].token > leader.token


async def test_session_options(cluster: EtcdCluster) -> None:
    async with connected(cluster) as etcd:
        await etcd.grant(0x5E55, 100.0, timeout=SOON)
        async with Session(etcd, lease=0x5E55) as session, asyncio.TaskGroup() as group:
            assert session.lease == 0x5E55
            lost = group.create_task(_loss(session))
            await asyncio.sleep(0)
            session.orphan()
            assert await lost == "orphaned"
        assert "5e55" in await etcdctl(cluster, "lease", "list")
        await etcd.revoke(0x5E55, timeout=SOON)


async def _loss(session: Session) -> str:
    return await session.lost


async def test_session_ttl_options(cluster: EtcdCluster) -> None:
    async with connected(cluster) as etcd, Session(etcd, ttl=90.0) as session:
        told = await etcdctl(
            cluster, "lease", "timetolive", f"{session.lease:x}", "--write-out=json"
        )
        assert session.ttl == 90.0
        assert json.loads(told)["granted-ttl"] == 90
        assert 0 < json.loads(told)["ttl"] <= 90


async def test_session_ctx(cluster: EtcdCluster) -> None:
    async with connected(cluster) as etcd, Session(etcd) as session:
        async with asyncio.TaskGroup() as group:
            waiters = [group.create_task(_loss(session)) for _ in range(3)]
            await asyncio.sleep(0)
            session.orphan()
        assert [task.result() for task in waiters] == ["orphaned"] * 3
        with pytest.raises(SessionLost, match="orphaned"):
            session.raise_if_lost()


async def test_example_election_campaign(cluster: EtcdCluster, name: str) -> None:
    said: list[str] = []
    async with (
        candidate(cluster, name, 0) as one,
        candidate(cluster, name, 1) as two,
        asyncio.TaskGroup() as group,
    ):
        await two.campaign("e2")
        said.append("first election with e2")
        waiting = group.create_task(one.campaign("e1"))
        await one.until(lambda: one.phase is Phase.STANDING)
        await two.resign()
        await waiting
        said.append("second election with e1")
    assert said == ["first election with e2", "second election with e1"]


async def test_v3_election_observe(cluster: EtcdCluster, name: str) -> None:
    observed: list[int] = []

    async def observe() -> None:
        async for leader in observer.observe():
            if leader is not None:
                observed.append(int(leader.id))
                if observed[-1] == 9:
                    return

    async with connected(cluster, 2) as etcd, Observer(etcd, name) as observer:
        await observer.synced()
        async with (
            asyncio.TaskGroup() as group,
            candidate(cluster, name, 0) as one,
            candidate(cluster, name, 1) as two,
        ):
            group.create_task(observe())
            await one.campaign("0")
            waiting = group.create_task(two.campaign("5"))
            await two.until(lambda: two.phase is Phase.STANDING)
            for number in range(1, 5):
                await one.proclaim(str(number))
            await one.resign()
            await waiting
            for number in range(6, 10):
                await two.proclaim(str(number))
            await two.until(lambda: bool(observed) and observed[-1] == 9)
    assert observed == sorted(observed)
    assert observed[-1] == 9
