"""The life of a sidecar's candidate: what it tells, and what it survives."""

import dataclasses
import logging

import pytest

from sidecar.core.lease import NEVER
from sidecar.core.state import ElectionState, Leader, Link, Reason, Role
from sidecar.core.store import Put, Txn
from sidecar.errors import PermissionDenied, StoreFull
from tests.election.sidecars import Sidecar
from tests.election.support import LAYOUT, SOON, TRIP, TTL, WAY, exactly, put_waiters, queue, remove
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

PROOF = 3 * WAY


# What it tells


def test_a_lone_candidate_leads_after_a_grant_a_campaign_and_a_proof(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    # The grant; a proof, with the campaign beside it; and the proof that shows the key.
    assert sim.now == exactly(TRIP + 2 * PROOF)
    assert a.reasons() == [Reason.STARTING, Reason.WAITING, Reason.ELECTED]
    key = queue(sim)[0].decode()
    token = 2
    assert a.state == ElectionState(
        LAYOUT.name,
        "a",
        Role.LEADER,
        token,
        key,
        a.election.deadline,
        Leader("a", "", token, key),
        since=a.process.wall(),
        transitions=1,
        candidates=("a",),
        reason=Reason.ELECTED,
        link=Link.CONNECTED,
        is_registered=True,
    )
    assert a.meter.elections == [exactly(sim.now - TRIP)]  # counted from the campaign on
    assert a.candidate.is_leader()
    a.stop()
    assert a.state.reason is Reason.SHUTDOWN
    assert (a.state.role, a.state.key) == (Role.FOLLOWER, "")
    assert a.candidate.given_back
    assert a.candidate.left.is_set()
    assert sim.etcd.leases == {}


def test_who_waits_tells_who_leads_and_takes_over_when_the_leader_crashes(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    sim.run(SOON)
    assert (b.state.role, b.state.reason) == (Role.FOLLOWER, Reason.WAITING)
    assert b.state.leader is not None
    assert b.state.leader.id == "a"
    assert list(b.state.candidates) == ["a", "b"]
    sim.crash(a.process)
    renewed = max(lease.ends_at for lease in sim.etcd.leases.values())
    b.until_it_leads(within=TTL + SOON)
    assert sim.now <= renewed + 2 * WAY
    assert b.state.transitions == 2
    assert b.state.candidates == ("b",)


def test_each_renewal_is_told_with_its_deadline(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    a.told.clear()
    sim.run(3.5 * SOON)
    deadlines = [state.deadline for _, state in a.told]
    assert deadlines == sorted(deadlines)
    assert len(set(deadlines)) == 3
    assert {state.since for _, state in a.told} == {a.state.since}


def test_a_passed_deadline_is_told_at_its_very_moment(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    sim.cut(a.process)
    deadline = a.process.true_time(a.state.deadline)
    sim.until(lambda: not a.leads, within=TTL)
    assert sim.now == exactly(deadline)
    assert (a.state.reason, a.state.link) == (Reason.DEADLINE_PASSED, Link.SUSPENDED)
    assert (a.state.token, a.state.key, a.state.deadline, a.state.leader) == (0, "", NEVER, None)
    assert a.meter.step_downs == []


def test_a_suspended_term_goes_on_as_the_same_one(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    before = a.state
    sim.elect(leaderless_for=TTL + 2.0)
    sim.run(TTL + SOON)
    assert a.state.link is Link.SUSPENDED
    a.until_it_leads(within=4.0)
    for name in ("token", "key", "since", "transitions", "reason"):
        assert getattr(a.state, name) == getattr(before, name)
    assert a.meter.step_downs == []
    assert len(a.meter.elections) == 1


def test_a_proof_that_does_not_come_suspends_a_term_although_the_store_answers(
    sim: Simulation,
) -> None:
    a = Sidecar(sim).start().until_it_leads()
    for _ in range(200):
        sim.destine(a.process, "prove", Fate(error=PermissionDenied("no")))
    sim.until(lambda: not a.leads, within=TTL)
    a.call(a.candidate.contact.answered)
    sim.run(WAY)
    assert (a.state.link, a.state.reason) == (Link.SUSPENDED, Reason.DEADLINE_PASSED)


def test_a_lease_that_ends_in_an_outage_is_told_with_its_reason(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    sim.cut(a.process)
    b.until_it_leads(within=TTL + SOON)
    sim.heal()
    sim.until(lambda: a.state.candidates == ("b", "a"), within=2 * TTL)
    assert Reason.SESSION_LOST in a.reasons()
    assert a.meter.step_downs == ["session_lost"]


def test_a_key_deleted_from_outside_is_told_and_it_queues_again(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    token = a.state.token
    sim.delete_from_outside(queue(sim)[0])
    sim.run(SOON)
    assert Reason.KEY_GONE in a.reasons()
    assert a.meter.step_downs == ["key_gone"]
    assert a.leads
    assert a.state.token > token
    assert a.state.transitions == 3  # nobody led in between


def test_a_key_whose_end_only_a_proof_shows_is_told(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    sim.run(0.5)
    sim.silence_watch(a.process)
    sim.delete_from_outside(queue(sim)[0])
    sim.run(SOON)
    assert a.meter.step_downs == ["key_gone"]
    assert Reason.KEY_GONE in a.reasons()


def test_a_revoked_lease_is_told_and_it_queues_again(
    sim: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    a = Sidecar(sim).start().until_it_leads()
    sim.run(2 * SOON)
    sim.revoke_from_outside(a.election.session.lease)
    sim.run(2 * SOON)
    assert a.leads
    assert a.meter.step_downs in (["key_gone"], ["session_lost"])
    assert "call=campaign" not in caplog.text  # nothing is wrong with the store


def test_an_outage_of_any_length_is_survived(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    sim.restart_etcd(down_for=10 * TTL)
    sim.run(9 * TTL)
    assert not a.leads
    assert a.candidate.is_turning()
    assert a.state.link in (Link.SUSPENDED, Link.LOST)
    a.until_it_leads(within=2 * TTL)


def test_a_store_that_is_not_there_at_start_is_waited_for(sim: Simulation) -> None:
    sim.restart_etcd(down_for=20.0)
    a = Sidecar(sim).start()
    sim.run(19.0)
    assert (a.state.role, a.state.link, a.state.reason) == (
        Role.FOLLOWER,
        Link.LOST,
        Reason.STARTING,
    )
    a.until_it_leads(within=TTL)
    a.stop()


def test_a_full_store_is_waited_for(sim: Simulation) -> None:
    sim.fill()
    a = Sidecar(sim).start()
    sim.run(TTL)
    assert "database space exceeded" in a.candidate.contact.trouble
    assert not a.state.is_registered
    sim.empty()
    a.until_it_leads(within=2 * SOON)


def test_a_store_that_fills_up_between_grant_and_campaign_is_waited_for(sim: Simulation) -> None:
    a = Sidecar(sim)
    sim.destine(a.process, "txn", Fate(error=StoreFull("full")))
    a.start().until_it_leads(within=2 * SOON)
    assert len(sim.etcd.leases) == 1


def test_a_loop_that_calls_nobody_is_not_turning(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    sim.freeze(a.process, 30.0)
    sim.run(14.0)
    assert a.candidate.is_turning()
    sim.run(3.0)
    assert not a.candidate.is_turning()


def test_two_with_one_id_both_stand_and_the_younger_says_so(
    sim: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    a = Sidecar(sim, "a").start().until_it_leads()
    b = Sidecar(sim, "b")
    b.config = dataclasses.replace(b.config, proposal=a.config.proposal)
    with caplog.at_level(logging.WARNING):
        b.start().until_it_waits()
        sim.run(TTL)
    assert b.state.is_duplicate
    assert not a.state.is_duplicate
    assert caplog.text.count("same id") == 1
    a.stop()
    sim.run(SOON)
    assert b.leads
    assert not b.state.is_duplicate


def test_an_observer_holds_no_key_and_tells_who_leads(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    o = Sidecar(sim, "o", priority=0).start()
    sim.run(TTL)
    assert (o.state.role, o.state.is_registered) == (Role.OBSERVER, False)
    assert o.state.leader is not None
    assert o.state.leader.id == "a"
    assert queue(sim) == [a.state.key.encode()]
    assert o.candidate.decided.is_set()
    o.call(o.candidate.retire)
    sim.run(WAY)
    assert o.candidate.left.is_set()
    assert o.process.is_alive
    o.stop()
    assert o.state.role is Role.OBSERVER


def test_an_observer_of_a_quiet_election_goes_on_telling_who_leads(sim: Simulation) -> None:
    Sidecar(sim, ttl=2.0).start().until_it_leads()
    o = Sidecar(sim, "o", priority=0, ttl=2.0).start()
    sim.run(2.0)
    told = len(o.told)
    sim.run(60.0)
    assert [state.link for _, state in o.told[told:] if state.link is not Link.CONNECTED] == []
    assert o.state.leader is not None


def test_a_restored_store_with_smaller_tokens_is_not_acted_on(sim: Simulation) -> None:
    put_waiters(sim, 3)
    early = sim.etcd.revision
    remove(sim, *queue(sim))
    for _ in range(10):
        sim.etcd.txn(Txn(then=(Put(b"/x", b""),)))
    a = Sidecar(sim).start().until_it_leads()
    token = a.state.token
    sim.restore(early)
    remove(sim, *queue(sim))
    sim.run(3 * TTL)
    assert not a.leads
    assert a.state.is_registered
    assert a.state.reason is Reason.TOKEN_WENT_BACK
    while sim.etcd.revision <= token:
        sim.etcd.txn(Txn(then=(Put(b"/x", b""),)))
    sim.delete_from_outside(queue(sim)[0])
    a.until_it_leads(within=TTL)
    assert a.state.token > token
    assert a.keeper.seen[-1] == (a.state.token, sim.etcd.cluster_id)


def test_a_restored_store_in_which_another_one_is_first_suspends_the_term(
    sim: Simulation,
) -> None:
    (w1,) = put_waiters(sim, 1, ttl=TTL)
    a = Sidecar(sim).start().until_it_waits()
    early = sim.etcd.revision
    remove(sim, w1)
    a.until_it_leads()
    token = a.state.token
    sim.run(0.5)
    sim.restore(early)
    sim.run(SOON)
    assert (a.state.role, a.state.reason) == (Role.FOLLOWER, Reason.STORE_REPLACED)
    assert a.meter.step_downs == ["store_replaced"]
    a.until_it_leads(within=TTL)  # the lease of the other one, restored, has ended
    assert a.state.token == token


def test_a_least_token_given_at_the_start_counts(sim: Simulation) -> None:
    a = Sidecar(sim, least_token=5).start()
    sim.run(TTL)
    assert a.state.reason is Reason.TOKEN_WENT_BACK
    assert a.state.is_registered
    assert not a.leads
