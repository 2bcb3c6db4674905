"""What has gone wrong in others' elections, and in ours, as schedules that are kept forever.

The first part is the track record of etcd's own election and lock recipes; the issue's number
stands with each. The last part has what the random schedules of this directory have found.
"""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.keys import Layout
from sidecar.core.state import Reason
from sidecar.core.store import Delete, Put, Txn
from sidecar.election.election import Election
from sidecar.errors import Rejected, StoreFull
from tests.sim.programs import Program
from tests.sim.scenes import LED_WITHIN, TTL, creates, deletes, stage
from tests.support.sim_network import Fate
from tests.support.sim_sidecar import SidecarConfig, SimSidecar
from tests.support.sim_troupe import Troupe
from tests.support.sim_world import ELECTION, Simulation

pytestmark = pytest.mark.sim

LAYOUT = Layout(ELECTION)
SOON = 0.5


def key_of(one: SimSidecar) -> bytes:
    assert one.election is not None
    return one.election.key.encode()


def lease_of(one: SimSidecar) -> int:
    assert one.election is not None
    return one.election.session.lease


# --- phantom leaders: etcd #11051, #9921, #11007, #12334, #19597; #11777, #15738, #10811 ------


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_waiter_whose_lease_died_does_not_lead_when_its_turn_would_have_come(
    is_silent: bool,
) -> None:
    with stage() as (sim, troupe, (leader, waiter)):
        if is_silent:
            sim.silence_watch(waiter.process)
        sim.revoke_from_outside(lease_of(waiter))
        leader.crash()
        sim.run(4 * TTL)
        leader.start()
        sim.run(2 * TTL)
        troupe.judge(LED_WITHIN)
        assert waiter.is_leader()


def test_a_waiter_that_was_cut_off_for_longer_than_its_lease_queues_again() -> None:
    with stage() as (sim, troupe, (leader, waiter)):
        old = key_of(waiter)
        sim.cut(waiter.process)
        sim.run(2 * TTL)
        leader.stop()
        sim.run(1.0)
        sim.heal()
        sim.until(waiter.is_leader, within=TTL)
        assert key_of(waiter) != old
        sim.run(TTL)
        troupe.judge(LED_WITHIN)


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_leader_whose_key_was_deleted_stops_and_queues_again(is_silent: bool) -> None:
    with stage() as (sim, troupe, (leader, waiter)):
        if is_silent:
            sim.silence_watch(leader.process)
        token = leader.state.token
        sim.delete_from_outside(key_of(leader))
        # By the event, or at the latest by the next proof, which reads the key.
        sim.until(lambda: not leader.is_leader(), within=TTL / 4 if is_silent else 0.05)
        sim.until(lambda: leader.state.is_registered, within=TTL)
        assert waiter.is_leader()
        assert waiter.state.token > token
        sim.run(TTL)
        troupe.judge(LED_WITHIN)


def test_a_waiter_whose_key_was_deleted_queues_again_at_once() -> None:
    with stage() as (sim, troupe, (_, waiter)):
        old = sim.etcd.get(key_of(waiter))
        assert old is not None
        sim.delete_from_outside(old.key)
        sim.run(SOON)
        new = sim.etcd.get(key_of(waiter))
        assert new is not None
        assert new.create_revision > old.create_revision
        troupe.judge(LED_WITHIN)


# --- zombies: etcd #21128, #22123, #22082; sorintlab/stolon#659 ------------------------------


@pytest.mark.parametrize("fate", [Fate(loses_reply=True), Fate(request_delay=3.0)])
def test_a_campaign_without_an_answer_that_is_given_up_leaves_no_key(fate: Fate) -> None:
    with Simulation(1) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL)])
        (one,) = troupe.sidecars
        for _ in range(5):
            sim.destine(
                one.process,
                "txn",
                Fate(creates, loses_reply=fate.loses_reply, request_delay=fate.request_delay),
            )
        one.start()
        sim.run(0.05)
        one.stand_back()
        sim.run(2 * TTL)
        assert sim.history.first() is None
        sim.judge(is_settled=True)


