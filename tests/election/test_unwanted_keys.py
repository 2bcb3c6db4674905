"""Keys under our own name that no candidacy of ours knows of: deleted, never acted on."""

import asyncio

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.keys import Layout
from sidecar.core.store import Guard, Put, Txn
from sidecar.election import Election
from sidecar.errors import NoLeader, NotLeader, PermissionDenied, SessionLost
from tests.election.support import (
    LAYOUT,
    SOON,
    TTL,
    WAY,
    Program,
    exactly,
    proposal,
    put_foreign,
    put_waiters,
    queue,
    removes,
    value,
)
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

CALL = TTL / 2


def test_a_key_under_our_name_on_another_lease_is_deleted_and_made_anew(sim: Simulation) -> None:
    a = Program(sim).open()
    key = LAYOUT.candidate(a.session.lease)
    sim.etcd.grant(0xBAD, 3600.0)
    a.election._may_clean = False  # else the cleaner is there first
    sim.etcd.txn(Txn(then=(Put(key, b"?", 0xBAD),)))
    stranger = sim.etcd.revision
    a.do(a.election.campaign("a"))
    assert a.election.rev > stranger
    assert value(sim, key) == b"a"
    assert a.election.is_leader()


def test_a_key_of_ours_that_may_never_act_is_deleted_and_made_anew(sim: Simulation) -> None:
    a = Program(sim)
    a.least_token = 10
    a.open()
    key = LAYOUT.candidate(a.session.lease)
    a.election._may_clean = False  # else the cleaner is there first
    sim.etcd.txn(Txn(then=(Put(key, b"a", a.session.lease),)))  # as a restore brings it back
    while sim.etcd.revision < 10:
        sim.etcd.txn(Txn(then=(Put(b"/other", b""),)))
    a.do(a.election.campaign("a"))
    assert a.election.rev > 10
    assert a.election.is_leader()


def test_a_session_lost_while_such_a_key_is_deleted_ends_the_campaign(sim: Simulation) -> None:
    a = Program(sim).open()
    key = LAYOUT.candidate(a.session.lease)
    sim.etcd.grant(0xBAD, 3600.0)
    a.election._may_clean = False
    sim.etcd.txn(Txn(then=(Put(key, b"?", 0xBAD),)))
    sim.destine(a.process, "txn", Fate(matching=removes(key.decode()), loses_request=True))
    waiting = a.begin(a.election.campaign("a"))
    sim.run(SOON)
    a.process.call(a.session.orphan)
    sim.until(waiting.done, within=TTL)
    with pytest.raises(SessionLost, match="orphaned"):
        waiting.result()


def test_what_a_doubled_campaign_leaves_after_a_resign_is_deleted(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.destine(a.process, "txn", Fate(duplicate_after=1.0))
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    sim.until(lambda: queue(sim) != [], within=2 * SOON)
    arrived = sim.now
    sim.until(lambda: queue(sim) == [], within=SOON)
    assert sim.now == exactly(arrived + 2 * WAY)
    assert not a.election.is_leader()


@pytest.mark.parametrize("fate", [Fate(loses_request=True), Fate(error=PermissionDenied("no"))])
def test_such_a_delete_is_repeated_until_it_is_answered(sim: Simulation, fate: Fate) -> None:
    a = Program(sim).open()
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    key = LAYOUT.candidate(a.session.lease)
    sim.destine(a.process, "txn", fate)
    sim.etcd.txn(Txn(then=(Put(key, b"late", a.session.lease),)))
    sim.run(CALL + SOON)
    assert queue(sim) == []


def test_a_key_that_is_deleted_by_us_is_never_adopted_by_a_campaign(sim: Simulation) -> None:
    a = Program(sim).open()
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    key = LAYOUT.candidate(a.session.lease)
    sim.destine(a.process, "txn", Fate(matching=removes(key.decode()), request_delay=0.5))
    sim.etcd.txn(Txn(then=(Put(key, b"late", a.session.lease),)))
    late = sim.etcd.revision
    sim.run(2 * WAY)  # its delete is under way
    a.do(a.election.campaign("a"))
    assert a.election.rev > late
    sim.run(SOON)
    assert a.election.is_leader()  # the first delete meant another create revision


def test_a_key_that_was_adopted_meanwhile_is_not_cleaned_up(sim: Simulation) -> None:
    a = Program(sim).open()
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    key = LAYOUT.candidate(a.session.lease)
    late = Txn((Guard(key, 0),), (Put(key, b"late", a.session.lease),))
    sim.destine(a.process, "txn", Fate(loses_reply=True))  # the cleaner waits for its answer
    sim.etcd.txn(late)
    sim.run(SOON)
    sim.etcd.txn(late)  # another one: it is to be cleaned next
    token = sim.etcd.revision
    sim.run(SOON)
    a.do(a.election.campaign("a"))
    assert a.election.rev == token
    sim.run(TTL)
    assert a.election.is_leader()
    assert a.election.rev == token


def test_a_session_lost_while_a_key_is_cleaned_up_ends_that(sim: Simulation) -> None:
    a = Program(sim).open()
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    key = LAYOUT.candidate(a.session.lease)
    sim.lose_next_request(a.process, "txn")
    sim.etcd.txn(Txn(then=(Put(key, b"late", a.session.lease),)))
    sim.run(SOON)
    a.process.call(a.session.orphan)
    sim.run(TTL)
    assert a.election.phase is Phase.OUT
    a.close()


# Asking who leads


def test_the_store_says_who_leads(sim: Simulation) -> None:
    a = Program(sim).open()
    with pytest.raises(NoLeader, match="nobody stands in /sim/election"):
        a.do(a.election.leader())
    foreign = put_foreign(sim)
    put_waiters(sim, 2)
    leader = a.do(a.election.leader())
    assert (leader.id, leader.key, leader.token) == ("go", foreign.decode(), 2)


def test_an_election_yields_who_leads(sim: Simulation) -> None:
    a = Program(sim).stand()

    async def first() -> str:
        async for leader in a.election.observe():
            assert leader is not None
            return leader.id
        raise AssertionError

    assert a.do(first()) == "a"


def test_a_waiter_is_no_leader_for_whoever_needs_one(sim: Simulation) -> None:
    Program(sim).campaign()
    b = Program(sim, "b").stand()
    with pytest.raises(NotLeader, match="only the leader can hand over"):
        b.do(b.election.handover())
    b.do(b.election.proclaim(proposal("c")))  # a waiter may replace its proposal
    assert value(sim, b.election.key) == proposal("c")


def test_an_election_of_another_name_on_the_session_keeps_nobody_from_cleaning_up(
    sim: Simulation,
) -> None:
    a = Program(sim).campaign()
    other = Layout("/other")

    async def case() -> None:
        async with Election(a.session, other.name) as second:
            sim.destine(a.process, "txn", Fate(duplicate_after=1.0))
            await second.campaign("a")
            await second.resign()
            await asyncio.sleep(2 * SOON)
            assert sim.etcd.get(other.candidate(a.session.lease)) is None

    a.do(case())
    assert any("arrives again" in line for line in sim.world.story(400).splitlines())
    assert a.election.is_leader()


def test_a_key_put_at_a_revision_where_it_was_given_up_before_is_made_anew(
    sim: Simulation,
) -> None:
    """A restored store comes round to revisions that it has had."""
    a = Program(sim).open()
    key = LAYOUT.candidate(a.session.lease)
    before = sim.etcd.revision + 1
    a.election._candidacy = a.election._candidacy.gives_up(key, before)
    a.do(a.election.campaign("a"))
    assert a.election.rev > before
    assert len(queue(sim)) == 1
