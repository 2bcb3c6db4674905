"""A sidecar that restarts within the TTL: it goes on with its term, or makes sure that it ends."""

import asyncio

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.state import Reason, Role
from sidecar.core.store import Put, Txn
from sidecar.election.ports import Standing
from sidecar.errors import PermissionDenied, StoreFull
from tests.election.sidecars import Notebook, Sidecar
from tests.election.support import LAYOUT, SOON, TTL, WAY, put_waiters, queue, removes, value
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim


def crashed(sim: Simulation, a: Sidecar | None = None) -> tuple[Sidecar, Standing]:
    """Return a leader that was killed a second after it began to lead, and what it noted."""
    a = a or Sidecar(sim)
    a.start().until_it_leads()
    sim.run(SOON)
    sim.crash(a.process)
    a.told.clear()
    return a, a.keeper.remembered[-1]


def test_what_is_noted_is_what_a_restart_needs(sim: Simulation) -> None:
    a, standing = crashed(sim)
    assert a.keeper.remembered == [standing]
    (key,) = queue(sim)
    (lease,) = sim.etcd.leases
    assert standing == Standing(lease, key.decode(), 2, TTL, sim.etcd.cluster_id)


def test_the_same_term_goes_on(sim: Simulation) -> None:
    a, standing = crashed(sim)
    began = sim.now
    a.start(standing).until_it_leads()
    assert sim.now <= began + 10 * WAY
    assert (a.state.token, a.state.key) == (standing.token, standing.key)
    assert a.state.reason is Reason.RESUMED
    assert a.candidate.decided.is_set()
    assert len(a.meter.elections) == 1  # that of the former process
    assert a.meter.step_downs == []
    sim.run(SOON)
    assert sim.etcd.revision == 3  # the key and its history, and nothing since
    assert a.keeper.remembered == [standing, standing]
    a.stop()
    assert a.candidate.given_back


