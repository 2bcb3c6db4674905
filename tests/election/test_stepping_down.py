"""The order of a step-down: stop acting, tell, drain, settle, forget, and only then the key."""

import asyncio
import logging
from typing import Any

import pytest

from sidecar.core.lease import NEVER
from sidecar.core.state import Reason, Role
from tests.election.sidecars import Notebook, Sidecar
from tests.election.support import SOON, TTL, WAY, exactly, queue, removes
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim


def pair(sim: Simulation, **config: Any) -> tuple[Sidecar, Sidecar]:
    """Return a leader and who waits behind it."""
    a = Sidecar(sim, "a", **config).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    sim.run(SOON)
    return a, b


# Stopping


def test_a_clean_stop_costs_the_next_one_two_ways(sim: Simulation) -> None:
    a, b = pair(sim)
    began = sim.now
    a.call(a.candidate.stop)
    assert not a.candidate.is_leader()
    assert a.state.role is Role.FOLLOWER
    b.until_it_leads()
    assert sim.now == exactly(began + 2 * WAY)
    a.until_it_ends()
    assert a.candidate.given_back
    assert (a.state.reason, a.meter.step_downs) == (Reason.SHUTDOWN, ["shutdown"])
    assert a.keeper.forgot == 1


def test_a_stop_while_nothing_was_granted_ends_at_once(sim: Simulation) -> None:
    a = Sidecar(sim)
    sim.lose_next_request(a.process, "grant")
    a.start()
    sim.run(0.1)
    a.stop(within=2 * SOON)
    assert a.candidate.given_back
    assert sim.etcd.leases == {}


def test_a_stop_as_a_waiter_leaves_the_queue(sim: Simulation) -> None:
    a, b = pair(sim)
    b.stop()
    assert queue(sim) == [a.state.key.encode()]
    assert b.candidate.given_back
    assert b.meter.step_downs == []


def test_a_stop_without_an_answer_is_bounded_and_says_that_nothing_is_certain(
    sim: Simulation,
) -> None:
    a, b = pair(sim)
    sim.cut(a.process)
    began = sim.now
    a.call(a.candidate.stop)
    a.until_it_ends(within=2 * TTL)
    assert not a.candidate.given_back
    assert sim.now <= began + TTL + 2 * SOON
    b.until_it_leads(within=SOON)
    sim.heal()


def test_a_revoke_that_nobody_confirms_takes_nothing_back_of_a_key_given_up(
    sim: Simulation,
) -> None:
    a, _ = pair(sim)
    for _ in range(5):
        sim.lose_next_request(a.process, "revoke")
    a.call(a.candidate.stop)
    a.until_it_ends(within=2 * TTL)
    assert a.candidate.given_back
    assert len(queue(sim)) == 1
    sim.run(TTL + SOON)
    assert len(sim.etcd.leases) == 1


def test_who_is_cancelled_gives_no_key_up_out_of_order(sim: Simulation) -> None:
    a, b = pair(sim)
    a.process.stop()
    a.until_it_ends()
    assert a.keeper.settled == a.keeper.forgot == 0
    assert len(queue(sim)) == 2
    b.until_it_leads(within=TTL + SOON)  # when the lease has ended by itself


# Draining


def test_the_key_is_kept_for_the_drain_time_however_long(sim: Simulation) -> None:
    a, b = pair(sim, drain=3 * TTL)
    began = sim.now
    a.call(a.candidate.stop)
    sim.run(3 * TTL - WAY)
    assert not a.leads
    assert not b.leads
    assert b.state.candidates == ("a", "b")
    b.until_it_leads()
    assert sim.now == exactly(began + 3 * TTL + 2 * WAY)


def test_a_drain_tells_until_when_the_key_stands_and_nothing_of_it_once_it_is_asked_to_go(
    sim: Simulation,
) -> None:
    a, _ = pair(sim, drain=2 * TTL)
    assert a.state.kept_until == NEVER
    a.call(a.candidate.stop)
    began = a.process.now()
    sim.run(TTL)
    assert a.state.role is Role.FOLLOWER
    assert began + TTL < a.state.kept_until == a.election.session.deadline
    sim.run(TTL + WAY / 2)  # on its way
    assert a.state.candidates == ("a", "b")
    assert a.state.kept_until == NEVER


