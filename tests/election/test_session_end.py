"""How a session ends: lost, closed, orphaned, each once and within bounds."""

import asyncio

import pytest

from sidecar.core.store import Delete, Put, Txn
from sidecar.election.session import EXPIRED, Loss
from sidecar.errors import Rejected
from tests.election.support import TRIP, TTL, WAY, Counts, Host, Listener, exactly
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

CALL = TTL / 2
SOON_PROVEN = 0.1
pytestmark = pytest.mark.sim


def revokes(sim: Simulation) -> list[str]:
    return [line for line in sim.world.story(400).splitlines() if " revoke " in line]


def test_the_first_reason_of_a_loss_stays() -> None:
    loss = Loss()
    loss.set("expired")
    loss.set("closed")
    assert (loss.is_set, loss.reason) == (True, "expired")


def test_an_outage_as_long_as_the_lease_ends_it_and_the_session_hears(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            await asyncio.sleep(0.5)
            sim.cut(host.process)
            await asyncio.sleep(TTL)
            assert session.lease not in sim.etcd.leases
            assert not session.lost.is_set  # nobody has told it, and its deadline has passed
            assert session.deadline < host.process.now()
            sim.heal()
            assert await session.lost == EXPIRED

    host.do(case())
    assert revokes(sim) == []  # there is nothing to revoke


def test_leaving_a_session_revokes_its_lease(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            sim.etcd.txn(Txn(then=(Put(b"k", b"", session.lease),)))
        assert await session.lost == "closed"

    host.do(case())
    assert sim.etcd.leases == {}
    assert sim.etcd.get(b"k") is None


def test_an_orphan_is_not_renewed_nor_revoked_and_ends_by_itself(sim: Simulation) -> None:
    host = Host(sim)
    listener = Listener(b"x")

    async def case() -> None:
        async with host.session() as session:
            session.attach(listener)
            await asyncio.sleep(SOON_PROVEN)
            session.orphan()
            session.orphan()
            assert listener.losses == ["orphaned"]
            renewed_at = TRIP + WAY
            await asyncio.sleep(renewed_at + TTL - WAY - sim.now)
            assert session.lease in sim.etcd.leases
            await asyncio.sleep(2 * WAY)
            assert session.lease not in sim.etcd.leases

    host.do(case())
    assert revokes(sim) == []


def test_leaving_an_orphan_at_once_leaves_its_lease(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            session.orphan()

    host.do(case())
    assert len(sim.etcd.leases) == 1


def test_a_session_is_closed_once_and_knows_it(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            assert await session.close()
            closed_at = sim.now
            assert await session.close()
            assert sim.now == closed_at  # without another request
            session.orphan()
            assert await session.lost == "closed"

    host.do(case())


def test_a_lease_that_is_gone_needs_no_revoke(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session(lease=0xBAD) as session:
            assert await session.lost == EXPIRED
            at = sim.now
            assert await session.close()
            assert sim.now == at

    host.do(case())


def test_an_unanswered_revoke_is_repeated(sim: Simulation) -> None:
    host = Host(sim)
    sim.lose_next_request(host.process, "revoke")

    async def case() -> None:
        async with host.session() as session:
            at = sim.now
            assert await session.close()
            assert sim.now == exactly(at + CALL + 0.05 + TRIP)

    host.do(case())
    assert sim.etcd.leases == {}


def test_a_close_without_an_answer_ends_after_the_ttl(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            sim.cut(host.process)
            at = sim.now
            assert not await session.close()
            assert sim.now == exactly(at + TTL)
            assert not await session.close(within=1.0)
            assert sim.now == exactly(at + TTL + 1.0)
            sim.heal()

    host.do(case())


def test_a_refused_revoke_is_told(sim: Simulation) -> None:
    host = Host(sim)
    sim.destine(host.process, "revoke", Fate(error=Rejected("no")))

    async def case() -> None:
        async with host.session() as session:
            assert not await session.close()
            assert session.contact.trouble == "revoke: no"
            assert await session.close()

    host.do(case())


def test_what_the_block_raises_passes_as_it_is_and_the_lease_is_revoked(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        with pytest.raises(KeyError):
            async with host.session():
                raise KeyError

    host.do(case())
    assert sim.etcd.leases == {}


def test_a_cancelled_block_still_revokes_the_lease(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), host.session():
                await asyncio.sleep(10)
        assert sim.now == exactly(0.5 + TRIP)

    host.do(case())
    assert sim.etcd.leases == {}


def test_a_dropped_key_on_the_lease_says_nothing_about_the_session(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            sim.etcd.txn(Txn(then=(Put(b"k", b"", session.lease),)))
            sim.etcd.txn(Txn(then=(Delete(b"k"),)))
            await asyncio.sleep(3 * TTL)
            assert not session.lost.is_set

    host.do(case())


def test_the_meter_hears_how_long_each_renewal_took(sim: Simulation) -> None:
    class Timed(Counts):
        def renewed(self, result: str, seconds: float) -> None:
            took.append((result, seconds))

    took: list[tuple[str, float]] = []
    host = Host(sim)
    host.meter = Timed()

    async def case() -> None:
        async with host.session():
            await asyncio.sleep(SOON_PROVEN)

    host.do(case())
    assert took == [("proven", exactly(TRIP))]  # no key was asked for, so nothing was read
