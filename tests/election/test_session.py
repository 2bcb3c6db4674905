"""A session: how its lease is granted, kept, proven, lost and given back, at exact times."""

import asyncio
from collections.abc import Sequence

import pytest

from sidecar.core.lease import NEVER, Timing
from sidecar.core.store import Put, Txn
from sidecar.election import Session
from sidecar.election.session import EXPIRED
from sidecar.errors import LeaseNotFound, PermissionDenied, SessionLost, StoreFull
from tests.election.support import (
    MARGIN,
    RENEW_EVERY,
    TRIP,
    TTL,
    WAY,
    Host,
    Listener,
    Steady,
    exactly,
)
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

PROOF = 3 * WAY  # a renewal goes there, its read follows, one answer comes back
TRY = TTL / 8
CALL = TTL / 2
SOON_PROVEN = 0.1
pytestmark = pytest.mark.sim


def revokes(sim: Simulation) -> list[str]:
    return [line for line in sim.world.story(400).splitlines() if " revoke " in line]


# Granting


def test_a_deadline_counts_from_the_moment_before_the_renewal_was_sent(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            granted_at = host.process.now()
            assert sim.now == exactly(TRIP)
            assert session.deadline == NEVER
            await asyncio.sleep(TRIP)  # the renewal is under way
            assert session.deadline == NEVER
            await asyncio.sleep(PROOF)
            assert session.deadline == exactly(granted_at + TTL - MARGIN)

    host.do(case())


def test_a_grant_whose_answer_was_lost_is_found_by_the_next_try(sim: Simulation) -> None:
    host = Host(sim)
    sim.lose_next_reply(host.process, "grant")

    async def case() -> None:
        async with host.session() as session:
            assert sim.now == exactly(CALL + 0.05 + TRIP)
            assert list(sim.etcd.leases) == [session.lease]
            await asyncio.sleep(SOON_PROVEN)
            assert host.meter.renewals == ["proven"]

    host.do(case())
    assert sim.etcd.leases == {}


def test_the_ttl_of_a_grant_that_nobody_heard_is_told_by_the_first_renewal(
    sim: Simulation,
) -> None:
    host = Host(sim)
    sim.lose_next_reply(host.process, "grant")

    async def case() -> None:
        async with host.session(ttl=1.0) as session:
            assert session.ttl == 1.0
            await asyncio.sleep(SOON_PROVEN)
            assert session.timing == Timing(2.0, 0.2)  # etcd grants no less

    host.do(case())


def test_a_ttl_that_the_store_raises_counts_at_once(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session(ttl=1.0, margin=0.3) as session:
            assert session.timing == Timing(2.0, 0.3)
            assert session.call_limit == 1.0

    host.do(case())


def test_an_id_that_is_taken_is_left_alone_and_another_one_drawn(sim: Simulation) -> None:
    host = Host(sim)
    taken = Steady("a").getrandbits(62) + 1
    sim.etcd.grant(taken, TTL)

    async def case() -> None:
        async with host.session() as session:
            assert sim.now == exactly(2 * TRIP)
            assert set(sim.etcd.leases) == {taken, session.lease}
            assert session.lease != taken

    host.do(case())
    assert set(sim.etcd.leases) == {taken}


def test_a_refused_grant_is_told_and_starts_nothing(sim: Simulation) -> None:
    host = Host(sim)
    sim.fill()

    async def case() -> None:
        with pytest.raises(StoreFull):
            async with host.session():
                pytest.fail("it was entered")

    host.do(case())


def test_a_session_by_default_has_the_clock_of_the_machine_and_counts_nothing(
    sim: Simulation,
) -> None:
    host = Host(sim)

    async def case() -> None:
        session = Session(host.etcd)
        assert (session.ttl, session.lease, session.is_taken_up) == (TTL, 0, False)
        assert await session.close()  # nothing was granted, so nothing is left
        await session.grant()
        assert session.clock.now() > 0
        assert await session.close()
        assert session.lost.reason == "closed"

    host.do(case())


# Proofs


def test_a_renewal_is_due_each_fifth_of_the_ttl(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            first = host.process.now()
            for number in range(1, 6):
                await asyncio.sleep(first + number * RENEW_EVERY - host.process.now() + PROOF + WAY)
                sent_at = first + number * RENEW_EVERY
                assert session.deadline == exactly(sent_at + TTL - MARGIN)
            assert host.meter.renewals == ["proven"] * 6

    host.do(case())


def test_whoever_cannot_wait_has_it_proven_at_once(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            await asyncio.sleep(0.5)
            asked_at = host.process.now()
            session.prove_soon()
            await asyncio.sleep(PROOF + WAY)
            assert session.deadline == exactly(asked_at + TTL - MARGIN)

    host.do(case())


def test_a_proof_under_two_terms_of_the_store_is_none_and_is_tried_again(sim: Simulation) -> None:
    host = Host(sim)
    listener = Listener(b"x")

    async def case() -> None:
        async with host.session() as session:
            session.attach(listener)
            await asyncio.sleep(0.5)
            before = session.deadline
            session.prove_soon()
            sim.later(1.5 * WAY, sim.elect)  # between the renewal and the read after it
            await asyncio.sleep(PROOF + 0.1 * WAY)
            assert host.meter.renewals[1:] == ["unproven"]
            assert session.deadline == before
            sent_at = sim.now - 0.1 * WAY
            await asyncio.sleep(PROOF)
            assert host.meter.renewals[1:] == ["unproven", "proven"]
            shift = host.process.now() - sim.now
            assert session.deadline == exactly(sent_at + shift + TTL - MARGIN)
            assert len(listener.proofs) == 2
            session.detach(listener)

    host.do(case())


def test_a_lease_that_a_member_has_not_heard_of_yet_is_asked_for_again(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            lease = sim.etcd.leases.pop(session.lease)
            await asyncio.sleep(0.9)
            assert not session.lost.is_set
            sim.etcd.leases[session.lease] = lease
            await asyncio.sleep(1.0)
            assert not session.lost.is_set
            assert session.deadline > host.process.now()
            assert set(host.meter.renewals) == {"unproven", "proven"}
            assert host.meter.renewals[-1] == "proven"

    host.do(case())


def test_a_lease_that_is_unknown_a_second_after_its_grant_is_lost(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            sim.revoke_from_outside(session.lease)
            granted_at = sim.now
            assert await session.lost == EXPIRED
            assert 1.0 <= sim.now - granted_at < 2.0
            assert host.meter.renewals[-1] == "lost"

    host.do(case())


def test_a_lease_that_was_taken_up_and_is_unknown_is_lost_at_once(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session(lease=0xBAD) as session:
            assert (session.lease, session.is_taken_up) == (0xBAD, True)
            assert await session.lost == EXPIRED
            assert sim.now == exactly(TRIP)

    host.do(case())


def test_a_silent_member_costs_one_short_try_and_the_next_one_answers(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            await asyncio.sleep(0.5)
            sim.cut(host.process, 0)
            sent_at = TRIP + RENEW_EVERY
            await asyncio.sleep(sent_at + TRY - sim.now + PROOF + WAY)
            assert host.meter.renewals == ["proven", "unavailable", "proven"]
            assert host.etcd.endpoint == 1
            shift = host.process.now() - sim.now
            assert session.deadline == exactly(sent_at + TRY + shift + TTL - MARGIN)
            sim.heal()

    host.do(case())


def test_a_refused_renewal_is_tried_again_and_loses_nothing(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with host.session() as session:
            await asyncio.sleep(0.5)
            sim.destine(host.process, "prove", Fate(error=PermissionDenied("no")))
            await asyncio.sleep(RENEW_EVERY)
            assert host.meter.renewals == ["proven", "rejected", "proven"]
            assert session.contact.trouble == ""
            assert not session.lost.is_set

    host.do(case())


def test_a_renewal_that_hears_of_no_such_lease_ends_the_session(sim: Simulation) -> None:
    host = Host(sim)
    listener = Listener(b"x")

    async def case() -> None:
        async with host.session() as session:
            session.attach(listener)
            await asyncio.sleep(0.5)
            sim.destine(host.process, "prove", Fate(error=LeaseNotFound("gone")))
            assert await session.lost == EXPIRED
            assert sim.now == exactly(TRIP + RENEW_EVERY + TRIP)
            assert await session.lost == EXPIRED  # any number of times
            assert listener.losses == [EXPIRED]
            with pytest.raises(SessionLost, match="session lost: expired") as lost:
                session.raise_if_lost()
            assert lost.value.reason == EXPIRED

    host.do(case())


def test_each_subject_gets_its_own_part_of_what_was_read(sim: Simulation) -> None:
    host = Host(sim)
    one, none, two = Listener(b"x", b"y"), Listener(), Listener(b"z")
    sim.etcd.txn(Txn(then=(Put(b"y", b"1"), Put(b"z", b"2"))))

    async def case() -> None:
        async with host.session() as session:
            for listener in (one, none, two):
                session.attach(listener)
            await asyncio.sleep(SOON_PROVEN)
            assert [_values(listener) for listener in (one, none, two)] == [
                [[], [b"1"]],
                [],
                [[b"2"]],
            ]
            assert {deadline for _, deadline in one.proofs + two.proofs} == {session.deadline}

    host.do(case())


def _values(listener: Listener) -> Sequence[Sequence[bytes]]:
    read, _ = listener.proofs[-1]
    return [[kv.value for kv in kvs] for kvs in read.ranges]


def test_where_nothing_is_asked_for_the_renewal_alone_keeps_the_lease(sim: Simulation) -> None:
    host = Host(sim)
    listener = Listener()

    async def case() -> None:
        async with host.session() as session:
            session.attach(listener)
            await asyncio.sleep(SOON_PROVEN)
            assert host.meter.renewals == ["proven"]
            assert session.deadline > host.process.now()
            assert listener.proofs == []  # nothing was read, so there is nothing to tell

    host.do(case())
