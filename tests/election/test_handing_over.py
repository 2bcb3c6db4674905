"""Handover within one program: to the next, to a named one, past many, refused, overtaken."""

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.state import Reason
from sidecar.core.store import Delete, Put, Txn
from sidecar.errors import NotLeader, Refused, Unavailable
from tests.election.support import (
    SOON,
    TRIP,
    TTL,
    WAY,
    Program,
    exactly,
    proposal,
    put_foreign,
    put_waiters,
    queue,
    remove,
    removes,
    value,
)
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

NOTE = b"/note"


def test_a_handover_to_the_next_is_one_transaction(sim: Simulation) -> None:
    a = Program(sim).campaign()
    w1, w2 = put_waiters(sim, 2)
    sim.run(WAY)
    began = sim.now
    target = a.do(a.election.handover())
    assert (target.key, sim.now) == (w1, exactly(began + TRIP))
    assert queue(sim) == [w1, w2]
    assert (a.election.phase, a.election.ended) == (Phase.OUT, Reason.RESIGNED)


@pytest.mark.parametrize("by", ["id", "key"])
def test_a_handover_to_a_named_one_moves_those_before_it(sim: Simulation, by: str) -> None:
    a = Program(sim).campaign()
    w1, w2, w3, w4 = put_waiters(sim, 4)
    sim.run(WAY)
    revision = sim.etcd.revision
    a.do(a.election.handover("w3" if by == "id" else w3.decode()))
    assert queue(sim) == [w3, w4]
    assert sim.etcd.revision == revision + 1  # all of it in one step
    assert sim.etcd.get(w1) is None
    assert sim.etcd.get(w2) is None


def test_a_moved_waiter_queues_again_and_the_target_leads(sim: Simulation) -> None:
    a, b, c = (Program(sim, name) for name in "abc")
    a.campaign()
    b.open()
    waiting = b.begin(b.election.campaign(proposal("b")))
    sim.run(SOON)
    token = b.election.rev
    c.stand()
    a.do(a.election.handover("c"))
    sim.run(SOON)
    assert c.election.is_leader()
    assert b.election.rev > c.election.rev > token
    assert not waiting.done()
    c.close()
    sim.until(waiting.done, within=SOON)
    assert b.election.is_leader()


def test_more_than_sixty_waiters_are_moved_in_batches_beforehand(sim: Simulation) -> None:
    a = Program(sim).campaign()
    *before, target, behind = put_waiters(sim, 152)
    sim.run(WAY)
    revision = sim.etcd.revision
    done = a.do(a.election.handover(target.decode()))
    assert done.key == target
    assert queue(sim) == [target, behind]
    assert sim.etcd.revision == revision + 3  # 60 and 30 beforehand, 60 with the own key
    assert len(before) == 150


def test_a_leader_that_stops_leading_between_batches_moves_no_more(sim: Simulation) -> None:
    a = Program(sim).campaign()
    *_, target = put_waiters(sim, 200)
    sim.run(WAY)
    left = len(queue(sim))
    moving = a.begin(a.election.handover(target.decode()))
    sim.later(TRIP - 0.1 * WAY, a.process.call, a.election.step_down)
    sim.until(moving.done, within=SOON)
    with pytest.raises(NotLeader, match="only the leader can hand over"):
        moving.result()
    assert len(queue(sim)) == left - 60
    assert a.election.phase is Phase.STOPPING


def test_a_queue_that_changes_once_is_cleared_by_a_new_plan(sim: Simulation) -> None:
    a = Program(sim).campaign()
    waiters = put_waiters(sim, 90)
    sim.run(WAY)
    meddled: list[bytes] = []

    def leaves(txn: Txn) -> None:
        if not meddled:
            meddled.append(waiters[0])
            remove(sim, waiters[0])

    a.etcd.meddle = leaves
    a.do(a.election.handover("w90"))
    assert queue(sim) == waiters[-1:]


def test_a_queue_that_changes_three_times_refuses_the_handover(sim: Simulation) -> None:
    a = Program(sim).campaign()
    waiters = put_waiters(sim, 90)
    sim.run(WAY)
    leaving = iter(waiters)
    a.etcd.meddle = lambda txn: remove(sim, next(leaving))
    with pytest.raises(Refused, match="changed three times"):
        a.do(a.election.handover("w90"))
    assert queue(sim) == [a.election.key.encode(), *waiters[3:]]  # who left, and nobody else
    a.etcd.meddle = lambda txn: None
    sim.run(SOON)
    assert a.election.is_leader()