def test_a_drain_ends_where_the_margin_of_the_lease_begins(sim: Simulation) -> None:
    a, _ = pair(sim, drain=3 * TTL)
    sim.cut(a.process)
    deadline = a.process.true_time(a.state.deadline)
    a.call(a.candidate.stop)
    settled = a.keeper.settled
    sim.until(lambda: a.keeper.settled > settled, within=TTL)
    assert sim.now == exactly(deadline)
    sim.heal()


def test_who_is_in_a_hurry_skips_the_drain(sim: Simulation) -> None:
    a, b = pair(sim, drain=60.0)
    a.call(a.candidate.stop)
    sim.run(TTL)
    began = sim.now
    a.call(a.candidate.hurry)
    b.until_it_leads()
    assert sim.now == exactly(began + 2 * WAY)


def test_a_key_that_goes_during_the_drain_ends_it(sim: Simulation) -> None:
    a, b = pair(sim, drain=60.0)
    a.call(a.candidate.stop)
    sim.run(SOON)
    sim.delete_from_outside(queue(sim)[0])
    a.until_it_ends()
    assert not a.candidate.given_back
    assert b.leads


def test_a_second_reason_does_not_hasten_the_drain(sim: Simulation) -> None:
    a, b = pair(sim, drain=5.0)
    began = sim.now
    a.call(a.candidate.stand_back)
    sim.run(SOON)
    a.call(a.candidate.retire)
    sim.run(SOON)
    a.call(a.candidate.stop)
    b.until_it_leads(within=5.0)
    assert sim.now == exactly(began + 5.0 + 2 * WAY)
    a.until_it_ends()


def test_who_waits_does_not_drain(sim: Simulation) -> None:
    a, b = pair(sim)
    c = Sidecar(sim, "c", drain=60.0).start().until_it_waits()
    c.stop()
    assert a.leads
    assert b.state.is_registered


# Settling


def test_the_key_is_kept_until_nobody_can_believe_in_this_leader_any_more(
    sim: Simulation,
) -> None:
    a, b = pair(sim)
    a.keeper.told = asyncio.Event()
    a.call(a.candidate.stop)
    sim.run(4 * TTL)
    assert a.state.role is Role.FOLLOWER
    assert not b.leads
    began = sim.now
    a.call(a.keeper.told.set)
    b.until_it_leads()
    assert sim.now == exactly(began + 2 * WAY)
    a.until_it_ends()


