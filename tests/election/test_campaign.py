"""Campaign, wait, lead: how a candidacy begins, at exact times, also when answers are lost."""

import asyncio

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.state import Reason
from sidecar.core.store import Txn
from sidecar.election import Election
from sidecar.election.session import EXPIRED
from sidecar.errors import SessionLost
from tests.election.support import (
    LAYOUT,
    MARGIN,
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

PROOF = 3 * WAY


# Alone


def test_an_empty_election_is_won_with_one_transaction_and_one_proof(sim: Simulation) -> None:
    a = Program(sim).open()
    began = sim.now
    a.do(a.election.campaign("a"))
    assert sim.now == exactly(began + TRIP + PROOF)
    assert a.election.is_leader()
    assert a.election.is_first
    key = LAYOUT.candidate(a.session.lease)
    assert (a.election.key, a.election.rev) == (key.decode(), sim.etcd.revision)
    assert a.election.header == sim.etcd.header()
    assert a.election.deadline == exactly(a.process.now() - PROOF + TTL - MARGIN)
    assert value(sim, key) == b"a"
    a.close()
    assert queue(sim) == []


def test_nobody_acts_past_the_deadline_although_nothing_was_heard(sim: Simulation) -> None:
    a = Program(sim).campaign()
    sim.cut(a.process)
    left = a.election.deadline - a.process.now()
    sim.run(left - WAY)
    assert a.election.is_leader()
    sim.run(2 * WAY)
    assert not a.election.is_leader()
    assert a.election.is_first


def test_a_suspended_leader_goes_on_with_its_term_after_a_new_proof(sim: Simulation) -> None:
    a = Program(sim).campaign()
    token = a.election.rev
    sim.etcd.is_led = False  # a store without a leader ends no lease, and answers nothing
    sim.cut(a.process)
    sim.run(TTL + SOON)
    assert not a.election.is_leader()
    sim.heal()
    sim.etcd.lead()
    sim.run(TTL)
    assert a.election.is_leader()
    assert a.election.rev == token


def test_a_leader_who_campaigns_again_proclaims(sim: Simulation) -> None:
    a = Program(sim).campaign()
    token = a.election.rev
    a.do(a.election.campaign("again"))
    assert a.election.rev == token
    assert value(sim, a.election.key) == b"again"


def test_a_candidate_may_campaign_again_on_the_same_session(sim: Simulation) -> None:
    a = Program(sim).campaign()
    token = a.election.rev
    for _ in range(2):
        a.do(a.election.resign())
        assert (a.election.key, a.election.rev, a.election.phase) == ("", 0, Phase.OUT)
        assert str(a.election.ended) == "resigned"
        a.do(a.election.campaign("a"))
        assert a.election.ended is None
        assert a.election.rev > token
        token = a.election.rev


def test_two_elections_of_one_name_on_one_session_share_the_key(sim: Simulation) -> None:
    a = Program(sim).campaign()

    async def case() -> None:
        async with Election(a.session, LAYOUT.name) as second:
            await second.campaign("def")
            assert second.is_leader()
            assert (second.key, second.rev) == (a.election.key, a.election.rev)
            assert value(sim, second.key) == b"def"
            await second.resign()
            await asyncio.sleep(SOON)
            assert not a.election.is_leader()

    a.do(case())


def test_two_elections_of_two_names_live_by_the_same_proofs(sim: Simulation) -> None:
    a = Program(sim).campaign()

    async def case() -> None:
        async with Election(a.session, "/other", observer=None) as other:
            await other.campaign("a")
            await asyncio.sleep(3 * TTL)
            assert other.is_leader()
            assert a.election.is_leader()
            assert other.deadline == a.election.deadline

    a.do(case())
    assert a.election.is_leader()


def test_an_observer_may_be_shared(sim: Simulation) -> None:
    a = Program(sim).open()

    async def case() -> None:
        async with Election(a.session, LAYOUT.name, observer=a.election.observer) as second:
            await second.campaign("a")
            assert second.entry == a.election.observer.replica.first
        await asyncio.sleep(SOON)
        assert a.election.observer.replica.entries == ()  # it still follows the queue

    a.do(case())


def test_a_token_below_the_least_one_never_acts(sim: Simulation) -> None:
    a = Program(sim)
    a.least_token = 10
    a.open()
    a.do(a.election.stand("a"))
    sim.run(SOON)
    assert a.election.is_first
    assert not a.election.is_leader()
    assert a.election.deadline > a.process.now()


# In the queue


def test_the_next_one_leads_by_the_event_alone(sim: Simulation) -> None:
    a, b = Program(sim).campaign(), Program(sim, "b").open()
    waiting = b.begin(b.election.campaign("b"))
    sim.run(SOON)
    assert not waiting.done()
    assert not b.election.is_first
    began = sim.now
    resigning = a.begin(a.election.resign())
    assert not a.election.is_leader()  # from the moment of sending on
    sim.until(waiting.done, within=SOON)
    assert sim.now == exactly(began + 2 * WAY)  # the delete's way there, the event's way back
    sim.until(resigning.done, within=SOON)
    assert b.election.is_leader()
    assert b.election.rev > 0


def test_whoever_dies_in_the_middle_promotes_nobody(sim: Simulation) -> None:
    a, b, c = (Program(sim, name) for name in "abc")
    a.campaign()
    b.stand()
    c.stand()
    b.close()
    sim.run(SOON)
    assert a.election.is_leader()
    assert not c.election.is_first
    a.close()
    sim.run(SOON)
    assert c.election.is_leader()


def test_a_waiter_whose_lease_is_revoked_is_told_and_never_leads(sim: Simulation) -> None:
    a, b = Program(sim).campaign(), Program(sim, "b").open()
    waiting = b.begin(b.election.campaign("b"))
    sim.run(SOON)
    sim.revoke_from_outside(b.session.lease)
    sim.until(waiting.done, within=SOON)
    with pytest.raises(SessionLost, match=EXPIRED):
        waiting.result()
    a.do(a.election.resign())
    sim.run(TTL)
    assert queue(sim) == []
    assert not b.election.is_leader()


def test_a_waiter_whose_key_is_deleted_queues_again_behind_the_others(sim: Simulation) -> None:
    a, b, c = (Program(sim, name) for name in "abc")
    a.campaign()
    b.open()
    waiting = b.begin(b.election.campaign("b"))
    sim.run(SOON)
    token = b.election.rev
    c.stand()
    sim.delete_from_outside(b.election.key.encode())
    sim.run(SOON)
    assert b.election.rev > c.election.rev > token
    assert not waiting.done()
    assert queue(sim) == [p.election.key.encode() for p in (a, c, b)]


def test_a_waiter_whose_key_is_deleted_again_and_again_does_not_flood_the_store(
    sim: Simulation,
) -> None:
    Program(sim).campaign()
    b = Program(sim, "b").open()
    tries: list[Txn] = []

    def spoils(txn: Txn) -> None:
        tries.append(txn)
        sim.later(2 * WAY, sim.delete_from_outside, LAYOUT.candidate(b.session.lease))

    b.etcd.meddle = spoils
    waiting = b.begin(b.election.campaign("b"))
    sim.run(3 * SOON)
    assert 3 <= len(tries) <= 8  # pauses of 50 ms, doubling to a second
    assert not waiting.done()


def test_a_leader_whose_key_is_deleted_stops_at_the_event(sim: Simulation) -> None:
    a = Program(sim).campaign()
    sim.delete_from_outside(a.election.key.encode())
    sim.run(WAY / 2)
    assert a.election.is_leader()  # it cannot know
    sim.run(WAY)
    assert not a.election.is_leader()
    assert a.election.ended is Reason.KEY_GONE
    a.do(a.election.campaign("a"))
    assert a.election.is_leader()


def test_a_leader_with_a_silent_watch_hears_of_its_end_by_the_next_proof(sim: Simulation) -> None:
    a = Program(sim).campaign()
    sim.silence_watch(a.process)
    sim.delete_from_outside(a.election.key.encode())
    sim.run(SOON + PROOF)
    assert not a.election.is_leader()
    assert a.election.ended is Reason.KEY_GONE


def test_a_waiter_with_a_silent_watch_takes_over_after_a_proof_has_raised_doubt(
    sim: Simulation,
) -> None:
    a, b = Program(sim).campaign(), Program(sim, "b").stand()
    sim.silence_watch(b.process)
    a.do(a.election.resign())
    gone_at = sim.now
    sim.until(b.election.is_leader, within=3 * SOON)
    assert sim.now - gone_at <= 1.0 + 0.25 + 2 * PROOF  # a renewal, the grace, a read


def test_a_pause_that_only_the_proof_shows_lets_the_deadline_run_out(sim: Simulation) -> None:
    a = Program(sim).campaign()
    sim.silence_watch(a.process)
    deadline = a.election.deadline
    pause(sim)
    sim.run(3 * SOON)
    assert a.election.deadline == deadline
    assert a.session.deadline > deadline


def test_the_first_in_the_queue_has_itself_proven_as_soon_as_a_pause_ends(sim: Simulation) -> None:
    a = Program(sim).campaign()
    pause(sim)
    sim.run(2 * TTL + 0.5)
    assert not a.election.is_leader()
    assert a.election.deadline < a.process.now()
    ended = sim.now
    remove(sim, LAYOUT.pause)
    sim.until(a.election.is_leader, within=SOON)
    assert sim.now == exactly(ended + WAY + PROOF)


def test_a_proof_that_was_asked_for_before_the_key_stood_says_nothing_of_it(
    sim: Simulation,
) -> None:
    a = Program(sim).open()
    sim.run(0.5)
    sim.destine(a.process, "prove", Fate(reply_delay=0.2))
    a.do(_kick(a))
    a.do(a.election.stand("a"))  # answered before that proof is
    stood_at = a.process.now()
    sim.until(lambda: a.election.deadline > 0, within=SOON)
    assert a.election.deadline >= stood_at + TTL - MARGIN - WAY
    assert a.election.is_leader()


async def _kick(program: Program) -> None:
    program.session.prove_soon()
    await asyncio.sleep(WAY / 2)
