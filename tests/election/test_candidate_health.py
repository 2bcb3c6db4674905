"""A candidate that is told to stand back, is paused, frozen, or left without an answer."""

import pytest

from sidecar.core.codec import Proposal
from sidecar.core.state import Reason, Role
from sidecar.election import Candidate, CandidateConfig
from tests.election.sidecars import Sidecar
from tests.election.support import (
    LAYOUT,
    MARGIN,
    SOON,
    TTL,
    WAY,
    Host,
    exactly,
    pause,
    queue,
    remove,
    removes,
)
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim


def test_an_unhealthy_leader_gives_way_and_comes_back_when_it_may(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    sim.run(SOON)
    a.call(a.candidate.stand_back)
    b.until_it_leads(within=0.1)
    sim.run(3 * TTL)
    assert a.state.reason is Reason.UNHEALTHY
    assert list(b.state.candidates) == ["b"]
    assert a.meter.step_downs == ["unhealthy"]
    a.call(a.candidate.stand_again)
    a.until_it_waits()
    sim.run(WAY)
    assert b.state.candidates == ("b", "a")
    assert a.reasons()[-1] is Reason.WAITING


def test_an_unhealthy_waiter_leaves_the_queue(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    b.call(b.candidate.stand_back)
    sim.run(SOON)
    assert a.state.candidates == ("a",)
    assert b.meter.step_downs == []
    assert b.state.reason is Reason.UNHEALTHY


def test_who_was_never_healthy_does_not_stand(sim: Simulation) -> None:
    a = Sidecar(sim).start()
    a.call(a.candidate.stand_back)  # while it asks for its lease
    sim.run(TTL)
    assert queue(sim) == []
    assert sim.etcd.leases == {}
    a.call(a.candidate.stand_again)
    a.until_it_leads()


def test_who_stands_back_while_its_campaign_is_under_way_leaves_nothing(sim: Simulation) -> None:
    a = Sidecar(sim)
    sim.destine(a.process, "txn", Fate(request_delay=1.0))
    a.start()
    sim.run(0.5)
    a.call(a.candidate.stand_back)
    sim.run(2 * TTL)
    assert queue(sim) == []
    a.call(a.candidate.stand_again)
    a.until_it_leads()


def test_who_stands_back_in_a_pause_waits_for_nothing(sim: Simulation) -> None:
    pause(sim)
    a = Sidecar(sim).start()
    sim.run(SOON)
    a.call(a.candidate.stand_back)
    sim.run(SOON)
    assert a.state.reason is not Reason.ELECTED
    remove(sim, LAYOUT.pause)
    sim.run(TTL)
    assert queue(sim) == []
    a.call(a.candidate.stand_again)
    a.until_it_leads()


def test_who_stands_back_while_the_store_does_not_answer_stops_asking(sim: Simulation) -> None:
    sim.fill()
    a = Sidecar(sim).start()
    sim.run(TTL)
    a.call(a.candidate.stand_back)
    sim.run(SOON)
    sim.empty()
    sim.run(TTL)
    assert queue(sim) == []
    assert sim.etcd.leases == {}


# Pauses


def test_a_pause_ends_the_term_at_the_event_and_its_end_begins_another(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    token = a.state.token
    paused_at = sim.now
    pause(sim)
    sim.until(lambda: not a.leads, within=SOON)
    assert sim.now == exactly(paused_at + WAY)
    sim.run(SOON)
    assert a.state.reason is Reason.PAUSED
    assert a.state.is_paused
    assert not a.state.is_registered
    assert a.meter.step_downs == ["paused"]
    remove(sim, LAYOUT.pause)
    a.until_it_leads()
    assert a.state.token > token


def test_a_pause_leaves_the_leader_its_drain_time(sim: Simulation) -> None:
    a = Sidecar(sim, drain=2.0).start().until_it_leads()
    sim.run(SOON)
    pause(sim)
    sim.run(2.0)
    assert not a.leads
    assert len(queue(sim)) == 1
    sim.run(3 * WAY)
    assert queue(sim) == []


def test_a_pause_that_ends_while_the_leader_leaves_lets_it_queue_again(sim: Simulation) -> None:
    a = Sidecar(sim, drain=2.0).start().until_it_leads()
    pause(sim)
    sim.run(0.5)
    remove(sim, LAYOUT.pause)
    sim.run(3.0)
    assert a.leads
    assert a.meter.step_downs == ["paused"]


# Frozen


def test_a_frozen_leader_says_follower_before_anything_else(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    sim.freeze(a.process, 2 * TTL)
    b.until_it_leads(within=TTL + SOON)
    a.told.clear()
    sim.run(2 * TTL)
    assert all(state.role is Role.FOLLOWER for _, state in a.told)
    assert a.state.candidates == ("b", "a")


def test_a_machine_that_was_suspended_does_not_act_on_what_it_remembers(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    sim.suspend(a.process, 3 * TTL)
    b.until_it_leads(within=TTL + SOON)
    sim.run(4 * TTL)
    assert not a.leads
    assert a.meter.step_downs in (["session_lost"], ["key_gone"])


def test_what_a_snapshot_says_ends_with_its_deadline(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    assert a.state.deadline == exactly(a.process.now() - 3 * WAY + TTL - MARGIN)


def test_a_resign_without_an_answer_leaves_the_lease_to_end(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    own = a.state.key
    for _ in range(10):
        sim.destine(a.process, "txn", Fate(matching=removes(own), loses_request=True))
    a.call(a.candidate.stand_back)
    sim.run(TTL + 4 * SOON)
    assert not a.candidate.given_back
    sim.run(2 * TTL)
    assert queue(sim) == []
    assert a.process.is_alive


def test_by_default_a_candidate_is_alone_in_the_world(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        candidate = Candidate(host.etcd, CandidateConfig(LAYOUT.name, Proposal("x")))
        assert not candidate.is_leader()
        assert candidate.history() == []
        assert candidate.state.value.id == "x"
        candidate.stop()
        await candidate.run()
        assert candidate.left.is_set()

    host.do(case())
