"""Proclaim, resign, step down: a term that is given up never acts again, whatever is answered."""

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.state import Reason
from sidecar.core.store import Put, Txn
from sidecar.errors import NotLeader, PermissionDenied, StoreFull, Unavailable
from tests.election.support import (
    LAYOUT,
    SOON,
    TRIP,
    TTL,
    WAY,
    Program,
    exactly,
    queue,
    remove,
    removes,
    value,
)
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

CALL = TTL / 2
NOTE = b"/note"


# Proclaiming


def test_a_leader_replaces_its_value_within_the_term(sim: Simulation) -> None:
    a = Program(sim).campaign()
    token = a.election.rev
    for text in ("one", b"two"):
        a.do(a.election.proclaim(text))
        assert value(sim, a.election.key) == (text.encode() if isinstance(text, str) else text)
    assert a.election.rev == token
    assert a.election.header == sim.etcd.header()


def test_who_has_not_campaigned_cannot_proclaim(sim: Simulation) -> None:
    a = Program(sim).open()
    with pytest.raises(NotLeader, match="campaign first"):
        a.do(a.election.proclaim("a"))
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    with pytest.raises(NotLeader, match="campaign first"):
        a.do(a.election.proclaim("a"))


def test_a_proclaim_that_finds_no_key_ends_the_term(sim: Simulation) -> None:
    a = Program(sim).campaign()
    sim.silence_watch(a.process)
    sim.delete_from_outside(a.election.key.encode())
    with pytest.raises(NotLeader, match="the own key is gone"):
        a.do(a.election.proclaim("late"))
    assert not a.election.is_leader()
    assert (a.election.phase, a.election.ended) == (Phase.OUT, Reason.KEY_GONE)
    assert queue(sim) == []


def test_a_proclaim_that_hears_of_its_end_after_the_watch_did_changes_nothing(
    sim: Simulation,
) -> None:
    a = Program(sim).campaign()
    key = a.election.key.encode()
    a.etcd.meddle = lambda txn: sim.delete_from_outside(key)
    with pytest.raises(NotLeader, match="the own key is gone"):
        a.do(a.election.proclaim("late"))
    assert a.election.ended is Reason.KEY_GONE


def test_an_unanswered_proclaim_is_told_and_the_term_goes_on(sim: Simulation) -> None:
    a = Program(sim).campaign()
    sim.lose_next_reply(a.process, "txn")
    with pytest.raises(Unavailable):
        a.do(a.election.proclaim("new"))
    assert a.election.is_leader()
    assert value(sim, a.election.key) == b"new"


# Resigning


def test_a_resign_stops_the_acting_when_it_is_sent(sim: Simulation) -> None:
    a = Program(sim).campaign()
    resigning = a.begin(a.election.resign())
    assert not a.election.is_leader()
    assert a.election.phase is Phase.GIVING_UP
    assert len(queue(sim)) == 1
    began = sim.now
    sim.until(resigning.done, within=SOON)
    assert sim.now == exactly(began + TRIP)
    assert (a.election.phase, a.election.ended) == (Phase.OUT, Reason.RESIGNED)
    assert a.election.header == sim.etcd.header()


def test_who_does_not_stand_resigns_without_a_request(sim: Simulation) -> None:
    a = Program(sim).open()
    a.do(a.election.resign())
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    at = sim.now
    a.do(a.election.resign())
    assert sim.now == at


def test_a_waiter_withdraws_by_a_resign(sim: Simulation) -> None:
    a, b = Program(sim).campaign(), Program(sim, "b").stand()
    b.do(b.election.resign())
    assert queue(sim) == [a.election.key.encode()]
    assert not b.session.lost.is_set


@pytest.mark.parametrize("lost", ["request", "reply"])
def test_an_unanswered_resign_is_repeated_and_never_acts_again(sim: Simulation, lost: str) -> None:
    a = Program(sim).campaign()
    (sim.lose_next_request if lost == "request" else sim.lose_next_reply)(a.process, "txn")
    began = sim.now
    resigning = a.begin(a.election.resign())
    while not resigning.done():
        assert not a.election.is_leader()
        sim.run(0.1)
    assert queue(sim) == []
    assert a.election.ended is Reason.RESIGNED
    if lost == "request":
        sim.run(0)
        assert began + CALL + 0.05 + TRIP <= sim.now <= began + CALL + 0.05 + TRIP + 0.1


def test_a_late_resign_removes_no_later_term(sim: Simulation) -> None:
    a = Program(sim).campaign()
    key = a.election.key
    sim.destine(a.process, "txn", Fate(matching=removes(key), duplicate_after=2.0))
    a.do(a.election.resign())
    a.do(a.election.campaign("a"))
    sim.run(TTL)
    assert a.election.is_leader()


