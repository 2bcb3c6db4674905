"""A leader gives way to a higher priority: not at once, not often, and not past a pin."""

import pytest

from sidecar.core.codec import TermRecord as Term
from sidecar.core.codec import encode_term
from sidecar.core.state import Reason
from sidecar.core.store import Put, Txn
from sidecar.errors import Unavailable
from tests.election.sidecars import Sidecar
from tests.election.support import (
    LAYOUT,
    SOON,
    TTL,
    WAY,
    exactly,
    proposal,
    put_foreign,
    queue,
    remove,
    value,
)
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

SETTLED = 10.0
INTERVAL = 60.0


def test_a_higher_priority_leads_after_it_has_stood_ten_seconds_in_its_place(
    sim: Simulation,
) -> None:
    a = Sidecar(sim, "a", priority=10).start().until_it_leads()
    b = Sidecar(sim, "b", priority=20).start().until_it_waits()
    stood = sim.now
    sim.run(SETTLED - SOON)
    assert a.leads
    b.until_it_leads(within=2 * SOON + 2 * WAY)
    assert sim.now - stood >= SETTLED - 2 * WAY
    sim.run(SOON)
    assert Reason.PRIORITY in a.reasons()
    assert b.state.candidates == ("b", "a")
    assert a.meter.step_downs == ["priority"]
    sim.run(2 * INTERVAL)
    assert b.leads


def test_equals_and_lower_ones_wait(sim: Simulation) -> None:
    a = Sidecar(sim, "a", priority=10).start().until_it_leads()
    Sidecar(sim, "b", priority=10).start().until_it_waits()
    Sidecar(sim, "c", priority=1).start().until_it_waits()
    sim.run(2 * INTERVAL)
    assert a.leads
    assert a.state.candidates == ("a", "b", "c")


def test_the_highest_of_all_that_have_settled_leads(sim: Simulation) -> None:
    Sidecar(sim, "a", priority=10).start().until_it_leads()
    b = Sidecar(sim, "b", priority=20).start().until_it_waits()
    c = Sidecar(sim, "c", priority=30).start().until_it_waits()
    c.until_it_leads(within=SETTLED + 2 * SOON)
    sim.run(SOON)
    assert c.state.candidates[0] == "c"
    assert set(c.state.candidates) == {"a", "b", "c"}
    assert not b.leads


def test_two_moves_by_priority_are_a_minute_apart(sim: Simulation) -> None:
    Sidecar(sim, "a", priority=10).start().until_it_leads()
    b = Sidecar(sim, "b", priority=20).start().until_it_waits()
    b.until_it_leads(within=SETTLED + 2 * SOON)
    moved = sim.now
    c = Sidecar(sim, "c", priority=30).start().until_it_waits()
    sim.run(INTERVAL - 2 * SOON)
    assert b.leads
    c.until_it_leads(within=4 * SOON)
    assert sim.now - moved >= INTERVAL - SOON


def test_a_leader_that_has_given_way_itself_waits_a_minute_too(sim: Simulation) -> None:
    a = Sidecar(sim, "a", priority=10).start().until_it_leads()
    b = Sidecar(sim, "b", priority=20).start().until_it_waits()
    b.until_it_leads(within=SETTLED + 2 * SOON)
    moved = sim.now
    sim.crash(b.process)
    a.until_it_leads(within=TTL + SOON)
    c = Sidecar(sim, "c", priority=20).start().until_it_waits()
    sim.run(INTERVAL - (sim.now - moved) - SOON)
    assert a.leads
    c.until_it_leads(within=3 * SOON)


def test_whoever_moves_up_in_the_queue_settles_anew(sim: Simulation) -> None:
    a = Sidecar(sim, "a", priority=10).start().until_it_leads()
    b = Sidecar(sim, "b", priority=10).start().until_it_waits()
    Sidecar(sim, "c", priority=20).start().until_it_waits()
    sim.run(SETTLED - SOON)
    b.stop()
    sim.run(SETTLED - SOON)
    assert a.leads
    sim.run(3 * SOON)
    assert not a.leads


