"""What anybody may ask of an election, and what the leader answers."""

import pytest

from sidecar.core.codec import Answer, encode_answer
from sidecar.core.state import Leader, Reason
from sidecar.core.store import Put, Txn
from sidecar.election import Commands
from sidecar.errors import LeaseExists, NoLeader, NotAuthenticated, Refused, Unavailable
from tests.election.sidecars import WITHIN, Asker, Sidecar, standing
from tests.election.support import (
    LAYOUT,
    SOON,
    TTL,
    WAY,
    exactly,
    put_foreign,
    put_waiters,
    queue,
    remove,
)
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

REQUEST = LAYOUT.request("")


def leases_of_askers(sim: Simulation, *cars: Sidecar) -> set[int]:
    own = {car.election.session.lease for car in cars}
    return set(sim.etcd.leases) - own


# Resign and hand over


def test_a_leader_resigns_when_asked_and_queues_again(sim: Simulation) -> None:
    a, b = standing(sim, "a", "b")
    asker = Asker(sim)
    leader = asker.do(asker.commands.resign())
    assert leader is not None
    assert leader.id == "b"
    sim.run(SOON)
    assert b.leads
    assert b.state.candidates == ("b", "a")
    assert Reason.RESIGNED in a.reasons()
    assert a.meter.step_downs == ["resigned"]
    assert leases_of_askers(sim, a, b) == set()  # the asker's lease went with its request


def test_a_lone_leader_that_resigns_leads_again_with_a_larger_token(sim: Simulation) -> None:
    (a,) = standing(sim, "a")
    token = a.state.token
    asker = Asker(sim)
    assert asker.do(asker.commands.resign()) is None
    a.until_it_leads()
    assert a.state.token > token


def test_a_handover_of_a_term_that_is_over_is_refused_and_nobody_moves(sim: Simulation) -> None:
    a, b, c = standing(sim, "a", "b", "c")
    over = a.state.token
    asker = Asker(sim)
    asker.do(asker.commands.handover("b", token=over))
    sim.run(SOON)
    assert b.leads
    with pytest.raises(Refused, match=f"the term {over} is over: 'b' leads now"):
        asker.do(asker.commands.handover("c", token=over))
    sim.run(SOON)
    assert b.leads
    assert c.state.candidates == ("b", "c", "a")


def test_who_stands_is_told_in_the_order_of_the_queue(sim: Simulation) -> None:
    standing(sim, "b", "a", "c")
    asker = Asker(sim)
    assert asker.do(asker.commands.standing()) == ("b", "a", "c")


def test_who_stands_first_is_waited_for(sim: Simulation) -> None:
    (a,) = standing(sim, "a")
    asker = Asker(sim)
    first = asker.do(asker.commands.first())
    assert first is not None
    assert (first.id, first.token) == ("a", a.state.token)
    asker.do(asker.commands.resign())
    again = asker.do(asker.commands.first(within=SOON))
    assert again is not None
    assert again.id == "a"
    assert again.token > first.token
    asker.do(asker.commands.pause())
    asked = sim.now
    assert asker.do(asker.commands.first()) is None
    assert asker.do(asker.commands.first(within=2.0)) is None
    assert sim.now >= asked + 2.0


def test_one_object_carries_out_many_commands(sim: Simulation) -> None:
    a, b = standing(sim, "a", "b")
    asker = Asker(sim)
    for expected in (b, a, b):
        leader = asker.do(asker.commands.handover())
        assert leader is not None
        assert leader.id == expected.name
        expected.until_it_leads()


def test_a_handover_to_an_id_moves_those_before_it_and_pins_the_target(sim: Simulation) -> None:
    a, b, c, d = standing(sim, "a", "b", "c", "d")
    asker = Asker(sim)
    leader = asker.do(asker.commands.handover("c"))
    assert leader is not None
    assert leader.id == "c"
    sim.run(SOON)
    assert c.leads
    assert c.state.candidates[:2] == ("c", "d")
    assert set(c.state.candidates) == {"a", "b", "c", "d"}
    pin = sim.etcd.get(LAYOUT.pin)
    assert pin is not None
    assert pin.lease == c.election.session.lease
    assert Reason.HANDOVER in a.reasons()
    assert b.meter.step_downs == d.meter.step_downs == []


