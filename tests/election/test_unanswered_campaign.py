"""A campaign that is unanswered, refused, cancelled, or sent during a pause."""

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.store import Put, Txn
from sidecar.election.session import EXPIRED
from sidecar.errors import PermissionDenied, SessionLost, StoreFull
from tests.election.support import (
    LAYOUT,
    SOON,
    TRIP,
    TTL,
    WAY,
    Program,
    exactly,
    pause,
    queue,
    remove,
    value,
)
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

CALL = TTL / 2
PROOF = 3 * WAY


@pytest.mark.parametrize("lose", ["request", "reply"])
def test_an_unanswered_campaign_is_sent_again_and_adopts_what_it_finds(
    sim: Simulation, lose: str
) -> None:
    a = Program(sim).open()
    (sim.lose_next_request if lose == "request" else sim.lose_next_reply)(a.process, "txn")
    began = sim.now
    a.do(a.election.stand("a"))
    assert sim.now == exactly(began + CALL + 0.05 + TRIP)
    (key,) = queue(sim)
    kv = sim.etcd.get(key)
    assert kv is not None
    assert (a.election.rev, kv.mod_revision) == (kv.create_revision, kv.create_revision)


def test_a_key_that_is_found_with_another_value_gets_the_new_one(sim: Simulation) -> None:
    a = Program(sim).open()
    key = LAYOUT.candidate(a.session.lease)
    sim.destine(a.process, "txn", Fate(loses_reply=True))
    a.etcd.meddle = lambda _: None
    standing = a.begin(a.election.stand("new"))
    sim.run(SOON)
    sim.etcd.txn(Txn(then=(Put(key, b"old", a.session.lease),)))
    sim.until(standing.done, within=TTL)
    assert value(sim, key) == b"new"
    assert a.election.phase is Phase.STANDING


def test_a_refused_campaign_is_told_and_leaves_nothing(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.fill()
    standing = a.begin(a.election.campaign("a"))
    sim.until(standing.done, within=SOON)
    with pytest.raises(StoreFull):
        standing.result()
    sim.empty()
    assert (a.election.phase, queue(sim)) == (Phase.OUT, [])
    assert not a.session.lost.is_set
    a.do(a.election.campaign("a"))


def test_a_refusal_after_an_unanswered_try_is_no_answer(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.lose_next_request(a.process, "txn")
    standing = a.begin(a.election.stand("a"))
    sim.run(CALL - WAY)
    sim.fill()
    sim.run(SOON)
    assert not standing.done()  # the first try may yet take effect
    sim.empty()
    sim.until(standing.done, within=SOON)
    standing.result()


def test_a_campaign_on_a_lease_that_is_gone_ends_the_session(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.run(0.5)
    sim.revoke_from_outside(a.session.lease)
    standing = a.begin(a.election.stand("a"))
    sim.until(standing.done, within=SOON)
    with pytest.raises(SessionLost, match=EXPIRED):
        standing.result()
    assert a.election.phase is Phase.OUT
    with pytest.raises(SessionLost):
        a.do(a.election.campaign("a"))


def test_a_session_that_ends_while_the_campaign_is_unanswered_ends_it(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.lose_next_request(a.process, "txn")
    standing = a.begin(a.election.stand("a"))
    sim.run(SOON)
    a.process.call(a.session.orphan)
    sim.until(standing.done, within=TTL)
    with pytest.raises(SessionLost, match="orphaned"):
        standing.result()


def test_a_campaign_that_is_answered_after_the_session_was_lost_says_so(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.run(2 * SOON)
    sim.destine(a.process, "txn", Fate(reply_delay=SOON))
    standing = a.begin(a.election.stand("a"))
    sim.run(2 * WAY)
    sim.revoke_from_outside(a.session.lease)  # the next renewal hears of it, before the answer
    sim.until(standing.done, within=2 * SOON)
    with pytest.raises(SessionLost, match=EXPIRED):
        standing.result()
    assert a.election.phase is Phase.OUT


def test_a_campaign_that_is_refused_after_the_session_was_lost_says_so(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.destine(a.process, "txn", Fate(reply_delay=SOON, error=PermissionDenied("no")))
    standing = a.begin(a.election.stand("a"))
    sim.run(2 * WAY)
    a.process.call(a.session.orphan)
    sim.until(standing.done, within=2 * SOON)
    with pytest.raises((SessionLost, PermissionDenied)):
        standing.result()
    assert a.election.phase is Phase.OUT


# Cancelled


def test_a_campaign_cancelled_while_it_waits_withdraws_and_may_begin_again(sim: Simulation) -> None:
    a, b = Program(sim).campaign(), Program(sim, "b").open()
    waiting = b.begin(b.election.campaign("b"))
    sim.run(SOON)
    b.cancel(waiting)
    assert queue(sim) == [a.election.key.encode()]
    assert b.election.phase is Phase.OUT
    assert not b.session.lost.is_set
    again = b.begin(b.election.campaign("b"))
    sim.run(SOON)
    a.close()
    sim.until(again.done, within=SOON)
    assert b.election.is_leader()


def test_a_campaign_cancelled_while_unanswered_gives_its_lease_up(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.destine(a.process, "txn", Fate(request_delay=1.0))
    waiting = a.begin(a.election.campaign("a"))
    sim.run(0.5)
    a.cancel(waiting)
    assert a.session.lost.reason == "campaign abandoned"
    a.close()
    assert sim.etcd.leases == {}
    sim.run(TTL)  # the request arrives, and its lease is gone
    assert queue(sim) == []


def test_leaving_the_election_while_a_campaign_is_unanswered_abandons_it(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.lose_next_request(a.process, "txn")
    waiting = a.begin(a.election.campaign("a"))
    sim.run(SOON)
    a.process.call(a.end.set)
    sim.until(waiting.done, within=TTL)
    with pytest.raises(SessionLost, match="campaign abandoned"):
        waiting.result()
    assert queue(sim) == []


# Pauses


def test_in_a_pause_nobody_joins_until_its_end(sim: Simulation) -> None:
    pause(sim)
    a = Program(sim).open()
    waiting = a.begin(a.election.campaign("a"))
    sim.run(TTL)
    assert not waiting.done()
    assert (a.election.phase, queue(sim)) == (Phase.OUT, [])
    ended = sim.now
    remove(sim, LAYOUT.pause)
    sim.until(waiting.done, within=SOON)
    assert sim.now == exactly(ended + WAY + TRIP + PROOF)


def test_a_session_lost_in_a_pause_ends_the_wait(sim: Simulation) -> None:
    pause(sim)
    a = Program(sim).open()
    waiting = a.begin(a.election.campaign("a"))
    sim.run(TTL)
    sim.revoke_from_outside(a.session.lease)
    sim.until(waiting.done, within=2 * SOON)
    with pytest.raises(SessionLost, match=EXPIRED):
        waiting.result()


def test_a_pause_that_a_restore_has_taken_back_does_not_hold_a_campaign_forever(
    sim: Simulation,
) -> None:
    a = Program(sim).open()
    sim.etcd.txn(Txn(then=(Put(b"/other", b""),)))
    early = sim.etcd.revision
    for _ in range(20):
        sim.etcd.txn(Txn(then=(Put(b"/other", b""),)))
    pause(sim)
    waiting = a.begin(a.election.campaign("a"))
    sim.run(SOON)
    sim.restore(early)
    sim.run(TTL)
    assert not waiting.done()  # as far as it can know, its watch is behind
    sim.until(waiting.done, within=10 * TTL)
    assert a.election.is_leader()
