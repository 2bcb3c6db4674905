"""Twins of the model's switches (see `tests.sim.twins`): how a key is given up."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sidecar.core import handover, transactions
from sidecar.core.candidacy import Phase, Step
from sidecar.core.lease import NEVER
from sidecar.core.queue import Entry
from sidecar.core.state import ElectionState
from sidecar.core.store import Delete, Guard, Txn
from sidecar.election.election import Election
from sidecar.errors import Unavailable
from sidecar.outputs.status_file import StatusFile
from tests.sim.scenes import LED_WITHIN, TTL, deletes, stage
from tests.sim.twins import GONE, STUCK, Patch, both, judged
from tests.support.sim_disk import SimKeeper, SimStatusFile
from tests.support.sim_network import Fate
from tests.support.sim_sidecar import SidecarConfig
from tests.support.sim_troupe import Troupe
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim


@both
def test_out_rule_keeps_the_key_while_the_status_file_says_leader(
    rule: str, monkeypatch: Patch
) -> None:
    if rule == "off":
        monkeypatch.setattr(StatusFile, "settle", _at_once)
    with stage() as (sim, troupe, (leader, _)):
        leader.directory.set_mode("stuck")
        sim.until(lambda: leader.directory.is_renaming, within=TTL)
        troupe.command(lambda commands: commands.resign())
        sim.run(3 * TTL)
        leader.directory.set_mode("fine")
        sim.run(2 * TTL)
        with judged(rule, f"says leader in status.json .* {GONE}"):
            troupe.judge(2 * TTL)


@both
def test_serial_counts_a_write_under_way_as_published(rule: str, monkeypatch: Patch) -> None:
    if rule == "off":
        count_only_what_has_landed(monkeypatch)
    with Simulation(1) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL)] * 2)
        leader, other = troupe.sidecars
        leader.start()
        sim.until(lambda: leader.directory.status is not None, within=TTL)
        leader.directory.set_mode("stuck")  # its first "leader" hangs on its way
        sim.until(leader.is_leader, within=TTL)
        other.start()
        sim.until(lambda: other.state.is_registered, within=TTL)
        troupe.command(lambda commands: commands.resign())
        sim.run(1.0)
        leader.directory.set_mode("fine")
        sim.run(4 * TTL)
        with judged(rule, "says leader in status.json .* while first in the store"):
            troupe.judge(2 * TTL)


def count_only_what_has_landed(monkeypatch: Patch) -> None:
    tried = SimStatusFile._tried

    def begin(self: SimStatusFile) -> ElectionState:
        self._is_wanted = False
        return self._feed.value.at(self._clock.now())

    def landed(self: SimStatusFile, pause: float | None) -> None:
        self._claimed_until = self._directory.claimed_until()
        self._may_mislead = self._claimed_until > NEVER
        tried(self, pause)

    monkeypatch.setattr(SimStatusFile, "_begin", begin)
    monkeypatch.setattr(SimStatusFile, "_tried", landed)


@both
def test_once_sent_a_term_never_acts_again(rule: str, monkeypatch: Patch) -> None:
    if rule == "off":
        monkeypatch.setattr(Election, "_give_up", stand_on_when_unanswered)
    with stage() as (sim, troupe, (leader, _)):
        sim.destine(leader.process, "txn", Fate(matching=deletes, request_delay=4.0))
        troupe.command(lambda commands: commands.resign())
        sim.run(4 * TTL)
        with judged(rule, GONE):
            troupe.judge(2 * TTL)


async def stand_on_when_unanswered(self: Election, txn: Txn) -> bool:
    try:
        await self._call(txn)
    except Unavailable:
        self._candidacy = replace(self._candidacy, phase=Phase.STANDING)
        self._pulse()
        return False
    self._candidacy = self._candidacy.after(Step.GIVE_UP_SENT).after(Step.KEY_GONE)
    return True


@both
def test_retry_follows_an_unanswered_resign_up(rule: str, monkeypatch: Patch) -> None:
    if rule == "off":
        monkeypatch.setattr(Election, "_give_up", send_once)
    with stage() as (sim, troupe, (leader, _)):
        sim.destine(leader.process, "txn", Fate(matching=deletes, loses_request=True))
        troupe.command(lambda commands: commands.resign())
        sim.run(6 * TTL)
        with judged(rule, STUCK):
            troupe.judge(2 * TTL)


async def send_once(self: Election, txn: Txn) -> bool:
    self._candidacy = self._candidacy.after(Step.GIVE_UP_SENT)
    try:
        await self._call(txn)
    except Unavailable:
        return False
    self._candidacy = self._candidacy.after(Step.KEY_GONE)
    return True


@both
def test_sess_rm_removes_the_session_record_before_the_key(rule: str, monkeypatch: Patch) -> None:
    if rule == "off":
        monkeypatch.setattr(SimKeeper, "forget", _yes)
    with stage() as (sim, troupe, (leader, _)):
        sim.destine(leader.process, "txn", Fate(matching=deletes, request_delay=2.0))
        leader.stand_back()
        election = leader.election
        assert election is not None
        sim.until(lambda: election.phase is Phase.GIVING_UP, within=TTL)
        leader.restart()
        sim.run(4 * TTL)
        with judged(rule, GONE):
            troupe.judge(2 * TTL)


@both
def test_hand_stay_a_refused_handover_is_followed_by_a_resign(
    rule: str, monkeypatch: Patch
) -> None:
    if rule == "off":
        monkeypatch.setattr(Election, "_give_up", stay_when_refused)
    with stage(3) as (sim, troupe, (leader, _, target)):
        sim.destine(leader.process, "txn", Fate(matching=deletes, request_delay=0.5))
        troupe.command(lambda commands: commands.handover(target.name))
        election = leader.election
        assert election is not None
        sim.until(lambda: election.phase is Phase.GIVING_UP, within=TTL)
        target.crash()
        target_key = next(e.key for e in election.observer.replica.entries[2:])
        sim.delete_from_outside(target_key)
        sim.run(6 * TTL)
        with judged(rule, STUCK):
            troupe.sim.judge(led_within=LED_WITHIN)


async def stay_when_refused(self: Election, txn: Txn) -> bool:
    self._candidacy = self._candidacy.after(Step.GIVE_UP_SENT)
    reply = await self._call(txn)
    if reply.succeeded:
        self._candidacy = self._candidacy.after(Step.KEY_GONE)
    return reply.succeeded


@both
def test_move_guard_moves_waiters_only_while_the_own_key_stands(
    rule: str, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(handover, "BATCH_LIMIT", 1)
    if rule == "off":
        monkeypatch.setattr(transactions, "move", move_unguarded)
    with stage(4) as (sim, troupe, (leader, _, _, target)):
        is_sent: list[Any] = []

        def is_move(txn: Any) -> bool:
            if deletes(txn):
                is_sent.append(txn)
            return bool(is_sent)

        sim.destine(leader.process, "txn", Fate(matching=is_move, request_delay=2 * TTL))
        troupe.command(lambda commands: commands.handover(target.name))
        sim.until(lambda: bool(is_sent), within=TTL)
        sim.freeze(leader.process, 3 * TTL)
        sim.run(6 * TTL)
        with judged(rule, GONE):
            troupe.judge(2 * TTL)


def move_unguarded(own: Entry, waiters: Sequence[Entry]) -> Txn:
    guards = tuple(Guard(waiter.key, waiter.token) for waiter in waiters)
    return Txn(guards=guards, then=tuple(Delete(waiter.key) for waiter in waiters))


async def _at_once(self: object) -> None:
    pass


async def _yes(self: object) -> bool:
    return True