def test_a_target_that_leaves_at_the_last_moment_makes_it_a_plain_resign(sim: Simulation) -> None:
    a = Program(sim).campaign()
    w1, w2, w3 = put_waiters(sim, 3)
    sim.run(WAY)
    own = a.election.key
    sim.destine(a.process, "txn", Fate(matching=removes(own), request_delay=0.5))
    giving = a.begin(a.election.handover("w3"))
    sim.run(0.1)
    remove(sim, w3)
    sim.until(giving.done, within=SOON)
    assert queue(sim) == [w1, w2]  # nobody was moved for it
    assert a.election.ended is Reason.RESIGNED


def test_whether_the_target_got_it_is_told(sim: Simulation) -> None:
    a = Program(sim).campaign()
    w1, w2, _ = put_waiters(sim, 3)
    sim.run(WAY)
    target = a.do(a.election.clear_way("w2"))
    remove(sim, w2)
    sim.run(2 * WAY)  # the replica knows it
    a.process.call(a.election.step_down)
    assert not a.do(a.election.hand_over(target, epilogue=[Put(NOTE, b"bye")]))
    assert value(sim, NOTE) == b"bye"
    assert queue(sim)[0] == w1


def test_a_target_that_got_it_is_told_with_last_words(sim: Simulation) -> None:
    a = Program(sim).campaign()
    put_waiters(sim, 2)
    sim.run(WAY)
    target = a.do(a.election.clear_way("w2"))
    a.process.call(a.election.step_down)
    assert a.do(a.election.hand_over(target, epilogue=[Put(NOTE, b"bye")]))
    assert queue(sim) == [target.key]
    assert value(sim, NOTE) == b"bye"
    assert not a.do(a.election.hand_over(target))  # it has nothing to give any more


def test_last_words_are_dropped_where_the_store_refuses_them(sim: Simulation) -> None:
    a = Program(sim).campaign()
    put_waiters(sim, 2)
    sim.run(WAY)
    target = a.do(a.election.clear_way("w2"))
    a.process.call(a.election.step_down)
    sim.fill()
    assert not a.do(a.election.hand_over(target, epilogue=[Put(NOTE, b"bye")]))
    sim.empty()
    assert len(queue(sim)) == 2  # a plain resign: the next one leads, and nobody was moved


@pytest.mark.parametrize(
    ("to", "why"),
    [("", "nobody else stands"), ("a", "leads already"), ("x", "no candidate 'x' stands")],
)
def test_a_handover_to_nobody_is_refused_and_the_term_goes_on(
    sim: Simulation, to: str, why: str
) -> None:
    a = Program(sim).campaign()
    with pytest.raises(Refused, match=why):
        a.do(a.election.handover(to))
    assert a.election.is_leader()


def test_no_foreign_key_is_ever_moved(sim: Simulation) -> None:
    a = Program(sim).campaign()
    foreign = put_foreign(sim)
    put_waiters(sim, 1)
    sim.run(WAY)
    with pytest.raises(Refused, match="'go' stands before 'w1'"):
        a.do(a.election.handover("w1"))
    assert a.election.is_leader()
    assert a.do(a.election.handover()).key == foreign


def test_a_leader_whose_key_is_gone_cannot_hand_over(sim: Simulation) -> None:
    a = Program(sim).campaign()
    put_waiters(sim, 1)
    sim.delete_from_outside(a.election.key.encode())
    sim.run(2 * WAY)
    with pytest.raises(NotLeader, match="only the leader can hand over"):
        a.do(a.election.handover())


def test_an_unanswered_move_is_told_and_the_term_goes_on(sim: Simulation) -> None:
    a = Program(sim).campaign()
    put_waiters(sim, 90)
    sim.run(WAY)
    sim.lose_next_request(a.process, "txn")
    with pytest.raises(Unavailable):
        a.do(a.election.handover("w90"))
    assert a.election.is_leader()
    assert len(queue(sim)) == 91


def test_a_move_that_the_watch_does_not_show_is_told(sim: Simulation) -> None:
    a = Program(sim).campaign()
    put_waiters(sim, 90)
    sim.run(WAY)
    sim.cluster.members[0].lag = 10.0
    a.etcd.meddle = lambda txn: sim.silence_watch(a.process)
    began = sim.now
    with pytest.raises(Unavailable, match="the watch does not show"):
        a.do(a.election.handover("w90"))
    assert sim.now == exactly(began + TRIP + TTL / 2)
    assert a.election.is_leader()


def test_a_target_that_died_and_came_again_is_another_one(sim: Simulation) -> None:
    a = Program(sim).campaign()
    w1, w2 = put_waiters(sim, 2)
    sim.run(WAY)
    target = a.do(a.election.clear_way("w2"))
    kv = sim.etcd.get(w2)
    assert kv is not None
    sim.etcd.txn(Txn(then=(Delete(w2),)))
    sim.etcd.txn(Txn(then=(Put(w2, kv.value, kv.lease),)))
    sim.run(2 * WAY)
    a.process.call(a.election.step_down)
    assert not a.do(a.election.hand_over(target))
    assert queue(sim) == [w1, w2]