def test_a_pin_keeps_a_leader_from_giving_way_for_as_long_as_its_target_stands(
    sim: Simulation,
) -> None:
    a = Sidecar(sim, "a", priority=10).start().until_it_leads()
    pin = Put(LAYOUT.pin, b"", a.election.session.lease)
    sim.etcd.txn(Txn(then=(pin,)))
    b = Sidecar(sim, "b", priority=20).start().until_it_waits()
    sim.run(2 * INTERVAL)
    assert a.leads
    remove(sim, LAYOUT.pin)
    b.until_it_leads(within=2 * SOON)


def test_nobody_gives_way_past_another_program(sim: Simulation) -> None:
    a = Sidecar(sim, "a", priority=10).start().until_it_leads()
    put_foreign(sim)
    Sidecar(sim, "b", priority=20).start().until_it_waits()
    sim.run(2 * INTERVAL)
    assert a.leads


def test_a_move_by_priority_that_is_not_answered_is_repeated(sim: Simulation) -> None:
    a = Sidecar(sim, "a", priority=10).start().until_it_leads()
    own = a.state.key.encode()
    b = Sidecar(sim, "b", priority=20).start().until_it_waits()
    gives = Fate(
        matching=lambda txn: any(getattr(op, "key", b"") == own for op in txn.then),
        error=Unavailable("lost"),
    )
    sim.destine(a.process, "txn", gives)
    b.until_it_leads(within=SETTLED + 2 * SOON)


# History


def test_each_term_is_written_down_with_its_end(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    sim.run(SOON)
    led_from = a.process.wall() - SOON
    token = a.state.token
    b = Sidecar(sim, "b").start().until_it_waits()
    sim.run(SOON)
    a.stop()
    until = a.process.wall()
    b.until_it_leads()
    sim.run(SOON)
    first, second = b.candidate.history()
    assert (first.token, first.id, first.reason, first.before) == (token, "a", "shutdown", "")
    assert first.since == exactly(led_from)
    assert first.until is not None
    assert first.until <= until
    assert (second.token, second.id, second.before) == (b.state.token, "b", "shutdown")
    assert (second.until, second.reason) == (None, "")


def test_a_term_that_ended_without_a_word_was_lost(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    sim.run(SOON)
    b = Sidecar(sim, "b").start().until_it_waits()
    sim.crash(a.process)
    b.until_it_leads(within=TTL + SOON)
    sim.run(SOON)
    assert [record.before for record in b.candidate.history()] == ["", "lost"]


def test_only_the_last_hundred_terms_are_kept(sim: Simulation) -> None:
    for token in range(1, 151):
        record = encode_term(Term(token, "x", 1.0))
        sim.etcd.txn(Txn(then=(Put(LAYOUT.term(token), record),)))
    a = Sidecar(sim).start().until_it_leads()
    sim.run(SOON)
    tokens = [record.token for record in a.candidate.history()]
    assert tokens == [*range(52, 151), a.state.token]


def test_a_history_that_cannot_be_written_is_in_nobodys_way(sim: Simulation) -> None:
    a = Sidecar(sim)
    term = Fate(
        matching=lambda txn: any(
            isinstance(op, Put) and op.key.startswith(LAYOUT.name.encode() + b".history/")
            for op in txn.then
        ),
        loses_request=True,
    )
    sim.destine(a.process, "txn", term)
    a.start().until_it_leads()
    sim.run(TTL)
    assert a.leads
    assert a.candidate.history() == []
    b = Sidecar(sim, "b").start().until_it_waits()
    a.stop()
    b.until_it_leads()
    assert [record.reason for record in b.candidate.history()][:1] == ["shutdown"]


def test_a_history_of_another_program_is_left_alone(sim: Simulation) -> None:
    stranger = LAYOUT.name.encode() + b".history/zz"
    sim.etcd.txn(Txn(then=(Put(stranger, b"?"),)))
    a = Sidecar(sim).start().until_it_leads()
    sim.run(SOON)
    assert value(sim, stranger) == b"?"
    assert len(a.candidate.history()) == 1
    assert queue(sim) == [a.state.key.encode()]
    assert proposal("a") == value(sim, a.state.key)