@pytest.mark.parametrize(
    ("to", "why"), [("x", "no candidate 'x' stands"), ("a", "'a' leads already")]
)
def test_what_the_leader_refuses_is_told_and_it_leads_on(
    sim: Simulation, to: str, why: str
) -> None:
    a, b = standing(sim, "a", "b")
    asker = Asker(sim)
    with pytest.raises(Refused, match=why):
        asker.do(asker.commands.handover(to))
    assert a.leads
    assert leases_of_askers(sim, a, b) == set()


def test_where_nobody_stands_nobody_can_be_asked(sim: Simulation) -> None:
    asker = Asker(sim)
    with pytest.raises(NoLeader, match="nobody stands in /sim/election"):
        asker.do(asker.commands.resign())


def test_a_foreign_leader_knows_no_commands(sim: Simulation) -> None:
    put_foreign(sim)
    asker = Asker(sim)
    with pytest.raises(Refused, match="knows no commands"):
        asker.do(asker.commands.handover())


def test_a_leader_that_changes_before_the_request_arrives_is_not_asked(sim: Simulation) -> None:
    w1, _ = put_waiters(sim, 2)
    asker = Asker(sim)
    asker.etcd.meddle = lambda txn: remove(sim, w1)
    with pytest.raises(Refused, match="'w1' does not lead any more; look and ask again"):
        asker.do(asker.commands.resign())
    assert len(sim.etcd.leases) == 2


def test_a_leader_that_goes_without_an_answer_has_done_what_was_asked(sim: Simulation) -> None:
    w1, w2 = put_waiters(sim, 2)
    asker = Asker(sim)
    asking = asker.begin(asker.commands.resign())
    sim.run(SOON)
    assert not asking.done()
    remove(sim, w1)
    sim.until(asking.done, within=SOON)
    assert asking.result() == Leader("w2", "", 3, w2.decode())


def test_an_answer_alone_is_not_enough(sim: Simulation) -> None:
    (w1,) = put_waiters(sim, 1)
    asker = Asker(sim)
    asking = asker.begin(asker.commands.resign())
    sim.run(SOON)
    (request,) = sim.etcd.read(REQUEST, REQUEST[:-1] + b"0").kvs
    answer = LAYOUT.answer(LAYOUT.nonce(request.key))
    said = encode_answer(Answer(accepted=True))
    sim.etcd.txn(Txn(then=(Put(answer, said, request.lease),)))
    sim.run(SOON)
    assert not asking.done()
    remove(sim, w1)
    sim.until(asking.done, within=SOON)
    assert asking.result() is None


def test_a_leader_that_never_answers_is_told_and_the_lease_is_revoked(sim: Simulation) -> None:
    put_waiters(sim, 1)
    asker = Asker(sim)
    began = sim.now
    with pytest.raises(Unavailable, match=r"resign was not carried out within 10 s$"):
        asker.do(asker.commands.resign())
    assert sim.now == exactly(began + WITHIN + 2 * WAY)
    assert len(sim.etcd.leases) == 1
    assert sim.etcd.read(REQUEST, REQUEST[:-1] + b"0").kvs == ()


def test_a_store_that_does_not_answer_is_told_with_what_is_wrong(sim: Simulation) -> None:
    asker = Asker(sim)
    sim.cut(asker.process)
    with pytest.raises(Unavailable, match=r"handover was not carried out within 10 s: watch"):
        asker.do(asker.commands.handover())
    with pytest.raises(Unavailable, match=r"no answer to txn"):
        asker.do(asker.commands.resume())
    sim.heal()


def test_a_command_that_was_carried_out_does_not_fail_by_its_last_request(sim: Simulation) -> None:
    standing(sim, "a", "b")
    asker = Asker(sim)
    sim.destine(asker.process, "revoke", Fate(loses_request=True))
    leader = asker.do(asker.commands.handover())
    assert leader is not None
    assert leader.id == "b"


def test_a_lease_id_that_is_taken_is_drawn_again(sim: Simulation) -> None:
    standing(sim, "a", "b")
    asker = Asker(sim)
    sim.destine(asker.process, "grant", Fate(error=LeaseExists("taken")))
    assert asker.do(asker.commands.resign()) is not None


def test_a_grant_without_an_answer_is_tried_again_under_another_id(sim: Simulation) -> None:
    a, b = standing(sim, "a", "b")
    asker = Asker(sim)
    sim.lose_next_reply(asker.process, "grant")
    assert asker.do(asker.commands.resign()) is not None
    sim.run(30.0)  # what nobody heard of has ended by itself
    assert leases_of_askers(sim, a, b) == set()