def test_a_note_that_cannot_be_removed_leaves_the_lease_to_end(
    sim: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Notebook(can_forget=False)
    a = Sidecar(sim, keeper=keeper).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    sim.run(SOON)
    renewed = max(lease.ends_at for lease in sim.etcd.leases.values()) - TTL
    with caplog.at_level(logging.ERROR):
        a.call(a.candidate.stop)
        a.until_it_ends()
    assert not a.candidate.given_back
    assert "left to end by itself" in caplog.text
    assert len(queue(sim)) == 2  # no request that removes the key was sent
    b.until_it_leads(within=TTL + SOON)
    assert sim.now >= renewed + TTL - SOON


def test_who_cannot_forget_and_goes_on_stands_on_a_new_lease(sim: Simulation) -> None:
    keeper = Notebook(can_forget=False)
    a = Sidecar(sim, keeper=keeper).start().until_it_leads()
    old = queue(sim)
    a.call(a.candidate.stand_back)
    sim.run(SOON)
    a.call(a.candidate.stand_again)
    a.until_it_leads(within=2 * TTL)
    assert queue(sim) != old
    assert len(queue(sim)) == 1


# Retiring


def test_who_retires_gives_its_key_up_and_observes_on(sim: Simulation) -> None:
    a, b = pair(sim)
    a.call(a.candidate.retire)
    b.until_it_leads()
    sim.run(2 * TTL)
    assert a.candidate.left.is_set()
    assert a.candidate.given_back
    assert a.process.is_alive
    assert a.state.leader is not None
    assert a.state.leader.id == "b"
    assert (a.state.reason, a.state.candidates) == (Reason.RETIRED, ("b",))
    a.call(a.candidate.stand_again)
    sim.run(TTL)
    assert b.state.candidates == ("b",)  # never again in this process
    a.stop()


def test_who_retires_with_its_key_gives_it_up_only_when_it_is_stopped(sim: Simulation) -> None:
    a, b = pair(sim, drain=1.0)
    a.call(lambda: a.candidate.retire(keep_key=True))
    assert not a.leads
    sim.run(4 * TTL)
    assert not b.leads
    assert not a.candidate.left.is_set()
    assert b.state.candidates == ("a", "b")
    began = sim.now
    a.call(a.candidate.stop)
    b.until_it_leads(within=2 * SOON)
    assert sim.now == exactly(began + 1.0 + 2 * WAY)
    a.until_it_ends()
    assert a.candidate.given_back


def test_a_key_that_is_kept_and_goes_is_given_up_by_nobody(sim: Simulation) -> None:
    a, b = pair(sim)
    a.call(lambda: a.candidate.retire(keep_key=True))
    sim.run(SOON)
    sim.delete_from_outside(queue(sim)[0])
    sim.run(SOON)
    assert b.leads
    assert a.candidate.left.is_set()
    assert not a.candidate.given_back
    a.stop()


def test_a_stop_before_a_retire_keeps_no_key(sim: Simulation) -> None:
    a, b = pair(sim)

    def both() -> None:
        a.candidate.stop()
        a.candidate.retire(keep_key=True)

    a.call(both)
    a.until_it_ends()
    sim.run(WAY)
    assert b.leads
    assert a.state.reason is Reason.SHUTDOWN


def test_a_leave_before_a_retire_keeps_no_key(sim: Simulation) -> None:
    """As with a forwarder, which lingers: the candidate has left long before it is stopped."""
    a, b = pair(sim)

    def both() -> None:
        a.candidate.leave()
        a.candidate.retire(keep_key=True)

    a.call(both)
    sim.run(SOON)
    assert a.candidate.left.is_set()
    assert b.leads
    a.stop()


def test_who_retires_as_a_waiter_leaves_at_once(sim: Simulation) -> None:
    a, b = pair(sim)
    b.call(lambda: b.candidate.retire(keep_key=True))
    sim.run(SOON)
    assert b.candidate.left.is_set()
    assert a.state.candidates == ("a",)


def test_who_retires_while_it_has_no_lease_is_gone(sim: Simulation) -> None:
    a = Sidecar(sim).start()
    a.call(a.candidate.retire)
    sim.run(SOON)
    assert a.candidate.left.is_set()
    assert sim.etcd.leases == {}
    a.stop()


def test_a_suspended_leader_that_is_stopped_does_not_drain(sim: Simulation) -> None:
    a, b = pair(sim, drain=60.0)
    sim.elect(leaderless_for=TTL + 1.0)
    sim.run(TTL)
    a.call(a.candidate.stop)
    a.until_it_ends(within=2 * TTL)
    b.until_it_leads(within=2 * TTL)


def test_a_full_store_takes_the_resign_without_its_history(sim: Simulation) -> None:
    a, b = pair(sim)
    sim.fill()
    a.stop()
    b.until_it_leads()
    sim.empty()
    assert a.candidate.given_back


def test_an_unanswered_resign_is_repeated_in_the_same_term(sim: Simulation) -> None:
    a, b = pair(sim)
    sim.destine(a.process, "txn", Fate(matching=removes(a.state.key), loses_request=True))
    began = sim.now
    a.call(a.candidate.stop)
    b.until_it_leads(within=TTL)
    assert sim.now == exactly(began + TTL / 2 + 0.05 + 2 * WAY)
    a.until_it_ends()
    assert a.candidate.given_back