def test_a_refused_resign_is_repeated_until_it_is_taken(sim: Simulation) -> None:
    a = Program(sim).campaign()
    for _ in range(3):
        sim.destine(a.process, "txn", Fate(error=PermissionDenied("not now")))
    began = sim.now
    a.do(a.election.resign())
    # The second try follows at once, the others after a pause each.
    assert sim.now == exactly(began + 4 * TRIP + 0.05 + 0.1)
    assert queue(sim) == []


def test_last_words_are_written_with_the_delete(sim: Simulation) -> None:
    a = Program(sim).campaign()
    a.do(a.election.resign(epilogue=[Put(NOTE, b"bye")]))
    assert value(sim, NOTE) == b"bye"
    kv = sim.etcd.get(NOTE)
    assert kv is not None
    assert kv.mod_revision == sim.etcd.revision
    assert queue(sim) == []


def test_a_full_store_takes_the_delete_without_last_words(sim: Simulation) -> None:
    a = Program(sim).campaign()
    sim.fill()
    a.do(a.election.resign(epilogue=[Put(NOTE, b"bye")]))
    assert (queue(sim), sim.etcd.get(NOTE)) == ([], None)
    assert a.election.ended is Reason.RESIGNED


def test_a_full_store_refuses_a_campaign_and_nothing_is_left(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.fill()
    with pytest.raises(StoreFull):
        a.do(a.election.stand("a"))
    assert queue(sim) == []


def test_last_words_on_a_dead_lease_do_not_keep_the_key(sim: Simulation) -> None:
    a = Program(sim).campaign()
    a.do(a.election.resign(epilogue=[Put(NOTE, b"", 0xDEAD)]))
    assert (queue(sim), sim.etcd.get(NOTE)) == ([], None)


def test_last_words_on_a_key_that_is_gone_are_not_written(sim: Simulation) -> None:
    a = Program(sim).campaign()
    key = a.election.key.encode()
    sim.silence_watch(a.process)
    sim.delete_from_outside(key)
    a.do(a.election.resign(epilogue=[Put(NOTE, b"bye")]))
    assert sim.etcd.get(NOTE) is None
    assert a.election.phase is Phase.OUT


def test_a_session_lost_while_a_resign_is_unanswered_ends_it(sim: Simulation) -> None:
    a = Program(sim).campaign()
    sim.cut(a.process)
    resigning = a.begin(a.election.resign())
    sim.run(SOON)
    a.process.call(a.session.orphan)
    sim.until(resigning.done, within=CALL)
    assert a.election.ended is Reason.SESSION_LOST
    sim.heal()


# Stepping down


def test_who_steps_down_keeps_its_place_until_it_resigns(sim: Simulation) -> None:
    a, b = Program(sim).campaign(), Program(sim, "b").stand()
    a.process.call(a.election.step_down)
    a.process.call(a.election.step_down)
    assert a.election.phase is Phase.STOPPING
    sim.run(3 * TTL)
    assert not a.election.is_leader()
    assert not b.election.is_leader()
    assert a.election.is_first
    with pytest.raises(NotLeader, match="resign first"):
        a.do(a.election.campaign("a"))
    sim.until(b.election.is_leader, within=SOON)  # a failed campaign leaves no key


def test_stepping_down_without_a_place_is_nothing(sim: Simulation) -> None:
    a = Program(sim).open()
    a.process.call(a.election.step_down)
    assert a.election.phase is Phase.OUT


# Leaving


def test_leaving_gives_the_key_up_and_is_bounded_when_nobody_answers(sim: Simulation) -> None:
    a = Program(sim).campaign()
    sim.cut(a.process)
    began = sim.now
    a.process.call(a.end.set)
    main = a.process.main
    assert main is not None
    sim.until(main.done, within=3 * TTL)
    assert not a.election.is_leader()
    assert a.session.lost.reason == "resign was not answered"
    assert sim.now <= began + 2 * TTL + WAY
    sim.heal()
    sim.run(TTL)
    assert queue(sim) == []


def test_leaving_answers_the_next_one_at_once(sim: Simulation) -> None:
    a, b = Program(sim).campaign(), Program(sim, "b").stand()
    sim.run(SOON)
    began = sim.now
    a.process.call(a.end.set)
    sim.until(b.election.is_leader, within=SOON)
    assert sim.now == exactly(began + 2 * WAY)
    a.close()


def test_what_lies_beside_the_queue_is_left_alone(sim: Simulation) -> None:
    sim.etcd.txn(Txn(then=(Put(LAYOUT.name.encode() + b"a", b"another"),)))
    a = Program(sim).campaign()
    a.close()
    assert value(sim, LAYOUT.name.encode() + b"a") == b"another"
    remove(sim, LAYOUT.name.encode() + b"a")
