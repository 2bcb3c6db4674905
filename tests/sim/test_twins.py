"""Twins of the model's switches (see `tests.sim.twins`): who may act, until when; whom to obey."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sidecar.core import lease
from sidecar.core.candidacy import may_act
from sidecar.core.codec import Action, Request, encode_request
from sidecar.core.keys import Layout
from sidecar.core.lease import Timing
from sidecar.core.queue import QueueReplica
from sidecar.core.store import Batch, Delete, Proof, Put, Txn, TxnReply
from sidecar.election.candidate import Candidate
from sidecar.election.election import Election
from sidecar.election.session import Session
from tests.sim.scenes import LED_WITHIN, TTL, stage
from tests.sim.twins import GONE, Patch, both, judged
from tests.support.fake_watch import FakeWatch
from tests.support.sim_world import ELECTION

pytestmark = pytest.mark.sim

LAYOUT = Layout(ELECTION)


@both
def test_at_use_the_clock_is_asked_whether_one_leads(rule: str, monkeypatch: Patch) -> None:
    if rule == "off":
        trust_a_timer(monkeypatch)
    with stage() as (sim, troupe, (leader, _)):
        sim.freeze(leader.process, 2 * TTL)
        sim.run(6 * TTL)
        with judged(rule, "past its own deadline|two leaders"):
            troupe.judge(LED_WITHIN)


def trust_a_timer(monkeypatch: Patch) -> None:
    """Let each proof set a flag, and a timer clear it at the deadline."""
    proven = Election.proven
    is_told: dict[int, asyncio.TimerHandle] = {}

    def set_flag(self: Election, keys: Any, read: Any, deadline: float) -> None:
        proven(self, keys, read, deadline)
        if id(self) in is_told:
            is_told[id(self)].cancel()
        loop = asyncio.get_running_loop()
        ahead = self.deadline - self.session.clock.now()
        is_told[id(self)] = loop.call_later(max(ahead, 0), is_told.pop, id(self), None)

    def is_leader(self: Election) -> bool:
        replica, now = self.observer.replica, self.session.clock.now()
        believed = min(now, self.deadline - 1) if id(self) in is_told else now
        return may_act(self._candidacy, replica, now=believed, least_token=self.least_token)

    monkeypatch.setattr(Election, "proven", set_flag)
    monkeypatch.setattr(Election, "is_leader", is_leader)


@both
def test_margin_pays_for_clocks_that_run_apart(rule: str, monkeypatch: Patch) -> None:
    if rule == "off":
        monkeypatch.setattr(lease, "least_margin", lambda ttl: 0.0)
        monkeypatch.setattr(Timing, "deadline", lambda self, sent_at: sent_at + self.ttl)
    with stage() as (sim, troupe, (leader, _)):
        process = leader.process
        process.offset += (process.rate - 0.975) * sim.now  # slow from here on, no jump
        process.rate = 0.975
        sim.run(2 * TTL)
        sim.cut(process)
        sim.run(4 * TTL)
        sim.heal()
        sim.run(4 * TTL)
        with judged(rule, GONE):
            troupe.judge(LED_WITHIN)


@both
def test_term_proof_needs_one_raft_term_in_renewal_and_read(rule: str, monkeypatch: Patch) -> None:
    if rule == "off":
        take = Session._take

        def any_term(self: Session, proof: Proof, asked: Any, sent_at: float) -> str:
            if proof.read is not None:
                proof = replace(proof, renewal_term=proof.read.header.raft_term)
            return take(self, proof, asked, sent_at)

        monkeypatch.setattr(Session, "_take", any_term)
    with stage() as (sim, troupe, (leader, _)):
        assert leader.election is not None
        sim.coordinators[leader.name].endpoint = sim.cluster.leader
        held = sim.etcd.leases[leader.election.session.lease]
        ends_at = held.ends_at
        sim.until(lambda: held.ends_at > ends_at, within=TTL)
        sim.run(0.1)  # a renewal has just been proven
        # The deposed leader answers the next one, and the read after it once it is back.
        sim.elect(deposed_for=1.2)
        sim.run(1.25)
        sim.cut(leader.process)
        sim.run(4 * TTL)
        sim.heal()
        sim.run(4 * TTL)
        with judged(rule, GONE):
            troupe.judge(TTL + 4)


@both
def test_read_proof_ends_a_term_whose_deleted_key_a_silent_watch_hides(
    rule: str, monkeypatch: Patch
) -> None:
    if rule == "off":

        def by_renewal_alone(self: Election, keys: Any, read: Any, deadline: float) -> None:
            self._candidacy = self._candidacy.proven(deadline)

        monkeypatch.setattr(Election, "proven", by_renewal_alone)
    with stage(excused_for=TTL) as (sim, troupe, (leader, _)):
        assert leader.election is not None
        sim.silence_watch(leader.process)
        sim.delete_from_outside(leader.election.key.encode())
        sim.run(3 * TTL)
        with judged(rule, "two leaders"):
            troupe.judge(LED_WITHIN)


@both
def test_pause_rule_lets_nobody_act_in_a_pause(rule: str, monkeypatch: Patch) -> None:
    if rule == "off":
        monkeypatch.setattr(QueueReplica, "is_paused", property(lambda self: False))
        read_no_pause_key(monkeypatch)
    with stage() as (sim, troupe, _):
        sim.etcd.txn(Txn(then=(Put(b"/sim/election.control/pause", b""),)), "pause")
        sim.run(3 * TTL)
        sim.etcd.txn(Txn(then=(Delete(b"/sim/election.control/pause"),)), "resume")
        sim.run(2 * TTL)
        with judged(rule, "in the pause"):
            troupe.judge(LED_WITHIN)


def read_no_pause_key(monkeypatch: Patch) -> None:
    proven = Election.proven

    def blind(self: Election, keys: tuple[bytes, ...], read: TxnReply, deadline: float) -> None:
        shown = zip(keys, read.ranges, strict=True)
        ranges = tuple(() if key == LAYOUT.pause else kvs for key, kvs in shown)
        proven(self, keys, replace(read, ranges=ranges), deadline)

    monkeypatch.setattr(Election, "proven", blind)


@both
def test_atomic_rev_applies_all_events_of_a_revision_before_anything_is_decided(
    rule: str, monkeypatch: Patch
) -> None:
    if rule == "off":
        one_event_at_a_time(monkeypatch)
    with stage(3) as (sim, troupe, (_, between, target)):
        troupe.command(lambda commands: commands.handover(target.name))
        sim.run(4 * TTL)
        with judged(rule, f"{between.name} acts .* while first in the store"):
            troupe.judge(LED_WITHIN)
        assert rule == "off" or target.is_leader()


def one_event_at_a_time(monkeypatch: Patch) -> None:
    take = FakeWatch._take

    def split(self: FakeWatch, batch: Batch) -> None:
        for index, event in enumerate(batch.events):
            one = Batch(batch.revision, (event,))
            self._cluster.world.after(index * 1e-5, self._process.call, take, self, one)

    def apply(self: QueueReplica, batch: Batch) -> bool:
        for event in batch.events:
            if event.kv.mod_revision >= self.revision:
                self._apply(event)
        self.revision = max(self.revision, batch.revision)
        self._find_first()
        return True

    monkeypatch.setattr(FakeWatch, "_take", split)
    monkeypatch.setattr(QueueReplica, "apply", apply)


@both
def test_token_match_a_leader_obeys_only_requests_of_its_own_term(
    rule: str, monkeypatch: Patch
) -> None:
    if rule == "off":
        obey = Candidate._obey

        async def whatever(self: Candidate, held: Election, nonce: str, request: Request) -> None:
            await obey(self, held, nonce, replace(request, token=held.rev))

        monkeypatch.setattr(Candidate, "_obey", whatever)
    with stage() as (sim, troupe, (leader, successor)):
        assert leader.election is not None
        token, asker = leader.election.rev, 77
        assert successor.election is not None
        waited_with = successor.election.rev
        leader.crash()  # with the request of an asker who has seen it lead
        sim.etcd.grant(asker, 30)
        request = encode_request(Request(Action.RESIGN, token))
        sim.etcd.txn(Txn(then=(Put(LAYOUT.request("1"), request, asker),)), "asker")
        sim.until(successor.is_leader, within=2 * TTL)
        sim.run(2 * TTL)
        leader.start()
        sim.run(2 * TTL)
        troupe.judge(2 * TTL)
        assert (successor.state.token == waited_with) == (rule == "on")
