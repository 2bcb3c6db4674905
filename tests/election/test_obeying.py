"""What a leader does with requests: it obeys those for its term, from askers that live, once."""

import logging
from dataclasses import replace

import pytest

from sidecar.core.codec import Action, Request, encode_request
from sidecar.core.state import Reason
from sidecar.core.store import Delete, Put, Txn
from sidecar.errors import Refused, Rejected
from tests.election.sidecars import Asker, Sidecar, standing
from tests.election.support import LAYOUT, SOON, TTL, WAY, put_foreign, put_waiters, puts, queue
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

ANSWER = LAYOUT.answer("")


def ask(sim: Simulation, a: Sidecar, request: Request, nonce: str = "1") -> None:
    value = encode_request(request)
    sim.etcd.txn(Txn(then=(Put(LAYOUT.request(nonce), value, request.lease),)))


def looks_after_it(sim: Simulation, a: Sidecar, fate: Fate) -> None:
    """Name what happens to the request by which a leader finds out that the asker lives."""
    if a.config.drain:
        sim.destine(a.process, "txn", replace(fate, matching=puts(ANSWER)))
    else:
        sim.destine(a.process, "read", replace(fate, matching=LAYOUT.request("1").__eq__))


def test_a_request_for_another_term_is_not_obeyed(sim: Simulation) -> None:
    a, _ = standing(sim, "a", "b")
    sim.etcd.grant(1, 60.0)
    ask(sim, a, Request(Action.RESIGN, a.state.token - 1, "", 1))
    sim.run(TTL)
    assert a.leads
    assert sim.etcd.get(LAYOUT.answer("1")) is None


def test_a_request_that_nobody_waits_for_is_not_obeyed(sim: Simulation) -> None:
    a, _ = standing(sim, "a", "b")
    ask(sim, a, Request(Action.RESIGN, a.state.token, "", 0))
    sim.run(TTL)
    assert a.leads


def test_a_request_whose_asker_has_died_is_not_obeyed(sim: Simulation) -> None:
    a, _ = standing(sim, "a", "b")
    sim.etcd.grant(1, 60.0)
    ask(sim, a, Request(Action.RESIGN, a.state.token, "", 1))
    sim.etcd.revoke(1)
    sim.run(TTL)
    assert a.leads


@pytest.mark.parametrize("drain", [0.0, 1.0])
def test_an_asker_that_dies_before_the_answer_is_not_obeyed(
    sim: Simulation, drain: float, caplog: pytest.LogCaptureFixture
) -> None:
    a, _ = standing(sim, "a", "b", drain=drain)
    sim.etcd.grant(1, 60.0)
    looks_after_it(sim, a, Fate(request_delay=0.2))
    with caplog.at_level(logging.INFO):
        ask(sim, a, Request(Action.RESIGN, a.state.token, "", 1))
        sim.run(0.1)
        sim.etcd.revoke(1)
        sim.run(TTL)
    assert "request not answered nonce=1" in caplog.text
    assert a.leads


@pytest.mark.parametrize("drain", [0.0, 1.0])
def test_a_request_is_obeyed_though_the_store_does_not_say_whether_its_asker_lives(
    sim: Simulation, drain: float
) -> None:
    a, b = standing(sim, "a", "b", drain=drain)
    sim.etcd.grant(1, 60.0)
    looks_after_it(sim, a, Fate(loses_request=True))
    ask(sim, a, Request(Action.RESIGN, a.state.token, "", 1))
    sim.run(TTL)
    assert b.leads
    assert Reason.RESIGNED in a.reasons()


