"""What open pull requests to etcd's election package ask for, and elections with users."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.keys import Layout
from sidecar.election import Election, Session
from sidecar.errors import NotLeader, PermissionDenied, SessionLost
from sidecar.etcd import EtcdCoordinator
from sidecar.etcd.credentials import Credentials
from tests.election.real import SOON, candidate, etcdctl, keys
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]  # etcd may have to be built

ROOT = "root:secret-of-root"
PASSWORD = "secret-of-user"  # noqa: S105 - a test's own


async def test_the_deletion_of_its_own_key_wakes_a_waiter(cluster: EtcdCluster, name: str) -> None:
    async with (
        candidate(cluster, name, 0) as leader,
        candidate(cluster, name, 1) as waiter,
        asyncio.TaskGroup() as group,
    ):
        await leader.campaign("a")
        waiting = group.create_task(waiter.campaign("b"))
        await waiter.until(lambda: waiter.phase is Phase.STANDING)
        token = waiter.rev
        await etcdctl(cluster, "del", waiter.key)
        await waiter.until(lambda: waiter.rev > token)
        assert not waiting.done()
        await leader.resign()
        await waiting
        assert await keys(cluster, name) == [waiter.key]  # no leader without a key


async def test_a_waiter_whose_lease_is_revoked_does_not_become_a_phantom(
    cluster: EtcdCluster, name: str
) -> None:
    async with candidate(cluster, name, 0) as leader, candidate(cluster, name, 1) as waiter:
        await leader.campaign("a")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_fails(waiter))
            await waiter.until(lambda: waiter.phase is Phase.STANDING)
            await etcdctl(cluster, "lease", "revoke", f"{waiter.session.lease:x}")
            assert await waiting == "expired"
        await leader.resign()
        assert not waiter.is_leader()
        assert await keys(cluster, name) == []


async def _fails(election: Election) -> str:
    with pytest.raises(SessionLost) as lost:
        await election.campaign("b")
    return lost.value.reason


async def test_a_compaction_while_waiting_neither_ends_the_wait_nor_leaves_a_key(
    cluster: EtcdCluster, name: str
) -> None:
    async with (
        candidate(cluster, name, 0) as leader,
        candidate(cluster, name, 1) as waiter,
        asyncio.TaskGroup() as group,
    ):
        await leader.campaign("a")
        waiting = group.create_task(waiter.campaign("b"))
        await waiter.until(lambda: waiter.phase is Phase.STANDING)
        revision = (await asyncio.to_thread(cluster.header))["revision"]
        await etcdctl(cluster, "compaction", str(revision))
        await leader.resign()
        await waiting
        assert waiter.is_leader()


async def test_a_resign_is_repeated_after_its_request_has_failed(name: str) -> None:
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as single:
        (member,) = single.members
        async with candidate(single, name, ttl=4.0) as election, asyncio.TaskGroup() as group:
            await election.campaign("a")
            member.pause()
            resigning = group.create_task(election.resign())
            try:
                await _trouble(election, "resign")
                assert not election.is_leader()
                assert not resigning.done()
            finally:
                member.resume()
            await resigning
            assert election.phase is Phase.OUT
            assert await keys(single, name) == []
            with pytest.raises(NotLeader):
                await election.proclaim("late")


async def _trouble(election: Election, wanted: str) -> None:
    contact = election.session.contact
    seen = asyncio.Event()
    failed = contact.failed

    def noted(what: str, exc: Exception) -> None:
        failed(what, exc)
        if what == wanted:
            seen.set()

    contact.failed = noted  # type: ignore[method-assign]
    await seen.wait()


# With users


@pytest.fixture
def guarded(name: str) -> Iterator[EtcdCluster]:
    """Return an etcd on which two users may use one election each, and nothing else."""
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as made:
        for user in ("one", "two"):
            layout = Layout(f"{name}-{user}")
            made.etcdctl("role", "add", user)
            made.etcdctl(
                *("role", "grant-permission", user, "readwrite"),
                *(layout.start.decode(), layout.end.decode()),
            )
            made.etcdctl("user", "add", f"{user}:{PASSWORD}")
            made.etcdctl("user", "grant-role", user, user)
        made.enable_auth(ROOT.partition(":")[2])
        yield made


async def test_election_with_auth_enabled(guarded: EtcdCluster, name: str) -> None:
    led: list[tuple[str, int]] = []

    async def stand(etcd: EtcdCoordinator, user: str, number: int, ahead: asyncio.Event) -> None:
        async with (
            Session(etcd, ttl=2.0) as session,
            Election(session, f"{name}-{user}") as election,
        ):
            if number == 1:
                await ahead.wait()
            await election.campaign(f"{user}-{number}")
            led.append((user, election.rev))
            ahead.set()
            session.orphan()  # nobody gives it back: the second one wins when the lease ends

    async with AsyncExitStack() as stack, asyncio.timeout(SOON), asyncio.TaskGroup() as group:
        for user in ("one", "two"):
            credentials = Credentials(user=user, password=PASSWORD)
            etcd = await stack.enter_async_context(EtcdCoordinator(guarded.endpoints, credentials))
            ahead = asyncio.Event()
            for number in range(2):
                group.create_task(stand(etcd, user, number, ahead))
    for user in ("one", "two"):
        first, second = (token for who, token in led if who == user)
        assert first < second


async def test_a_refused_campaign_leaves_no_key(guarded: EtcdCluster, name: str) -> None:
    credentials = Credentials(user="one", password=PASSWORD)
    async with (
        asyncio.timeout(SOON),
        EtcdCoordinator(guarded.endpoints, credentials) as etcd,
        Session(etcd) as session,
        Election(session, f"{name}-two") as election,
    ):
        with pytest.raises(PermissionDenied):
            await election.campaign("a")
        assert election.phase is Phase.OUT
        assert not session.lost.is_set
    got = guarded.etcdctl("get", "", "--from-key", "--keys-only", user=ROOT)
    assert got.stdout.split() == []
