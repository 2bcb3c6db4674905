"""Campaign, wait, lead: how a candidacy begins, at exact times, also when answers are lost."""

import asyncio

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.state import Reason
from sidecar.core.store import Guard, Put, Txn
from sidecar.election import Election
from sidecar.election.session import EXPIRED
from sidecar.errors import NoLeader, NotLeader, PermissionDenied, SessionLost, StoreFull
from tests.election.support import (
    LAYOUT,
    MARGIN,
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

CALL = TTL / 2
PROOF = 3 * WAY


def pause(sim: Simulation) -> None:
    sim.etcd.txn(Txn(then=(Put(LAYOUT.pause, b""),)))


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


# Lost answers


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


# Keys of ours that we do not stand on


def test_a_key_under_our_name_on_another_lease_is_deleted_and_made_anew(sim: Simulation) -> None:
    a = Program(sim).open()
    key = LAYOUT.candidate(a.session.lease)
    sim.etcd.grant(0xBAD, 3600.0)
    a.election._may_clean = False  # else the cleaner is there first
    sim.etcd.txn(Txn(then=(Put(key, b"?", 0xBAD),)))
    stranger = sim.etcd.revision
    a.do(a.election.campaign("a"))
    assert a.election.rev > stranger
    assert value(sim, key) == b"a"
    assert a.election.is_leader()


def test_a_session_lost_while_such_a_key_is_deleted_ends_the_campaign(sim: Simulation) -> None:
    a = Program(sim).open()
    key = LAYOUT.candidate(a.session.lease)
    sim.etcd.grant(0xBAD, 3600.0)
    a.election._may_clean = False
    sim.etcd.txn(Txn(then=(Put(key, b"?", 0xBAD),)))
    sim.destine(a.process, "txn", Fate(matching=removes(key.decode()), loses_request=True))
    waiting = a.begin(a.election.campaign("a"))
    sim.run(SOON)
    a.process.call(a.session.orphan)
    sim.until(waiting.done, within=TTL)
    with pytest.raises(SessionLost, match="orphaned"):
        waiting.result()


def test_what_a_doubled_campaign_leaves_after_a_resign_is_deleted(sim: Simulation) -> None:
    a = Program(sim).open()
    sim.destine(a.process, "txn", Fate(duplicate_after=1.0))
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    sim.until(lambda: queue(sim) != [], within=2 * SOON)
    arrived = sim.now
    sim.until(lambda: queue(sim) == [], within=SOON)
    assert sim.now == exactly(arrived + 2 * WAY)
    assert not a.election.is_leader()


@pytest.mark.parametrize("fate", [Fate(loses_request=True), Fate(error=PermissionDenied("no"))])
def test_such_a_delete_is_repeated_until_it_is_answered(sim: Simulation, fate: Fate) -> None:
    a = Program(sim).open()
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    key = LAYOUT.candidate(a.session.lease)
    sim.destine(a.process, "txn", fate)
    sim.etcd.txn(Txn(then=(Put(key, b"late", a.session.lease),)))
    sim.run(CALL + SOON)
    assert queue(sim) == []


def test_a_key_that_is_deleted_by_us_is_never_adopted_by_a_campaign(sim: Simulation) -> None:
    a = Program(sim).open()
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    key = LAYOUT.candidate(a.session.lease)
    sim.destine(a.process, "txn", Fate(matching=removes(key.decode()), request_delay=0.5))
    sim.etcd.txn(Txn(then=(Put(key, b"late", a.session.lease),)))
    late = sim.etcd.revision
    sim.run(2 * WAY)  # its delete is under way
    a.do(a.election.campaign("a"))
    assert a.election.rev > late
    sim.run(SOON)
    assert a.election.is_leader()  # the first delete meant another create revision


def test_a_key_that_was_adopted_meanwhile_is_not_cleaned_up(sim: Simulation) -> None:
    a = Program(sim).open()
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    key = LAYOUT.candidate(a.session.lease)
    late = Txn((Guard(key, 0),), (Put(key, b"late", a.session.lease),))
    sim.destine(a.process, "txn", Fate(loses_reply=True))  # the cleaner waits for its answer
    sim.etcd.txn(late)
    sim.run(SOON)
    sim.etcd.txn(late)  # another one: it is to be cleaned next
    token = sim.etcd.revision
    sim.run(SOON)
    a.do(a.election.campaign("a"))
    assert a.election.rev == token
    sim.run(TTL)
    assert a.election.is_leader()
    assert a.election.rev == token


def test_a_session_lost_while_a_key_is_cleaned_up_ends_that(sim: Simulation) -> None:
    a = Program(sim).open()
    a.do(a.election.campaign("a"))
    a.do(a.election.resign())
    key = LAYOUT.candidate(a.session.lease)
    sim.lose_next_request(a.process, "txn")
    sim.etcd.txn(Txn(then=(Put(key, b"late", a.session.lease),)))
    sim.run(SOON)
    a.process.call(a.session.orphan)
    sim.run(TTL)
    assert a.election.phase is Phase.OUT
    a.close()


# Asking who leads


def test_the_store_says_who_leads(sim: Simulation) -> None:
    a = Program(sim).open()
    with pytest.raises(NoLeader, match="nobody stands in /sim/election"):
        a.do(a.election.leader())
    foreign = put_foreign(sim)
    put_waiters(sim, 2)
    leader = a.do(a.election.leader())
    assert (leader.id, leader.key, leader.token) == ("go", foreign.decode(), 2)


def test_an_election_yields_who_leads(sim: Simulation) -> None:
    a = Program(sim).stand()

    async def first() -> str:
        async for leader in a.election.observe():
            assert leader is not None
            return leader.id
        raise AssertionError

    assert a.do(first()) == "a"


def test_a_waiter_is_no_leader_for_whoever_needs_one(sim: Simulation) -> None:
    Program(sim).campaign()
    b = Program(sim, "b").stand()
    with pytest.raises(NotLeader, match="only the leader can hand over"):
        b.do(b.election.handover())
    b.do(b.election.proclaim(proposal("c")))  # a waiter may replace its proposal
    assert value(sim, b.election.key) == proposal("c")