def test_a_request_that_may_not_be_looked_at_is_not_obeyed(
    sim: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    a, _ = standing(sim, "a", "b")
    sim.etcd.grant(1, 60.0)
    looks_after_it(sim, a, Fate(error=Rejected("no")))
    with caplog.at_level(logging.INFO):
        ask(sim, a, Request(Action.RESIGN, a.state.token, "", 1))
        sim.run(TTL)
    assert "request not looked at nonce=1 error=no" in caplog.text
    assert a.leads


@pytest.mark.parametrize("drain", [0.0, 1.0])
def test_a_term_that_ends_while_it_answers_is_not_resigned_again(
    sim: Simulation, drain: float
) -> None:
    (a,) = standing(sim, "a", drain=drain)
    sim.etcd.grant(1, 60.0)
    token = a.state.token
    own = a.state.key.encode()
    looks_after_it(sim, a, Fate(reply_delay=0.5))
    ask(sim, a, Request(Action.RESIGN, token, "", 1))
    sim.run(0.1)
    sim.delete_from_outside(own)
    sim.run(TTL)
    assert a.leads
    assert a.state.token > token
    assert Reason.RESIGNED not in a.reasons()


def test_a_term_that_ends_while_the_way_is_cleared_is_not_handed_over(sim: Simulation) -> None:
    (a,) = standing(sim, "a")
    waiters = put_waiters(sim, 90)
    sim.run(SOON)
    token = a.state.token
    own = a.state.key.encode()

    def key_goes(txn: Txn) -> None:
        if Delete(waiters[0]) in txn.then:
            sim.silence_watch(a.process)  # so that only a proof can tell
            sim.later(1.5 * WAY, sim.delete_from_outside, own)

    a.etcd.meddle = key_goes
    sim.etcd.grant(1, 60.0)
    ask(sim, a, Request(Action.HANDOVER, token, "w90", 1))
    sim.run(TTL)
    assert sim.etcd.get(LAYOUT.answer("1")) is None
    assert Reason.HANDOVER not in a.reasons()
    assert a.meter.step_downs == ["key_gone"]
    assert a.state.is_registered


def test_an_answer_that_nobody_confirms_is_taken_for_given(sim: Simulation) -> None:
    a, b = standing(sim, "a", "b")
    sim.etcd.grant(1, 60.0)
    sim.destine(a.process, "txn", Fate(matching=puts(ANSWER), loses_reply=True))
    ask(sim, a, Request(Action.RESIGN, a.state.token, "", 1))
    b.until_it_leads(within=TTL)


def test_each_request_is_answered_once(sim: Simulation) -> None:
    a, _ = standing(sim, "a", "b")
    sim.etcd.grant(1, 60.0)
    for nonce in "123":
        ask(sim, a, Request(Action.HANDOVER, a.state.token, "x", 1), nonce)
    sim.run(TTL)
    answers = sim.etcd.read(ANSWER, ANSWER[:-1] + b"0").kvs
    assert len(answers) == 3
    assert all(kv.create_revision == kv.mod_revision for kv in answers)
    assert a.leads


@pytest.mark.parametrize("fate", [Fate(loses_request=True), Fate(error=Rejected("too much"))])
def test_waiters_that_the_store_does_not_move_are_a_refusal(sim: Simulation, fate: Fate) -> None:
    (a,) = standing(sim, "a")
    waiters = put_waiters(sim, 90)
    sim.run(SOON)
    moves = Fate(
        matching=lambda txn: Delete(waiters[0]) in txn.then,
        loses_request=fate.loses_request,
        error=fate.error,
    )
    sim.destine(a.process, "txn", moves)
    asker = Asker(sim)
    with pytest.raises(Refused, match="the store did not move the waiters"):
        asker.do(asker.commands.handover("w90"))
    assert a.leads


def test_a_target_of_another_program_is_not_pinned(sim: Simulation) -> None:
    a = standing(sim, "a")[0]
    foreign = put_foreign(sim)
    asker = Asker(sim)
    leader = asker.do(asker.commands.handover())
    assert leader is not None
    assert leader.key == foreign.decode()
    assert sim.etcd.get(LAYOUT.pin) is None
    assert not a.leads


def test_a_pin_whose_lease_ends_meanwhile_does_not_keep_the_key(sim: Simulation) -> None:
    a = standing(sim, "a")[0]
    (w1,) = put_waiters(sim, 1)
    sim.run(SOON)
    own = a.state.key.encode()

    def target_dies(txn: Txn) -> None:
        if Delete(own) in txn.then:
            sim.etcd.revoke(0x1001)

    a.etcd.meddle = target_dies
    asker = Asker(sim)
    assert asker.do(asker.commands.handover("w1")) is None
    assert w1 not in queue(sim)
    assert sim.etcd.get(LAYOUT.pin) is None
    assert Reason.HANDOVER in a.reasons()