def test_a_waiter_comes_back_to_its_place(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    sim.run(SOON)
    sim.crash(b.process)
    standing = b.keeper.remembered[-1]
    c = Sidecar(sim, "c").start().until_it_waits()
    b.start(standing)
    sim.run(SOON)
    assert a.state.candidates == ("a", "b", "c")
    assert (b.state.role, b.state.reason) == (Role.FOLLOWER, Reason.STARTING)
    a.stop()
    sim.run(SOON)
    assert b.leads
    assert b.state.reason is Reason.RESUMED
    assert not c.leads


def test_nothing_is_told_before_it_is_decided(sim: Simulation) -> None:
    a, standing = crashed(sim)
    sim.cut(a.process)
    a.start(standing)
    sim.run(SOON)
    assert not a.candidate.decided.is_set()
    sim.heal()
    a.until_it_leads(within=TTL)
    assert a.candidate.decided.is_set()


def test_another_address_is_proclaimed_in_the_same_term(sim: Simulation) -> None:
    a, standing = crashed(sim)
    again = Sidecar(sim, "again", priority=7)
    again.process, again.keeper = a.process, a.keeper
    again.start(standing).until_it_leads()
    sim.run(SOON)
    assert again.state.token == standing.token
    assert b'"id":"again"' in value(sim, standing.key)


def test_a_proclaim_that_the_store_refuses_does_not_end_the_resume(sim: Simulation) -> None:
    a, standing = crashed(sim)
    again = Sidecar(sim, "again")
    again.process, again.keeper = a.process, a.keeper
    sim.destine(a.process, "txn", Fate(error=StoreFull("full")))
    again.start(standing).until_it_leads()
    sim.run(SOON)
    assert again.leads
    assert again.state.token == standing.token
    assert b'"id":"a"' in value(sim, standing.key)


@pytest.mark.parametrize("why", ["not allowed", "another cluster", "key", "token"])
def test_what_cannot_be_resumed_is_ended_and_it_queues_again(sim: Simulation, why: str) -> None:
    a, standing = crashed(sim)
    b = Sidecar(sim, "b").start().until_it_waits()
    former = {
        "not allowed": standing,
        "another cluster": _changed(standing, cluster_id=1),
        "key": _changed(standing, key=standing.key + "0"),
        "token": _changed(standing, token=standing.token + 7),
    }[why]
    a.start(former, may_resume=why != "not allowed")
    sim.run(SOON)
    assert b.leads
    assert a.state.candidates == ("b", "a")
    assert standing.lease not in sim.etcd.leases
    assert a.state.reason is Reason.WAITING
    assert (a.keeper.settled, a.keeper.forgot) == (1, 1)  # before its lease was revoked
    assert not any(state.role is Role.LEADER for _, state in a.told)


def _changed(standing: Standing, *, key: str = "", token: int = 0, cluster_id: int = 0) -> Standing:
    return Standing(
        standing.lease,
        key or standing.key,
        token or standing.token,
        standing.ttl,
        cluster_id or standing.cluster_id,
    )


def test_the_old_lease_is_revoked_only_when_nobody_believes_in_it_any_more(
    sim: Simulation,
) -> None:
    a, standing = crashed(sim)
    b = Sidecar(sim, "b").start().until_it_waits()
    a.keeper.told = asyncio.Event()
    a.start(standing, may_resume=False)
    sim.run(3 * TTL)
    assert not b.leads
    assert standing.lease in sim.etcd.leases
    a.call(a.keeper.told.set)
    b.until_it_leads()


def test_a_note_that_cannot_be_removed_leaves_the_old_lease_to_end(sim: Simulation) -> None:
    a, standing = crashed(sim, Sidecar(sim, keeper=Notebook(can_forget=False)))
    b = Sidecar(sim, "b").start().until_it_waits()
    a.start(standing, may_resume=False)
    sim.run(SOON)
    assert standing.lease in sim.etcd.leases
    assert not b.leads
    b.until_it_leads(within=TTL + SOON)
    sim.run(WAY)
    assert a.state.candidates == ("b", "a")


def test_who_only_observes_from_now_on_ends_its_old_lease(sim: Simulation) -> None:
    a, standing = crashed(sim)
    b = Sidecar(sim, "b").start().until_it_waits()
    observer = Sidecar(sim, "observer", priority=0)
    observer.process, observer.keeper = a.process, a.keeper
    observer.start(standing)
    sim.run(SOON)
    assert b.leads
    assert observer.state.role is Role.OBSERVER
    assert observer.keeper.forgot == 1
    assert observer.candidate.decided.is_set()


def test_a_lease_that_has_ended_meanwhile_is_no_term(sim: Simulation) -> None:
    a, standing = crashed(sim)
    sim.run(TTL + SOON)
    a.start(standing).until_it_leads(within=2 * SOON)
    assert a.state.token > standing.token
    assert a.state.reason is Reason.ELECTED


def test_a_store_that_does_not_answer_in_time_ends_the_resume(sim: Simulation) -> None:
    a, standing = crashed(sim)
    sim.restart_etcd(down_for=4 * TTL)
    a.start(standing)
    sim.run(2 * TTL - WAY)
    assert not a.candidate.decided.is_set()
    sim.run(SOON)
    assert a.candidate.decided.is_set()
    a.until_it_leads(within=5 * TTL)
    assert a.state.token > standing.token


def test_a_read_that_the_store_refuses_ends_the_resume(sim: Simulation) -> None:
    a, standing = crashed(sim)
    own = standing.key.encode()
    sim.destine(
        a.process, "read", Fate(matching=lambda key: key == own, error=PermissionDenied("no"))
    )
    a.start(standing).until_it_leads(within=2 * TTL)
    assert a.state.token > standing.token


def test_a_resumed_leader_that_loses_its_key_in_a_full_store_lives_on(sim: Simulation) -> None:
    a, standing = crashed(sim)
    a.start(standing).until_it_leads()
    sim.fill()
    sim.delete_from_outside(standing.key.encode())
    sim.run(3 * TTL)
    assert a.process.is_alive
    sim.empty()
    a.until_it_leads(within=2 * SOON)


def test_a_stop_before_it_is_decided_ends_the_old_lease(sim: Simulation) -> None:
    a, standing = crashed(sim)
    sim.destine(a.process, "watch", Fate(request_delay=SOON))
    a.start(standing)
    sim.run(0.1)
    a.stop()
    assert standing.lease not in sim.etcd.leases
    assert a.candidate.given_back


def test_a_stop_while_the_own_key_is_read_ends_the_old_lease(sim: Simulation) -> None:
    a, standing = crashed(sim)
    own = standing.key.encode()
    sim.destine(a.process, "read", Fate(matching=lambda key: key == own, reply_delay=SOON))
    a.start(standing)
    sim.run(0.5)
    a.stop(within=2 * SOON)
    assert queue(sim) == []
    assert standing.lease not in sim.etcd.leases


def test_who_may_not_stand_when_it_resumes_leaves_in_order(sim: Simulation) -> None:
    a, standing = crashed(sim)
    a.start(standing)
    a.call(a.candidate.stand_back)
    sim.run(2 * SOON)
    assert queue(sim) == []
    assert not a.leads
    a.call(a.candidate.stand_again)
    a.until_it_leads(within=2 * SOON)


def test_a_term_resumed_in_a_pause_steps_down_or_waits(sim: Simulation) -> None:
    a, standing = crashed(sim)
    sim.etcd.txn(Txn(then=(Put(LAYOUT.pause, b""),)))
    a.start(standing)
    sim.run(2 * TTL)
    assert not a.leads
    assert a.process.is_alive
    sim.delete_from_outside(LAYOUT.pause)
    a.until_it_leads(within=2 * SOON)


def test_a_resumed_term_ends_as_any_other(sim: Simulation) -> None:
    a, standing = crashed(sim)
    a.start(standing).until_it_leads()
    (w1,) = put_waiters(sim, 1)
    sim.destine(a.process, "txn", Fate(matching=removes(standing.key), loses_reply=True))
    a.call(a.candidate.stand_back)
    sim.run(TTL)
    assert queue(sim) == [w1]
    assert a.meter.step_downs == ["unhealthy"]
    history = value(sim, LAYOUT.term(standing.token))
    assert b'"reason":"unhealthy"' in history


def test_the_deadline_of_a_resumed_term_counts_from_its_own_proof(sim: Simulation) -> None:
    a, standing = crashed(sim)
    a.start(standing).until_it_leads()
    assert a.state.deadline <= a.process.now() + 0.9 * TTL


@pytest.mark.parametrize("wish", ["stop", "stand_back"])
def test_a_wish_to_leave_during_the_resume_is_obeyed_in_order(sim: Simulation, wish: str) -> None:
    """What was taken up in part may act already: it is left like any other term."""
    a, standing = crashed(sim)
    sim.destine(a.process, "prove", Fate(reply_delay=0.3))
    a.start(standing)
    sim.until(
        lambda: a.candidate._election is not None and a.election.phase is Phase.STANDING,
        within=2 * SOON,
    )
    a.call(getattr(a.candidate, wish))
    sim.run(2 * TTL)
    assert not a.leads
    assert queue(sim) == []
    assert a.candidate.given_back