def test_a_command_by_default_uses_the_clock_of_the_machine(sim: Simulation) -> None:
    asker = Asker(sim)
    assert asker.do(Commands(asker.etcd, LAYOUT.name).resume()) is False


# Pauses


def test_in_a_pause_the_leader_gives_its_key_up_and_comes_back_after_it(sim: Simulation) -> None:
    a, b = standing(sim, "a", "b")
    asker = Asker(sim)
    assert asker.do(asker.commands.pause())
    assert not a.state.is_registered
    assert (a.state.reason, a.meter.step_downs) == (Reason.PAUSED, ["paused"])
    sim.run(3 * TTL)
    assert b.state.is_registered  # a waiter keeps its place
    assert not b.leads
    assert b.state.is_paused
    assert b.state.leader is None
    assert not asker.do(asker.commands.pause())  # it is paused already
    assert asker.do(asker.commands.resume())
    b.until_it_leads()
    a.until_it_waits()
    assert not asker.do(asker.commands.resume())
    assert b.state.candidates == ("b", "a")


def test_a_pause_is_done_only_when_the_leader_has_given_its_key_up(sim: Simulation) -> None:
    standing(sim, "a")
    asker = Asker(sim)
    for member in sim.cluster.members:
        member.lag = 0.3
    assert asker.do(asker.commands.pause())
    assert queue(sim) == []


def test_a_pause_for_a_time_ends_by_itself(sim: Simulation) -> None:
    (a,) = standing(sim, "a")
    asker = Asker(sim)
    assert asker.do(asker.commands.pause(duration=20.0))
    paused_at = sim.now
    sim.run(19.0)
    assert not a.leads
    a.until_it_leads(within=2.0)
    assert sim.now > paused_at + 19.0


def test_a_second_pause_for_a_time_leaves_no_lease(sim: Simulation) -> None:
    (a,) = standing(sim, "a")
    asker = Asker(sim)
    assert asker.do(asker.commands.pause())
    before = set(sim.etcd.leases)
    assert not asker.do(asker.commands.pause(duration=20.0))
    assert set(sim.etcd.leases) == before
    assert not a.leads


def test_a_pause_where_nobody_stands_is_done_at_once(sim: Simulation) -> None:
    asker = Asker(sim)
    assert asker.do(asker.commands.pause())
    a = Sidecar(sim, "a").start()
    sim.run(TTL)
    assert not a.state.is_registered
    assert a.state.is_paused
    assert asker.do(asker.commands.resume())
    a.until_it_leads()


def test_a_pause_is_refused_where_another_program_stands(sim: Simulation) -> None:
    standing(sim, "a")
    put_foreign(sim)
    asker = Asker(sim)
    with pytest.raises(Refused, match="'go' was put by another program"):
        asker.do(asker.commands.pause())
    assert sim.etcd.get(LAYOUT.pause) is None


def test_a_pause_that_is_taken_back_meanwhile_waits_for_nobody(sim: Simulation) -> None:
    put_waiters(sim, 1)  # it never gives its key up
    asker = Asker(sim)
    pausing = asker.begin(asker.commands.pause())
    sim.run(SOON)
    assert not pausing.done()
    remove(sim, LAYOUT.pause)
    sim.until(pausing.done, within=SOON)
    assert pausing.result() is True


def test_a_pause_that_the_leader_does_not_heed_is_told(sim: Simulation) -> None:
    put_waiters(sim, 1)
    asker = Asker(sim)
    with pytest.raises(Unavailable, match="pause was not carried out within 10 s"):
        asker.do(asker.commands.pause())


def test_nobody_resigns_or_hands_over_in_a_pause(sim: Simulation) -> None:
    standing(sim, "a", "b")
    asker = Asker(sim)
    assert asker.do(asker.commands.pause())
    for command in (asker.commands.resign, asker.commands.handover):
        with pytest.raises(Refused, match="the election is paused"):
            asker.do(command())
    assert asker.do(asker.commands.resume())


def test_a_store_that_refuses_to_show_the_election_is_told_at_once(sim: Simulation) -> None:
    standing(sim, "a")
    asker = Asker(sim)
    began = sim.now
    sim.destine(asker.process, "watch", Fate(error=NotAuthenticated("authentication failed")))
    with pytest.raises(NotAuthenticated, match="authentication failed"):
        asker.do(asker.commands.resign())
    assert sim.now < began + 1