def test_a_refused_campaign_after_an_unanswered_one_leaves_no_key_behind() -> None:
    with Simulation(1) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL)])
        (one,) = troupe.sidecars
        sim.destine(one.process, "txn", Fate(creates, loses_reply=True))
        sim.destine(one.process, "txn", Fate(creates, error=Rejected("refused")))
        one.start()
        sim.until(one.is_leader, within=2 * TTL)
        assert sim.history.terms == 1
        troupe.judge(LED_WITHIN)


@pytest.mark.parametrize("lost", ["request", "reply"])
def test_a_lost_resign_neither_leaves_the_key_nor_lets_the_term_go_on(lost: str) -> None:
    with stage() as (sim, troupe, (leader, waiter)):
        lose = Fate(deletes, loses_request=lost == "request", loses_reply=lost == "reply")
        sim.destine(leader.process, "txn", lose)
        leader.stand_back()
        sim.until(waiter.is_leader, within=TTL)
        sim.run(2 * TTL)
        assert len(sim.etcd.read(LAYOUT.candidates, LAYOUT.end).kvs) == 1
        troupe.judge(LED_WITHIN)


def test_a_doubled_campaign_that_lands_after_the_resign_is_deleted() -> None:
    with Simulation(1) as sim:
        program = Program(sim, "p")
        sim.destine(program.process, "txn", Fate(creates, duplicate_after=2.0))

        async def life(election: Election) -> None:
            await election.campaign("p")
            await election.resign()
            await election.session.lost

        program.start(life)
        sim.run(1.9)
        assert sim.history.first() is None
        landed_at = sim.world.now
        sim.until(lambda: sim.history.first() is not None, within=0.2)
        sim.until(lambda: sim.history.first() is None, within=SOON)
        assert sim.now - landed_at < SOON
        sim.run(2 * TTL)
        sim.judge(is_settled=True)


def test_a_late_resign_never_deletes_the_key_of_a_later_term() -> None:
    with stage(1) as (sim, troupe, (leader,)):
        sim.destine(leader.process, "txn", Fate(deletes, duplicate_after=TTL))
        token = leader.state.token
        leader.stand_back()
        sim.run(1.0)
        leader.stand_again()
        sim.run(3 * TTL)
        troupe.judge(LED_WITHIN)
        assert leader.state.token > token
        assert sim.history.terms == 2


# --- watches: etcd #18089, #19179, #17529, #14641, #8980, #14303, #16028 ----------------------


@pytest.mark.parametrize("at", [0, 1])
def test_a_compaction_at_the_predecessors_delete_hides_nothing(at: int) -> None:
    with stage() as (sim, troupe, (leader, waiter)):
        sim.break_watch(waiter.process)
        revision = sim.etcd.revision
        leader.stand_back()
        sim.until(lambda: sim.etcd.get(key_of(waiter)) == _first(sim), within=TTL)
        deleted_at = next(r for r, _, _ in sim.etcd.since(revision + 1))
        sim.compact(deleted_at + at)
        sim.until(waiter.is_leader, within=2.0)
        sim.run(TTL)
        troupe.judge(LED_WITHIN)


def _first(sim: Simulation) -> Any:
    kvs = sim.etcd.read(LAYOUT.candidates, LAYOUT.end).kvs
    return min(kvs, key=lambda kv: kv.create_revision)


def test_a_waiter_with_a_silent_watch_learns_from_its_next_proof_that_its_turn_has_come() -> None:
    with stage() as (sim, troupe, (leader, waiter)):
        sim.silence_watch(waiter.process)
        leader.stand_back()
        sim.until(lambda: sim.history.first() == _own(waiter), within=TTL)
        sim.until(waiter.is_leader, within=TTL / 5 + SOON)
        sim.run(TTL)
        troupe.judge(LED_WITHIN)


def _own(one: SimSidecar) -> tuple[bytes, int] | None:
    held = one.election
    return (held.key.encode(), held.rev) if held is not None else None


def test_compaction_at_every_moment_of_a_handover_hides_nothing() -> None:
    for steps in range(0, 40, 2):
        with stage(seed=steps) as (sim, troupe, (leader, waiter)):
            leader.stand_back()
            sim.run(steps / 1000)
            sim.break_watch(waiter.process)
            sim.compact()
            sim.until(waiter.is_leader, within=TTL)
            sim.run(TTL)
            troupe.judge(LED_WITHIN)


