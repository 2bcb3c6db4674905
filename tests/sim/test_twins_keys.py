"""Twins of the model's switches (see `tests.sim.twins`): which keys and leases are one's own."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sidecar.core.candidacy import Candidacy, Phase, Step
from sidecar.core.keys import Layout
from sidecar.core.store import Put, Txn, TxnReply
from sidecar.election.election import Election
from sidecar.election.session import Session
from tests.sim.programs import Program
from tests.sim.scenes import LED_WITHIN, TTL, creates, deletes, stage
from tests.sim.twins import GONE, Patch, both, judged
from tests.support.sim_disk import SimDirectory
from tests.support.sim_network import Fate
from tests.support.sim_sidecar import SidecarConfig, SimSidecar
from tests.support.sim_troupe import Troupe
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim


@both
def test_clean_counts_a_key_under_deletion_is_not_adopted(rule: str, monkeypatch: Patch) -> None:
    if rule == "off":
        monkeypatch.setattr(Candidacy, "gives_up", lambda self, key, token: self)
    with Simulation(1) as sim:
        program = Program(sim)
        fates = iter((Fate(), Fate(request_delay=2.0)))  # the resign, then the clean-up
        sim.destine(program.process, "txn", Fate(matching=creates, duplicate_after=2.0))

        async def life(election: Election) -> None:
            await election.campaign("p")
            sim.destine(program.process, "txn", replace(next(fates), matching=deletes))
            await election.resign()
            sim.destine(program.process, "txn", replace(next(fates), matching=deletes))
            key = election.layout.candidate(election.session.lease)
            replica = election.observer.replica
            await election.until(lambda: replica.find(key) is None)
            await election.until(lambda: replica.find(key) is not None)
            await asyncio.sleep(0.1)  # its deletion is under way
            await election.campaign("p")
            await election.session.lost

        program.start(life)
        sim.run(4 * TTL)
        with judged(rule, GONE):
            sim.judge(is_settled=True, led_within=LED_WITHIN)


@both
def test_revoke_fresh_a_lease_is_not_used_again_after_a_revoke_was_sent(
    rule: str, monkeypatch: Patch
) -> None:
    if rule == "off":
        use_the_last_lease_again(monkeypatch)
    with stage(1) as (sim, troupe, (leader,)):
        sim.destine(leader.process, "revoke", Fate(request_delay=3.0))
        leader.stand_back()
        sim.run(1.5)
        leader.stand_again()
        sim.run(4 * TTL)
        with judged(rule, rf"{GONE} \(revoke\)"):
            troupe.judge(LED_WITHIN)


def use_the_last_lease_again(monkeypatch: Patch) -> None:
    grant = Session.grant
    last: list[int] = []

    async def granted(self: Session) -> None:
        if last:
            self._lease = last[0]
        else:
            await grant(self)
            last.append(self.lease)

    monkeypatch.setattr(Session, "grant", granted)


@both
def test_adopt_current_only_a_key_on_the_present_lease(rule: str, monkeypatch: Patch) -> None:
    # Keys named by the lease never meet it; so here they are named by the candidate.
    monkeypatch.setattr(Layout, "candidate", lambda self, lease: b"/sim/election/one")
    if rule == "off":
        ignore_the_lease(monkeypatch)
    with stage(1) as (sim, troupe, (leader,)):
        leader.recreate()  # the old key stands on until its lease ends
        sim.run(4 * TTL)
        with judged(rule, rf"{GONE} \(expiry\)"):
            troupe.judge(LED_WITHIN)


def ignore_the_lease(monkeypatch: Patch) -> None:
    answered, proven = Election._answered, Election.proven

    def hung_on(reply: TxnReply, lease: int) -> TxnReply:
        ranges = tuple(tuple(replace(kv, lease=lease) for kv in kvs) for kvs in reply.ranges)
        return replace(reply, ranges=ranges)

    async def adopting(self: Election, what: str, txn: Txn) -> TxnReply:
        return hung_on(await answered(self, what, txn), self.session.lease)

    def believing(self: Election, keys: Any, read: TxnReply, deadline: float) -> None:
        proven(self, keys, hung_on(read, self.session.lease), deadline)

    monkeypatch.setattr(Election, "_answered", adopting)
    monkeypatch.setattr(Election, "proven", believing)


@both
def test_grant_first_no_deadline_counts_from_the_retry_of_a_grant(
    rule: str, monkeypatch: Patch
) -> None:
    if rule == "off":
        act_on_the_grant(monkeypatch)
    with Simulation(1) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL)])
        (leader,) = troupe.sidecars
        sim.lose_next_reply(leader.process, "grant")
        for _ in range(50):
            sim.lose_next_request(leader.process, "prove")
        leader.start()
        sim.run(6 * TTL)
        with judged(rule, rf"{GONE} \(expiry\)"):
            sim.judge()


def act_on_the_grant(monkeypatch: Patch) -> None:
    grant, stood = Session.grant, Election._stood

    async def granted(self: Session) -> None:
        await grant(self)
        self._sent_at = self.clock.now()

    def standing(self: Election, *args: Any) -> None:
        stood(self, *args)
        self._candidacy = self._candidacy.proven(self.session.deadline)

    monkeypatch.setattr(Session, "grant", granted)
    monkeypatch.setattr(Election, "_stood", standing)


@both
def test_own_by_rev_the_own_key_is_known_by_its_revision_too(rule: str, monkeypatch: Patch) -> None:
    if rule == "off":
        know_the_own_key_by_name(monkeypatch)
    with stage(excused_for=TTL) as (sim, troupe, (leader, _)):
        held = leader.election
        assert held is not None
        key, own_lease = held.key.encode(), held.session.lease
        sim.silence_watch(leader.process)
        sim.delete_from_outside(key)
        sim.etcd.txn(Txn(then=(Put(key, b"", own_lease),)), "outside")  # last in the queue now
        sim.run(3 * TTL)
        with judged(rule, "two leaders"):
            troupe.judge(LED_WITHIN)


def know_the_own_key_by_name(monkeypatch: Patch) -> None:
    proven = Election.proven

    def by_name(self: Election, keys: Any, read: TxnReply, deadline: float) -> None:
        token = self.rev
        ranges = tuple(
            tuple(
                replace(kv, create_revision=token) if kv.key == self.key.encode() else kv
                for kv in kvs
            )
            for kvs in read.ranges
        )
        proven(self, keys, replace(read, ranges=ranges), deadline)

    monkeypatch.setattr(Election, "proven", by_name)


@both
def test_flock_one_process_at_a_time_has_the_status_directory(
    rule: str, monkeypatch: Patch
) -> None:
    if rule == "off":
        monkeypatch.setattr(SimDirectory, "is_locked", False)
    with stage(1) as (sim, troupe, (leader,)):
        second = SimSidecar(sim, "second", SidecarConfig(TTL), directory=leader.directory)
        second.start()
        sim.run(3 * TTL)
        with judged(rule, "after a has acted with token|two leaders"):
            troupe.judge(LED_WITHIN)


@both
def test_flock_first_the_session_record_is_read_under_the_lock(
    rule: str, monkeypatch: Patch
) -> None:
    with stage() as (sim, _, (leader, _)):
        second = SimSidecar(sim, "second", SidecarConfig(TTL), directory=leader.directory)
        if rule == "off":
            read_before = second._former()
            monkeypatch.setattr(second, "_former", lambda: read_before)
        second.start()  # waits for the lock
        sim.destine(leader.process, "txn", Fate(matching=deletes, request_delay=2.0))
        leader.stop()
        election = leader.election
        assert election is not None
        sim.until(lambda: election.phase is Phase.GIVING_UP, within=TTL)
        leader.crash()
        sim.run(4 * TTL)
        assert second.is_up
        with judged(rule, GONE):
            sim.judge(led_within=2 * TTL, is_settled=True)


def test_resume_check_is_covered_by_the_rule_of_acting(monkeypatch: Patch) -> None:
    # As in the model: without the comparison at resume nobody acts on another revision's key.
    async def unchecked(self: Election, key: str, rev: int) -> bool:
        self._candidacy = self._candidacy.after(Step.CAMPAIGN_SENT).stood(key.encode(), rev)
        self._may_clean = True
        return True

    for resume in (Election.resume, unchecked):
        monkeypatch.setattr(Election, "resume", resume)
        with stage() as (sim, troupe, (leader, _)):
            held = leader.election
            assert held is not None
            key, own_lease = held.key.encode(), held.session.lease
            leader.crash()
            sim.delete_from_outside(key)
            sim.etcd.txn(Txn(then=(Put(key, b"", own_lease),)), "outside")
            leader.start()
            sim.run(4 * TTL)
            troupe.judge(LED_WITHIN)


def test_new_lease_a_campaign_is_sent_again_on_the_same_lease() -> None:
    # No switch to turn off: the model holds either way. The key of the lost answer is adopted.
    with Simulation(1) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL)])
        (leader,) = troupe.sidecars
        sim.destine(leader.process, "txn", Fate(matching=creates, loses_reply=True))
        leader.start()
        sim.until(leader.is_leader, within=2 * TTL)
        sim.run(2 * TTL)
        troupe.judge(LED_WITHIN)
        assert sim.history.terms == 1