# --- restored stores: etcd #14303, #16028 -----------------------------------------------------


def terms_after_a_restore(*, accepts: bool, is_new_cluster: bool) -> None:
    with stage(2, excused_for=TTL) as (sim, _, sidecars):
        backup = sim.etcd.revision
        for _ in range(100):  # other users of the store write, too
            sim.etcd.txn(Txn(then=(Put(b"/other", b""),)), "another user")
        for _ in range(2):  # two more terms, whose tokens the backup does not know
            leader = next(one for one in sidecars if one.is_leader())
            leader.recreate()
            sim.run(3 * TTL)
        largest = max(one.state.token for one in sidecars)
        for one in sidecars:
            one.crash()
        sim.run(2 * TTL)
        sim.restore(backup, is_new_cluster=is_new_cluster)
        if accepts:
            sim.history.reset_tokens()
        for one in sidecars:
            one.accepts_token_reset = accepts
            one.start()
        sim.run(3 * TTL)
        leading = [one for one in sidecars if one.is_leader()]
        if accepts:
            assert [one.state.token < largest for one in leading] == [True]
        else:
            assert leading == []
            assert Reason.TOKEN_WENT_BACK in {one.state.reason for one in sidecars}
        sim.judge(is_settled=True)


@pytest.mark.parametrize("is_new_cluster", [False, True])
def test_after_a_restore_nobody_acts_with_a_smaller_token(is_new_cluster: bool) -> None:
    terms_after_a_restore(accepts=False, is_new_cluster=is_new_cluster)


@pytest.mark.parametrize("is_new_cluster", [False, True])
def test_after_a_restore_they_lead_again_once_the_reset_is_accepted(is_new_cluster: bool) -> None:
    terms_after_a_restore(accepts=True, is_new_cluster=is_new_cluster)


@pytest.mark.parametrize("back", [0, 1, 3, 6])
@pytest.mark.parametrize("is_new_cluster", [False, True])
def test_after_a_restore_with_bumped_revisions_somebody_leads_again(
    back: int, is_new_cluster: bool
) -> None:
    with stage(3, excused_for=TTL) as (sim, troupe, sidecars):
        sidecars[0].restart()
        sim.run(TTL)
        sidecars[0].stand_back()
        sim.run(TTL)
        sidecars[0].stand_again()
        sim.run(2 * TTL)
        troupe.restore(sim.etcd.revision - back, is_new_cluster=is_new_cluster)
        sim.run(6 * TTL)
        troupe.judge(2 * TTL + 2)


# --- leases: etcd #6978, #13932, #14177; #14758 -----------------------------------------------


def test_a_ttl_of_zero_right_after_the_grant_does_not_lose_the_session() -> None:
    with Simulation(1) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL)])
        (one,) = troupe.sidecars
        renew, behind = sim.etcd.renew, iter(range(2))

        def not_applied_yet(lease: int, answer: Callable[[float], None]) -> None:
            if next(behind, None) is None:
                renew(lease, answer)
            else:
                answer(0.0)

        sim.etcd.renew = not_applied_yet  # type: ignore[method-assign]
        one.start()
        sim.until(one.is_leader, within=1.0)
        sim.run(TTL)
        assert len(sim.etcd.leases) == 1
        troupe.judge(LED_WITHIN)


def test_a_grant_whose_answer_was_lost_is_found_again_and_not_doubled() -> None:
    with Simulation(1) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL)])
        (one,) = troupe.sidecars
        sim.lose_next_reply(one.process, "grant")
        one.start()
        sim.until(one.is_leader, within=TTL)
        assert len(sim.etcd.leases) == 1
        troupe.judge(LED_WITHIN)


# --- strangers --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"another program", b"\xff\x00", b"x" * 1_500_000, b"{}", b""])
def test_a_foreign_candidate_under_a_negative_lease_counts_in_the_queue(value: bytes) -> None:
    with stage() as (sim, troupe, (leader, waiter)):
        key = b"/sim/election/-5a3c9d"
        sim.history.foreign.add(key)
        sim.history.trouble_begins("another program stands")
        sim.etcd.grant(-0x5A3C9D, 600)
        sim.etcd.txn(Txn(then=(Put(key, value, -0x5A3C9D),)), "foreign")
        sim.run(1.0)
        leader.restart()
        sim.run(TTL)
        leader.recreate()
        waiter.recreate()
        sim.run(3 * TTL)  # the foreign one is first now
        assert sim.history.first() == (key, _first(sim).create_revision)
        assert not any(one.is_leader() for one in troupe.sidecars)
        sim.etcd.revoke(-0x5A3C9D, "foreign")
        sim.history.trouble_ends("another program stood")
        sim.run(2 * TTL)
        troupe.judge(SOON)


def test_a_hundred_candidates_join_at_once_and_survive_their_leader() -> None:
    with Simulation(1) as sim:
        troupe = [SimSidecar(sim, f"c{n:02}", SidecarConfig(TTL)) for n in range(100)]
        for one in troupe:
            one.start()
        sim.until(lambda: all(one.state.is_registered for one in troupe), within=2 * TTL)
        for _ in range(3):
            sim.until(lambda: any(one.is_leader() for one in troupe), within=TTL)
            sim.run(1.0)
            leader = next(one for one in troupe if one.is_leader())
            leader.crash()
            revision = sim.etcd.revision
            sim.until(lambda: any(one.is_leader() for one in troupe), within=TTL + 1)
            sim.run(1.0)
            # The end of the lease and the history's record: nobody else has written anything.
            assert sim.etcd.revision == revision + 2
        for one in troupe:
            one.start()
        sim.run(2 * TTL)
        sim.judge(led_within=LED_WITHIN, is_settled=True)


# --- what was found here ------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["full", "paused", "success"])
def test_the_answer_to_a_campaign_that_comes_after_the_session_was_lost_says_nothing(
    answer: str,
) -> None:
    # The sidecar ended with IllegalStep: found by the random schedules, freeze and NOSPACE.
    with Simulation(1) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL)])
        (one,) = troupe.sidecars
        error = StoreFull("no space") if answer == "full" else None
        if answer == "paused":
            sim.etcd.txn(Txn(then=(Put(LAYOUT.pause, b""),)), "pause")
        sim.destine(one.process, "txn", Fate(creates, reply_delay=2.0, error=error))
        one.start()
        sim.run(1.5)
        assert one.election is not None
        assert one.election.phase is Phase.CAMPAIGNING
        sim.revoke_from_outside(lease_of(one))
        sim.run(2.0)
        sim.etcd.txn(Txn(then=(Delete(LAYOUT.pause),)), "resume")
        sim.run(2 * TTL)
        assert one.is_leader()
        troupe.judge(TTL)


def test_a_resumed_candidate_that_the_store_refuses_a_new_key_tries_on() -> None:
    # Errors in a resumed session left `Candidate.run`: found by the random schedules, seed 116.
    with stage(1) as (sim, troupe, (one,)):
        one.restart()
        sim.until(one.is_leader, within=TTL)
        assert one.state.reason is Reason.RESUMED
        sim.fill()
        sim.delete_from_outside(key_of(one))
        sim.run(2 * TTL)
        sim.empty()
        sim.run(2 * TTL)
        assert one.is_leader()
        troupe.judge(LED_WITHIN)


def test_a_key_that_a_restore_brought_back_is_not_adopted_when_its_token_is_too_small() -> None:
    # Nobody led any more: found by random restores.
    with stage(3, excused_for=TTL) as (sim, troupe, (first, second, third)):
        backup = sim.etcd.revision
        sim.delete_from_outside(key_of(second))  # it queues again under the same name, behind
        sim.run(1.0)
        first.stop()
        sim.until(third.is_leader, within=TTL)
        sim.run(1.0)
        # A proof tells it before its watch does.
        sim.destine(second.process, "watch", Fate(request_delay=2.0))
        troupe.restore(backup)  # the key of `first` ends with its lease, then `second` is first
        sim.run(6 * TTL)
        sim.judge(led_within=2 * TTL)
